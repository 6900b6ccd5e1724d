//! Records of simulated guests: what is believed, and each lie that is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::sync::LazyLock;
use std::time::Duration;

use cella_attest::sim::{Authority, Chip, ChipSpec, Claims, TdAuthority, TdJudgement};
use cella_attest::tdx::{Roots, TdxError, TdxOptions};
use cella_attest::{Anchors, GuestEvidence, Launched, VerifyError, VerifyOptions, td_launch_digest};
use cella_kbs_client::wire::report_data;
use cella_kbs_client::{Opening, TeeKey};
use cella_policy::{Policy, initdata};
use cella_record::{
    Base64, BindingText, BootRecord, BrokerRecord, EvidenceText, Expectations, Hex, ImageRecord, InitdataRecord,
    KeyRecord, ModelFileRecord, ModelRecord, ParseError, PolicyRecord, RecordKey, Refusal, SignedRecord, SnpText,
    TdxText, TdxTrust, Tee, TimeRecord, TokenRecord, Trust, VERSION, check,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::generate().unwrap());
static CHIP: LazyLock<Chip> = LazyLock::new(|| AUTHORITY.chip(&ChipSpec::random()).unwrap());

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const MEASUREMENT: [u8; 48] = [6; 48];
const SIGNER: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
const BOOTED: u64 = 1_800_000_000;

/// The document of a policy with a name and a pinned key.
fn document(algorithm: initdata::Algorithm) -> String {
    let example = include_str!("../../policy/src/policy/example.toml");
    let named = example.replace("version = 1\n\n", "version = 1\nname = \"demo\"\nrevision = 7\n\n");
    initdata::write(
        &named.replace("[kbs]", &format!("[kbs]\ntoken-keys = [\"{SIGNER}\"]")),
        algorithm,
    )
}

fn policy() -> Policy {
    let document = document(initdata::Algorithm::Sha256);
    initdata::parse(document.as_bytes(), initdata::Algorithm::Sha256)
        .unwrap()
        .policy
}

fn released(key: &str) -> KeyRecord {
    KeyRecord {
        key: key.to_owned(),
        session: "0011223344556677".into(),
    }
}

/// A guest with everything that a record is made of.
struct Guest {
    key: RecordKey,
    tee_key: TeeKey,
    opening: Opening,
    document: String,
    host_data: [u8; 32],
}

impl Guest {
    fn of(algorithm: initdata::Algorithm) -> Self {
        let key = RecordKey::generate().unwrap();
        let (tee_key, opening) = TeeKey::committed(&key.public().0).unwrap();
        let document = document(algorithm);
        let host_data = initdata::host_data(document.as_bytes()).unwrap();
        Self {
            key,
            tee_key,
            opening,
            document,
            host_data,
        }
    }

    fn new() -> Self {
        Self::of(initdata::Algorithm::Sha256)
    }

    fn report_data(&self) -> [u8; 64] {
        report_data(NONCE, &self.tee_key.public(), "")
    }

    fn record(&self) -> BootRecord {
        let policy = policy();
        let (server, model) = (&policy.containers()[0], &policy.models()[0]);
        BootRecord {
            version: VERSION,
            agent: "0.1.0".into(),
            key: self.key.public(),
            tee: Tee::Snp,
            simulated: true,
            measurement: Hex(MEASUREMENT),
            tcb: self.launched().tcb,
            initdata: InitdataRecord {
                sha256: Hex(initdata::digests(self.document.as_bytes()).sha256),
                bound: hex::encode(self.host_data),
            },
            policy: Some(PolicyRecord {
                name: "demo".into(),
                revision: 7,
            }),
            images: vec![ImageRecord {
                container: server.name.clone(),
                image: server.image.to_string(),
            }],
            models: vec![ModelRecord {
                name: model.name.clone(),
                version: model.version,
                artifact: model.artifact.to_string(),
                files: vec![ModelFileRecord {
                    path: "model.gguf".into(),
                    digest: format!("sha256:{}", "3".repeat(64)),
                    bytes: model.bytes,
                    blake3: None,
                    locked_bytes: 2 << 20,
                }],
                digest: None,
            }],
            broker: BrokerRecord {
                url: policy.kbs().unwrap().url.to_string(),
                token: Some(TokenRecord {
                    id: "0011223344556677".into(),
                    issued: BOOTED + 3,
                    signer: Some(SIGNER.into()),
                }),
                keys: policy.key_ids().into_iter().map(|kid| released(kid.as_str())).collect(),
            },
            time: Some(TimeRecord {
                booted: BOOTED,
                recorded: BOOTED + 9,
            }),
        }
    }

