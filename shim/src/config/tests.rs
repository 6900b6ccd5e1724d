use std::fs;

use super::*;

/// A directory with everything that a `sim` configuration names, and the configuration's text.
pub(crate) fn sim_host(dir: &Path) -> String {
    for name in [
        "qemu",
        "ovmf.fd",
        "vhost-device-vsock",
        "sim-platform",
        "guest/vmlinuz",
        "guest/initrd",
    ] {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    fs::write(dir.join("guest/cmdline"), "console=ttyS0 quiet\n").unwrap();
    fs::create_dir_all(dir.join("state")).unwrap();
    let d = dir.display();
    format!(
        "tee = \"sim\"\naccel = \"tcg\"\nqemu = \"{d}/qemu\"\nguest-image = \"{d}/guest\"\nfirmware = \"{d}/ovmf.fd\"\n\
         vhost-device-vsock = \"{d}/vhost-device-vsock\"\nsim-platform = \"{d}/sim-platform\"\nsim-state = \"{d}/state\"\n"
    )
}

fn settle(text: &str) -> Result<Config, ConfigError> {
    settle_on(text, &HostFacts::default())
}

fn settle_on(text: &str, host: &HostFacts) -> Result<Config, ConfigError> {
    Config::settle(&ConfigFile::parse(text, "test.toml")?, host)
}

fn snp_host() -> HostFacts {
    HostFacts {
        virtualization_flag: true,
        kvm_opens: true,
        vhost_vsock: true,
        snp_enabled: true,
        tdx_enabled: false,
        memory_mib: 65536,
    }
}

#[test]
fn defaults_and_scaled_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let config = settle(&sim_host(dir.path())).unwrap();
    assert_eq!(
        (config.vcpus, config.memory_mib, config.console_log_bytes),
        (1, 1024, 256 * 1024)
    );
    assert_eq!(config.to_string(), "tee sim, tcg, 1 vCPUs, 1024 to 16777216 MiB");
    assert_eq!(config.boot_timeout, Duration::from_secs(180));
    assert_eq!(config.guest_timeout, Duration::from_secs(120));
    assert_eq!(config.guest.cmdline, "console=ttyS0 quiet");
    assert_eq!(config.run_dir, Path::new("/run/cella"));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = ConfigFile::parse("tee = \"sim\"\nkernel-params = \"x\"\n", "/etc/cella/config.toml").unwrap_err();
    let ConfigError::Parse { line: 2, message, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(message.contains("kernel-params"), "{message}");
    assert!(
        error
            .to_string()
            .starts_with("configuration /etc/cella/config.toml, line 2: unknown field"),
        "{error}"
    );
}

#[test]
fn tee_is_mandatory_and_typed() {
    assert!(matches!(ConfigFile::parse("", "x"), Err(ConfigError::Parse { .. })));
    assert!(matches!(
        ConfigFile::parse("tee = \"sev\"", "x"),
        Err(ConfigError::Parse { line: 1, .. })
    ));
}

#[test]
fn every_absent_file_is_named_with_key_and_remedy() {
    for (name, key) in [
        ("qemu", "qemu"),
        ("ovmf.fd", "firmware"),
        ("vhost-device-vsock", "vhost-device-vsock"),
        ("sim-platform", "sim-platform"),
        ("guest/vmlinuz", "guest-image"),
        ("guest/initrd", "guest-image"),
        ("guest/cmdline", "guest-image"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = sim_host(dir.path());
        fs::remove_file(dir.path().join(name)).unwrap();
        let error = settle(&text).unwrap_err();
        let ConfigError::Missing {
            key: named,
            path,
            problem: "does not exist",
            remedy,
        } = &error
        else {
            panic!("{name}: {error:?}")
        };
        assert_eq!((*named, path), (key, &dir.path().join(name)));
        assert!(!remedy.is_empty());
    }
}

#[test]
fn auto_never_means_simulation() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path()).replace("\"sim\"", "\"auto\"");
    let lack = |result: Result<Config, ConfigError>| match result {
        Err(ConfigError::Host { key, reason }) => (key, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(lack(settle(&text)), ("tee", host::Lack::NoSnp));
    assert_eq!(
        lack(settle(&text.replace("\"auto\"", "\"tdx\""))),
        ("tee", host::Lack::TdxUnsupported)
    );
}

#[test]
fn snp_refuses_tcg_and_keys_of_the_simulation() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path()).replace("\"sim\"", "\"snp\"");
    assert!(matches!(
        settle_on(&text, &snp_host()),
        Err(ConfigError::Unused {
            key: "vhost-device-vsock"
        })
    ));
    let text: String = text
        .lines()
        .filter(|l| !l.starts_with("sim-") && !l.starts_with("vhost-"))
        .map(|l| format!("{l}\n"))
        .collect();
    let refused = settle_on(&text, &snp_host());
    assert!(matches!(
        refused,
        Err(ConfigError::Host {
            key: "accel",
            reason: host::Lack::TcgWithSnp
        })
    ));
    let config = settle_on(&text.replace("\"tcg\"", "\"auto\""), &snp_host()).unwrap();
    assert_eq!(
        (config.tee, config.accel, config.boot_timeout),
        (Tee::Snp, Accel::Kvm, Duration::from_secs(60))
    );
}

