//! A pod's volumes against an agent that writes down what it gets.
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use ttrpc::Code;

use super::*;

#[derive(Clone, Default)]
struct Record {
    puts: Arc<Mutex<Vec<PutVolumeRequest>>>,
    refuse: Arc<Mutex<Option<Code>>>,
    news: Arc<tokio::sync::Notify>,
}

impl Sink for Record {
    async fn put(&self, request: &PutVolumeRequest) -> Result<(), AgentError> {
        let refused = *self.refuse.lock().unwrap();
        let result = match refused {
            Some(code) => Err(AgentError::Refused {
                code,
                message: "policy denies it".into(),
            }),
            None => {
                self.puts.lock().unwrap().push(request.clone());
                Ok(())
            }
        };
        self.news.notify_one();
        result
    }
}

impl Record {
    fn taken(&self) -> Vec<PutVolumeRequest> {
        std::mem::take(&mut self.puts.lock().unwrap())
    }

    fn refuse(&self, code: Option<Code>) {
        *self.refuse.lock().unwrap() = code;
    }

    async fn news(&self) {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, self.news.notified())
            .await
            .expect("a put");
    }
}

/// A pod's folder as kubelet makes it.
struct PodFolder(tempfile::TempDir);

impl PodFolder {
    fn new() -> Self {
        let pod = Self(tempfile::tempdir().unwrap());
        pod.write("cfg", "..1", "key", "one");
        fs::create_dir_all(pod.path("volumes/kubernetes.io~empty-dir/scratch")).unwrap();
        fs::write(pod.path("etc-hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::create_dir_all(pod.path("containers/app")).unwrap();
        fs::write(pod.path("containers/app/0a"), "").unwrap();
        pod
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("pods/uid").join(path)
    }

    /// Writes a version of the ConfigMap `volume`, as kubelet does.
    fn write(&self, volume: &str, version: &str, file: &str, content: &str) {
        let root = self.path("volumes/kubernetes.io~configmap").join(volume);
        fs::create_dir_all(root.join(version)).unwrap();
        fs::write(root.join(version).join(file), content).unwrap();
        symlink(version, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    }

    fn spec(&self, mounts: &[(&str, &str)]) -> oci::Spec {
        let bind = |(source, destination): &(&str, &str)| oci::Mount {
            destination: (*destination).to_owned(),
            kind: "bind".to_owned(),
            source: if source.starts_with('/') {
                (*source).to_owned()
            } else {
                self.path(source).to_str().unwrap().to_owned()
            },
            options: vec!["rbind".to_owned(), "ro".to_owned()],
        };
        oci::Spec {
            mounts: mounts.iter().map(bind).collect(),
            ..Default::default()
        }
    }
}

const CFG: &str = "volumes/kubernetes.io~configmap/cfg";
const SCRATCH: &str = "volumes/kubernetes.io~empty-dir/scratch";

fn volumes() -> Volumes {
    Volumes::new(Logger::root(slog::Discard, slog::o!()))
}

#[tokio::test]
async fn a_kubelets_mounts_become_volumes_of_the_agent() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    let mut spec = pod.spec(&[
        (CFG, "/etc/app"),
        (SCRATCH, "/tmp"),
        ("etc-hosts", "/etc/hosts"),
        ("containers/app/0a", "/dev/termination-log"),
        ("/run/x/sandboxes/s/shm", "/dev/shm"),
        (
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/c/volumes/v",
            "/var/lib/db",
        ),
    ]);
    spec.mounts.insert(
        0,
        oci::Mount {
            destination: "/proc".into(),
            kind: "proc".into(),
            source: "proc".into(),
            options: vec![],
        },
    );
    let mounts = volumes.prepare(&sink, "c", &spec).await.unwrap();
    let seen: Vec<_> = mounts
        .iter()
        .map(|m| (m.destination.as_str(), m.volume.as_str()))
        .collect();
    let log = mounts[4].volume.clone();
    assert_eq!(
        seen,
        [
            ("/proc", ""),
            ("/etc/app", "cfg"),
            ("/tmp", "scratch"),
            ("/etc/hosts", "pod.hosts"),
            ("/dev/termination-log", log.as_str()),
            ("/dev/shm", "")
        ]
    );
    assert_eq!((mounts[1].source.as_str(), mounts[1].options.len()), ("", 2));
    let puts = sink.taken();
    let kinds: Vec<_> = puts.iter().map(|put| put.kind.as_str()).collect();
    assert_eq!(kinds, ["config-map", "empty-dir", "hosts", "termination-log"]);
    assert_eq!(puts[0].files[0].path, "key");
    assert_eq!(puts[2].files[0].content, b"127.0.0.1 localhost\n");
    assert_eq!((puts[3].files[0].mode, puts[3].files[0].content.len()), (0o666, 0));
    assert!((1..=64).contains(&log.len()));

    // The second container of the pod finds them there; the files that may have changed go again.
    let again = volumes
        .prepare(&sink, "d", &pod.spec(&[(CFG, "/a"), (SCRATCH, "/b")]))
        .await
        .unwrap();
    assert_eq!((again[0].volume.as_str(), again[1].volume.as_str()), ("cfg", "scratch"));
    assert_eq!(sink.taken(), []);
}

#[tokio::test]
async fn a_volume_of_the_image_is_memory_where_the_root_is_read_only() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    let mut spec = pod.spec(&[("/c/io.containerd.grpc.v1.cri/containers/c/volumes/v", "/var/lib/db")]);
    spec.root.readonly = true;
    let mounts = volumes.prepare(&sink, "c", &spec).await.unwrap();
    assert_eq!(mounts.len(), 1);
    assert_eq!(sink.taken()[0].kind, "empty-dir");
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_with_the_cure() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    let refused = volumes
        .prepare(&sink, "c", &pod.spec(&[("/srv/x", "/data")]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(Code::PERMISSION_DENIED));
    assert_eq!(
        refused.to_string(),
        "mount /data: a hostPath volume (/srv/x) cannot be kept confidential: use emptyDir, configMap, secret, projected or \
         downwardAPI, or a model of the policy"
    );
    let mut spec = pod.spec(&[(CFG, "/data")]);
    spec.mounts[0].options.push("rslave".into());
    let refused = volumes.prepare(&sink, "c", &spec).await.unwrap_err();
    assert!(matches!(refused, VolumeError::Propagation { .. }));
    assert_eq!(sink.taken(), []);
}

#[tokio::test]
async fn the_guest_keeps_its_own_files_where_the_policy_says_so() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    sink.refuse(Some(Code::PERMISSION_DENIED));
    let mounts = volumes
        .prepare(
            &sink,
            "c",
            &pod.spec(&[
                ("etc-hosts", "/etc/hosts"),
                ("containers/app/0a", "/dev/termination-log"),
            ]),
        )
        .await
        .unwrap();
    assert!(mounts.iter().all(|mount| mount.volume.is_empty()));
    // A ConfigMap is asked for by name: that is refused.
    let refused = volumes
        .prepare(&sink, "c", &pod.spec(&[(CFG, "/a")]))
        .await
        .unwrap_err();
    assert!(matches!(refused, VolumeError::Agent(AgentError::Refused { .. })));
    assert_eq!(refused.to_string(), "policy denies it");
}

#[tokio::test]
async fn a_change_is_copied_and_a_failure_tried_again() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    volumes.prepare(&sink, "c", &pod.spec(&[(CFG, "/a")])).await.unwrap();
    sink.news().await;
    assert_eq!(sink.taken().len(), 1);
    pod.write("cfg", "..2", "key", "two");
    sink.news().await;
    let put = sink.taken().remove(0);
    assert_eq!(
        (put.name.as_str(), put.files[0].content.as_slice()),
        ("cfg", b"two".as_slice())
    );