    fn binding(&self) -> BindingText {
        BindingText {
            nonce: NONCE.into(),
            tee_key: self.tee_key.public(),
            opening: Hex(*self.opening.as_bytes()),
        }
    }

    fn evidence(&self) -> EvidenceText {
        let evidence = CHIP
            .issue(&Claims::new(self.report_data(), MEASUREMENT, self.host_data))
            .unwrap();
        EvidenceText::from(&GuestEvidence::Snp(evidence))
    }

    fn launched(&self) -> Launched {
        Launched::of_evidence(&GuestEvidence::from(&self.evidence())).unwrap()
    }

    fn sign(&self, record: BootRecord) -> SignedRecord {
        SignedRecord::sign(record, &self.key, self.binding(), self.evidence()).unwrap()
    }

    /// A record that its own guest has signed, with one lie in it.
    fn lies(&self, lie: impl FnOnce(&mut BootRecord)) -> Refusal {
        let mut record = self.record();
        lie(&mut record);
        judge(&self.sign(record), &self.expected()).unwrap_err()
    }

    fn expected(&self) -> Expectations<'_> {
        Expectations {
            document: Some(self.document.as_bytes()),
            allow_simulated: true,
            ..Expectations::launched_as(vec![Hex([1; 48]), Hex(MEASUREMENT)])
        }
    }
}

/// Over the text, as it travels.
fn judge(signed: &SignedRecord, expected: &Expectations<'_>) -> Result<(), Refusal> {
    let signed = SignedRecord::parse(signed.to_text().unwrap().as_bytes()).unwrap();
    let roots = Anchors::amd().with_simulated(AUTHORITY.ark_spki_sha256());
    let trust = Trust {
        roots: &roots,
        snp: &VerifyOptions::default(),
        tdx: None,
    };
    check(&signed, &trust, expected).map(|checked| assert!(checked.simulated))
}

#[test]
fn a_genuine_record_is_believed() {
    for algorithm in [initdata::Algorithm::Sha256, initdata::Algorithm::Sha384] {
        let guest = Guest::of(algorithm);
        judge(&guest.sign(guest.record()), &guest.expected()).unwrap();
    }
}

#[test]
fn somebody_elses_signature_is_worth_nothing() {
    let (guest, other) = (Guest::new(), Guest::new());
    // Signed by a key of one's own, with another guest's evidence.
    let record = BootRecord {
        key: other.key.public(),
        ..guest.record()
    };
    let forged = SignedRecord::sign(record.clone(), &other.key, guest.binding(), guest.evidence()).unwrap();
    assert!(matches!(judge(&forged, &guest.expected()), Err(Refusal::KeyNotBound)));
    // The forger's own TEE key commits to it, but the evidence is not about that key.
    let forged = SignedRecord::sign(record, &other.key, other.binding(), guest.evidence()).unwrap();
    assert!(matches!(
        judge(&forged, &guest.expected()),
        Err(Refusal::Snp(VerifyError::ReportData))
    ));
    let mut binding = guest.binding();
    binding.nonce.push('x');
    let forged = SignedRecord::sign(guest.record(), &guest.key, binding, guest.evidence()).unwrap();
    assert!(matches!(
        judge(&forged, &guest.expected()),
        Err(Refusal::Snp(VerifyError::ReportData))
    ));
    let mut binding = guest.binding();
    binding.opening.0[5] ^= 1;
    let forged = SignedRecord::sign(guest.record(), &guest.key, binding, guest.evidence()).unwrap();
    assert!(matches!(judge(&forged, &guest.expected()), Err(Refusal::KeyNotBound)));
}

#[test]
fn each_member_of_a_record_is_covered() {
    let guest = Guest::new();
    let text: serde_json::Value = serde_json::from_str(&guest.sign(guest.record()).to_text().unwrap()).unwrap();
    let mut changed = 0;
    each_leaf(&text["record"], "/record", &mut |place| {
        let mut other = text.clone();
        let leaf = other.pointer_mut(place).unwrap();
        *leaf = match &*leaf {
            serde_json::Value::Bool(value) => (!value).into(),
            serde_json::Value::Number(number) => (number.as_u64().unwrap() ^ 1).into(),
            serde_json::Value::String(text) if text == "snp" => "tdx".into(),
            serde_json::Value::String(text) => swap(text).into(),
            other => panic!("{other}"),
        };
        // The members are sorted: written like this it is canonical again.
        let refused = SignedRecord::parse(serde_json::to_string(&other).unwrap().as_bytes());
        let expected = if place == "/record/version" {
            ParseError::Version { found: 0 }
        } else {
            ParseError::Signature
        };
        assert_eq!(refused, Err(expected), "{place}");
        changed += 1;
    });
    assert!(changed > 25, "{changed}");
}

