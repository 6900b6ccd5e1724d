//! T1, as a property: whatever one byte, number, switch or entry of a request is changed, it is denied, or what runs is the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// A policy that leaves nothing to the host, and a request that it allows, with something in every field that may have something.
fn exact() -> Policy {
    let files = format!("files = {{ a = \"sha256:{}\" }}", "22".repeat(32));
    let text = EXAMPLE
        .replacen("hostname = \"\"", "hostname = \"cell\"", 1)
        .replacen("additional-gids = []", "additional-gids = [10]", 1)
        .replacen(
            "[[model]]",
            &format!("[[container.volume]]\ndestination = \"/config\"\nkind = \"config-map\"\n{files}\n\n[[model]]"),
            1,
        );
    Policy::parse(&text).unwrap()
}

fn full() -> Value {
    json!({
        "name": "server",
        "images": [format!("localhost:5000/demo/llama-server@sha256:{}", "11".repeat(32))],
        "process": {
            "args": ["/usr/bin/llama-server", "-m", "/models/demo/model.gguf"],
            "env": ["PATH=/usr/bin", "HOME=/tmp"],
            "cwd": "/", "uid": 65534, "gid": 65534, "additional-gids": [10], "user-name": "",
            "capabilities": ["CAP_CHOWN", "CAP_KILL"],
            "rlimits": [{"kind": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "terminal": false, "no-new-privileges": true
        },
        "mounts": [
            {"destination": "/proc", "kind": "proc", "volume": "", "volume-kind": null, "read-only": false},
            {"destination": "/config", "kind": "bind", "volume": "v", "volume-kind": "config-map", "read-only": true}
        ],
        "hostname": "cell",
        "readonly-rootfs": true,
        "masked-paths": ["/proc/kcore"],
        "readonly-paths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "devices": [], "hooks": [], "shared-pid": false, "host-namespaces": [], "privileged": false
    })
}

/// Every way to every value that is no table, and to every list.
fn ways(value: &Value, way: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(entries) => entries
            .iter()
            .for_each(|(key, value)| ways(value, &format!("{way}/{key}"), all)),
        Value::Array(items) => {
            all.push(way.to_owned());
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| ways(value, &format!("{way}/{index}"), all));
        }
        _ => all.push(way.to_owned()),
    }
}

/// What a value may become by the smallest change.
fn changes(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(is) => vec![json!(!is)],
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            vec![
                json!(number + 1),
                json!(number.saturating_sub(1)),
                json!(number ^ (1 << 31)),
            ]
        }
        Value::String(text) => {
            let mut all = vec![json!(format!("{text}x")), json!(format!("x{text}"))];
            for at in 0..text.len() {
                for bit in 0..7 {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] ^= 1 << bit;
                    all.extend(String::from_utf8(bytes).map(Value::from));
                }
                all.push(json!(format!("{}{}", &text[..at], &text[at + 1..])));
            }
            all
        }
        Value::Array(items) => {
            let mut all: Vec<Value> = (0..items.len())
                .map(|out| {
                    let rest = items.iter().enumerate().filter(|(index, _)| *index != out);
                    rest.map(|(_, item)| item.clone()).collect()
                })
                .collect();
            let more = items.first().cloned().unwrap_or(json!("/dev/sda"));
            all.push(items.iter().cloned().chain([more]).collect());
            all.push(items.iter().rev().cloned().collect());
            all
        }
        Value::Null => vec![json!("secret")],
        Value::Object(_) => vec![],
    }
}

#[test]
fn t1_one_byte_of_any_field_is_denied_or_has_no_effect() {
    let policy = exact();
    let read = |value: Value| -> Option<ContainerRequest> {
        let mut request: ContainerRequest = serde_json::from_value(value).ok()?;
        // The agent looks a volume's kind up by its name.
        for mount in request.mounts.iter_mut().filter(|mount| mount.volume != "v") {
            mount.volume_kind = None;
        }
        Some(request)
    };
    let original = read(full()).unwrap();
    let admission = check_container(&policy, &original).unwrap();
    let mut all = Vec::new();
    ways(&full(), "", &mut all);
    let (mut tried, mut without_effect) = (0, BTreeSet::new());
    for way in all {
        let value = full().pointer(&way).unwrap().clone();
        for change in changes(&value) {
            let mut changed = full();
            *changed.pointer_mut(&way).unwrap() = change.clone();
            let Some(request) = read(changed).filter(|request| *request != original) else {
                continue;
            };
            tried += 1;
            match check_container(&policy, &request) {
                Err(denial) => assert!(denial.to_string().starts_with("policy denies "), "{way}: {denial}"),
                Ok(other) => {
                    // A hint only; see the module's table.
                    let other = Admission {
                        image_offered: admission.image_offered,
                        ..other
                    };
                    assert_eq!(other, admission, "{way} became {change}");
                    without_effect.insert(
                        way.split('/')
                            .filter(|part| part.parse::<u32>().is_err())
                            .collect::<Vec<_>>()
                            .join("/"),
                    );
                }
            }
        }
    }
    assert!(tried > 2000, "{tried}");
    let expected = [
        "/images",
        "/masked-paths",
        "/mounts",
        "/mounts/kind",
        "/mounts/read-only",
        "/process/additional-gids",
        "/process/capabilities",
        "/process/env",
        "/process/no-new-privileges",
        "/process/rlimits",
        "/readonly-paths",
        "/readonly-rootfs",
    ];
    let found: Vec<&str> = without_effect.iter().map(String::as_str).collect();
    assert_eq!(found, expected, "fields of which some change has no effect");
}
