//! VMs that do not come up, and containers that are refused.

use std::time::Duration;

use cella_shim::agent::AgentError;
use cella_shim::task::TaskError;
use cella_shim::vm::LaunchError;

use crate::host::Host;

async fn failed(host: &Host, args: &[&str]) -> TaskError {
    let (request, _pipes) = host.request(args);
    let error = host.pod.create(request).await.unwrap_err();
    host.assert_clean(&[]).await;
    assert!(host.pod.is_idle());
    assert_eq!(host.events.seen(), Vec::<String>::new());
    error
}

#[tokio::test]
async fn a_denial_is_the_agents_own_word_and_the_vm_goes() {
    let host = Host::new("normal").await;
    let error = failed(&host, &["/bin/other"]).await;
    let TaskError::Agent(AgentError::Refused {
        code: ttrpc::Code::PERMISSION_DENIED,
        message,
    }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(message, "policy denies container \"app\": args[0] is \"/bin/other\"");
    assert_eq!(error.message(), *message);
}

#[tokio::test]
async fn qemus_last_words_are_in_the_error() {
    let host = Host::new("qemu-fails").await;
    let error = failed(&host, &["/bin/app"]).await;
    assert!(
        matches!(&error, TaskError::Launch(LaunchError::Died { death }) if death.program == "qemu"),
        "{error:?}"
    );
    let expected = "the VM died while it booted: qemu ended with status 1; stderr: qemu-system-x86_64: -machine q35: no such machine";
    assert_eq!(error.message(), expected);
}

#[tokio::test]
async fn an_agent_that_is_never_heard_of_costs_the_boot_timeout() {
    let host = Host::new("mute").await;
    let error = failed(&host, &["/bin/app"]).await;
    let TaskError::Launch(LaunchError::NoAgent { after, console, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        *after,
        Duration::from_secs(3),
        "one second, three times as long under TCG"
    );
    assert_eq!(console, &["Booting...", "agent: hello?[31m"]);
}

#[tokio::test]
async fn an_agent_with_a_short_digest_is_refused() {
    let host = Host::new("short-digest").await;
    let error = failed(&host, &["/bin/app"]).await;
    assert!(matches!(
        error,
        TaskError::Launch(LaunchError::Agent(AgentError::Invalid { call: "Hello", .. }))
    ));
}

#[tokio::test]
async fn an_agent_with_another_initdata_is_refused() {
    let host = Host::new("other-initdata").await;
    let error = failed(&host, &["/bin/app"]).await;
    assert!(
        matches!(error, TaskError::Launch(LaunchError::OtherInitdata)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_create_that_is_given_up_leaves_nothing() {
    let host = Host::new("mute").await;
    let (request, _pipes) = host.request(&["/bin/app"]);
    let create = tokio::time::timeout(Duration::from_millis(600), host.pod.create(request));
    assert!(create.await.is_err());
    host.assert_clean(&[]).await;
    assert!(host.pod.is_idle());
}

#[tokio::test]
async fn a_start_that_the_broker_refuses_ends_the_container() {
    let host = Host::new("start-refused").await;
    let (container, _pipes) = host.created().await;
    let processes = host.processes();
    let error = host.pod.clone().start(container.clone()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "broker refuses key kbs:///demo/model-kek/1: measurement"
    );
    assert_eq!(container.exited().await.status, 255);
    host.pod.clone().delete(container).await.unwrap();
    host.pod.flush_events(Duration::from_secs(5)).await;
    assert_eq!(host.events.seen(), ["create", "exit 255", "delete"]);
    host.assert_clean(&processes).await;
}

#[tokio::test]
async fn a_guest_that_dies_at_create_is_named_not_its_connection() {
    let host = Host::new("panic-at-create").await;
    let error = failed(&host, &["/bin/app"]).await;
    assert!(matches!(error, TaskError::VmGone { .. }), "{error:?}");
    assert!(
        error.message().starts_with("the VM is gone: qemu ended with status 0"),
        "{}",
        error.message()
    );
}
