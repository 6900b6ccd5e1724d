//! Launch digests against answers of the independent tool `virtee/sev-snp-measure`.

use std::{env, fs};

use tempfile::TempDir;

use super::*;

/// The pinned firmware: `CELLA_OVMF`, or where `make setup` puts it. Without it these tests fail.
fn firmware() -> PathBuf {
    let path = env::var_os("CELLA_OVMF").map_or_else(
        || {
            let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
            let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/cella"));
            cache.join("tools/ovmf/usr/share/ovmf/OVMF.amdsev.fd")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "the firmware {} is missing: run make setup",
        path.display()
    );
    path
}

/// The files of the known answers.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kernel"), "kernel").unwrap();
        fs::write(dir.path().join("initrd"), "initrd").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn digest(&self, cmdline: &str, vcpus: u32, cpu: &str) -> Result<String, MeasureError> {
        let inputs = LaunchInputs {
            firmware: &firmware(),
            kernel: &self.path("kernel"),
            initrd: &self.path("initrd"),
            cmdline,
            vcpus,
            cpu,
        };
        snp_launch_digest(&inputs).map(hex::encode)
    }
}

#[test]
fn known_answers_with_a_kernel() {
    let files = Files::new();
    for (vcpus, cpu, expected) in [
        (
            1,
            "EPYC-v4",
            "b9deafd7b43cce92050857b9f3d56e121680fce8815f39b2b066738803633a8f254aab8e98a7b946772a55067a117b0f",
        ),
        (
            2,
            "EPYC-v4",
            "5ed99d10fc77ea6f1f03712445c7bf10a59227971eb5c4e5b1277964e52b0373506de7ce9f4db2657605d52b9bc975ad",
        ),
        (
            4,
            "EPYC-v4",
            "819a0b09a7be0f4fca87f2f07da8a6c02229566060a06a112dae6d3769b327f437fe7842ec495aaf64b56d51635eb421",
        ),
        (
            2,
            "EPYC-Milan-v2",
            "c4c96f1d81b340fd75bb99b14e2466147e65f89bd584f8f54908480ddf77a8427954be55733659b7cc9bebd546c66193",
        ),
    ] {
        assert_eq!(
            files.digest("console=ttyS0 ro", vcpus, cpu).unwrap(),
            expected,
            "{cpu} x{vcpus}"
        );
    }
}

#[test]
fn known_answers_without_initrd_or_kernel() {
    let files = Files::new();
    let kernel = Kernel {
        kernel: &files.path("kernel"),
        initrd: None,
        cmdline: "console=ttyS0 ro",
    };
    assert_eq!(
        hex::encode(launch_digest(&firmware(), Some(kernel), 2, "EPYC-v4").unwrap()),
        "aee4c5b5ad0ebf403ef86cf98e09de849404317f9b9a5e0df96104aacb28a31851c2675e0c67380a181d12ef5a25344e"
    );
    for (cpu, expected) in [
        (
            "EPYC-v4",
            "a3c946257b3cef8f1e25dd03cb84f9f01313ae9135c32acc7e01f4204aa447aaa196530d5999be0f114462d2546cd02d",
        ),
        (
            "EPYC-Milan-v2",
            "54a8c0dd731ffacb4980b3bf926adcbfef705146fdf443ca2a03c3104610a8add28b31c86df235618a610a94797f056d",
        ),
    ] {
        assert_eq!(
            hex::encode(launch_digest(&firmware(), None, 2, cpu).unwrap()),
            expected,
            "{cpu}"
        );
    }
}

#[test]
fn t13_every_input_changes_the_digest() {
    let files = Files::new();
    let first = files.digest("console=ttyS0 ro", 2, "EPYC-v4").unwrap();
    assert_ne!(
        files.digest("console=ttyS0  ro", 2, "EPYC-v4").unwrap(),
        first,
        "one blank more inside"
    );
    assert_ne!(files.digest("", 2, "EPYC-v4").unwrap(), first);
    fs::write(files.path("initrd"), "initre").unwrap();
    assert_ne!(files.digest("console=ttyS0 ro", 2, "EPYC-v4").unwrap(), first);
}

