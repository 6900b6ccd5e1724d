//! A guest that does not keep to the protocol. Whatever it says: a bounded wait, an error, and nothing is left.

use std::time::{Duration, Instant};

use cella_shim::agent::AgentError;
use cella_shim::task::TaskError;
use cella_shim::vm::LaunchError;
use cella_shim::vsock::{HandshakeError, VsockError};

use crate::host::Host;

/// What [`crate::fake`] can say.
const NONSENSE: [&str; 9] = [
    "huge",
    "cut",
    "unasked",
    "data",
    "request",
    "no-type",
    "no-protobuf",
    "enormous-field",
    "many-details",
];
/// For the VM to go, helpers included.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn in_a_running_container_it_costs_the_vm() {
    futures::future::join_all(NONSENSE.map(|what| async move {
        let host = Host::new(&format!("nonsense:{what}:WaitContainer")).await;
        let (container, _pipes) = host.created().await;
        let processes = host.processes();
        host.pod.clone().start(container.clone()).await.unwrap();
        let exit = tokio::time::timeout(SOON, container.exited()).await;
        assert_eq!(exit.map(|exit| exit.status), Ok(137), "{what}");
        assert_eq!(host.pod.clone().delete(container).await.unwrap().status, 137, "{what}");
        host.assert_clean(&processes).await;
        host.last_event("delete").await;
        assert_eq!(host.events.seen(), ["create", "start", "exit 137", "delete"], "{what}");
        assert!(host.pod.shutdown().await, "{what}");
    }))
    .await;
}

#[tokio::test]
async fn at_create_it_is_an_error_and_nothing_is_left() {
    futures::future::join_all(NONSENSE.map(|what| async move {
        let host = Host::new(&format!("nonsense:{what}:CreateContainer")).await;
        let (request, _pipes) = host.request(&["/bin/app"]);
        let error = tokio::time::timeout(SOON, host.pod.create(request)).await.unwrap();
        let error = error.unwrap_err();
        let said = error.message();
        let told = match what {
            "many-details" => matches!(error, TaskError::Agent(AgentError::Refused { .. })),
            _ => matches!(
                error,
                TaskError::Agent(AgentError::Broken {
                    call: "CreateContainer",
                    ..
                })
            ),
        };
        assert!(told, "{what}: {error:?}");
        let word = match what {
            "huge" => "4294967295 bytes",
            "unasked" => "what it was not asked",
            "data" => "type 3",
            "request" => "type 1",
            "no-type" => "type 238",
            _ => "",
        };
        assert!(said.contains(word), "{what}: {said}");
        host.assert_clean(&[]).await;
        assert!(host.pod.is_idle(), "{what}");
    }))
    .await;
}

#[tokio::test]
async fn before_the_first_call_it_is_an_error_too() {
    for (mode, wanted) in [
        ("no-handshake", HandshakeError::NotOk),
        ("endless-handshake", HandshakeError::TooLong),
    ] {
        let host = Host::new(mode).await;
        let (request, _pipes) = host.request(&["/bin/app"]);
        let error = tokio::time::timeout(SOON, host.pod.create(request)).await.unwrap();
        let TaskError::Launch(LaunchError::Agent(AgentError::Connect {
            source: VsockError::Handshake { source, .. },
        })) = error.unwrap_err()
        else {
            panic!("{mode}")
        };
        assert_eq!(source, wanted);
        host.assert_clean(&[]).await;
    }
}

#[tokio::test]
async fn output_without_end_does_not_keep_a_dead_container() {
    let host = Host::new("endless-output").await;
    let (container, mut pipes) = host.created().await;
    let processes = host.processes();
    host.pod.clone().start(container.clone()).await.unwrap();
    // Somebody reads all of it, so that nothing but the end of the process can stop it.
    let reader = tokio::spawn(async move { tokio::io::copy(&mut pipes.stdout, &mut tokio::io::sink()).await });
    let begun = Instant::now();
    host.pod.clone().kill(container.clone(), 9, false).await.unwrap();
    assert_eq!(
        tokio::time::timeout(SOON, container.exited()).await.unwrap().status,
        137
    );
    let deleted = tokio::time::timeout(SOON, host.pod.clone().delete(container))
        .await
        .unwrap();
    assert_eq!(deleted.unwrap().status, 137);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    host.assert_clean(&processes).await;
    assert!(reader.await.unwrap().unwrap() > 1 << 20, "it was read");
}

#[tokio::test]
async fn fifos_that_nobody_opens_hold_up_nothing() {
    for mode in ["normal", "endless-output"] {
        let host = Host::new(mode).await;
        let (request, pipes) = host.request(&["/bin/app"]);
        drop(pipes);
        tokio::time::timeout(SOON, host.pod.create(request))
            .await
            .unwrap()
            .unwrap();
        let (container, processes) = (host.pod.process("app", "").unwrap(), host.processes());
        let started = tokio::time::timeout(SOON, host.pod.clone().start(container.clone())).await;
        started.unwrap().unwrap();
        host.pod.clone().kill(container.clone(), 9, false).await.unwrap();
        assert_eq!(
            tokio::time::timeout(SOON, container.exited()).await.unwrap().status,
            137
        );
        let deleted = tokio::time::timeout(SOON, host.pod.clone().delete(container))
            .await
            .unwrap();
        assert_eq!(deleted.unwrap().status, 137, "{mode}");
        host.assert_clean(&processes).await;
    }
}

#[tokio::test]
async fn places_that_are_no_fifos_are_refused_by_name() {
    let host = Host::new("normal").await;
    for (what, place) in [
        ("absent", "no/such/fifo"),
        ("a file", "config.toml"),
        ("a folder", "guest"),
    ] {
        let (mut request, _pipes) = host.request(&["/bin/app"]);
        request.stdout = host.path().join(place).display().to_string();
        let error = host.pod.create(request).await.unwrap_err();
        assert!(
            matches!(error, TaskError::Stdio { pipe: "stdout", .. }),
            "{what}: {error:?}"
        );
        host.assert_clean(&[]).await;
        assert!(host.pod.is_idle());
    }
}
