//! Records of runs of simulated guests: what is believed, and each lie that is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use cella_attest::sim::{Authority, ChipSpec, Claims};
use cella_attest::{Anchors, GuestEvidence, Launched, VerifyOptions};
use cella_kbs_client::TeeKey;
use cella_kbs_client::wire::report_data;
use cella_policy::{Policy, initdata};
use cella_record::{
    BindingText, BootRecord, BrokerRecord, EvidenceText, Expectations, Hex, ImageRecord, InitdataRecord, InputRecord,
    KeyRecord, ModelFileRecord, ModelRecord, OutputFileRecord, OutputRecord, RUN_VERSION, RecordKey, Refusal,
    RunRecord, RunTime, SignedRecord, SignedRun, Tee, Trust, VERSION, check_run,
};

const MEASUREMENT: [u8; 48] = [6; 48];

/// The example's server as a job: a dataset beside its model, and an output.
fn document() -> String {
    let example = include_str!("../../policy/src/policy/example.toml");
    let mount = "[[container.mount]]\ndestination = \"/data\"\ndataset = \"datasets/demo\"\n\n[[model]]";
    let policy = format!(
        "{}\n[[dataset]]\nname = \"datasets/demo\"\nversion = 3\nartifact = \"localhost:5000/datasets/demo@sha256:{}\"\n\
         keys = [\"kbs:///demo/data-kek/1\"]\nbytes = 100\n\n[output]\ncontainer = \"server\"\ndestination = \"/output\"\n\
         name = \"models/demo\"\nversion = 2\nrepository = \"localhost:5000/models/tuned\"\n\
         key = \"kbs:///demo/output-kek/1\"\nmax-bytes = 4096\n",
        example.replacen("[[model]]", mount, 1),
        "3".repeat(64)
    );
    initdata::write(&policy, initdata::Algorithm::Sha256)
}

fn policy() -> Policy {
    initdata::parse(document().as_bytes(), initdata::Algorithm::Sha256)
        .unwrap()
        .policy
}

struct Guest {
    key: RecordKey,
    boot: SignedRecord,
    authority: Authority,
}

impl Guest {
    fn new() -> Self {
        let (key, authority, policy) = (RecordKey::generate().unwrap(), Authority::generate().unwrap(), policy());
        let (tee_key, opening) = TeeKey::committed(&key.public().0).unwrap();
        let host_data = initdata::host_data(document().as_bytes()).unwrap();
        let nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let claims = Claims::new(report_data(nonce, &tee_key.public(), ""), MEASUREMENT, host_data);
        let evidence = GuestEvidence::Snp(authority.chip(&ChipSpec::random()).unwrap().issue(&claims).unwrap());
        let server = &policy.containers()[0];
        let model = |sealed: &cella_policy::ModelPolicy| ModelRecord {
            name: sealed.name.clone(),
            version: sealed.version,
            artifact: sealed.artifact.to_string(),
            files: vec![ModelFileRecord {
                path: "file".into(),
                digest: format!("sha256:{}", "3".repeat(64)),
                bytes: sealed.bytes,
                blake3: None,
                locked_bytes: 2 << 20,
            }],
            digest: None,
        };
        let record = BootRecord {
            version: VERSION,
            agent: "0.1.0".into(),
            key: key.public(),
            tee: Tee::Snp,
            simulated: true,
            measurement: Hex(MEASUREMENT),
            tcb: Launched::of_evidence(&evidence).unwrap().tcb,
            initdata: InitdataRecord {
                sha256: Hex(initdata::digests(document().as_bytes()).sha256),
                bound: hex::encode(host_data),
            },
            policy: None,
            images: vec![ImageRecord {
                container: server.name.clone(),
                image: server.image.to_string(),
            }],
            models: policy.sealed().map(model).collect(),
            broker: BrokerRecord {
                url: policy.kbs().unwrap().url.to_string(),
                token: None,
                keys: policy
                    .key_ids()
                    .into_iter()
                    .map(|key| KeyRecord {
                        key: key.to_string(),
                        session: String::new(),
                    })
                    .collect(),
            },
            time: None,
        };
        let binding = BindingText {
            nonce: nonce.into(),
            tee_key: tee_key.public(),
            opening: Hex(*opening.as_bytes()),
        };
        let boot = SignedRecord::sign(record, &key, binding, EvidenceText::from(&evidence)).unwrap();
        Self { key, boot, authority }
    }

