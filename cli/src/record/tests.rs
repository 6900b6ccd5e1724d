use std::fs;

use cella_attest::sim::{Authority, Chip, ChipSpec, Claims};
use cella_attest::{GuestEvidence, Launched};
use cella_kbs_client::TeeKey;
use cella_kbs_client::wire::report_data;
use cella_record::{
    BindingText, BrokerRecord, EvidenceText, ImageRecord, InitdataRecord, KeyRecord, ModelFileRecord, ModelRecord,
    RecordKey, Tee, TimeRecord, VERSION,
};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: VerifyRecordArgs,
}

/// A record on a desk, with the root that it verifies under.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chip: Chip = Authority::generate().unwrap().chip(&ChipSpec::random()).unwrap();
        fs::write(dir.path().join("ark.pem"), chip.ark_pem().unwrap()).unwrap();
        let key = RecordKey::generate().unwrap();
        let (tee_key, opening) = TeeKey::committed(&key.public().0).unwrap();
        let claims = Claims::new(report_data("AAAA", &tee_key.public(), ""), [6; 48], [7; 32]);
        let evidence = GuestEvidence::Snp(chip.issue(&claims).unwrap());
        let digest = |byte: u8| format!("sha256:{}", hex::encode([byte; 32]));
        let record = BootRecord {
            version: VERSION,
            agent: "0.1.0".into(),
            key: key.public(),
            tee: Tee::Snp,
            simulated: true,
            measurement: Hex([6; 48]),
            tcb: Launched::of_evidence(&evidence).unwrap().tcb,
            initdata: InitdataRecord {
                sha256: Hex([7; 32]),
                bound: hex::encode([7; 32]),
            },
            policy: None,
            images: vec![ImageRecord {
                container: "server\u{1b}[31m".into(),
                image: format!("registry.example/demo/server@{}", digest(1)),
            }],
            models: vec![ModelRecord {
                name: "models/demo".into(),
                version: 3,
                artifact: format!("registry.example/models/demo@{}", digest(2)),
                files: vec![ModelFileRecord {
                    path: "model.gguf".into(),
                    digest: digest(3),
                    bytes: 1_716_800,
                    blake3: None,
                    locked_bytes: 2 << 20,
                }],
                digest: None,
            }],
            broker: BrokerRecord {
                url: "https://kbs.example:8443".into(),
                token: None,
                keys: vec![KeyRecord {
                    key: "kbs:///demo/model-kek/1".into(),
                    session: "0011223344556677".into(),
                }],
            },
            time: Some(TimeRecord {
                booted: 1_800_000_000,
                recorded: 1_800_000_009,
            }),
        };
        let binding = BindingText {
            nonce: "AAAA".into(),
            tee_key: tee_key.public(),
            opening: Hex(*opening.as_bytes()),
        };
        let signed = SignedRecord::sign(record, &key, binding, EvidenceText::from(&evidence)).unwrap();
        fs::write(dir.path().join("record.json"), signed.to_text().unwrap()).unwrap();
        Self(dir)
    }

    /// `verify-record` with the measurement, and with what `more` says; `{}` is the desk.
    fn verify(&self, more: &str) -> Result<String, RecordError> {
        let desk = self.0.path().display().to_string();
        let line = format!(
            "verify-record {{}}/record.json --measurement {} {more}",
            "06".repeat(48)
        )
        .replace("{}", &desk);
        verify(&Line::parse_from(line.split_ascii_whitespace()).args)
    }

    fn refused(&self, more: &str) -> String {
        let error = self
            .verify(&format!("--simulated-root {{}}/ark.pem {more}"))
            .unwrap_err();
        assert!(matches!(error, RecordError::Refused(_)), "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    }
}

#[test]
fn a_genuine_record_is_told_in_words_and_to_programs() {
    let desk = Desk::new();
    let wanted = format!(
        "--simulated-root {{}}/ark.pem --policy-digest {} --model-digest sha256:{},sha256:{} --image-digest sha256:{} \
         --not-before 1800000000 --not-after 1800000000",
        "07".repeat(32),
        "02".repeat(32),
        "03".repeat(32),
        "01".repeat(32)
    );
    let text = desk.verify(&wanted).unwrap();
    for part in [
        "SIMULATED",
        "models/demo version 3",
        &format!("{} bytes", grouped(1_716_800)),
        "kbs:///demo/model-kek/1 in session 0011223344556677",
        "server?[31m",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(
        text.lines()
            .all(|line| line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&desk.verify(&format!("{wanted} --json")).unwrap()).unwrap();
    assert_eq!((&json["verified"], &json["simulated"]), (&true.into(), &true.into()));
    assert_eq!(json["record"]["models"][0]["version"], 3);
}

#[test]
fn each_expectation_that_fails_is_named() {
    let desk = Desk::new();
    let zeros = "00".repeat(32);
    for (more, said) in [
        (format!("--policy-digest {zeros}"), "policy digest"),
        (format!("--model-digest sha256:{zeros}"), "model"),
        (format!("--image-digest sha256:{zeros}"), "image"),
        ("--broker-key x".to_owned(), "expected key"),
        ("--not-before 1800000001".to_owned(), "time"),
        ("--not-after 1799999999".to_owned(), "time"),
        (
            "--initdata {}/ark.pem".to_owned(),
            "not the one that the guest was launched with",
        ),
    ] {
        let refusal = desk.refused(&more);
        assert!(refusal.contains(said), "{more}: {refusal}");
    }
    // Without its root the evidence is nobody's.
    assert!(matches!(desk.verify(""), Err(RecordError::Refused(_))));
    let path = desk.0.path().join("record.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("models/demo\"", "models/dema\"")).unwrap();
    let error = desk.verify("--simulated-root {}/ark.pem").unwrap_err();
    assert!(
        matches!(error, RecordError::Parse(cella_record::ParseError::Signature)),
        "{error:?}"
    );
}

#[test]
fn a_launch_must_be_expected() {
    let line = ["verify-record", "record.json"];
    assert!(Line::try_parse_from(line).is_err());
    assert!(Line::try_parse_from(line.into_iter().chain(["--measurement", "06"])).is_err());
}
