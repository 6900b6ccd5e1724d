//! A containerd and a snapshotter of one test, and images for them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(60);

/// An image as an archive.
pub(crate) struct Image {
    /// Of its manifest.
    pub(crate) digest: String,
    archive: tempfile::NamedTempFile,
}

/// A node without the kubelet. Everything ends with it.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    tools: PathBuf,
    containerd: Option<Child>,
    snapshotter: Option<Child>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let cache = std::env::var_os("CELLA_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/cella"),
            PathBuf::from,
        );
        let tools = cache.join("tools/containerd/usr/bin");
        assert!(
            tools.join("containerd").exists(),
            "no containerd in {}: run scripts/setup",
            tools.display()
        );
        let mut node = Self {
            folder: tempfile::Builder::new().prefix("cs").tempdir_in("/run").unwrap(),
            tools,
            containerd: None,
            snapshotter: None,
        };
        let run = node.folder.path().display();
        let unpack = |name: &str| {
            format!(
                "  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n    platform = \"linux/amd64\"\n    \
                 snapshotter = \"{name}\"\n"
            )
        };
        let config = format!(
            "version = 3\nroot = \"{run}/root\"\nstate = \"{run}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[grpc]\n  address = \"{run}/c.sock\"\n\
             [ttrpc]\n  address = \"{run}/t.sock\"\n[proxy_plugins.cella]\n  type = \"snapshot\"\n  address = \
             \"{run}/s/s.sock\"\n[plugins.'io.containerd.transfer.v1.local']\n{}{}",
            unpack("cella"),
            unpack("native")
        );
        fs::write(node.path("containerd.toml"), config).unwrap();
        let config = format!("address = \"{run}/s/s.sock\"\nroot = \"{run}/snap\"\ncontainerd = \"{run}/c.sock\"\n");
        fs::write(node.path("snapshotter.toml"), config).unwrap();
        node.start_snapshotter();
        node.start_containerd();
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start_snapshotter(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cella-snapshotter"));
        command.arg("--config").arg(self.path("snapshotter.toml"));
        self.snapshotter = Some(self.spawn(command, "snapshotter.log"));
        let socket = self.path("s/s.sock");
        self.until("the snapshotter listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn start_containerd(&mut self) {
        let mut command = Command::new(self.tools.join("containerd"));
        command.arg("-c").arg(self.path("containerd.toml"));
        self.containerd = Some(self.spawn(command, "containerd.log"));
        self.until("containerd answers", || self.try_ctr(&["version"]).is_ok());
    }

    pub(crate) fn kill_snapshotter(&mut self) {
        kill(self.snapshotter.take());
    }

    pub(crate) fn kill_containerd(&mut self) {
        kill(self.containerd.take());
    }

    /// Runs `ctr`, which must succeed.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        self.try_ctr(arguments)
            .unwrap_or_else(|error| panic!("ctr {arguments:?}: {error}\n{}", self.last_words()))
    }

    pub(crate) fn import(&self, image: &Image, snapshotter: &str) {
        let archive = image.archive.path().to_str().unwrap();
        self.ctr(&["images", "import", "--snapshotter", snapshotter, archive]);
    }

    pub(crate) fn try_import(&self, image: &Image, snapshotter: &str) -> Result<String, String> {
        let archive = image.archive.path().to_str().unwrap();
        self.try_ctr(&["images", "import", "--snapshotter", snapshotter, archive])
    }

    /// The names of cella's snapshots.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let list = self.ctr(&["snapshots", "--snapshotter", "cella", "ls"]);
        let names = list.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        names.map(ToOwned::to_owned).collect()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "other programs' states are asked for, with a deadline"
    )]
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "not in time: {what}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.tools.join("ctr"));
        let output = command
            .arg("-a")
            .arg(self.path("c.sock"))
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn spawn(&self, mut command: Command, log: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.path(log)).unwrap();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.tools.display());
        command.env("PATH", path).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn last_words(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("{}\n{}", read("snapshotter.log"), read("containerd.log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        kill(self.containerd.take());
        kill(self.snapshotter.take());
    }
}

fn kill(child: Option<Child>) {
    if let Some(mut child) = child {
        drop(child.kill());
        drop(child.wait());
    }
}

/// An image of two layers that runs as `user`. Images of different `label`s have the same layers and other manifests.
pub(crate) fn image(name: &str, user: &str, label: &str) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let layer = |file: &str, text: &str| {
        let root = folder.path().join(file.replace('/', "-"));
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), text).unwrap();
        put(&tar(&root, file))
    };
    let layers = [
        layer("etc/passwd", &format!("{user}:x:777:777::/:\n")),
        layer("usr/x", "x"),
    ];
    let diff_ids: Vec<_> = layers.iter().map(|(digest, _)| digest).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"User": user, "Cmd": ["/usr/x"], "Env": ["PATH=/usr"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let descriptor = |kind: &str, (digest, size): &(String, usize)| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let config = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect::<Vec<_>>(),
        "annotations": {"label": label},
    });
    let manifest = put(manifest.to_string().as_bytes());
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    let layout = folder.path().join("layout");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let mut archive = tempfile::NamedTempFile::new().unwrap();
    archive.write_all(&tar(&layout, ".")).unwrap();
    Image {
        digest: manifest.0,
        archive,
    }
}

/// The same bytes for the same files.
fn tar(root: &Path, what: &str) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-C",
    ]);
    let mut child = command
        .arg(root)
        .args(["-cf", "-", what])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    bytes
}
