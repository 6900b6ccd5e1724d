//! The agent's API over a real ttrpc connection: denials, states, and a guest that refuses to serve.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;
mod host;

use std::sync::Arc;

use cella_agent::{api::RefusingAgent, boot::BootError};
use cella_policy::initdata::digests;
use cella_protos::agent::{
    ConfigureNetworkRequest, ContainerStatsRequest, CreateContainerRequest, DeleteContainerRequest,
    FreezeContainerRequest, HelloRequest, Interface, ListProcessesRequest, NextEventRequest, PutVolumeRequest,
    ShutdownRequest, SignalContainerRequest, StartContainerRequest, StatusRequest, UpdateContainerRequest, VolumeFile,
    WaitContainerRequest,
};
use common::{Machine, POLICY};
use host::{Host, allowed, context, refused};
use ttrpc::Code;

#[tokio::test]
async fn hello_tells_version_and_policy() {
    let host = Host::serving(&Machine::new()).await;
    let hello = host.client.hello(context(), &HelloRequest::new()).await.unwrap();
    assert_eq!(hello.agent_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(hello.initdata_digest, digests(POLICY.as_bytes()).sha256);
}

#[tokio::test]
async fn t1_what_the_policy_does_not_name_is_denied() {
    let machine = Machine::new();
    let host = Host::serving(&machine).await;
    type Change = fn(&mut CreateContainerRequest);
    let cases: [(Change, &str); 5] = [
        (
            |request| request.spec.mut_or_insert_default().args[0] = "/bin/sh".into(),
            "args[0] is \"/bin/sh\"",
        ),
        (
            |request| request.spec.mut_or_insert_default().env.push("LD_PRELOAD=/x".into()),
            "LD_PRELOAD",
        ),
        (
            |request| request.spec.mut_or_insert_default().hooks.push("/hook".into()),
            "hook",
        ),
        (
            |request| request.images[0] = format!("sha256:{}", "0".repeat(64)),
            "policy denies image",
        ),
        (|request| request.name = "other".into(), "it names no such container"),
    ];
    for (change, expected) in cases {
        let mut request = allowed();
        change(&mut request);
        let (code, message) = refused(host.client.create_container(context(), &request).await);
        assert_eq!(code, Code::PERMISSION_DENIED, "{message}");
        assert!(message.contains(expected), "{message}");
    }
    assert!(machine.containers.snapshots().is_empty());
    let created = host.client.create_container(context(), &allowed()).await.unwrap();
    assert!(created.stdout_stream > 0 && created.stdin_stream == 0);
}

#[tokio::test]
async fn states_and_ids_are_checked() {
    let host = Host::serving(&Machine::new()).await;
    let start = StartContainerRequest {
        id: "c1".into(),
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.start_container(context(), &start).await).0,
        Code::FAILED_PRECONDITION
    );

    let unknown = WaitContainerRequest {
        id: "c1".into(),
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.wait_container(context(), &unknown).await).0,
        Code::NOT_FOUND
    );
    let bad = ListProcessesRequest {
        id: "../c1".into(),
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.list_processes(context(), &bad).await).0,
        Code::INVALID_ARGUMENT
    );

    host.client.create_container(context(), &allowed()).await.unwrap();
    assert_eq!(
        refused(host.client.create_container(context(), &allowed()).await).0,
        Code::ALREADY_EXISTS
    );
    let second = CreateContainerRequest {
        id: "c2".into(),
        ..allowed()
    };
    let (code, message) = refused(host.client.create_container(context(), &second).await);
    assert_eq!(code, Code::ALREADY_EXISTS);
    assert!(message.contains("as c1"), "{message}");

    let signal = SignalContainerRequest {
        id: "c1".into(),
        signal: 1,
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.signal_container(context(), &signal).await).0,
        Code::PERMISSION_DENIED
    );
    let delete = DeleteContainerRequest {
        id: "c1".into(),
        ..Default::default()
    };
    host.client.delete_container(context(), &delete).await.unwrap();
}