/// The text with its last character exchanged for another of the same kind.
fn swap(text: &str) -> String {
    let (head, last) = text.split_at(text.len() - 1);
    let other = if last == "1" { "2" } else { "1" };
    format!("{head}{other}")
}

fn each_leaf(value: &serde_json::Value, place: &str, see: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, value)| each_leaf(value, &format!("{place}/{name}"), see));
        }
        serde_json::Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, value)| each_leaf(value, &format!("{place}/{at}"), see));
        }
        _ => see(place),
    }
}

#[test]
fn what_the_evidence_says_cannot_be_said_otherwise() {
    let guest = Guest::new();
    for (lie, member) in [
        ((|r| r.measurement.0[0] ^= 1) as fn(&mut BootRecord), "measurement"),
        (|r| r.simulated = false, "simulated"),
        (|r| r.tee = Tee::Tdx, "tee"),
        (|r| r.tcb = r.tcb.replace("snp", "SNP"), "tcb"),
        (|r| r.initdata.bound = hex::encode([1; 32]), "initdata.bound"),
    ] {
        let refusal = guest.lies(lie);
        assert!(
            matches!(refusal, Refusal::NotTheEvidences { what } if what == member),
            "{member}: {refusal:?}"
        );
    }
    assert!(matches!(guest.lies(|r| r.initdata.sha256.0[0] ^= 1), Refusal::Document));
}

#[test]
fn what_the_policy_says_cannot_be_said_otherwise() {
    let guest = Guest::new();
    for (lie, member) in [
        ((|r| r.policy = None) as fn(&mut BootRecord), "name and revision"),
        (|r| r.policy.as_mut().unwrap().revision = 8, "name and revision"),
        (|r| r.images.clear(), "images"),
        (|r| r.images[0].container.push('x'), "images"),
        (|r| r.images[0].image = swap(&r.images[0].image), "images"),
        (|r| r.models.clear(), "models"),
        (|r| r.models[0].version += 1, "models"),
        (|r| r.models[0].artifact = swap(&r.models[0].artifact), "models"),
        (|r| r.models[0].files[0].bytes += 1, "models"),
        (|r| r.models[0].digest = Some("blake3:".into()), "models' digests"),
        (
            |r| r.models[0].files[0].blake3 = Some("blake3:".into()),
            "models' digests",
        ),
        (|r| r.broker.keys.truncate(1), "keys"),
        (|r| r.broker.keys.push(released("kbs:///demo/other/1")), "keys"),
        (|r| r.broker.url.push('1'), "broker"),
        (|r| r.broker.token = None, "token's signer"),
        (|r| r.broker.token.as_mut().unwrap().signer = None, "token's signer"),
    ] {
        let refusal = guest.lies(lie);
        assert!(
            matches!(refusal, Refusal::NotThePolicys { what } if what == member),
            "{member}: {refusal:?}"
        );
    }
}

#[test]
fn what_is_expected_must_be_there() {
    let guest = Guest::new();
    let signed = guest.sign(guest.record());
    let with = |change: &dyn Fn(&mut Expectations<'_>)| {
        let mut expected = guest.expected();
        change(&mut expected);
        judge(&signed, &expected)
    };
    let (image, model) = (
        format!("sha256:{}", "1".repeat(64)),
        policy().models()[0].artifact.to_string(),
    );
    let model = model.split_once('@').unwrap().1;
    let file = format!("sha256:{}", "3".repeat(64));
    with(&|e| {
        e.policies = vec![Hex([0; 32]), Hex(initdata::digests(guest.document.as_bytes()).sha256)];
        e.models = vec![model.to_owned(), file.clone()];
        e.images = vec![image.clone()];
        e.token_signers = vec![SIGNER.to_owned()];
        e.booted = Some(BOOTED..=BOOTED);
    })
    .unwrap();
    let nobody = format!("sha256:{}", "9".repeat(64));
    assert!(matches!(
        with(&|e| e.measurements = Vec::new()),
        Err(Refusal::Measurement {
            found: Hex(MEASUREMENT)
        })
    ));
    assert!(matches!(
        with(&|e| e.measurements = vec![Hex([1; 48])]),
        Err(Refusal::Measurement { .. })
    ));
    assert!(matches!(
        with(&|e| e.policies = vec![Hex([0; 32])]),
        Err(Refusal::Policy { .. })
    ));
    assert!(matches!(
        with(&|e| e.models = vec![model.to_owned(), nobody.clone()]),
        Err(Refusal::Model { .. })
    ));
    assert!(matches!(
        with(&|e| e.images = vec![nobody.clone()]),
        Err(Refusal::Image { .. })
    ));
    assert!(matches!(
        with(&|e| e.token_signers = vec!["x".into()]),
        Err(Refusal::TokenSigner)
    ));
    assert!(matches!(
        with(&|e| e.booted = Some(BOOTED + 1..=u64::MAX)),
        Err(Refusal::Time)
    ));
    assert!(matches!(with(&|e| e.allow_simulated = false), Err(Refusal::Simulated)));
    let another = document(initdata::Algorithm::Sha256).replace("revision = 7", "revision = 8");
    let mut expected = guest.expected();
    expected.document = Some(another.as_bytes());
    assert!(matches!(judge(&signed, &expected), Err(Refusal::Document)));
}

