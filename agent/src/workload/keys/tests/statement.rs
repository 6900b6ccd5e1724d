//! What the broker's token states, and what becomes of it: the guest's time, and the boot record.

use cella_kbs_client::{Opening, wire::report_data};
use cella_record::SignedRecord;

use super::*;
use crate::workload::record;

#[tokio::test]
async fn t10_the_time_is_the_brokers_whatever_the_machines_clock_says() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let init = init(&platform);
    assert_eq!(init.time.now(), None);
    broker.fetch(&init).await.0.unwrap();
    let now = init.time.now().unwrap().as_secs();
    assert!((NOW..NOW + 60).contains(&now), "{now}");
}

#[tokio::test]
async fn the_boot_record_rests_on_the_evidence_that_the_broker_accepted() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let init = init(&platform);
    let (_keyring, _, attested) = broker.fetch(&init).await;
    let text = record::make(&init, attested.summary().unwrap(), &[]).unwrap().unwrap();
    let signed = SignedRecord::parse(text.as_bytes()).unwrap();
    let said = &signed.record;
    assert_eq!(
        (said.measurement.0, &*said.initdata.bound),
        ([7; 48], &*"08".repeat(32))
    );
    assert_eq!(names(&said.broker.keys), [IMAGE_KID, MODEL_KID]);
    assert!(
        said.broker
            .keys
            .iter()
            .all(|released| released.session == "0123456789abcdef")
    );
    let token = said.broker.token.as_ref().unwrap();
    assert_eq!(
        (&*token.id, token.issued, &token.signer),
        ("0123456789abcdef", NOW, &None)
    );
    assert!((NOW..NOW + 60).contains(&said.time.unwrap().recorded));
    assert_eq!(said.images.len(), init.policy.containers().len());
    // From the record's key to the report: what a checker does.
    let opening = Opening::from_bytes(signed.binding.opening.0);
    assert!(opening.proves(&signed.binding.tee_key, &init.record_key.public().0));
    let GuestEvidence::Snp(evidence) = GuestEvidence::from(&signed.evidence) else {
        panic!("snp")
    };
    let report_data = report_data(&signed.binding.nonce, &signed.binding.tee_key, "");
    assert_eq!(evidence.report[0x50..0x90], report_data);
    assert_eq!(platform.quotes(), 1, "no evidence is made for the record");
}

#[tokio::test]
async fn t10_with_pinned_keys_a_token_of_nobody_gives_neither_time_nor_keys() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let mut init = init(&platform);
    let pinned = "[kbs]\ntoken-keys = [\"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\"]";
    init.policy = init.policy.to_toml().replace("[kbs]", pinned).parse().unwrap();
    let (keyring, stages, attested) = broker.fetch(&init).await;
    let error = keyring.unwrap_err();
    assert!(matches!(error, WorkloadError::Broker { .. }), "{error:?}");
    assert!(error.to_string().contains("token"), "{error}");
    assert_eq!(init.time.now(), None);
    assert!(attested.summary().is_none());
    assert_eq!(stages.snapshot().len(), 1);
    assert_eq!(
        broker.seen(),
        ["/kbs/v0/auth snp", "/kbs/v0/attest report"],
        "no key was asked for"
    );
}