#[tokio::test]
async fn t10_a_malformed_network_changes_nothing() {
    let host = Host::serving(&Machine::new()).await;
    let interface = Interface {
        name: "../x".into(),
        ..Default::default()
    };
    let request = ConfigureNetworkRequest {
        interfaces: vec![interface],
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.configure_network(context(), &request).await).0,
        Code::INVALID_ARGUMENT
    );
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_before_the_network_is_set() {
    let host = Host::serving(&Machine::new()).await;
    let request = ConfigureNetworkRequest {
        certificates: vec![vec![0x30; 4097]],
        ..Default::default()
    };
    let (code, message) = refused(host.client.configure_network(context(), &request).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(message.contains("4097 bytes"), "{message}");
}

#[tokio::test]
async fn status_shows_containers_and_memory() {
    let host = Host::serving(&Machine::new()).await;
    host.client.create_container(context(), &allowed()).await.unwrap();
    let status = host.client.status(context(), &StatusRequest::new()).await.unwrap();
    assert_eq!(
        (status.containers[0].name.as_str(), status.containers[0].state.as_str()),
        ("server", "created")
    );
    assert!(status.memory.total_bytes > 0 && status.evidence.is_none());
}

#[tokio::test]
async fn a_shutdown_is_answered_before_the_end() {
    let host = Host::serving(&Machine::new()).await;
    host.client.shutdown(context(), &ShutdownRequest::new()).await.unwrap();
    host.end.notified().await;
}

#[tokio::test]
async fn a_fatal_refusal_is_the_answer_to_everything_and_ends_the_guest() {
    let refusal = BootError::from(cella_agent::initdata::DiskError::Missing);
    let host = Host::connect(|end| Arc::new(RefusingAgent::new(&refusal, end))).await;
    let expected = (
        Code::FAILED_PRECONDITION,
        "no disk with the serial number initdata is attached".to_owned(),
    );
    assert_eq!(
        refused(host.client.hello(context(), &HelloRequest::new()).await),
        expected
    );
    host.end.notified().await;
    assert_eq!(
        refused(host.client.create_container(context(), &allowed()).await),
        expected
    );
    assert_eq!(
        refused(host.client.status(context(), &StatusRequest::new()).await),
        expected
    );
}

#[tokio::test]
async fn a_model_that_does_not_fit_leaves_the_guest_up_to_say_so() {
    let refusal = BootError::ModelsTooLarge {
        names: "m".into(),
        models: 1 << 30,
        reserve: 96 << 20,
        total: 512 << 20,
    };
    let host = Host::connect(|end| Arc::new(RefusingAgent::new(&refusal, end))).await;
    let (code, message) = refused(host.client.hello(context(), &HelloRequest::new()).await);
    assert_eq!(code, Code::RESOURCE_EXHAUSTED);
    assert!(message.contains("1024 MiB") && message.contains("512 MiB"), "{message}");
    let still_up = tokio::time::timeout(std::time::Duration::from_millis(50), host.end.notified()).await;
    assert!(still_up.is_err());
}

#[tokio::test]
async fn t1_what_is_denied_becomes_an_event() {
    let host = Host::serving(&Machine::new()).await;
    let waiting = {
        let client = host.client.clone();
        tokio::spawn(async move { client.next_event(context(), &NextEventRequest::new()).await })
    };
    let volume = PutVolumeRequest {
        name: "settings".into(),
        kind: "config-map".into(),
        ..Default::default()
    };
    let (code, message) = refused(host.client.put_volume(context(), &volume).await);
    assert_eq!(code, Code::PERMISSION_DENIED);
    assert!(
        message.starts_with("policy denies") && message.contains("config-map"),
        "{message}"
    );
    let event = waiting.await.unwrap().unwrap();
    assert_eq!((event.number, event.kind.as_str(), event.lost), (1, "denied", 0));
    assert_eq!(event.text, message);

    let mut request = allowed();
    request.name = "other".into();
    refused(host.client.create_container(context(), &request).await);
    let after = NextEventRequest {
        after: 1,
        ..Default::default()
    };
    let event = host.client.next_event(context(), &after).await.unwrap();
    assert_eq!((event.number, event.container.as_str()), (2, "c1"));

    let sysctl = ConfigureNetworkRequest {
        sysctl: [("net.core.somaxconn".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let (code, message) = refused(host.client.configure_network(context(), &sysctl).await);
    assert_eq!(code, Code::PERMISSION_DENIED, "{message}");
}

#[tokio::test]
async fn t10_volumes_limits_and_parameters_have_a_form() {
    let host = Host::serving(&Machine::new()).await;
    for (name, kind, path) in [
        ("../v", "hosts", ""),
        ("v", "host-path", ""),
        ("v", "hosts", "a"),
        ("v", "secret", "../a"),
    ] {
        let volume = PutVolumeRequest {
            name: name.into(),
            kind: kind.into(),
            files: vec![VolumeFile {
                path: path.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (code, message) = refused(host.client.put_volume(context(), &volume).await);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
    }
    let sysctl = ConfigureNetworkRequest {
        sysctl: [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into(),
        ..Default::default()
    };
    let (code, _) = refused(host.client.configure_network(context(), &sysctl).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    let mut request = allowed();
    request
        .spec
        .mut_or_insert_default()
        .resources
        .mut_or_insert_default()
        .cpuset_cpus = "x".into();
    let (code, _) = refused(host.client.create_container(context(), &request).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_measured_and_what_does_not_run_cannot_be_frozen() {
    let host = Host::serving(&Machine::new()).await;
    let stats = ContainerStatsRequest {
        id: "c1".into(),
        ..Default::default()
    };
    let freeze = FreezeContainerRequest {
        id: "c1".into(),
        frozen: true,
        ..Default::default()
    };
    let update = UpdateContainerRequest {
        id: "c1".into(),
        ..Default::default()
    };
    assert_eq!(
        refused(host.client.container_stats(context(), &stats).await).0,
        Code::NOT_FOUND
    );
    host.client.create_container(context(), &allowed()).await.unwrap();
    assert_eq!(
        refused(host.client.freeze_container(context(), &freeze).await).0,
        Code::FAILED_PRECONDITION
    );
    // What is created can be measured and limited, but here without cgroups nobody counts.
    for code in [
        refused(host.client.container_stats(context(), &stats).await).0,
        refused(host.client.update_container(context(), &update).await).0,
    ] {
        assert_eq!(code, Code::UNIMPLEMENTED);
    }
    host.client
        .container_stats(context(), &ContainerStatsRequest::new())
        .await
        .unwrap();
}
