//! Further processes in a container.

use super::*;

fn exec(args: &[&str]) -> ProcessRequest {
    ProcessRequest {
        args: strings(args),
        rlimits: vec![],
        ..request().process
    }
}

fn check(policy: &Policy, request: &ProcessRequest) -> Result<AdmittedProcess, Denial> {
    check_exec(&policy.containers()[0], request)
}

#[test]
fn t1_nothing_runs_beside_the_container_unless_the_policy_names_it() {
    assert_eq!(
        check(&policy(), &exec(&["/bin/sh"])).unwrap_err().to_string(),
        r#"policy denies exec in container "server": its command "/bin/sh" is not in exec, allowed is nothing"#
    );
    let own = request();
    let own: Vec<&str> = own.process.args.iter().map(String::as_str).collect();
    assert!(matches!(check(&policy(), &exec(&own)), Err(Denial::Command { .. })));
}

#[test]
fn t1_a_command_line_is_exactly_one_of_the_policys() {
    let policy = plus(r#"exec = [["/bin/health"], ["/bin/sh", "-c", "date"]]"#);
    for args in [&["/bin/health"][..], &["/bin/sh", "-c", "date"]] {
        assert_eq!(check(&policy, &exec(args)).unwrap().args, args);
    }
    for args in [
        &[][..],
        &["/bin/health", "-v"],
        &["/bin/sh", "-c"],
        &["/bin/sh", "-c", "date; id"],
        &["/bin/health", "/bin/sh", "-c", "date"],
    ] {
        let denial = check(&policy, &exec(args)).unwrap_err();
        assert!(matches!(denial, Denial::Command { .. }), "{args:?}");
        assert!(
            denial
                .to_string()
                .ends_with(r#"allowed is "/bin/health", "/bin/sh -c date""#),
            "{denial}"
        );
    }
    let any = plus("exec = \"any\"");
    assert_eq!(check(&any, &exec(&["/bin/sh"])).unwrap().args, ["/bin/sh"]);
    assert!(matches!(check(&any, &exec(&[])), Err(Denial::Form { .. })));
}

#[test]
fn t1_a_further_process_has_no_more_freedom_than_the_first() {
    let policy = plus("exec = \"any\"");
    let denied = |change: &dyn Fn(&mut ProcessRequest)| {
        let mut request = exec(&["/bin/sh"]);
        change(&mut request);
        check(&policy, &request).unwrap_err()
    };
    assert!(matches!(
        denied(&|r| r.env.push("A=b".to_owned())),
        Denial::ExtraVariable { .. }
    ));
    assert!(matches!(denied(&|r| r.env.clear()), Denial::MissingVariable { .. }));
    assert!(matches!(
        denied(&|r| r.cwd = "/tmp".to_owned()),
        Denial::WorkingDirectory { .. }
    ));
    assert!(matches!(denied(&|r| r.uid = 0), Denial::User { .. }));
    assert!(matches!(
        denied(&|r| r.user_name = "root".to_owned()),
        Denial::UserName { .. }
    ));
    assert!(matches!(denied(&|r| r.additional_gids.push(0)), Denial::Groups { .. }));
    assert!(matches!(
        denied(&|r| r.capabilities.push("CAP_SYS_ADMIN".to_owned())),
        Denial::Capability { .. }
    ));
    assert!(matches!(
        denied(&|r| r.rlimits.push(RequestedRlimit::default())),
        Denial::Rlimit { .. }
    ));
    assert!(matches!(denied(&|r| r.terminal = true), Denial::Terminal { .. }));
    let process = check(&policy, &exec(&["/bin/sh"])).unwrap();
    assert!(process.no_new_privileges && process.capabilities.is_empty());
    assert_eq!(process.env, ["PATH=/usr/bin", "HOME=/tmp"]);
}

#[test]
fn a_process_in_a_privileged_container_may_be_privileged_too() {
    let policy = plus("exec = \"any\"\nprivileged = true");
    let process = check(
        &policy,
        &ProcessRequest {
            capabilities: strings(&["CAP_SYS_ADMIN"]),
            ..exec(&["/bin/sh"])
        },
    )
    .unwrap();
    assert!(process.capabilities.contains(&"SYS_ADMIN".parse().unwrap()) && !process.no_new_privileges);
}
