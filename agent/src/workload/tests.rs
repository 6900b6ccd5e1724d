//! The whole workload: what waiters get, and what is left when it ends.

use cella_attest::{GuestEvidence, Launched, Tee};
use cella_http::TrustedTime;
use cella_policy::initdata;
use cella_record::RecordKey;

use super::*;
use crate::{
    evidence::{EvidenceError, EvidenceSource},
    workload::testkit::{
        self, IMAGE_KID, PolicyText,
        image::{Layer, Tar},
        registry::TestRegistry,
    },
};

/// A platform that must not be asked.
struct NoEvidence;

impl EvidenceSource for NoEvidence {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        panic!("the launch was asked for")
    }

    fn quote(&self, _: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        panic!("evidence was asked for")
    }
}

fn start(folder: &tempfile::TempDir, policy: &PolicyText) -> (Workload, StageLog) {
    let stages = StageLog::new();
    let init = BootInfo {
        initdata_text: String::new(),
        digests: initdata::digests(b""),
        policy: policy.parse(),
        tee: Tee::Snp,
        evidence: Arc::new(NoEvidence),
        time: TrustedTime::unknown(),
        record_key: RecordKey::generate().unwrap(),
    };
    (
        Workload::start_in(folder.path(), Arc::new(init), stages.clone(), testkit::log()),
        stages,
    )
}

fn mounts(folder: &tempfile::TempDir) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(folder.path().to_str().unwrap()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_without_keys_needs_no_broker_and_wipe_leaves_nothing() {
    let (registry, folder) = (TestRegistry::start(), tempfile::tempdir().unwrap());
    let tar = Tar::default().file("bin/server", b"program").end();
    let image = testkit::image::push(&registry, &[Layer::gzip(&tar)]).await;
    let policy = PolicyText {
        port: registry.port,
        image,
        container: String::new(),
        model: None,
    };
    let (workload, stages) = start(&folder, &policy);
    assert!(workload.shared.init.policy.kbs().is_none());
    let rootfs = workload.image("server").await.unwrap();
    assert_eq!(rootfs.user, "nobody:65534", "for whom the policy leaves to the image");
    assert_eq!(
        std::fs::read(rootfs.lower_dirs[0].join("bin/server")).unwrap(),
        b"program"
    );
    assert_eq!(workload.models("server").await.unwrap(), []);
    let error = workload.image("other").await.unwrap_err();
    assert!(matches!(&error, WorkloadError::UnknownContainer { container } if container == "other"));
    let error = workload.models("other").await.unwrap_err();
    assert!(matches!(&error, WorkloadError::UnknownContainer { container } if container == "other"));
    let names: Vec<_> = stages
        .snapshot()
        .into_iter()
        .map(|stage| (stage.name.as_str(), stage.failure))
        .collect();
    assert_eq!(names, [("image", None)]);
    let mut status = StatusResponse::default();
    workload.status(&mut status);
    assert!(status.evidence.is_none(), "nobody was shown any");
    assert_eq!(mounts(&folder), 2);
    workload.wipe().await;
    workload.wipe().await;
    assert_eq!(mounts(&folder), 0);
    assert!(matches!(workload.image("server").await, Err(WorkloadError::ShutDown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_fails_everybody_with_its_name() {
    let (registry, folder) = (TestRegistry::start(), tempfile::tempdir().unwrap());
    let image = testkit::image::push(
        &registry,
        &[Layer::plain(&Tar::default().file("a", b"a").end()).encrypt()],
    )
    .await;
    let file = testkit::model::sealed(
        "model.gguf",
        cella_oci::modelpack::Kind::Weight,
        testkit::model::content(3 << 20, 1),
    );
    let artifact = testkit::model::push(&registry, &[file]).await;
    let container = format!("image-keys = [\"{IMAGE_KID}\"]");
    let policy = PolicyText {
        port: registry.port,
        image,
        container,
        model: Some((artifact, 1, 3 << 20)),
    };
    let (workload, stages) = start(&folder, &policy);
    for error in [
        workload.image("server").await.unwrap_err(),
        workload.models("server").await.unwrap_err(),
    ] {
        assert_eq!(error.blame(), Blame::Broker, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("https://127.0.0.1:1") || text.contains("certificate"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
    let failed: Vec<_> = stages
        .snapshot()
        .into_iter()
        .filter(|stage| stage.failure.is_some())
        .collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    let mut status = StatusResponse::default();
    workload.status(&mut status);
    assert!(status.evidence.is_none() && status.models.is_empty());
    workload.wipe().await;
    assert_eq!(mounts(&folder), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_fit_stops_everything_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let artifact = testkit::no_image();
    // Nobody listens on port 1: whoever dials it gets another error.
    let policy = PolicyText {
        port: 1,
        image: testkit::no_image(),
        container: String::new(),
        model: Some((artifact, 1, 1 << 44)),
    };
    let (workload, stages) = start(&folder, &policy);
    for error in [
        workload.image("server").await.unwrap_err(),
        workload.models("server").await.unwrap_err(),
    ] {
        assert_eq!(error.blame(), Blame::Memory, "{error}");
        assert!(
            error
                .to_string()
                .starts_with("model models/demo needs 17592187 MB, the guest has "),
            "{error}"
        );
    }
    let stages = stages.snapshot();
    assert_eq!((stages.len(), stages[0].name.as_str()), (1, "model"));
    assert_eq!(mounts(&folder), 0);
    workload.wipe().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wipe_ends_pulls_that_wait_for_a_silent_registry() {
    let folder = tempfile::tempdir().unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = PolicyText {
        port: silent.local_addr().unwrap().port(),
        image: testkit::no_image(),
        container: String::new(),
        model: Some((testkit::no_image(), 1, 1)),
    };
    let (workload, stages) = start(&folder, &policy);
    let (_first, _) = silent.accept().await.unwrap();
    let waiter = tokio::spawn({
        let workload = workload.clone();
        async move { workload.image("server").await }
    });
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, workload.wipe())
        .await
        .expect("wipe ends pulls");
    assert!(matches!(waiter.await.unwrap(), Err(WorkloadError::ShutDown)));
    assert!(matches!(workload.models("server").await, Err(WorkloadError::ShutDown)));
    assert!(stages.snapshot().iter().all(|stage| stage.end_us.is_some()));
    assert_eq!(mounts(&folder), 0);
}
