//! Nothing that the host sends is walked without a bound.

use super::*;

#[test]
fn every_list_of_a_container_has_a_bound() {
    let many = |text: &str| vec![text.to_owned(); 5000];
    let limit = RequestedRlimit::default();
    let changes: [(&str, Box<dyn Fn(&mut ContainerRequest)>); 13] = [
        ("args", Box::new(|r| r.args = many("a"))),
        ("variables", Box::new(|r| r.env = many("A=b"))),
        ("additional groups", Box::new(|r| r.additional_gids = vec![1; 5000])),
        ("capabilities", Box::new(|r| r.capabilities = many("CAP_KILL"))),
        ("limits", Box::new(move |r| r.rlimits = vec![limit.clone(); 5000])),
        ("images", Box::new(|r| r.images = many("a"))),
        ("mounts", Box::new(|r| r.mounts = vec![RequestedMount::default(); 5000])),
        ("masked paths", Box::new(|r| r.masked_paths = many("/a"))),
        ("read-only paths", Box::new(|r| r.readonly_paths = many("/a"))),
        ("devices", Box::new(|r| r.devices = many("/dev/null"))),
        ("hooks", Box::new(|r| r.hooks = many("/a"))),
        ("host namespaces", Box::new(|r| r.host_namespaces = many("pid"))),
        (
            "bytes of args and variables",
            Box::new(|r| r.args = vec!["a".repeat(3 << 20)]),
        ),
    ];
    for (name, change) in changes {
        match denied(change) {
            Denial::TooMany {
                field, found, limit, ..
            } => {
                assert_eq!(field, name);
                assert!(found > limit);
            }
            other => panic!("{name}: {other}"),
        }
    }
    let sysctl = (0..65)
        .map(|number| (format!("net.x{number}"), String::new()))
        .collect();
    assert!(matches!(
        check_pod(&pod("sysctl = [\"net.*\"]"), &sysctl),
        Err(Denial::TooMany {
            subject: Subject::Pod,
            limit: 64,
            ..
        })
    ));
}

#[test]
fn every_list_of_a_process_has_a_bound() {
    let policy = plus("exec = \"any\"");
    let request = ExecRequest {
        args: vec!["a".to_owned(); 5000],
        ..ExecRequest::default()
    };
    assert!(matches!(
        check_exec(&policy.containers()[0], &request),
        Err(Denial::TooMany {
            subject: Subject::Exec(_),
            field: "args",
            ..
        })
    ));
}

#[test]
fn messages_stay_short_however_much_is_allowed() {
    let names: Vec<String> = (0..60)
        .map(|number| format!("\"{}{number}\"", "A".repeat(100)))
        .collect();
    let policy = plus(&format!("env-allow = [{}]", names.join(", ")));
    let message = denied_by(&policy, |r| r.env.push(format!("B={}", "x".repeat(100_000)))).to_string();
    assert!(message.ends_with("and 54 more"), "{message}");
    assert!(message.len() < 1500, "{}", message.len());
}
