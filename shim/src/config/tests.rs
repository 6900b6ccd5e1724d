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
    assert_eq!(lack(settle(&text)), ("tee", host::Lack::NoTee));
    assert_eq!(
        lack(settle(&text.replace("\"auto\"", "\"snp\""))),
        ("tee", host::Lack::NoSnp)
    );
    assert_eq!(
        lack(settle(&text.replace("\"auto\"", "\"tdx\""))),
        ("tee", host::Lack::NoTdx)
    );
}

/// The text of a host's configuration without what only the simulation has.
fn hardware(dir: &Path, tee: &str) -> String {
    let text = sim_host(dir).replace("\"sim\"", &format!("{tee:?}"));
    let lines = text
        .lines()
        .filter(|l| !l.starts_with("sim-") && !l.starts_with("vhost-"));
    lines.map(|l| format!("{l}\n")).collect()
}

fn tdx_host() -> HostFacts {
    HostFacts {
        snp_enabled: false,
        tdx_enabled: true,
        ..snp_host()
    }
}

#[test]
fn hardware_refuses_tcg_and_keys_of_the_simulation() {
    let dir = tempfile::tempdir().unwrap();
    for (tee, host) in [("snp", snp_host()), ("tdx", tdx_host())] {
        let text = sim_host(dir.path()).replace("\"sim\"", &format!("{tee:?}"));
        let error = settle_on(&text, &host).unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration key vhost-device-vsock is set, but is used with tee = \"sim\" or \"sim-tdx\" only: remove it"
        );
        let refused = settle_on(&hardware(dir.path(), tee), &host);
        assert!(matches!(
            refused,
            Err(ConfigError::Host {
                key: "accel",
                reason: host::Lack::TcgWithTee
            })
        ));
    }
    let text = hardware(dir.path(), "snp").replace("\"tcg\"", "\"auto\"");
    let config = settle_on(&text, &snp_host()).unwrap();
    assert_eq!(
        (config.tee, config.accel, config.boot_timeout),
        (Tee::Snp(Certificates::default()), Accel::Kvm, Duration::from_secs(60))
    );
}

#[test]
fn auto_is_the_hosts_own_hardware() {
    let dir = tempfile::tempdir().unwrap();
    let text = hardware(dir.path(), "auto").replace("\"tcg\"", "\"auto\"");
    let tee = |text: &str, host: &HostFacts| settle_on(text, host).map(|config| config.tee.name());
    assert_eq!(tee(&text, &snp_host()).unwrap(), "snp");
    assert_eq!(tee(&text, &tdx_host()).unwrap(), "tdx");
    // A key of the other kind of hardware is not passed over.
    let other = format!("{text}tdx-quote-service = \"/s\"\n");
    assert_eq!(tee(&other, &tdx_host()).unwrap(), "tdx");
    assert!(matches!(
        tee(&other, &snp_host()),
        Err(ConfigError::Unused {
            key: "tdx-quote-service",
            ..
        })
    ));
}

#[test]
fn tdx_has_a_quote_service_and_firmware_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let text = hardware(dir.path(), "tdx").replace("\"tcg\"", "\"kvm\"");
    let tee = |extra: &str| settle_on(&format!("{text}{extra}"), &tdx_host()).map(|config| config.tee);
    let default = QuoteService::Unix("/var/run/tdx-qgs/qgs.socket".into());
    assert_eq!(tee("").unwrap(), Tee::Tdx(default));
    let vsock = QuoteService::Vsock { cid: 2, port: 4050 };
    assert_eq!(tee("tdx-quote-service = \"vsock:2:4050\"\n").unwrap(), Tee::Tdx(vsock));
    for bad in [
        "",
        "qgs.socket",
        "vsock:2",
        "vsock:2:x",
        "vsock:-1:2",
        "vsock:+2:2",
        &format!("/{}", "x".repeat(107)),
    ] {
        let error = tee(&format!("tdx-quote-service = {bad:?}\n")).unwrap_err();
        let refused = matches!(
            error,
            ConfigError::Value {
                key: "tdx-quote-service",
                ..
            }
        );
        assert!(refused, "{bad}: {error:?}");
    }
    let own: String = text
        .lines()
        .filter(|l| !l.starts_with("firmware"))
        .map(|l| format!("{l}\n"))
        .collect();
    let error = settle_on(&own, &tdx_host()).unwrap_err();
    let ConfigError::Missing {
        key: "firmware",
        path,
        remedy,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(path, Path::new(file::DEFAULT_FIRMWARE_TDX));
    assert!(remedy.contains("IntelTdx"));
}

#[test]
fn snp_takes_the_certificates_that_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.pem");
    let text = hardware(dir.path(), "snp").replace("\"tcg\"", "\"kvm\"") + &format!("snp-certificates = {path:?}\n");
    let settled = settle_on(&text, &snp_host());
    assert!(matches!(
        settled,
        Err(ConfigError::Missing {
            key: "snp-certificates",
            ..
        })
    ));
    fs::write(&path, "no certificate").unwrap();
    assert!(matches!(
        settle_on(&text, &snp_host()),
        Err(ConfigError::Certificates(_))
    ));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n").unwrap();
    let config = settle_on(&text, &snp_host()).unwrap();
    assert_eq!(config.tee.certificates(), [vec![1, 2, 3]]);
}

#[test]
fn the_simulation_imitates_either() {
    let dir = tempfile::tempdir().unwrap();
    let text = sim_host(dir.path()).replace("\"sim\"", "\"sim-tdx\"");
    let config = settle(&text).unwrap();
    let Tee::Sim(programs) = &config.tee else {
        panic!("{:?}", config.tee)
    };
    assert_eq!((programs.imitated, config.tee.name()), (Imitated::Tdx, "sim-tdx"));
    // The firmware for TDX enforces nothing where there is no TDX.
    assert!(matches!(
        settle(&format!("{text}sim-firmware-boot = true\n")),
        Err(ConfigError::Unused {
            key: "sim-firmware-boot",
            ..
        })
    ));
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
