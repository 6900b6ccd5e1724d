//! The record of a run, beside what it has left.

use cella_kbs_client::TeeKey;
use cella_record::{
    Base64, BindingText, BootRecord, BrokerRecord, EvidenceText, Hex, ImageRecord, InitdataRecord, RUN_MEDIA_TYPE,
    SignedRecord, SignedRun, SnpText, Tee as RecordedTee, VERSION,
};

use super::*;

/// A boot's record that this guest has signed; its evidence is nobody's, which only a checker would mind.
fn boot_record(init: &BootInfo) -> String {
    let container = &init.policy.containers()[0];
    let record = BootRecord {
        version: VERSION,
        agent: "0".into(),
        key: init.record_key.public(),
        tee: RecordedTee::Snp,
        simulated: true,
        measurement: Hex([0; 48]),
        tcb: String::new(),
        initdata: InitdataRecord {
            sha256: Hex([0; 32]),
            bound: String::new(),
        },
        policy: None,
        images: vec![ImageRecord {
            container: container.name.clone(),
            image: container.image.to_string(),
        }],
        models: Vec::new(),
        broker: BrokerRecord {
            url: String::new(),
            token: None,
            keys: Vec::new(),
        },
        time: None,
    };
    let binding = BindingText {
        nonce: String::new(),
        tee_key: TeeKey::generate().unwrap().public(),
        opening: Hex([0; 33]),
    };
    let evidence = EvidenceText::Snp(SnpText {
        report: Base64(Vec::new()),
        certificates: Vec::new(),
    });
    let signed = SignedRecord::sign(record, &init.record_key, binding, evidence).unwrap();
    signed.to_text().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lies_beside_the_output_and_tells_of_every_end() {
    let (registry, root) = (TestRegistry::start(), tempfile::tempdir().unwrap());
    let init = boot(policy(registry.port, 1 << 20));
    let recorded = Recorded::default();
    recorded.keep(boot_record(&init));
    let desk = Desk::of(&init, root.path(), recorded, StageLog::new(), &testkit::log()).unwrap();
    desk.open(client(registry.port), &testkit::keys().wait().await.unwrap());
    let ends = async |name: &str, status| {
        let folder = desk.folder().await.unwrap();
        if !name.is_empty() {
            fs::write(folder.source.join(name), b"GGUF").unwrap();
        }
        let (_alive, killed) = oneshot::channel();
        let end = desk.finish(status, STATUS, killed).await;
        let run = SignedRun::parse(desk.record().unwrap().as_bytes()).unwrap();
        (end, run)
    };
    let (_, failed) = ends("a.gguf", 3).await;
    assert_eq!((failed.run.exit_status, &failed.run.output), (3, &None));
    let (_, empty) = ends("", 0).await;
    assert_eq!((empty.run.exit_status, &empty.run.output), (STATUS, &None));
    assert!(registry.client().resolve_tag("models/tuned", "v2.run").await.is_err());

    let (end, run) = ends("a.gguf", 0).await;
    let OutputEnd::Pushed(reference) = end else {
        panic!("{end:?}")
    };
    assert_eq!((run.run.exit_status, run.run.container.as_str()), (0, "server"));
    let output = run.run.output.as_ref().unwrap();
    assert_eq!(
        (output.artifact.as_str(), output.version, output.files.len()),
        (reference.as_str(), 2, 1)
    );
    assert_eq!(output.files[0].digest, cella_oci::Digest::of(b"GGUF").to_string());
    let (_, manifest) = registry.client().resolve_tag("models/tuned", "v2.run").await.unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some(RUN_MEDIA_TYPE));
    assert_eq!(manifest.annotations["dev.cella.run.artifact"], reference);
    let text = registry
        .client()
        .blob("models/tuned", &manifest.layers[0], 1 << 18)
        .await
        .unwrap();
    assert_eq!(text, desk.record().unwrap().as_bytes());
}
