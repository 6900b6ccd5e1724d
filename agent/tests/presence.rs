//! T1 on running containers: who comes after whom, and who must be there for clients to come in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::sync::Arc;

use cella_agent::{
    container::{ContainerError, ContainerId, Creation, ExecCreation, ExecId, Limits, StreamNumbers, WantedPipes},
    network::NetworkPlan,
};
use cella_policy::Policy;
use common::{LIMIT, Machine, POLICY, admission_of, is_root, process};
use tokio::time::timeout;

/// The server comes after an init container that must have completed.
fn policy() -> Policy {
    let container = &POLICY[POLICY.find("[[container]]").unwrap()..POLICY.find("[[container.mount]]").unwrap()];
    let init = container.replace("name = \"server\"", "name = \"init\"\npresence = \"completed\"");
    let server = POLICY
        .replace("[\"/bin/true\"]", "[\"/bin/sleep\", \"1000\"]")
        .replace("name = \"server\"", "name = \"server\"\nafter = [\"init\"]");
    Policy::parse(&format!("{server}\n{init}")).unwrap()
}

/// A server in which the host may run what it likes, and a filter that must be there.
fn free_exec() -> Policy {
    let container = &POLICY[POLICY.find("[[container]]").unwrap()..POLICY.find("[[container.mount]]").unwrap()];
    let sleeps = |text: &str| text.replace("[\"/bin/true\"]", "[\"/bin/sleep\", \"1000\"]");
    let filter = sleeps(container).replace("name = \"server\"", "name = \"filter\"");
    let server = sleeps(POLICY).replace("name = \"server\"", "name = \"server\"\nexec = \"any\"");
    Policy::parse(&format!("{server}\n{filter}")).unwrap()
}

struct Pod {
    machine: Machine,
    policy: Policy,
}

impl Pod {
    fn new(policy: Policy) -> Self {
        Self {
            machine: Machine::under(&policy, None),
            policy,
        }
    }

    fn create(&self, name: &str) -> ContainerId {
        let id: ContainerId = name.parse().unwrap();
        self.create_as(&id, name).unwrap();
        id
    }

    fn create_as(&self, id: &ContainerId, name: &str) -> Result<StreamNumbers, ContainerError> {
        self.machine.containers.create(Creation {
            id: id.clone(),
            admission: admission_of(&self.policy, name),
            host_seccomp: None,
            pipes: WantedPipes::default(),
            limits: Limits::default(),
        })
    }

    async fn start(&self, id: &ContainerId) -> Result<u32, ContainerError> {
        let network = Arc::new(NetworkPlan::default());
        let start = self.machine.containers.start(id, self.machine.supply(), network);
        timeout(LIMIT, start).await.unwrap()
    }

    async fn ended(&self, id: &ContainerId) -> u32 {
        let process = id.first_process();
        let wait = self.machine.containers.wait(&process);
        timeout(LIMIT, wait).await.unwrap().unwrap().exit.status
    }

    fn missing(&self) -> Vec<String> {
        let missing = self.machine.containers.ingress().missing();
        missing.iter().map(ToString::to_string).collect()
    }

    /// Waits for the event of that number and kind: its text.
    async fn event(&self, number: u64) -> String {
        let next = self.machine.containers.pod().events().next(number - 1);
        timeout(LIMIT, next).await.unwrap().text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_the_order_is_kept_and_the_ingress_follows() {
    if !is_root() {
        return;
    }
    let pod = Pod::new(policy());
    let (init, server) = (pod.create("init"), pod.create("server"));
    let denied = pod.start(&server).await.unwrap_err();
    assert_eq!(
        denied.to_string(),
        "policy denies starting container \"server\": its after names \"init\", allowed is when that has ended with status 0"
    );
    pod.start(&init).await.unwrap();
    assert_eq!(pod.ended(&init).await, 0);
    assert_eq!(pod.missing(), ["container \"server\" does not run"]);
    // The denial has not cost the container its start.
    pod.start(&server).await.unwrap();
    assert_eq!(
        pod.event(1).await,
        "the ingress is open: every required container is there"
    );
    assert!(pod.missing().is_empty());
    pod.machine
        .containers
        .signal(&server.first_process(), 9, false)
        .unwrap();
    assert_eq!(pod.ended(&server).await, 137);
    assert_eq!(
        pod.event(2).await,
        "the ingress is shut: container \"server\" does not run"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_the_hosts_command_lines_wait_until_everybody_is_there() {
    if !is_root() {
        return;
    }
    let pod = Pod::new(free_exec());
    let containers = &pod.machine.containers;
    let (server, filter) = (pod.create("server"), pod.create("filter"));
    pod.start(&server).await.unwrap();
    let exec: ExecId = "e1".parse().unwrap();
    let creation = ExecCreation {
        exec: exec.clone(),
        process: process(&["/bin/true"]),
        pipes: WantedPipes::default(),
    };
    containers.exec(&server, creation).unwrap();
    let denied = containers.start_exec(&server, &exec).await.unwrap_err();
    assert!(matches!(denied, ContainerError::Denied(_)), "{denied:?}");
    let words = "exec is \"any\" and the ingress is shut by presence, container \"filter\" does not run";
    assert!(denied.to_string().contains(words), "{denied}");
    // Nothing has been spent: it may run as soon as everybody is there.
    pod.start(&filter).await.unwrap();
    containers.start_exec(&server, &exec).await.unwrap();
    for id in [&server, &filter] {
        containers.signal(&id.first_process(), 9, false).unwrap();
        assert_eq!(pod.ended(id).await, 137);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_there_are_no_more_of_a_container_than_the_policy_allows() {
    if !is_root() {
        return;
    }
    let pod = Pod::new(free_exec());
    let (first, second) = (pod.create("server"), "second".parse().unwrap());
    let refused = pod.create_as(&second, "server").unwrap_err();
    assert!(
        matches!(&refused, ContainerError::NameTaken { name, id } if name == "server" && *id == first),
        "{refused:?}"
    );
    pod.machine.containers.delete(&first.first_process()).await.unwrap();
    pod.create_as(&second, "server").unwrap();
}
