//! Mounts that are volumes of the pod.

use std::collections::BTreeMap;

use super::*;

fn volume(destination: &str, kind: VolumeKind) -> RequestedMount {
    RequestedMount {
        destination: destination.to_owned(),
        kind: "bind".to_owned(),
        volume: "v".to_owned(),
        volume_kind: Some(kind),
        read_only: false,
    }
}

fn list(entries: &[(&str, &str, &str)]) -> Policy {
    let entries = entries.iter().map(|(destination, kind, more)| {
        format!("[[container.volume]]\ndestination = {destination:?}\nkind = {kind:?}\n{more}\n")
    });
    with("[[model]]", &format!("{}[[model]]", entries.collect::<String>()))
}

fn mounted(policy: &Policy, mount: RequestedMount) -> Vec<AdmittedVolume> {
    admitted(policy, |r| r.mounts.push(mount)).volumes
}

#[test]
fn t1_a_volume_is_mounted_where_the_policy_names_it_and_nowhere_else() {
    let policy = list(&[("/config", "config-map", ""), ("/cache", "empty-dir", "")]);
    let expected = AdmittedVolume {
        destination: "/config".to_owned(),
        volume: "v".to_owned(),
        kind: VolumeKind::ConfigMap,
        read_only: true,
        files: BTreeMap::new(),
    };
    assert_eq!(mounted(&policy, volume("/config", VolumeKind::ConfigMap)), [expected]);
    assert!(!mounted(&policy, volume("/cache", VolumeKind::EmptyDir))[0].read_only);
    let asked = RequestedMount {
        read_only: true,
        ..volume("/cache", VolumeKind::EmptyDir)
    };
    assert!(
        mounted(&policy, asked)[0].read_only,
        "less than allowed may be asked for"
    );
    assert!(admitted(&policy, |_| {}).volumes.is_empty(), "and all may be left out");
    let kind = denied_by(&policy, |r| r.mounts.push(volume("/config", VolumeKind::Secret)));
    assert_eq!(
        kind.to_string(),
        r#"policy denies mount "/config" of volume kind secret: not named in volume of container "server", allowed is "/config of kind config-map", "/cache of kind empty-dir""#
    );
    for destination in ["/config/", "/config/x", "/other", "", "config"] {
        assert!(matches!(
            denied_by(&policy, |r| r.mounts.push(volume(destination, VolumeKind::ConfigMap))),
            Denial::Volume { .. }
        ));
    }
    assert!(matches!(
        denied_by(&policy, |r| r.mounts.extend([
            volume("/config", VolumeKind::ConfigMap),
            volume("/config", VolumeKind::ConfigMap)
        ])),
        Denial::MountTwice { .. }
    ));
}

#[test]
fn t1_a_path_of_the_host_is_refused_by_name_even_where_any_volume_is_allowed() {
    let any = plus("volumes = \"any\"");
    let host = RequestedMount {
        destination: "/data".to_owned(),
        kind: "bind".to_owned(),
        ..RequestedMount::default()
    };
    assert_eq!(
        denied_by(&any, |r| r.mounts.push(host)).to_string(),
        r#"policy denies mount "/data" of type "bind": it is a path of the host, which container "server" can never see; allowed is any volume that the agent can make"#
    );
    let unknown = RequestedMount {
        volume_kind: None,
        ..volume("/data", VolumeKind::Secret)
    };
    assert!(matches!(
        denied_by(&any, |r| r.mounts.push(unknown)),
        Denial::Mount { .. }
    ));
    let tmpfs = RequestedMount {
        destination: "/scratch".to_owned(),
        kind: "tmpfs".to_owned(),
        ..RequestedMount::default()
    };
    assert!(matches!(
        denied_by(&any, |r| r.mounts.push(tmpfs)),
        Denial::Mount { .. }
    ));
}

#[test]
fn t1_no_volume_hides_what_the_agent_or_the_policy_mounts() {
    let any = plus("volumes = \"any\"");
    for kind in VolumeKind::ALL {
        assert_eq!(mounted(&any, volume("/data", kind))[0].kind, kind);
    }
    for destination in [
        "/run",
        "/run/secrets",
        "/var/run/secrets/x",
        "/dev/shm",
        "/etc/hosts",
        "/process",
    ] {
        assert_eq!(
            mounted(&any, volume(destination, VolumeKind::Secret)).len(),
            1,
            "{destination}"
        );
    }
    for destination in [
        "/",
        "/proc",
        "/proc/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/pts",
        "/models",
        "/models/demo",
        "/models/demo/x",
        "/tmp",
        "/tmp/x",
    ] {
        let denial = denied_by(&any, |r| r.mounts.push(volume(destination, VolumeKind::Secret)));
        assert!(matches!(denial, Denial::Covers { .. }), "{destination}: {denial}");
    }
    for destination in ["data", "/data/../models", "/data//x", "/a\n"] {
        assert!(matches!(
            denied_by(&any, |r| r.mounts.push(volume(destination, VolumeKind::Secret))),
            Denial::Form { .. }
        ));
    }
}

