//! The agent's API as a hostile host speaks it: past the shim, straight to the guest.
use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use cella_protos::{
    AGENT_PORT, FORWARD_PORT,
    agent::{NextEventRequest, NextEventResponse},
};
use cella_shim::vsock::{Hybrid, Transport};
use cella_tests::Fixture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};
use ttrpc::{
    Code,
    asynchronous::Client,
    proto::{Request, Response},
};

const LIMIT: Duration = Duration::from_secs(20);

/// The only machine that runs, as its host reaches it.
pub(crate) struct Guest {
    runtime: Runtime,
    vsock: PathBuf,
}

impl Guest {
    pub(crate) fn of(f: &Fixture) -> Result<Self> {
        let vm = fs::read_dir(f.stack.path("vm"))?
            .flatten()
            .next()
            .context("no VM")?
            .path();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            vsock: vm.join("vsock"),
        })
    }

    /// A connection to the agent's API.
    pub(crate) fn api(&self) -> Result<Api<'_>> {
        let transport = Hybrid::new(&self.vsock);
        let client = self.runtime.block_on(async {
            let stream = transport.connect(AGENT_PORT, LIMIT).await?;
            anyhow::Ok(Client::new(ttrpc::asynchronous::transport::Socket::new(stream)))
        })?;
        Ok(Api { guest: self, client })
    }

    /// Asks for a port of the pod, and there for `GET /`. `None`: the agent closed the connection without an answer.
    pub(crate) fn forward(&self, port: u16) -> Result<Option<String>> {
        let transport = Hybrid::new(&self.vsock);
        self.runtime.block_on(async {
            let mut stream = transport.connect(FORWARD_PORT, LIMIT).await?;
            stream.write_all(&port.to_le_bytes()).await?;
            let Ok(0) = stream.read_u8().await else {
                return Ok(None);
            };
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            // What a server says comes at once; the end of its stream need not.
            while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut chunk)).await {
                bytes.extend_from_slice(chunk.get(..n).unwrap_or_default());
            }
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        })
    }
}

/// One connection; it ends with it.
pub(crate) struct Api<'a> {
    guest: &'a Guest,
    client: Client,
}

impl Api<'_> {
    /// Calls any method of any service with any bytes.
    pub(crate) fn call(&self, service: &str, method: &str, payload: Vec<u8>) -> Result<Response, (Code, String)> {
        self.call_within(Duration::from_secs(1), service, method, payload)
    }

    fn call_within(
        &self,
        limit: Duration,
        service: &str,
        method: &str,
        payload: Vec<u8>,
    ) -> Result<Response, (Code, String)> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let answer = self
            .guest
            .runtime
            .block_on(async { self.client.request(request).await });
        answer.map_err(|error| match error {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
            other => (Code::UNKNOWN, other.to_string()),
        })
    }
}

impl Api<'_> {
    /// Calls a method of the agent's own service with a message.
    pub(crate) fn ask<A: protobuf::Message>(
        &self,
        method: &str,
        request: &impl protobuf::Message,
    ) -> Result<A, (Code, String)> {
        let bytes = request.write_to_bytes().map_err(|e| (Code::UNKNOWN, e.to_string()))?;
        let response = self.call(SERVICE, method, bytes)?;
        A::parse_from_bytes(&response.payload).map_err(|e| (Code::UNKNOWN, e.to_string()))
    }

    /// Asks the guest to end, as the shim does, and gives it time.
    pub(crate) fn shut_down(&self) -> Result<(), (Code, String)> {
        self.call_within(Duration::from_secs(60), SERVICE, "Shutdown", Vec::new())
            .map(drop)
    }

    /// The agent's events from the first on: what it tells the operator.
    pub(crate) fn events(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let request = NextEventRequest {
                after,
                ..Default::default()
            };
            match self.ask::<NextEventResponse>("NextEvent", &request) {
                Ok(event) => {
                    after = event.number;
                    all.push(event.text);
                }
                Err(_) => return all, // it waits for the next one, and we do not
            }
        }
    }
}

/// The agent's service.
pub(crate) const SERVICE: &str = "cella.agent.v1.Agent";
