//! T2, T4: calls that a policy does not name are denied, and calls that there are none of are unknown.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;
mod host;

use cella_protos::agent::{
    ContainerStatsRequest, FreezeContainerRequest, ListProcessesRequest, NextEventRequest, SignalContainerRequest,
    StatusRequest, UpdateContainerRequest,
};
use common::{Machine, POLICY};
use host::{Host, allowed, context, refused};
use ttrpc::Code;

/// The policy without what it says of calls, statistics and signals.
fn silent() -> String {
    let (before, rest) = POLICY.split_once("[pod]").unwrap();
    let (_, after) = rest.split_once("[[registry]]").unwrap();
    format!("{before}[[registry]]{after}").replace("signals = [\"SIGTERM\"]\n", "")
}

#[tokio::test]
async fn t2_optional_calls_are_denied_unless_the_policy_names_them() {
    let machine = Machine::new();
    let host = Host::serving_under(&machine, &silent()).await;
    host.client.create_container(context(), &allowed()).await.unwrap();
    let freeze = FreezeContainerRequest {
        id: "c1".into(),
        frozen: true,
        ..Default::default()
    };
    let update = UpdateContainerRequest {
        id: "c1".into(),
        ..Default::default()
    };
    let list = ListProcessesRequest {
        id: "c1".into(),
        ..Default::default()
    };
    let stats = ContainerStatsRequest::new();
    let signal = |signal| SignalContainerRequest {
        id: "c1".into(),
        signal,
        ..Default::default()
    };
    let denials = [
        (
            refused(host.client.freeze_container(context(), &freeze).await),
            "the call pause: [pod] calls",
        ),
        (
            refused(host.client.update_container(context(), &update).await),
            "the call update: [pod] calls",
        ),
        (
            refused(host.client.list_processes(context(), &list).await),
            "the call processes: [pod] calls",
        ),
        (
            refused(host.client.container_stats(context(), &stats).await),
            "statistics: [pod] stats",
        ),
        (
            refused(host.client.signal_container(context(), &signal(10)).await),
            "signal SIGUSR1 is not named in signals",
        ),
    ];
    for (number, ((code, message), words)) in (0_u64..).zip(denials) {
        assert_eq!(code, Code::PERMISSION_DENIED, "{message}");
        assert!(
            message.starts_with("policy denies") && message.contains(words),
            "{message}"
        );
        let after = NextEventRequest {
            after: number,
            ..Default::default()
        };
        let event = host.client.next_event(context(), &after).await.unwrap();
        assert_eq!((event.kind.as_str(), event.text), ("denied", message));
    }
    let status = host.client.status(context(), &StatusRequest::new()).await.unwrap();
    assert_eq!(
        status.memory.available_bytes % (64 << 20),
        0,
        "what is used is not to be seen there either"
    );
    assert_eq!(status.ingress.missing, ["container \"server\" does not run"]);
}

#[tokio::test]
async fn t2_there_are_no_other_calls() {
    let host = Host::serving_under(&Machine::new(), POLICY).await;
    for method in [
        "SetPolicy",
        "CopyFile",
        "AddSwap",
        "ReseedRandomDev",
        "SetGuestDateTime",
        "MemHotplugByProbe",
        "OnlineCPUMem",
        "hello",
        "Hello2",
        "",
        "../Hello",
        "\u{0}",
    ] {
        let (code, message) = host.call(method, b"\x0a\xff\xff\xff\xff\x0f").await;
        assert!(
            matches!(code, Code::UNIMPLEMENTED | Code::INVALID_ARGUMENT | Code::NOT_FOUND),
            "{method:?}: {code:?} {message}"
        );
    }
    // Nothing of it has cost the agent its service.
    host.client.status(context(), &StatusRequest::new()).await.unwrap();
}