#[test]
fn what_engines_bind_is_served_by_the_agent_and_no_offence() {
    let plain = policy();
    for destination in SERVED_MOUNTS {
        let bind = RequestedMount {
            destination: destination.to_owned(),
            kind: "bind".to_owned(),
            ..RequestedMount::default()
        };
        assert!(mounted(&plain, bind).is_empty());
        let offered = mounted(&plain, volume(destination, VolumeKind::Hosts));
        assert!(
            offered.is_empty(),
            "a file of the host's is left where the policy does not name it"
        );
    }
    let hosts = list(&[("/etc/hosts", "hosts", "")]);
    assert_eq!(mounted(&hosts, volume("/etc/hosts", VolumeKind::Hosts)).len(), 1);
    assert!(matches!(
        denied(|r| r.mounts.push(RequestedMount {
            destination: "/etc/passwd".to_owned(),
            kind: "bind".to_owned(),
            ..RequestedMount::default()
        })),
        Denial::HostPath { .. }
    ));
}

#[test]
fn last_words_reach_the_host_where_output_does() {
    let log = || volume("/dev/termination-log", VolumeKind::TerminationLog);
    assert_eq!(mounted(&policy(), log())[0].kind, VolumeKind::TerminationLog);
    let silent = with("stdio = \"allow\"", "stdio = \"deny\"");
    assert!(mounted(&silent, log()).is_empty());
    assert!(matches!(
        denied(|r| r.mounts.push(volume("/tmp/last-words", VolumeKind::TerminationLog))),
        Denial::Volume { .. }
    ));
}

#[test]
fn t1_only_kinds_that_some_container_may_mount_are_made() {
    let policy = list(&[("/config", "config-map", "")]);
    for kind in VolumeKind::ALL {
        let expected = kind == VolumeKind::ConfigMap || kind.is_served();
        assert_eq!(check_volume(&policy, kind).is_ok(), expected, "{kind}");
        assert_eq!(check_volume(&plus("volumes = \"any\""), kind), Ok(()));
    }
    assert_eq!(
        check_volume(&policy, VolumeKind::Secret).unwrap_err().to_string(),
        r#"policy denies volumes of kind secret: not named in volume of any container, allowed is "config-map", "hosts", "hostname", "resolv-conf", "termination-log""#
    );
}

#[test]
fn t1_files_that_the_policy_names_are_these_and_no_others() {
    let digest = |byte: u8| Sha256Digest::from([byte; 32]);
    let of = |files: &[(&str, u8)]| -> BTreeMap<String, Sha256Digest> {
        files
            .iter()
            .map(|(path, byte)| ((*path).to_owned(), digest(*byte)))
            .collect()
    };
    let line = |byte: u8| format!("files = {{ \"app.conf\" = \"{}\" }}", digest(byte));
    let policy = list(&[("/config", "config-map", &line(1))]);
    let admitted = mounted(&policy, volume("/config", VolumeKind::ConfigMap));
    assert_eq!(admitted[0].files, of(&[("app.conf", 1)]));
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    assert_eq!(
        denied_by(&policy, |_| {}).to_string(),
        "policy denies container \"server\": mount /config is missing, it must be a volume of kind config-map with the files of \
         its entry in volume"
    );
    let check = |found: &[(&str, u8)]| check_files("settings", &admitted[0].files, &of(found));
    assert_eq!(check(&[("app.conf", 1)]), Ok(()));
    assert_eq!(
        check(&[("app.conf", 2)]).unwrap_err().to_string(),
        format!(
            "policy denies volume \"settings\": its file \"app.conf\" is {}, allowed by files is {}",
            digest(2),
            digest(1)
        )
    );
    assert!(check(&[]).unwrap_err().to_string().contains("is not there"));
    let more = check(&[("app.conf", 1), ("more", 3)]).unwrap_err().to_string();
    assert!(more.contains("\"more\"") && more.ends_with("is not there"), "{more}");
    assert_eq!(
        check_files("v", &BTreeMap::new(), &of(&[("x", 1)])),
        Ok(()),
        "none are named: any"
    );
}
