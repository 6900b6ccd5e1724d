//! A host that speaks with the agent's API over a real ttrpc connection.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::sync::Arc;

use cella_agent::{
    api::AgentService,
    boot::BootInfo,
    evidence::{EvidenceError, EvidenceSource},
};
use cella_attest::{GuestEvidence, Launched, Tee};
use cella_http::TrustedTime;
use cella_policy::{Policy, initdata::digests};
use cella_protos::{
    agent::{ContainerSpec, CreateContainerRequest, User},
    agent_ttrpc::{Agent, AgentClient, create_agent},
};
use cella_record::RecordKey;
use protobuf::MessageField;
use slog::Logger;
use tempfile::TempDir;
use tokio::sync::Notify;
use ttrpc::{
    Code,
    asynchronous::{Client, Server},
    context::{Context, with_timeout},
};

use super::common::{IMAGE, Machine, POLICY};

pub struct Host {
    pub client: AgentClient,
    pub end: Arc<Notify>,
    raw: Client,
    _server: Server,
    _dir: TempDir,
}

struct NoEvidence;

impl EvidenceSource for NoEvidence {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        panic!("the launch was asked for")
    }

    fn quote(&self, _: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        panic!("evidence was asked for")
    }
}

impl Host {
    pub async fn connect(agent: impl FnOnce(Arc<Notify>) -> Arc<dyn Agent + Send + Sync>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", dir.path().join("agent").display());
        let end = Arc::new(Notify::new());
        let service = create_agent(agent(Arc::clone(&end)));
        let mut server = Server::new().bind(&address).unwrap().register_service(service);
        server.start().await.unwrap();
        let raw = Client::connect(&address).await.unwrap();
        Self {
            client: AgentClient::new(raw.clone()),
            end,
            raw,
            _server: server,
            _dir: dir,
        }
    }

    pub async fn serving(machine: &Machine) -> Self {
        Self::serving_under(machine, POLICY).await
    }

    pub async fn serving_under(machine: &Machine, policy: &str) -> Self {
        let boot = BootInfo {
            initdata_text: policy.into(),
            digests: digests(policy.as_bytes()),
            policy: Policy::parse(policy).unwrap(),
            tee: Tee::Snp,
            evidence: Arc::new(NoEvidence),
            time: TrustedTime::unknown(),
            record_key: RecordKey::generate().unwrap(),
        };
        let (containers, stages) = (machine.containers.clone(), machine.stages.clone());
        let log = Logger::root(slog::Discard, slog::o!());
        Self::connect(|end| Arc::new(AgentService::new(Arc::new(boot), containers, stages, end, log))).await
    }

    /// A call by its name with any bytes as the message; it must fail.
    pub async fn call(&self, method: &str, payload: &[u8]) -> (Code, String) {
        let request = ttrpc::Request {
            service: "cella.agent.v1.Agent".into(),
            method: method.into(),
            timeout_nano: 10_000_000_000,
            payload: payload.to_vec(),
            ..Default::default()
        };
        refused(self.raw.request(request).await)
    }
}

pub fn context() -> Context {
    with_timeout(10_000_000_000)
}

/// What the policy of the tests allows.
pub fn allowed() -> CreateContainerRequest {
    CreateContainerRequest {
        id: "c1".into(),
        images: vec![IMAGE.into()],
        spec: MessageField::some(ContainerSpec {
            args: vec!["/bin/true".into()],
            env: vec!["PATH=/usr/bin:/bin".into(), "HOME=/tmp".into()],
            cwd: "/".into(),
            user: MessageField::some(User {
                uid: 65534,
                gid: 65534,
                ..Default::default()
            }),
            readonly_rootfs: true,
            ..Default::default()
        }),
        stdout: true,
        ..Default::default()
    }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}
