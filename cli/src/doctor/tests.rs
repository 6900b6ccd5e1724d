use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::host::Answer;
use super::*;

/// A node on which everything is as it should be.
struct Node {
    root: tempfile::TempDir,
    containerd: String,
    qemu: &'static str,
}

const CONTAINERD: &str = r#"version = 3
restrict = 1
[proxy_plugins.cella]
  type = "snapshot"
  address = "/run/s.sock"
[plugins.'io.containerd.cri.v1.images']
  disable_snapshot_annotations = false
  [plugins.'io.containerd.cri.v1.images'.runtime_platforms.cella]
    snapshotter = "cella"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.cella]
  runtime_type = "io.containerd.cella.v2"
  snapshotter = "cella"
  pod_annotations = ["io.cella.*", "io.katacontainers.config.hypervisor.cc_init_data"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#;

impl Node {
    fn new() -> Self {
        let node = Self {
            root: tempfile::tempdir().unwrap(),
            containerd: CONTAINERD.to_owned(),
            qemu: "QEMU emulator version 9.2.1 (Debian)\n",
        };
        for (path, text) in [
            (
                "etc/cella/config.toml",
                "tee = \"snp\"\nmemory-mib = 512\nrun-dir = \"/run/cella\"\n",
            ),
            ("etc/cella/snapshotter.toml", "address = \"/run/s.sock\"\n"),
            ("proc/cpuinfo", "flags\t\t: fpu svm sse\n"),
            ("proc/self/status", "CapBnd:\t000001ffffffffff\n"),
            ("proc/mounts", "t /run tmpfs rw 0 0\n"),
            ("proc/meminfo", "MemAvailable:   1048576 kB\n"),
            ("sys/module/kvm_amd/parameters/sev_snp", "Y\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
            ("dev/kvm", ""),
            ("dev/sev", ""),
            ("dev/vhost-vsock", ""),
            ("dev/vhost-net", ""),
            ("dev/net/tun", ""),
            ("usr/share/ovmf/OVMF.amdsev.fd", "x"),
            ("usr/share/cella/guest/vmlinuz", "k"),
            ("usr/share/cella/guest/initrd", "i"),
            ("usr/share/cella/guest/cmdline", "quiet\n"),
        ] {
            node.write(path, text);
        }
        let sums: String = [("k", "vmlinuz"), ("i", "initrd"), ("quiet\n", "cmdline")]
            .iter()
            .map(|(text, name)| {
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                format!("{}  ./{name}\n", hex::encode(digest))
            })
            .collect();
        node.write("usr/share/cella/guest/SHA256SUMS", &sums);
        fs::create_dir_all(node.root.path().join("run")).unwrap();
        fs::create_dir_all(node.root.path().join("var/lib")).unwrap();
        node
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root.path().join(path)).unwrap();
    }

    /// A snapshotter that greets once.
    fn snapshotter(&self) {
        use std::io::{Read as _, Write as _};
        let listener = UnixListener::bind(self.root.path().join("run/s.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 33];
            stream.read_exact(&mut greeting).unwrap();
            stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
        });
    }

    fn findings(&self) -> Vec<(&'static str, Finding)> {
        let (containerd, qemu) = (self.containerd.clone(), self.qemu);
        let host = Host::fake(self.root.path(), move |program, arguments| {
            let text = match (program.to_str().unwrap(), arguments) {
                ("containerd-shim-cella-v2", ["-v"]) => {
                    concat!("containerd-shim-cella-v2 ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
                }
                ("containerd-shim-cella-v2", ["check-config", _]) => "tee snp, kvm\n".into(),
                ("/usr/bin/qemu-system-x86_64", ["--version"]) => qemu.into(),
                ("/usr/bin/qemu-system-x86_64", _) => "List of user creatable objects:\n  sev-snp-guest\n".into(),
                ("containerd", ["--version"]) => "containerd github.com/containerd/containerd/v2 2.1.9 abc\n".into(),
                ("containerd", _) => containerd.clone(),
                ("unshare", _) => String::new(),
                other => panic!("{other:?}"),
            };
            Ok(Answer { succeeded: true, text })
        });
        let facts = Facts::gather(
            &host,
            Path::new("/etc/cella/config.toml"),
            Path::new("/etc/containerd/config.toml"),
        );
        let checks = checks(None);
        let found = checks.iter().map(|check| (check.name(), check.run(&host, &facts)));
        found.collect()
    }

    fn finding(&self, name: &str) -> Finding {
        let found = self.findings().into_iter().find(|(of, _)| *of == name);
        found.unwrap().1
    }

    fn level(&self, name: &str) -> Level {
        self.finding(name).level
    }
}

#[test]
fn a_good_node_has_nothing_to_complain_of() {
    let node = Node::new();
    node.snapshotter();
    for (name, finding) in node.findings() {
        // The free space is that of the machine that runs the test.
        if name != "disk space" {
            assert_eq!(finding.level, Level::Ok, "{name}: {finding:?}");
        }
    }
}

#[test]
fn each_thing_that_is_missing_fails_its_own_check_with_a_remedy() {
    for (path, check, level) in [
        ("etc/cella/config.toml", "configuration", Level::Failed),
        ("proc/cpuinfo", "KVM", Level::Failed),
        ("dev/kvm", "KVM", Level::Failed),
        ("dev/sev", "TEE", Level::Failed),
        ("sys/module/kvm_amd/parameters/sev_snp", "TEE", Level::Failed),
        ("usr/share/ovmf/OVMF.amdsev.fd", "firmware", Level::Failed),
        ("usr/share/cella/guest/initrd", "guest image", Level::Failed),
        ("usr/share/cella/guest/SHA256SUMS", "guest digest", Level::Warning),
        ("dev/vhost-vsock", "vsock", Level::Failed),
        ("dev/net/tun", "tun", Level::Failed),
        ("dev/vhost-net", "vhost-net", Level::Warning),
        ("sys/fs/cgroup/cgroup.controllers", "cgroups", Level::Failed),
    ] {
        let node = Node::new();
        node.remove(path);
        let finding = node.finding(check);
        assert_eq!(finding.level, level, "{path}: {finding:?}");
        assert!(!finding.remedy.is_empty(), "{path}: {finding:?}");
    }
    // Nobody listens.
    assert_eq!(Node::new().level("snapshotter"), Level::Failed);
}

#[test]
fn an_image_that_was_not_published_is_named() {
    let node = Node::new();
    node.write("usr/share/cella/guest/initrd", "another");
    let finding = node.finding("guest digest");
    assert_eq!(finding.level, Level::Failed);
    assert!(finding.what.starts_with("initrd is not what "), "{}", finding.what);
}

#[test]
fn versions_are_compared_as_numbers() {
    let mut node = Node::new();
    for (text, level) in [
        ("QEMU emulator version 9.1.0\n", Level::Ok),
        ("QEMU emulator version 10.0.2 (v10.0.2)\n", Level::Ok),
        ("QEMU emulator version 9.0.4\n", Level::Failed),
        ("QEMU emulator version 7.2.22\n", Level::Failed),
        ("bash: no\n", Level::Failed),
    ] {
        node.qemu = text;
        assert_eq!(node.level("QEMU"), level, "{text}");
    }
}

/// A node with TDX in place of SEV-SNP.
fn tdx_node() -> Node {
    let mut node = Node::new();
    node.remove("sys/module/kvm_amd/parameters/sev_snp");
    node.remove("dev/sev");
    node.write("sys/module/kvm_intel/parameters/tdx", "Y\n");
    node.write(
        "etc/cella/config.toml",
        "tee = \"tdx\"\ntdx-quote-service = \"/run/q.sock\"\n",
    );
    node.write("usr/share/ovmf/OVMF.inteltdx.ms.fd", "x");
    node.qemu = "QEMU emulator version 10.1.0\n";
    node
}

#[test]
fn a_tdx_node_needs_tdxs_parts() {
    let mut node = tdx_node();
    let finding = node.finding("TEE");
    assert_eq!(finding.level, Level::Failed, "{finding:?}");
    assert!(finding.what.contains("/run/q.sock is no socket"), "{finding:?}");
    let _service = UnixListener::bind(node.root.path().join("run/q.sock")).unwrap();
    for check in ["TEE", "firmware", "QEMU"] {
        assert_eq!(node.level(check), Level::Ok, "{check}: {:?}", node.finding(check));
    }
    // The tests' QEMU has the object of the other TEE only.
    assert_eq!(node.level("QEMU TEE objects"), Level::Failed);
    // 9.2 is new enough for SEV-SNP.
    node.qemu = "QEMU emulator version 9.2.1\n";
    assert_eq!(node.level("QEMU"), Level::Failed);
    node.remove("usr/share/ovmf/OVMF.inteltdx.ms.fd");
    assert_eq!(node.level("firmware"), Level::Failed);
    node.remove("sys/module/kvm_intel/parameters/tdx");
    assert_eq!(node.level("TEE"), Level::Failed);
}

#[test]
fn auto_is_what_the_host_has() {
    let node = tdx_node();
    node.write(
        "etc/cella/config.toml",
        "tee = \"auto\"\ntdx-quote-service = \"vsock:2:4050\"\n",
    );
    assert_eq!(node.level("TEE"), Level::Ok);
    assert_eq!(node.level("firmware"), Level::Ok);
    node.remove("sys/module/kvm_intel/parameters/tdx");
    let finding = node.finding("TEE");
    assert!(finding.what.starts_with("neither "), "{finding:?}");
}

#[test]
fn both_simulations_are_warned_of() {
    for tee in ["sim", "sim-tdx"] {
        let node = Node::new();
        let config = format!("tee = {tee:?}\nvhost-device-vsock = \"containerd\"\n");
        node.write("etc/cella/config.toml", &config);
        let finding = node.finding("TEE");
        assert_eq!(finding.level, Level::Warning, "{finding:?}");
        assert!(
            finding.what.contains(tee) && finding.what.contains("NOT protected"),
            "{finding:?}"
        );
    }
}

#[test]
fn containerds_configuration_is_checked_in_each_place() {
    for (line, check) in [
        ("runtime_type = \"io.containerd.cella.v2\"", "runtime handler"),
        ("    snapshotter = \"cella\"\n", "runtime handler"),
        ("io.katacontainers.config.hypervisor.cc_init_data", "runtime handler"),
        ("[proxy_plugins.cella]", "proxy plugin"),
        ("/run/s.sock", "proxy plugin"),
        ("disable_snapshot_annotations = false", "image labels"),
    ] {
        let mut node = Node::new();
        node.containerd = CONTAINERD.replace(line, if line.starts_with('[') { "[other]" } else { "" });
        if line.starts_with('/') {
            node.containerd = CONTAINERD.replace(line, "/run/other.sock");
        }
        if line.starts_with("io.") {
            node.containerd = CONTAINERD.replace(line, "io.other");
        }
        assert_eq!(node.level(check), Level::Failed, "{line}");
    }
    let mut node = Node::new();
    node.containerd = "level=warning msg=\"x\"\nno toml at all".into();
    assert_eq!(node.level("runtime handler"), Level::Failed);
}

#[test]
fn a_host_without_sys_resource_needs_the_switch() {
    let mut node = Node::new();
    node.write("proc/self/status", "CapBnd:\t00000000feffffff\n");
    assert_eq!(node.level("OOM score"), Level::Failed);
    node.containerd = CONTAINERD.replace(
        "[proxy_plugins.cella]",
        "[plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n[proxy_plugins.cella]",
    );
    assert_eq!(node.level("OOM score"), Level::Ok);
}

#[test]
fn the_simulation_is_a_warning_and_long_paths_and_little_memory_are_seen() {
    let node = Node::new();
    let long = "x".repeat(64);
    node.write(
        "etc/cella/config.toml",
        &format!("tee = \"sim\"\nmemory-mib = 2048\nrun-dir = \"/{long}\"\nvhost-device-vsock = \"containerd\"\n"),
    );
    for (check, level) in [
        ("TEE", Level::Warning),
        ("run directory", Level::Failed),
        ("memory", Level::Warning),
        ("vsock", Level::Ok),
    ] {
        assert_eq!(node.level(check), level, "{check}");
    }
}

#[test]
fn text_and_json_say_the_same() {
    let findings = [
        ("KVM", Finding::ok("svm\u{1b}")),
        ("TEE", Finding::failed("off", "turn it on")),
    ];
    assert_eq!(
        to_text(&findings),
        "ok       KVM  svm\\x1b\nfailed   TEE  off\n              → turn it on\n"
    );
    let value: serde_json::Value = serde_json::from_str(&to_json(&findings)).unwrap();
    assert_eq!(
        (&value[1]["level"], &value[1]["remedy"]),
        (&"failed".into(), &"turn it on".into())
    );
}
