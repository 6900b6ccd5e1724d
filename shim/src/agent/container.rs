//! Calls about a whole container, and what the guest tells by itself.

use std::time::Duration;

use cella_protos::agent as wire;
use ttrpc::context::Context;

use super::{Agent, AgentError, QUICK, bounded, failure, within};
use crate::untrusted::{MAX_MESSAGE, printable};

/// For a list of processes: containerd asks for it when it starts, and waits.
const COUNT: Duration = Duration::from_secs(2);
/// Most processes of a container that are told: as many as Linux numbers by default.
pub const MAX_PROCESSES: usize = 32_768;
/// Longest name in an event that is looked at, in bytes.
const MAX_NAME: usize = 128;

/// Something that happened in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestEvent {
    /// The agent's number for it, from 1.
    pub number: u64,
    /// What.
    pub kind: GuestEventKind,
    /// In which container; empty where it concerns none.
    pub container: String,
    /// In which exec; empty for none.
    pub exec: String,
    /// The agent's words, made printable.
    pub text: String,
    /// Events before this one that the agent keeps no more.
    pub lost: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEventKind {
    /// A process was killed for want of memory.
    OutOfMemory,
    /// The policy refused a request.
    Denied,
    /// Clients may come in from now on, or no more.
    Ingress,
    /// A program has printed something that the host may not read: about how much.
    Output,
    /// What a job has left was pushed, or could not be.
    Artifact,
    /// Something that this program does not know, made printable.
    Other(String),
}

impl GuestEventKind {
    /// The agent's name for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::OutOfMemory => "oom",
            Self::Denied => "denied",
            Self::Ingress => "ingress",
            Self::Output => "output",
            Self::Artifact => "artifact",
            Self::Other(name) => name,
        }
    }
}

impl Agent {
    /// Freezes or thaws a container's processes.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn freeze_container(&self, id: &str, frozen: bool) -> Result<(), AgentError> {
        let request = wire::FreezeContainerRequest {
            id: id.to_owned(),
            frozen,
            ..Default::default()
        };
        let call = self.client.freeze_container(within(QUICK), &request);
        bounded("FreezeContainer", QUICK, call).await.map(drop)
    }

    /// Replaces a container's limits; what is 0 or empty stays as it is.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn update_container(&self, id: &str, resources: wire::Resources) -> Result<(), AgentError> {
        let request = wire::UpdateContainerRequest {
            id: id.to_owned(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        let call = self.client.update_container(within(QUICK), &request);
        bounded("UpdateContainer", QUICK, call).await.map(drop)
    }

    /// What a container uses; the whole pod where `id` is empty. The numbers are the guest's word.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn container_stats(&self, id: &str) -> Result<wire::ContainerStatsResponse, AgentError> {
        let request = wire::ContainerStatsRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let call = self.client.container_stats(within(QUICK), &request);
        bounded("ContainerStats", QUICK, call).await
    }

    /// How many processes a container has. The number is the guest's word, and at most [`MAX_PROCESSES`].
    ///
    /// # Errors
    /// See [`AgentError`]; 2 s at most.
    pub async fn count_processes(&self, id: &str) -> Result<usize, AgentError> {
        let request = wire::ListProcessesRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let call = self.client.list_processes(within(COUNT), &request);
        let answer = bounded("ListProcesses", COUNT, call).await?;
        Ok(answer.pids.len().min(MAX_PROCESSES))
    }

    /// Makes a volume of the pod, or replaces its files.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn put_volume(&self, request: &wire::PutVolumeRequest) -> Result<(), AgentError> {
        let call = self.client.put_volume(within(QUICK), request);
        bounded("PutVolume", QUICK, call).await.map(drop)
    }

    /// Waits for an event later than number `after`. Cancel it when the VM dies.
    ///
    /// # Errors
    /// See [`AgentError`]. A number that is not later is invalid: the caller would never get on.
    pub async fn next_event(&self, after: u64) -> Result<GuestEvent, AgentError> {
        const CALL: &str = "NextEvent";
        let request = wire::NextEventRequest {
            after,
            ..Default::default()
        };
        let answer = self.client.next_event(Context::default(), &request).await;
        let answer = answer.map_err(|error| failure(CALL, error))?;
        if answer.number <= after {
            return Err(AgentError::Invalid {
                call: CALL,
                what: "the event is not later than the last one",
            });
        }
        Ok(event(&answer))
    }
}

fn event(answer: &wire::NextEventResponse) -> GuestEvent {
    GuestEvent {
        number: answer.number,
        kind: match answer.kind.as_str() {
            "oom" => GuestEventKind::OutOfMemory,
            "denied" => GuestEventKind::Denied,
            "ingress" => GuestEventKind::Ingress,
            "output" => GuestEventKind::Output,
            "artifact" => GuestEventKind::Artifact,
            other => GuestEventKind::Other(printable(other, MAX_NAME)),
        },
        container: printable(&answer.container, MAX_NAME),
        exec: printable(&answer.exec_id, MAX_NAME),
        text: printable(&answer.text, MAX_MESSAGE),
        lost: answer.lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_bounded_and_printable() {
        let answer = wire::NextEventResponse {
            number: 3,
            kind: "denied".into(),
            container: "c\n".into(),
            text: "x".repeat(1 << 20),
            lost: 2,
            ..Default::default()
        };
        let event = event(&answer);
        assert_eq!((event.number, event.lost, event.container.as_str()), (3, 2, "c?"));
        assert_eq!(event.kind, GuestEventKind::Denied);
        assert!(event.text.len() <= MAX_MESSAGE + "…".len());
    }
}
