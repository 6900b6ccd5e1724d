//! What a tool is told beforehand is what the guest says.

use super::*;

fn judge_of(policy: &Policy, questions: &str) -> Vec<Result<(), String>> {
    let questions: Vec<Question> = serde_json::from_str(questions).unwrap();
    let mut judge = Judge::new(policy);
    questions
        .iter()
        .map(|question| judge.ask(question).map_err(|denial| denial.to_string()))
        .collect()
}

#[test]
fn a_story_is_judged_step_by_step() {
    let text = EXAMPLE.replacen("name = \"server\"", "name = \"server\"\nexec = [[\"/bin/alive\"]]", 1);
    let policy = Policy::parse(&format!(
        "{text}\n[pod]\nforward-ports = [8080]\ncalls = [\"pause\"]\n[network]\ningress = [\"8080/tcp\"]\n\
         egress = [{{ to = \"10.0.0.0/8\", protocol = \"tcp\", ports = [443] }}]"
    ))
    .unwrap();
    let answers = judge_of(
        &policy,
        r#"[
            {"client": "8080/tcp"},
            {"forward": 8080},
            {"create": {"name": "server", "process": {
                "args": ["/usr/bin/llama-server", "-m", "/models/demo/model.gguf"],
                "env": ["PATH=/usr/bin", "HOME=/tmp"], "cwd": "/", "uid": 65534, "gid": 65534}}},
            {"create": {"name": "server", "process": {"args": ["/bin/sh"]}}},
            {"start": "other"},
            {"start": "server"},
            {"client": "8080/tcp"},
            {"client": "22/tcp"},
            {"forward": 8080},
            {"exec": {"container": "server", "process": {"args": ["/bin/sh"]}}},
            {"signal": {"container": "server", "number": 15}},
            {"call": "pause"},
            {"call": "update"},
            "stats",
            {"connect": {"to": "10.1.2.3", "protocol": "tcp", "port": 443}},
            {"connect": {"to": "10.1.2.3", "protocol": "tcp", "port": 80}},
            {"connect": {"to": "::ffff:10.1.2.3", "protocol": "tcp", "port": 443}},
            {"connect": {"to": "fd00::1", "protocol": "tcp", "port": 443}},
            {"volume": "config-map"},
            {"sysctl": {"net.core.somaxconn": "1"}},
            {"ended": {"container": "server", "status": 0}},
            {"client": "8080/tcp"}
        ]"#,
    );
    let expected: [Option<&str>; 22] = [
        Some("the ingress is shut by presence, container \"server\" does not run"),
        Some("the ingress is shut by presence, container \"server\" does not run"),
        None,
        Some("args[0] is \"/bin/sh\""),
        Some("container \"other\": it names no such container"),
        None,
        None,
        Some("policy denies clients at 22/tcp: [network] ingress does not name it, allowed is \"8080/tcp\""),
        None,
        Some("is not in exec"),
        None,
        None,
        Some("the call update"),
        Some("[pod] stats"),
        None,
        Some(
            "policy denies connecting to 10.1.2.3 tcp 80: [network] egress does not name it, allowed is \"10.0.0.0/8 tcp 443\"",
        ),
        None,
        Some("connecting to fd00::1 tcp 443"),
        Some("volumes of kind config-map"),
        Some("sysctl \"net.core.somaxconn\""),
        None,
        Some("the ingress is shut"),
    ];
    assert_eq!(answers.len(), expected.len());
    for (index, (answer, words)) in answers.iter().zip(expected).enumerate() {
        match (answer, words) {
            (Ok(()), None) => {}
            (Err(said), Some(words)) => assert!(said.contains(words), "{index}: {said}"),
            other => panic!("{index}: {other:?}"),
        }
    }
}

#[test]
fn questions_have_a_form() {
    for bad in [
        r#"{"create": {"nmae": "x"}}"#,
        r#"{"call": "exec"}"#,
        r#"{"client": "8080"}"#,
        r#"{"connect": {"to": "example.com", "protocol": "tcp"}}"#,
        r#"{"volume": "host-path"}"#,
        r#"{"shutdown": 1}"#,
    ] {
        assert!(serde_json::from_str::<Question>(bad).is_err(), "{bad}");
    }
}