#[test]
fn the_firmware_boots_a_simulated_guest_under_tcg_only() {
    let dir = tempfile::tempdir().unwrap();
    let boot = sim_host(dir.path()) + "sim-firmware-boot = true\n";
    let can_kvm = HostFacts {
        snp_enabled: false,
        ..snp_host()
    };
    for accel in ["tcg", "auto"] {
        let config = settle_on(&boot.replace("\"tcg\"", &format!("\"{accel}\"")), &can_kvm).unwrap();
        assert_eq!(config.accel, Accel::Tcg);
        assert!(matches!(
            config.tee,
            Tee::Sim(SimPrograms {
                firmware_boot: true,
                ..
            })
        ));
    }
    assert!(matches!(
        settle_on(&boot.replace("\"tcg\"", "\"kvm\""), &can_kvm),
        Err(ConfigError::Host {
            key: "accel",
            reason: host::Lack::FirmwareBootWithKvm
        })
    ));
}

#[test]
fn numbers_have_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path());
    for (key, value) in [
        ("vcpus", "0"),
        ("vcpus", "65"),
        ("memory-mib", "127"),
        ("memory-overhead-mib", "65537"),
        ("max-memory-mib", "1023"),
        ("max-vcpus", "0"),
        ("console-log-kib", "7"),
        ("boot-timeout-s", "0"),
        ("guest-timeout-s", "0"),
    ] {
        let error = settle(&format!("{text}{key} = {value}\n")).unwrap_err();
        assert!(
            matches!(error, ConfigError::Range { key: named, .. } if named == key),
            "{error:?}"
        );
    }
}

#[test]
fn a_vm_is_bounded_by_its_host_and_its_cpus_are_fixed_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path());
    let sizing = |text: &str, memory_mib| {
        let host = HostFacts {
            memory_mib,
            ..HostFacts::default()
        };
        settle_on(text, &host).unwrap().sizing
    };
    let expected = Sizing {
        memory_overhead_mib: 256,
        max_memory_mib: 4096,
        max_vcpus: None,
    };
    assert_eq!(sizing(&text, 4096), expected);
    assert_eq!(sizing(&text, 512).max_memory_mib, 1024, "memory-mib itself is allowed");
    assert_eq!(sizing(&text, 0).max_memory_mib, 16 * 1024 * 1024);
    let text = format!("{text}max-memory-mib = 8192\nsize-vcpus-from-pod = true\nmax-vcpus = 4\n");
    let named = Sizing {
        max_memory_mib: 8192,
        max_vcpus: Some(4),
        ..expected
    };
    assert_eq!(sizing(&text, 4096), named);
}

#[test]
fn the_command_line_is_one_clean_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path());
    for bad in [
        "",
        "\n",
        " quiet\n",
        "quiet \n",
        "quiet\n\n",
        "qui\tet",
        "caf\u{e9}",
        &"x".repeat(2048),
    ] {
        fs::write(dir.path().join("guest/cmdline"), bad).unwrap();
        let error = settle(&text).unwrap_err();
        assert!(
            matches!(error, ConfigError::Value { key: "guest-image", .. }),
            "{bad:?}: {error:?}"
        );
    }
}

#[test]
fn run_dir_and_cpu_model_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path());
    for bad in ["run", "/run/a,b", &format!("/{}", "x".repeat(64))] {
        let error = settle(&format!("{text}run-dir = \"{bad}\"\n")).unwrap_err();
        assert!(matches!(error, ConfigError::Value { key: "run-dir", .. }), "{error:?}");
    }
    let error = settle(&format!("{text}cpu-model = \"max -smp 4\"\n")).unwrap_err();
    assert!(
        matches!(error, ConfigError::Value { key: "cpu-model", .. }),
        "{error:?}"
    );
}

#[test]
fn a_missing_configuration_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let error = Config::load(&ConfigSource::File(path.clone())).unwrap_err();
    assert!(
        matches!(&error, ConfigError::Read { path: named, .. } if *named == path),
        "{error:?}"
    );
    fs::write(&path, "#".repeat(65 * 1024)).unwrap();
    assert!(matches!(
        Config::load(&ConfigSource::File(path)),
        Err(ConfigError::TooLong { .. })
    ));
}
