//! Nothing that the host sends is walked without a bound.

use super::*;

type Change = fn(&mut ContainerRequest);

fn many(text: &str) -> Vec<String> {
    vec![text.to_owned(); 5000]
}

#[test]
fn every_list_of_a_container_has_a_bound() {
    let changes: [(&str, Change); 13] = [
        ("args", |r| r.process.args = many("a")),
        ("variables", |r| r.process.env = many("A=b")),
        ("additional groups", |r| r.process.additional_gids = vec![1; 5000]),
        ("capabilities", |r| r.process.capabilities = many("CAP_KILL")),
        ("limits", |r| r.process.rlimits = vec![RequestedRlimit::default(); 5000]),
        ("images", |r| r.images = many("a")),
        ("mounts", |r| r.mounts = vec![RequestedMount::default(); 5000]),
        ("masked paths", |r| r.masked_paths = many("/a")),
        ("read-only paths", |r| r.readonly_paths = many("/a")),
        ("devices", |r| r.devices = many("/dev/null")),
        ("hooks", |r| r.hooks = many("/a")),
        ("host namespaces", |r| r.host_namespaces = many("pid")),
        ("bytes of args and variables", |r| {
            r.process.args = vec!["a".repeat(3 << 20)]
        }),
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
    let request = ProcessRequest {
        args: vec!["a".to_owned(); 5000],
        ..ProcessRequest::default()
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
    let message = denied_by(&policy, |r| r.process.env.push(format!("B={}", "x".repeat(100_000)))).to_string();
    assert!(message.ends_with("and 54 more"), "{message}");
    assert!(message.len() < 1500, "{}", message.len());
}