#[test]
fn command_lines_that_qemu_measures_otherwise_are_refused() {
    let files = Files::new();
    for cmdline in [" ro", "ro ", "ro\n", "\tro", "a\0b"] {
        let result = files.digest(cmdline, 1, "EPYC-v4");
        assert!(
            matches!(result, Err(MeasureError::CommandLine { .. })),
            "{cmdline:?}: {result:?}"
        );
    }
}

#[test]
fn inputs_that_cannot_be_are_refused() {
    let files = Files::new();
    assert!(matches!(
        files.digest("", 0, "EPYC-v4"),
        Err(MeasureError::Vcpus { found: 0 })
    ));
    assert!(matches!(
        files.digest("", 256, "EPYC-v4"),
        Err(MeasureError::Vcpus { found: 256 })
    ));
    for cpu in ["max", "epyc-v4", "", "host"] {
        assert!(
            matches!(files.digest("", 1, cpu), Err(MeasureError::Cpu { .. })),
            "{cpu}"
        );
    }
    fs::remove_file(files.path("initrd")).unwrap();
    assert!(matches!(
        files.digest("", 1, "EPYC-v4"),
        Err(MeasureError::Read { what: "initrd", .. })
    ));
    fs::create_dir(files.path("initrd")).unwrap();
    assert!(matches!(
        files.digest("", 1, "EPYC-v4"),
        Err(MeasureError::Read { what: "initrd", .. })
    ));
}

#[test]
fn unknown_firmware_is_named_by_its_digest() {
    let files = Files::new();
    let mut image = fs::read(firmware()).unwrap();
    image[1_000_000] ^= 1;
    let changed = files.path("firmware");
    fs::write(&changed, &image).unwrap();
    let error = launch_digest(&changed, None, 1, "EPYC-v4").unwrap_err();
    let sha256 = hex::encode(crate::digest::sha256(&image));
    assert!(matches!(&error, MeasureError::UnknownFirmware { .. }), "{error:?}");
    assert!(error.to_string().contains(&sha256), "{error}");
    assert!(error.to_string().contains(changed.to_str().unwrap()), "{error}");
    let absent = launch_digest(&files.path("absent"), None, 1, "EPYC-v4").unwrap_err();
    assert!(
        matches!(absent, MeasureError::Read { what: "firmware", .. }),
        "{absent:?}"
    );
}

#[test]
fn the_table_of_hashes_as_qemu_writes_it() {
    let files = Files::new();
    let (kernel, initrd) = (files.path("kernel"), files.path("initrd"));
    let table = HashTable::of(&firmware(), &kernel, &initrd, "console=ttyS0 ro").unwrap();
    assert_eq!(table.gpa, 0x81_0c00);
    let entry = |at: usize| hex::encode(&table.bytes[at..at + 32]);
    assert_eq!(table.bytes[16..18], 168u16.to_le_bytes());
    // The command line's hash is `attestation-snp.md`'s known answer; the others are SHA-256 of the two six-byte files.
    assert_eq!(
        entry(36),
        "3722c888d9e8c6feb2037dc9b615afdb267755daa4a3bed6c9039fa17caa0bfc"
    );
    assert_eq!(entry(86), hex::encode(crate::digest::sha256(b"initrd")));
    assert_eq!(entry(136), hex::encode(crate::digest::sha256(b"kernel")));
    assert_eq!(table.bytes[168..], [0; 8]);
}

#[test]
fn a_firmware_that_does_not_enforce_gets_no_table() {
    let files = Files::new();
    let (kernel, initrd) = (files.path("kernel"), files.path("initrd"));
    let table = HashTable::of(&kernel, &kernel, &initrd, "ro");
    assert!(matches!(table, Err(MeasureError::UnknownFirmware { .. })), "{table:?}");
}
