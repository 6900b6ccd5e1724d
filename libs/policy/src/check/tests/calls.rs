//! T2, T4: calls that the policy does not name, each with its rule.

use super::*;
use crate::policy::{Call, Stats};

#[test]
fn t2_a_call_that_is_not_named_is_denied() {
    let none = policy();
    for call in Call::ALL {
        assert_eq!(
            check_call(none.pod(), call).unwrap_err().to_string(),
            format!("policy denies the call {call}: [pod] calls does not name it, allowed is nothing")
        );
    }
    let one = pod("calls = [\"pause\"]");
    assert!(check_call(one.pod(), Call::Pause).is_ok());
    let other = check_call(one.pod(), Call::Update).unwrap_err();
    assert!(other.to_string().ends_with("allowed is \"pause\""), "{other}");
}

#[test]
fn t4_statistics_are_denied_unless_they_are_allowed() {
    assert_eq!(
        check_stats(policy().pod()).unwrap_err().to_string(),
        "policy denies statistics: [pod] stats is \"deny\", allowed is nothing"
    );
    assert_eq!(check_stats(pod("stats = \"exact\"").pod()), Ok(Stats::Exact));
}

#[test]
fn t2_a_signal_or_port_that_is_not_named_is_denied() {
    let signals = with("signals = \"any\"", "signals = [\"SIGTERM\"]");
    let server = signals.container("server").unwrap();
    assert!(check_signal(server, 15).is_ok() && check_signal(server, 9).is_ok());
    assert_eq!(
        check_signal(server, 10).unwrap_err().to_string(),
        r#"policy denies container "server": signal SIGUSR1 is not named in signals, allowed is "SIGTERM", "SIGKILL""#
    );
    assert!(check_signal(server, 0).unwrap_err().to_string().contains("signal 0"));
    assert!(check_signal(policy().container("server").unwrap(), 65).is_err());
    let ports = pod("forward-ports = [8080]");
    assert!(check_forward(ports.pod(), 8080).is_ok());
    assert_eq!(
        check_forward(ports.pod(), 22).unwrap_err().to_string(),
        r#"policy denies forwarding to port 22: [pod] forward-ports does not name it, allowed is "8080""#
    );
}