#[test]
fn a_document_that_is_bound_by_another_digest_must_be_at_hand() {
    let guest = Guest::of(initdata::Algorithm::Sha512);
    let signed = guest.sign(guest.record());
    let mut expected = guest.expected();
    judge(&signed, &expected).unwrap();
    expected.document = None;
    assert!(matches!(judge(&signed, &expected), Err(Refusal::NeedsDocument)));
    let plain = Guest::new();
    let expected = Expectations {
        document: None,
        ..plain.expected()
    };
    judge(&plain.sign(plain.record()), &expected).unwrap();
}

#[test]
fn evidence_of_nobody_known_is_refused() {
    let guest = Guest::new();
    let signed = guest.sign(guest.record());
    let trust = Trust {
        roots: &Anchors::amd(),
        snp: &VerifyOptions::default(),
        tdx: None,
    };
    assert!(matches!(
        check(&signed, &trust, &guest.expected()),
        Err(Refusal::Snp(VerifyError::Chain(_)))
    ));
    let EvidenceText::Snp(snp) = guest.evidence() else {
        panic!("snp")
    };
    for at in [0x30, 0x50, 0x90, 0xc0, 0x2a0] {
        let mut report = snp.report.clone();
        report.0[at] ^= 1;
        let evidence = EvidenceText::Snp(SnpText { report, ..snp.clone() });
        let signed = SignedRecord::sign(guest.record(), &guest.key, guest.binding(), evidence).unwrap();
        assert!(
            matches!(judge(&signed, &guest.expected()), Err(Refusal::Snp(_))),
            "{at:#x}"
        );
    }
}

#[test]
fn tdx_evidence_needs_collateral_and_is_then_believed() {
    let authority = TdAuthority::generate().unwrap();
    let guest = Guest::of(initdata::Algorithm::Sha384);
    let mr_config_id = initdata::mr_config_id(guest.document.as_bytes()).unwrap();
    let report = TdAuthority::report(
        guest.report_data(),
        [6; 48],
        [[0; 48], [2; 48], [3; 48], [4; 48]],
        mr_config_id,
    );
    let quote = authority.quote(&report).unwrap();
    let launch_digest = td_launch_digest(&[6; 48], [&[2; 48], &[3; 48], &[4; 48]]);
    let evidence = EvidenceText::Tdx(TdxText { quote: Base64(quote) });
    let record = BootRecord {
        tee: Tee::Tdx,
        measurement: Hex(launch_digest),
        tcb: Launched::of_evidence(&GuestEvidence::from(&evidence)).unwrap().tcb,
        initdata: InitdataRecord {
            sha256: Hex(initdata::digests(guest.document.as_bytes()).sha256),
            bound: hex::encode(mr_config_id),
        },
        ..guest.record()
    };
    let signed = SignedRecord::sign(record, &guest.key, guest.binding(), evidence).unwrap();
    let expected = Expectations {
        measurements: vec![Hex(launch_digest)],
        ..guest.expected()
    };
    assert!(matches!(judge(&signed, &expected), Err(Refusal::NoCollateral)));
    let now = Duration::from_secs(BOOTED);
    let collateral = authority.collateral(&TdJudgement::up_to_date(now)).unwrap();
    let verdict = |roots: &Roots| {
        let trust = Trust {
            roots: &Anchors::none(),
            snp: &VerifyOptions::default(),
            tdx: Some(TdxTrust {
                collateral: &collateral,
                roots,
                options: &TdxOptions::default(),
                now,
            }),
        };
        check(&signed, &trust, &expected)
    };
    let checked = verdict(&Roots::none().with_simulated(authority.root_spki_sha256())).unwrap();
    assert_eq!(
        (checked.tee, checked.simulated, checked.measurement),
        (Tee::Tdx, true, launch_digest)
    );
    assert!(matches!(
        verdict(&Roots::intel()),
        Err(Refusal::Tdx(TdxError::Chain(_)))
    ));
}
