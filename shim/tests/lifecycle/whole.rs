//! A container as a whole: paused, limited, measured, out of memory.

use cella_shim::task::TaskError;
use containerd_shim::protos::cgroups_v2::metrics::Metrics;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;

use crate::containerd::read_to_end;
use crate::host::Host;

#[tokio::test]
async fn pause_and_resume_go_through_the_agent_and_each_must_make_sense() {
    let host = Host::new("normal").await;
    let (process, pipes) = host.created().await;
    let container = host.pod.container("app").unwrap();
    let early = host.pod.pause(&container).await;
    assert!(matches!(early, Err(TaskError::Phase { wanted: "running", .. })));
    host.pod.clone().start(process.clone()).await.unwrap();
    assert!(matches!(
        host.pod.resume(&container).await,
        Err(TaskError::Paused { .. })
    ));
    host.pod.pause(&container).await.unwrap();
    assert!(container.is_paused());
    assert!(matches!(
        host.pod.pause(&container).await,
        Err(TaskError::Paused { .. })
    ));
    let (request, _exec_pipes) = host.exec_request("e", &["cat"]);
    let frozen = host.pod.clone().exec(request).await;
    assert!(matches!(frozen, Err(TaskError::Paused { is: "paused", .. })));
    host.pod.resume(&container).await.unwrap();
    assert!(!container.is_paused());
    host.pod.clone().kill(process.clone(), 9, false).await.unwrap();
    process.exited().await;
    let told = read_to_end(pipes.stdout).await;
    assert!(told.starts_with("hello from the guest\nfrozen\nthawed\n"), "{told}");
    host.last_event("exit 137").await;
    assert_eq!(host.events.seen(), ["create", "start", "paused", "resumed", "exit 137"]);
}

#[tokio::test]
async fn limits_and_statistics_go_through_the_agent() {
    let host = Host::new("normal").await;
    let (process, pipes) = host.running().await;
    let container = host.pod.container("app").unwrap();
    let limits = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: br#"{"memory": {"limit": 1048576}}"#.to_vec(),
        ..Default::default()
    };
    host.pod.update(&container, Some(&limits)).await.unwrap();
    assert!(matches!(
        host.pod.update(&container, None).await,
        Err(TaskError::Type { .. })
    ));
    let stats = host.pod.stats(&container).await.unwrap();
    assert_eq!(Metrics::parse_from_bytes(&stats.value).unwrap().pids.current, 2);
    host.pod.clone().kill(process.clone(), 9, false).await.unwrap();
    process.exited().await;
    assert!(matches!(host.pod.stats(&container).await, Err(TaskError::Phase { .. })));
    let told = read_to_end(pipes.stdout).await;
    assert!(told.contains("limit 1048576\n"), "{told}");
}

#[tokio::test]
async fn a_sandbox_is_measured_whole_and_has_nothing_to_pause() {
    let host = Host::new("normal").await;
    let sandbox = host.cri_request("pod", &[("io.kubernetes.cri.container-type", "sandbox")]);
    host.pod.create(sandbox).await.unwrap();
    let sandbox = host.pod.container("pod").unwrap();
    host.pod.clone().start(sandbox.process().clone()).await.unwrap();
    let stats = host.pod.stats(&sandbox).await.unwrap();
    assert_eq!(Metrics::parse_from_bytes(&stats.value).unwrap().pids.current, 42);
    assert!(matches!(
        host.pod.pause(&sandbox).await,
        Err(TaskError::Unsupported { .. })
    ));
}

#[tokio::test]
async fn out_of_memory_is_told_when_it_happens() {
    let host = Host::new("oom").await;
    let (process, _pipes) = host.running().await;
    host.events_have("oom").await;
    host.pod.clone().kill(process.clone(), 9, false).await.unwrap();
    process.exited().await;
    host.last_event("exit 137").await;
    // The guest tells it on a way of its own, so that a start may still be on its way to containerd.
    let seen = host.events.seen();
    let others: Vec<_> = seen.iter().filter(|event| event.as_str() != "oom").collect();
    assert_eq!(others, ["create", "start", "exit 137"]);
    assert_eq!(seen.len(), others.len() + 1);
}

#[tokio::test]
async fn out_of_memory_that_is_known_only_at_the_end_is_told_before_it() {
    let host = Host::new("oom-at-end").await;
    let (process, _pipes) = host.running().await;
    host.pod.clone().kill(process.clone(), 9, false).await.unwrap();
    process.exited().await;
    host.last_event("exit 137").await;
    assert_eq!(host.events.seen(), ["create", "start", "oom", "exit 137"]);
}

#[tokio::test]
async fn a_guest_that_floods_with_events_or_repeats_them_disturbs_nobody() {
    for mode in ["flood-events", "stuck-events", "odd-events"] {
        let host = Host::new(mode).await;
        let (process, _pipes) = host.running().await;
        host.pod.clone().kill(process.clone(), 15, false).await.unwrap();
        assert_eq!(process.exited().await.status, 143, "{mode}");
        host.last_event("exit 143").await;
        assert_eq!(host.events.seen(), ["create", "start", "exit 143"], "{mode}");
    }
}