    fn run(&self) -> RunRecord {
        let policy = policy();
        RunRecord {
            version: RUN_VERSION,
            boot: Hex([0; 32]),
            container: "server".into(),
            image: policy.containers()[0].image.to_string(),
            inputs: policy
                .sealed()
                .map(|sealed| InputRecord {
                    name: sealed.name.clone(),
                    version: sealed.version,
                    artifact: sealed.artifact.to_string(),
                })
                .collect(),
            exit_status: 0,
            output: Some(OutputRecord {
                name: "models/demo".into(),
                version: 2,
                artifact: format!("localhost:5000/models/tuned@{}", sha256("4")),
                files: vec![OutputFileRecord {
                    path: "demo.gguf".into(),
                    digest: sha256("5"),
                    bytes: 4000,
                }],
            }),
            time: Some(RunTime { started: 5, ended: 9 }),
        }
    }

    fn judge(&self, run: RunRecord, outputs: &[String]) -> Result<(), Refusal> {
        let signed = SignedRun::sign(self.boot.clone(), run, &self.key).unwrap();
        let signed = SignedRun::parse(signed.to_text().unwrap().as_bytes()).unwrap();
        let roots = Anchors::amd().with_simulated(self.authority.ark_spki_sha256());
        let trust = Trust {
            roots: &roots,
            snp: &VerifyOptions::default(),
            tdx: None,
        };
        let document = document();
        let expected = Expectations {
            document: Some(document.as_bytes()),
            allow_simulated: true,
            ..Expectations::launched_as(vec![Hex(MEASUREMENT)])
        };
        check_run(&signed, &trust, &expected, outputs).map(|checked| assert!(checked.simulated))
    }
}

fn sha256(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

#[test]
fn a_genuine_run_is_believed() {
    let guest = Guest::new();
    guest.judge(guest.run(), &[sha256("4"), sha256("5")]).unwrap();
    // A job that failed has left nothing.
    let mut failed = guest.run();
    (failed.exit_status, failed.output) = (1, None);
    guest.judge(failed.clone(), &[]).unwrap();
    assert!(matches!(
        guest.judge(failed, &[sha256("4")]),
        Err(Refusal::Output { .. })
    ));
    assert!(matches!(
        guest.judge(guest.run(), &[sha256("6")]),
        Err(Refusal::Output { wanted }) if wanted == sha256("6")
    ));
}

#[test]
fn a_run_has_what_its_boot_has() {
    let guest = Guest::new();
    for (lie, member) in [
        ((|run| run.image.push('x')) as fn(&mut RunRecord), "image"),
        (|run| run.container.push('x'), "image"),
        (|run| run.inputs[0].version += 1, "inputs"),
        (|run| run.inputs[1].name.push('x'), "inputs"),
        (|run| run.inputs[1].artifact.push('0'), "inputs"),
        (|run| run.exit_status = 1, "output"),
    ] {
        let mut run = guest.run();
        lie(&mut run);
        let refusal = guest.judge(run, &[]).unwrap_err();
        assert!(
            matches!(refusal, Refusal::NotTheBoots { what } if what == member),
            "{member}: {refusal:?}"
        );
    }
}

#[test]
fn a_run_is_that_of_the_policys_output() {
    let guest = Guest::new();
    for (lie, member) in [
        ((|run| drop(run.inputs.pop())) as fn(&mut RunRecord), "inputs"),
        (|run| run.output.as_mut().unwrap().name.push('x'), "output"),
        (|run| run.output.as_mut().unwrap().version = 3, "output"),
        (
            |run| run.output.as_mut().unwrap().artifact = format!("localhost:5000/other@{}", sha256("4")),
            "output",
        ),
    ] {
        let mut run = guest.run();
        lie(&mut run);
        let refusal = guest.judge(run, &[]).unwrap_err();
        assert!(
            matches!(refusal, Refusal::NotThePolicys { what } if what == member),
            "{member}: {refusal:?}"
        );
    }
}
