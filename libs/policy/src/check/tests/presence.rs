//! T1: a container that is left out, taken away or started out of turn.

use super::*;
use crate::policy::Presence;

/// An init container, a filter that comes after it, and the server after both; a tool that may be left out.
fn lineup() -> Lineup {
    let entry = |name: &str, lines: &str| {
        let from = EXAMPLE.find("[[container]]").unwrap();
        let to = EXAMPLE.find("[[container.mount]]").unwrap();
        let server = EXAMPLE[from..to].replace("name = \"server\"", &format!("name = {name:?}\n{lines}"));
        format!("\n{server}")
    };
    let others = [
        entry("init", "presence = \"completed\""),
        entry("filter", "after = [\"init\"]"),
        entry("tool", "presence = \"optional\""),
    ];
    let server = EXAMPLE.replacen(
        "name = \"server\"",
        "name = \"server\"\nafter = [\"init\", \"filter\"]",
        1,
    );
    Lineup::new(&Policy::parse(&format!("{server}{}", others.concat())).unwrap())
}

fn missing(lineup: &Lineup) -> Vec<String> {
    lineup.missing().iter().map(ToString::to_string).collect()
}

const DONE: Turn = Turn::Ended {
    status: 0,
    paused: false,
};

#[test]
fn t1_a_required_container_that_is_left_out_is_named() {
    let mut lineup = lineup();
    assert_eq!(
        missing(&lineup),
        [
            "container \"filter\" does not run",
            "container \"init\" has not ended with status 0",
            "container \"server\" does not run"
        ]
    );
    lineup.note("init", Turn::Running);
    lineup.note("init", DONE);
    lineup.note("filter", Turn::Running);
    assert_eq!(missing(&lineup), ["container \"server\" does not run"]);
    lineup.note("server", Turn::Running);
    assert!(missing(&lineup).is_empty(), "the tool is optional");
}

#[test]
fn t1_command_lines_of_the_hosts_choice_wait_until_everybody_is_there() {
    let policy = plus("exec = \"any\"");
    let container = &policy.containers()[0];
    let mut lineup = Lineup::new(&policy);
    assert_eq!(
        lineup.check_exec(container).unwrap_err().to_string(),
        "policy denies exec in container \"server\": exec is \"any\" and the ingress is shut by presence, container \"server\" \
         does not run; allowed is when nobody is missing, or what exec names"
    );
    lineup.note("server", Turn::Running);
    assert_eq!(lineup.check_exec(container), Ok(()));
    lineup.note("server", Turn::Paused);
    assert!(lineup.check_exec(container).is_err());
    let named = plus("exec = [[\"/bin/alive\"]]");
    assert_eq!(
        Lineup::new(&named).check_exec(&named.containers()[0]),
        Ok(()),
        "probes and hooks run before everybody is there"
    );
}

#[test]
fn t1_a_required_container_that_is_taken_away_is_missed_again() {
    let mut lineup = lineup();
    for name in ["init", "filter", "server"] {
        lineup.note(name, Turn::Running);
    }
    lineup.note("init", DONE);
    assert!(missing(&lineup).is_empty());
    // Whatever the status: a filter that the host ends politely is gone all the same.
    lineup.note("filter", DONE);
    assert_eq!(missing(&lineup), ["container \"filter\" does not run"]);
    lineup.note("filter", Turn::Running);
    lineup.note("filter", Turn::Paused);
    assert_eq!(missing(&lineup), ["container \"filter\" does not run"]);
    lineup.note(
        "filter",
        Turn::Ended {
            status: 137,
            paused: true,
        },
    );
    lineup.note("filter", Turn::Running);
    lineup.note("filter", Turn::Running);
    lineup.note("filter", DONE);
    assert!(missing(&lineup).is_empty(), "one of two is left");
}

#[test]
fn t1_an_init_container_that_fails_has_not_completed() {
    let mut lineup = lineup();
    lineup.note("init", Turn::Running);
    lineup.note(
        "init",
        Turn::Ended {
            status: 1,
            paused: false,
        },
    );
    assert!(missing(&lineup).iter().any(|one| one.contains("init")));
    assert!(lineup.check_start("filter").is_err());
}

#[test]
fn t1_nobody_starts_out_of_turn() {
    let mut lineup = lineup();
    assert_eq!(
        lineup.check_start("filter").unwrap_err().to_string(),
        r#"policy denies starting container "filter": its after names "init", allowed is when that has ended with status 0"#
    );
    assert!(lineup.check_start("init").is_ok() && lineup.check_start("tool").is_ok());
    lineup.note("init", Turn::Running);
    assert!(lineup.check_start("filter").is_err(), "it has not ended");
    lineup.note("init", DONE);
    assert!(lineup.check_start("filter").is_ok());
    assert_eq!(
        lineup.check_start("server").unwrap_err().to_string(),
        r#"policy denies starting container "server": its after names "filter", allowed is when that runs"#
    );
    lineup.note("filter", Turn::Running);
    assert!(lineup.check_start("server").is_ok());
}

#[test]
fn what_is_not_in_the_policy_changes_nothing() {
    let mut lineup = lineup();
    let before = lineup.clone();
    lineup.note("other", Turn::Running);
    lineup.note("server", Turn::Paused);
    assert_eq!(lineup, before);
    let all =
        Policy::parse(&EXAMPLE.replacen("name = \"server\"", "name = \"server\"\npresence = \"optional\"", 1)).unwrap();
    assert!(Lineup::new(&all).missing().is_empty());
    assert_eq!(all.containers()[0].presence, Presence::Optional);
}
