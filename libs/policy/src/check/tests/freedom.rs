//! What a policy may leave to the host, one key after the other: admitted with it, and still bounded.

use super::*;

#[test]
fn any_args_are_the_hosts() {
    let policy = with(
        "args = [\"/usr/bin/llama-server\", \"-m\", \"/models/demo/model.gguf\"]",
        "args = \"any\"",
    );
    let shell = admitted(&policy, |r| r.process.args = strings(&["/bin/sh", "-c", "id"]));
    assert_eq!(shell.process.args, ["/bin/sh", "-c", "id"]);
    for bad in [&[][..], &[""], &["/bin/sh", "\0"]] {
        assert!(
            matches!(
                denied_by(&policy, |r| r.process.args = strings(bad)),
                Denial::Form { .. }
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn allowed_variables_have_the_hosts_values_and_exact_ones_the_policys() {
    let policy = plus("env-allow = [\"HOSTNAME\", \"KUBERNETES_*\"]");
    let process = admitted(&policy, |r| {
        r.process.env.extend(strings(&["KUBERNETES_PORT=1", "HOSTNAME="]))
    })
    .process;
    assert_eq!(
        process.env,
        ["PATH=/usr/bin", "HOME=/tmp", "KUBERNETES_PORT=1", "HOSTNAME="]
    );
    let other = denied_by(&policy, |r| r.process.env.push("LD_PRELOAD=/x".to_owned()));
    assert_eq!(
        other.to_string(),
        r#"policy denies container "server": variable "LD_PRELOAD" is not named in env or env-allow, allowed is "HOME", "PATH", "HOSTNAME", "KUBERNETES_*""#
    );
    let formed = plus("env-allow = [\"POD_IP=<ip>\"]");
    let process = admitted(&formed, |r| r.process.env.push("POD_IP=10.0.0.1".to_owned())).process;
    assert!(process.env.contains(&"POD_IP=10.0.0.1".to_owned()));
    assert_eq!(
        denied_by(&formed, |r| r.process.env.push("POD_IP=$(x)".to_owned())).to_string(),
        r#"policy denies container "server": variable "POD_IP" is "$(x)", allowed by env-allow is what has the form <ip>"#
    );
    let all = plus("env-allow = [\"*\"]");
    assert!(
        admitted(&all, |r| r.process.env.push("LD_PRELOAD=/x".to_owned()))
            .process
            .env
            .contains(&"LD_PRELOAD=/x".to_owned())
    );
    assert!(matches!(
        denied_by(&all, |r| r.process.env[0] = "HOME=/root".to_owned()),
        Denial::Variable { .. }
    ));
    assert!(matches!(
        denied_by(&all, |r| r.process.env.truncate(1)),
        Denial::MissingVariable { .. }
    ));
    for bad in ["A", "=x", "A=\0", ""] {
        assert!(
            matches!(
                denied_by(&all, |r| r.process.env.push(bad.to_owned())),
                Denial::Form { .. }
            ),
            "{bad:?}"
        );
    }
    assert!(matches!(
        denied_by(&all, |r| r.process.env.extend(strings(&["A=1", "A=2"]))),
        Denial::RepeatedVariable { .. }
    ));
}

#[test]
fn a_terminal_brings_its_type() {
    let policy = with("terminal = false", "terminal = true");
    let terminal = admitted(&policy, |r| {
        r.process.terminal = true;
        r.process.env.push("TERM=xterm".to_owned());
    });
    assert!(terminal.process.terminal && terminal.process.env.contains(&"TERM=xterm".to_owned()));
    assert!(admitted(&policy, |r| r.process.terminal = true).process.terminal);
    assert!(!admitted(&policy, |_| {}).process.terminal);
    assert!(matches!(
        denied_by(&policy, |r| r.process.env.push("TERM=xterm".to_owned())),
        Denial::ExtraVariable { .. }
    ));
    assert!(matches!(
        denied_by(&policy, |r| {
            r.process.terminal = true;
            r.process.env.push("TERM=/tmp/x".to_owned());
        }),
        Denial::ExtraVariable { .. }
    ));
}

#[test]
fn any_directory_is_absolute_and_stays_inside() {
    let policy = with("cwd = \"/\"", "cwd = \"any\"");
    assert_eq!(
        admitted(&policy, |r| r.process.cwd = "/srv/".to_owned()).process.cwd,
        "/srv/"
    );
    assert_eq!(admitted(&policy, |r| r.process.cwd.clear()).process.cwd, "/");
    for bad in ["work", "/a/../b", "/a\nb", &format!("/{}", "a".repeat(5000))] {
        assert!(
            matches!(
                denied_by(&policy, |r| r.process.cwd = bad.to_owned()),
                Denial::WorkingDirectory { .. }
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn users_are_the_images_or_the_hosts() {
    let ids = "user = { uid = 65534, gid = 65534, additional-gids = [] }";
    let image = with(ids, "user = \"image\"");
    let asked = admitted(&image, |r| {
        r.process.uid = 0;
        r.process.user_name = "root".to_owned();
    });
    assert_eq!(
        asked.process.user,
        AdmittedUser::Image,
        "what the host asks for has no effect"
    );
    let any = with(ids, "user = \"any\"");
    let asked = admitted(&any, |r| {
        r.process.uid = 0;
        r.process.gid = 7;
        r.process.additional_gids = vec![1, 2];
    });
    let host = |name: &str| AdmittedUser::Host {
        uid: 0,
        gid: 7,
        additional_gids: vec![1, 2],
        name: name.to_owned(),
    };
    assert_eq!(asked.process.user, host(""));
    let named = admitted(&any, |r| {
        r.process.uid = 0;
        r.process.gid = 7;
        r.process.additional_gids = vec![1, 2];
        r.process.user_name = "nobody".to_owned();
    });
    assert_eq!(named.process.user, host("nobody"));
    for change in [
        |r: &mut ContainerRequest| r.process.uid = u32::MAX,
        |r: &mut ContainerRequest| r.process.gid = u32::MAX,
        |r: &mut ContainerRequest| r.process.additional_gids = vec![u32::MAX],
        |r: &mut ContainerRequest| r.process.user_name = "../x".to_owned(),
        |r: &mut ContainerRequest| r.process.user_name = "a\nroot".to_owned(),
        |r: &mut ContainerRequest| r.process.user_name = "a".repeat(300),
    ] {
        assert!(matches!(denied_by(&any, change), Denial::Form { .. }));
    }
}

#[test]
fn any_capabilities_are_those_that_are_asked_for() {
    let policy = with("capabilities = []", "capabilities = \"any\"");
    let process = admitted(&policy, |r| {
        r.process.capabilities = strings(&["CAP_SYS_ADMIN", "CAP_KILL"])
    })
    .process;
    let expected = ["KILL", "SYS_ADMIN"].map(|name| name.parse::<Capability>().unwrap());
    assert_eq!(process.capabilities, expected.into());
    assert!(
        admitted(&policy, |r| r.process.capabilities.clear())
            .process
            .capabilities
            .is_empty()
    );
    assert!(matches!(
        denied_by(&policy, |r| r.process.capabilities.push("CAP_NONSENSE".to_owned())),
        Denial::NoCapability { .. }
    ));
}

#[test]
fn any_limits_are_set_over_the_default_ones() {
    let policy = plus("rlimits = \"any\"");
    let limit = |kind: &str, soft, hard| RequestedRlimit {
        kind: kind.to_owned(),
        soft,
        hard,
    };
    let process = admitted(&policy, |r| {
        r.process.rlimits = vec![limit("RLIMIT_NPROC", 5, 6), limit("RLIMIT_NOFILE", 7, u64::MAX)];
    })
    .process;
    let expected = [
        limit("RLIMIT_MEMLOCK", 0, 0),
        limit("RLIMIT_NOFILE", 7, u64::MAX),
        limit("RLIMIT_NPROC", 5, 6),
    ];
    assert_eq!(process.rlimits, expected);
    for bad in [limit("RLIMIT_NONSENSE", 1, 1), limit("RLIMIT_CORE", 2, 1)] {
        assert!(matches!(
            denied_by(&policy, |r| r.process.rlimits.push(bad)),
            Denial::Rlimit { .. }
        ));
    }
}

#[test]
fn privilege_is_every_power_within_the_guest_and_none_beyond_it() {
    let policy = plus("privileged = true");
    let admission = admitted(&policy, |r| {
        r.privileged = true;
        r.process.capabilities.push("CAP_SYS_ADMIN".to_owned());
        r.devices = strings(&["/dev/null", "/dev/fuse"]);
    });
    assert!(admission.privileged && !admission.masked && !admission.process.no_new_privileges);
    assert_eq!(admission.devices, ["/dev/null", "/dev/fuse"]);
    assert!(admission.process.capabilities.contains(&"SYS_ADMIN".parse().unwrap()));
    let plain = admitted(&policy, |_| {});
    assert!(!plain.privileged && plain.masked && plain.process.no_new_privileges);
    assert!(plain.process.capabilities.is_empty());
    for bad in ["/dev/../etc/shadow", "/etc/shadow", "dev/null", "/dev/"] {
        let denial = denied_by(&policy, |r| {
            r.privileged = true;
            r.devices = strings(&[bad]);
        });
        assert!(
            matches!(denial, Denial::Extra { what: "device", .. }),
            "{bad}: {denial}"
        );
    }
    assert!(matches!(
        denied_by(&policy, |r| r.devices = strings(&["/dev/null"])),
        Denial::Extra { what: "device", .. }
    ));
    for denial in [
        denied_by(&policy, |r| {
            r.privileged = true;
            r.host_namespaces = strings(&["pid"]);
        }),
        denied_by(&policy, |r| {
            r.privileged = true;
            r.hooks = strings(&["/bin/sh"]);
        }),
    ] {
        assert!(matches!(
            denial,
            Denial::HostNamespace { .. } | Denial::Extra { what: "hook", .. }
        ));
    }
}

#[test]
fn new_privileges_are_there_unless_the_host_forbids_them() {
    let policy = plus("new-privileges = true");
    assert!(!admitted(&policy, |_| {}).process.no_new_privileges);
    assert!(
        admitted(&policy, |r| r.process.no_new_privileges = true)
            .process
            .no_new_privileges
    );
}

#[test]
fn the_root_is_as_the_host_asks_where_the_policy_says_any() {
    let policy = with("readonly-rootfs = true", "readonly-rootfs = \"any\"");
    for asked in [false, true] {
        assert_eq!(admitted(&policy, |r| r.readonly_rootfs = asked).readonly_rootfs, asked);
    }
}

#[test]
fn masked_paths_are_added_or_all_given_up() {
    let policy = plus("masked-paths = \"any\"");
    let more = admitted(&policy, |r| r.masked_paths = strings(&["/bin/ls"]));
    assert!(more.masked && more.masked_paths == ["/bin/ls"]);
    let read = admitted(&policy, |r| r.readonly_paths = strings(&["/etc"]));
    assert!(read.masked && read.readonly_paths == ["/etc"]);
    assert!(!admitted(&policy, |_| {}).masked);
    for bad in ["etc", "/a/../b", ""] {
        assert!(matches!(
            denied_by(&policy, |r| r.masked_paths = strings(&[bad])),
            Denial::Form { .. }
        ));
    }
}

#[test]
fn the_hosts_filter_is_put_on_top_where_the_policy_says_so() {
    let policy = plus("seccomp = \"host\"\nprivileged = true");
    assert!(admitted(&policy, |_| {}).host_seccomp);
    assert!(!admitted(&policy, |r| r.privileged = true).host_seccomp);
    assert!(admitted(&policy, |_| {}).agent_seccomp);
    let policy = plus("seccomp = \"any\"\nprivileged = true");
    let (plain, privileged) = (admitted(&policy, |_| {}), admitted(&policy, |r| r.privileged = true));
    assert_eq!((plain.host_seccomp, plain.agent_seccomp), (true, false));
    assert_eq!((privileged.host_seccomp, privileged.agent_seccomp), (false, true));
}

#[test]
fn what_the_pod_may_have() {
    let nothing = policy();
    assert!(!nothing.pod().forwards(80));
    let some = pod("forward-ports = [8080]\nsysctl = [\"net.core.*\"]\nshare-process-namespace = true");
    assert!(some.pod().forwards(8080) && !some.pod().forwards(8081));
    let any = pod("forward-ports = \"any\"");
    assert!(any.pod().forwards(1) && any.pod().forwards(65535) && !any.pod().forwards(0));
    assert!(admitted(&some, |r| r.shared_pid = true).shared_pid);
    assert!(!admitted(&some, |_| {}).shared_pid);
    let set = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    for (name, value) in DEFAULT_SYSCTL {
        assert_eq!(check_pod(&nothing, &set(name, value)), Ok(()));
        assert!(matches!(
            check_pod(&nothing, &set(name, "1")),
            Err(Denial::Sysctl { .. })
        ));
    }
    assert_eq!(check_pod(&some, &set("net.core.somaxconn", "1024")), Ok(()));
    assert!(matches!(
        check_pod(&some, &set("kernel.core_pattern", "|/x")),
        Err(Denial::Sysctl { .. })
    ));
    for bad in ["1\n2", "\0", &"1".repeat(2000)] {
        assert!(matches!(
            check_pod(&some, &set("net.core.somaxconn", bad)),
            Err(Denial::SysctlValue { .. })
        ));
    }
}