    sink.refuse(Some(Code::INTERNAL));
    pod.write("cfg", "..3", "key", "three");
    sink.news().await;
    sink.refuse(None);
    sink.news().await;
    assert_eq!(sink.taken()[0].files[0].content, b"three");
}

#[tokio::test]
async fn watching_ends_with_the_pod() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    volumes.prepare(&sink, "c", &pod.spec(&[(CFG, "/a")])).await.unwrap();
    let shared = Arc::downgrade(&volumes.shared);
    drop(volumes);
    let gone = async {
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("the task ends");
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn last_words_reach_the_file_that_the_bundle_named() {
    let (pod, sink, volumes) = (PodFolder::new(), Record::default(), volumes());
    let spec = pod.spec(&[("containers/app/0a", "/dev/termination-log")]);
    volumes.prepare(&sink, "c", &spec).await.unwrap();
    volumes.message("other", b"x").await;
    assert_eq!(fs::read(pod.path("containers/app/0a")).unwrap(), b"");
    volumes.message("c", b"out of cheese").await;
    assert_eq!(fs::read(pod.path("containers/app/0a")).unwrap(), b"out of cheese");
    volumes.forget("c");
    volumes.message("c", b"late").await;
    assert_eq!(fs::read(pod.path("containers/app/0a")).unwrap(), b"out of cheese");
}

#[test]
fn names_are_those_that_the_agent_takes() {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    assert_eq!(agent_name("my-config"), "my-config");
    let long = "v".repeat(65);
    for odd in ["", "Upper", "a_b", ".x", long.as_str(), "ä"] {
        let name = agent_name(odd);
        assert!((1..=64).contains(&name.len()) && name.bytes().all(allowed), "{name}");
    }
    assert!(derived_name(&long, "/x").len() <= 64);
}
