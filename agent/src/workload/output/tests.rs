//! Runs of a job, their folders, and what the registry gets: against a real registry, and one that refuses.

mod record;

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use cella_attest::{GuestEvidence, Launched, Tee};
use cella_http::TrustedTime;
use cella_oci::{Manifest, Registry};
use cella_policy::{
    Policy,
    file::{Choice, OutputFile, UserFile},
    initdata,
};
use cella_record::RecordKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};

use super::*;
use crate::{
    boot::BootInfo,
    evidence::{EvidenceError, EvidenceSource},
    stage::StageLog,
    workload::{
        WorkloadError,
        model::ModelPull,
        record::Recorded,
        registries::Registries,
        store::Store,
        testkit::{self, MODEL_KID, PolicyText, registry::TestRegistry},
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

const USER: u32 = 65534;
const STATUS: u32 = 74;

/// A desk whose key is there, a registry, and where folders are.
struct Job {
    desk: Arc<Desk>,
    registry: TestRegistry,
    stages: StageLog,
    _root: tempfile::TempDir,
}

/// A policy whose server keeps what it writes, in a registry on `port`.
fn policy(port: u16, max_bytes: u64) -> Policy {
    let plain = PolicyText {
        port,
        image: testkit::no_image(),
        // Keys bring a broker with them.
        container: "image-keys = []".into(),
        model: None,
    };
    let mut file = plain.parse().to_file();
    file.container[0].user = Choice::Value(UserFile {
        uid: USER,
        gid: USER,
        additional_gids: Vec::new(),
    });
    file.output = Some(OutputFile {
        container: "server".into(),
        destination: "/output".into(),
        name: "models/demo".into(),
        version: 2,
        repository: "localhost:5000/models/tuned".into(),
        key: MODEL_KID.into(),
        max_bytes,
    });
    Policy::from_file(file).unwrap()
}

/// A server that reads once and answers with `status`, to everybody.
async fn answering(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn boot(policy: Policy) -> Arc<BootInfo> {
    Arc::new(BootInfo {
        initdata_text: String::new(),
        digests: initdata::digests(b""),
        policy,
        tee: Tee::Snp,
        evidence: Arc::new(NoEvidence),
        time: TrustedTime::unknown(),
        record_key: RecordKey::generate().unwrap(),
    })
}

fn client(port: u16) -> Registry {
    let origin = format!("http://127.0.0.1:{port}").parse().unwrap();
    Registry::new(origin, None, "localhost:5000").unwrap()
}

impl Job {
    async fn new(max_bytes: u64) -> Self {
        let registry = TestRegistry::start();
        Self::at(registry.port, registry, max_bytes).await
    }

    /// Pushes to `port`, which need not be the registry's.
    async fn at(port: u16, registry: TestRegistry, max_bytes: u64) -> Self {
        let (root, stages) = (tempfile::tempdir().unwrap(), StageLog::new());
        let init = boot(policy(port, max_bytes));
        let desk = Desk::of(&init, root.path(), Recorded::default(), stages.clone(), &testkit::log()).unwrap();
        let keys = testkit::keys().wait().await.unwrap();
        desk.open(client(port), &keys);
        Self {
            desk,
            registry,
            stages,
            _root: root,
        }
    }

    async fn finish(&self, status: u32) -> OutputEnd {
        let (_alive, killed) = oneshot::channel();
        self.desk.finish(status, STATUS, killed).await
    }

    /// A run that writes these files and ends with `status`.
    async fn run(&self, files: &[(&str, &[u8])], status: u32) -> OutputEnd {
        let folder = self.desk.folder().await.unwrap();
        for (path, content) in files {
            let at = folder.source.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, content).unwrap();
        }
        self.finish(status).await
    }

    async fn tagged(&self) -> bool {
        self.registry.client().resolve_tag("models/tuned", "v2").await.is_ok()
    }
}

fn reason(end: &OutputEnd) -> String {
    match end {
        OutputEnd::NotPushed(error) => one_line(error),
        other => panic!("{other:?}"),
    }
}

fn mounts(folder: &OutputMount) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(folder.source.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_is_a_sealed_model_for_the_next() {
    let job = Job::new(8 << 20).await;
    let weights = testkit::model::content((3 << 20) + 17, 5);
    let end = job
        .run(
            &[("model.gguf", &weights), ("sub/config.json", b"{}"), ("empty.txt", b"")],
            0,
        )
        .await;
    let OutputEnd::Pushed(reference) = end else {
        panic!("{end:?}")
    };
    assert!(
        reference.starts_with("localhost:5000/models/tuned@sha256:"),
        "{reference}"
    );
    let (digest, bytes) = job.registry.client().resolve_tag("models/tuned", "v2").await.unwrap();
    assert!(reference.ends_with(&digest.to_string()));
    let manifest = Manifest::parse(&bytes).unwrap();
    for layer in &manifest.layers {
        assert!(layer.media_type.ends_with("+encrypted"), "{}", layer.media_type);
        let stored = fs::read(job.registry.file(&layer.digest)).unwrap();
        assert!(
            !stored.windows(64).any(|window| weights.starts_with(window)),
            "plaintext in the registry"
        );
    }
    // As another pod's model.
    let artifact = reference.as_str();
    let bytes = u64::try_from(weights.len()).unwrap() + 2;
    let consumer = PolicyText {
        port: job.registry.port,
        image: testkit::no_image(),
        container: String::new(),
        model: Some((artifact.to_owned(), 2, bytes)),
    }
    .parse();
    let registries = Registries::of(&consumer, &TrustedTime::unknown(), &testkit::log()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::for_models(folder.path(), 64 << 20).unwrap());
    let pull = ModelPull::new(
        consumer.model("models/demo").unwrap(),
        &registries,
        Arc::clone(&store),
        2,
        &testkit::log(),
    );
    let loaded = pull.unwrap().run(testkit::keys()).await.unwrap();
    assert_eq!(fs::read(loaded.directory.join("model.gguf")).unwrap(), weights);
    assert_eq!(fs::read(loaded.directory.join("sub/config.json")).unwrap(), b"{}");

    let status = job.desk.status();
    assert_eq!((status.state.as_str(), status.artifact.as_str()), ("pushed", artifact));
    assert_eq!((status.files, status.bytes), (3, bytes));
    let stages = job.stages.snapshot();
    assert_eq!(
        (stages[0].name.as_str(), stages[0].subject.as_str()),
        ("output", "models/demo version 2")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_its_users_and_empty_at_each_start() {
    let job = Job::new(1 << 20).await;
    let first = job.desk.folder().await.unwrap();
    let metadata = fs::metadata(&first.source).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (USER, USER, 0o700)
    );
    assert_eq!(first.destination, PathBuf::from("/output"));
    fs::write(first.source.join("half"), b"x").unwrap();
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounted
        .lines()
        .find(|line| line.contains(first.source.to_str().unwrap()))
        .unwrap();
    for option in ["nosuid", "nodev", "noexec", "noswap"] {
        assert!(line.contains(option), "{line}");
    }
    let second = job.desk.folder().await.unwrap();
    assert!(!mounts(&first) && mounts(&second), "the first run's folder is gone");
    assert_eq!(fs::read_dir(&second.source).unwrap().count(), 0);
    job.desk.wipe();
    assert!(!mounts(&second));
    assert!(matches!(job.desk.folder().await, Err(WorkloadError::ShutDown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_pushes_nothing_and_may_try_again() {
    let job = Job::new(1 << 20).await;
    for status in [1, 137] {
        assert!(matches!(
            job.run(&[("a.gguf", b"x")], status).await,
            OutputEnd::Discarded
        ));
        assert_eq!(
            (job.desk.status().state.as_str(), job.tagged().await),
            ("discarded", false)
        );
    }
    assert!(matches!(job.run(&[("a.gguf", b"x")], 0).await, OutputEnd::Pushed(_)));
    assert!(matches!(job.finish(0).await, OutputEnd::None), "an end without a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_pushes_one_output() {
    let job = Job::new(1 << 20).await;
    assert!(matches!(job.run(&[("a.gguf", b"x")], 0).await, OutputEnd::Pushed(_)));
    let error = job.desk.folder().await.unwrap_err();
    assert!(matches!(error, WorkloadError::OutputPushed { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("models/demo version 2 was pushed already, as localhost:5000/models/tuned@")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_folders_are_told_apart_and_leave_no_name() {
    let job = Job::new(1 << 20).await;
    assert!(reason(&job.run(&[], 0).await).contains("left no file"));
    let folder = job.desk.folder().await.unwrap();
    fs::write(folder.source.join("a.gguf"), b"x").unwrap();
    std::os::unix::fs::symlink("/proc/self/environ", folder.source.join("b")).unwrap();
    assert!(reason(&job.finish(0).await).contains("symbolic link"));
    let folder = job.desk.folder().await.unwrap();
    let hole = fs::File::create(folder.source.join("a.gguf")).unwrap();
    hole.set_len(2 << 20).unwrap();
    drop(hole);
    assert!(reason(&job.finish(0).await).contains("more than the 1048576 bytes"));
    assert_eq!(job.desk.status().state, "failed");
    assert!(!job.tagged().await);
    // Nothing that was wrong hinders the next run.
    assert!(matches!(job.run(&[("a.gguf", b"x")], 0).await, OutputEnd::Pushed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_holds_so_much_and_no_more() {
    let job = Job::new(1 << 20).await;
    let folder = job.desk.folder().await.unwrap();
    let error = fs::write(folder.source.join("a.gguf"), vec![1; 4 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let names = (0..10_000).map(|number| fs::write(folder.source.join(number.to_string()), b""));
    assert!(names.into_iter().any(|written| written.is_err()), "names are unbounded");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_somebody_writes() {
    let job = Job::new(1 << 20).await;
    let folder = job.desk.folder().await.unwrap();
    let writer = fs::File::create(folder.source.join("a.gguf")).unwrap();
    let finishing = tokio::spawn({
        let desk = Arc::clone(&job.desk);
        async move {
            let (_alive, killed) = oneshot::channel();
            desk.finish(0, STATUS, killed).await
        }
    });
    // Longer than a pause between two looks; the writer is late, and then gone.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!finishing.is_finished());
    drop(writer);
    assert!(matches!(finishing.await.unwrap(), OutputEnd::Pushed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_ends_the_push() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let job = Job::at(port, TestRegistry::start(), 1 << 20).await;
    let answer = tokio::spawn(async move {
        // To the question whether it takes pushes at all: not now. To everything else: nothing.
        let (first, _) = silent.accept().await.unwrap();
        drop(first);
        silent.accept().await.unwrap()
    });
    let folder = job.desk.folder().await.unwrap();
    fs::write(folder.source.join("a.gguf"), b"x").unwrap();
    let (kill, killed) = oneshot::channel();
    let finishing = tokio::spawn({
        let desk = Arc::clone(&job.desk);
        async move { desk.finish(0, STATUS, killed).await }
    });
    let _connection = answer.await.unwrap();
    kill.send(()).unwrap();
    assert!(reason(&finishing.await.unwrap()).contains("killed"));
    assert!(!mounts(&folder));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_gets_no_name() {
    // It refuses whatever begins a push, and says so before the job begins.
    let port = answering("401 Unauthorized").await;
    let job = Job::at(port, TestRegistry::start(), 1 << 20).await;
    let error = job.desk.folder().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, WorkloadError::Registry { .. }), "{text}");
    assert!(
        text.starts_with("output models/demo version 2: ") && text.contains("credentials"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_breaks_off_is_tried_again_from_the_start() {
    let registry = TestRegistry::start();
    // The first two connections break off in the middle of an answer.
    let proxy = testkit::proxy::Proxy::start(registry.port, 2, 20).await;
    let job = Job::at(proxy.port, registry, 4 << 20).await;
    let weights = testkit::model::content(3 << 20, 9);
    let end = job.run(&[("model.gguf", &weights)], 0).await;
    assert!(matches!(end, OutputEnd::Pushed(_)), "{end:?}");
    assert!(job.tagged().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_no_run() {
    let root = tempfile::tempdir().unwrap();
    let init = boot(policy(1, 1 << 20));
    let desk = Desk::of(
        &init,
        root.path(),
        Recorded::default(),
        StageLog::new(),
        &testkit::log(),
    )
    .unwrap();
    desk.close(WorkloadError::ShutDown);
    assert!(matches!(desk.folder().await, Err(WorkloadError::ShutDown)));
    assert_eq!(desk.status().state, "waiting");
    assert!(desk.record().is_none());
    let none = PolicyText {
        port: 1,
        image: testkit::no_image(),
        container: String::new(),
        model: None,
    };
    assert!(
        Desk::of(
            &boot(none.parse()),
            root.path(),
            Recorded::default(),
            StageLog::new(),
            &testkit::log()
        )
        .is_none()
    );
}
