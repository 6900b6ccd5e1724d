//! The end of a container whose output is kept: its files are sealed and pushed before anybody hears of its exit.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Instance;
use crate::{
    container::{Ended, Supply},
    pod::EventKind,
    reaper::Exit,
    workload::OutputEnd,
};

/// Tells a push that the container is killed. A push that is not told, or of a container without output, goes on.
#[derive(Debug, Default)]
pub(super) struct GiveUp(Mutex<Option<oneshot::Sender<()>>>);

impl GiveUp {
    /// For a run that begins.
    pub(super) fn arm(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Now, whether there is a push or will be.
    pub(super) fn now(&self) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The run has ended otherwise.
        let _ = sender.map(|sender| sender.send(()));
    }
}

impl Instance {
    /// What the host is told of the end of the first process: after its output was kept, or could not be.
    pub(super) async fn ended(&self, exit: Exit, supply: &dyn Supply, killed: oneshot::Receiver<()>) -> Ended {
        self.end_rest();
        let out_of_memory = self.oom_kills() > 0;
        let status = self.keep_output(exit.status, supply, killed).await;
        Ended {
            exit: Exit { status, ..exit },
            out_of_memory,
        }
    }

    async fn keep_output(&self, status: u32, supply: &dyn Supply, killed: oneshot::Receiver<()>) -> u32 {
        if self.policy.output.is_none() {
            return status;
        }
        let events = self.setting.pod.events();
        let tell = |text: &str| events.add(EventKind::Artifact, self.id.as_str(), "", text);
        match supply.finish(&self.policy.name, status, NOT_KEPT, killed).await {
            OutputEnd::None | OutputEnd::Discarded => status,
            OutputEnd::Pushed(reference) => {
                tell(&format!("pushed {reference}"));
                status
            }
            OutputEnd::NotPushed(error) => {
                let reason = format!("the output is not pushed: {}", crate::workload::one_line(&error));
                tell(&reason);
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                NOT_KEPT
            }
        }
    }
}

/// Exit status of a container that ended with 0 and whose output could not be kept: EX_IOERR of sysexits.
const NOT_KEPT: u32 = 74;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_killed_is_told_once_and_nobody_else() {
        let give_up = GiveUp::default();
        give_up.now();
        let first = give_up.arm();
        give_up.now();
        give_up.now();
        assert_eq!(first.await, Ok(()));
        let second = give_up.arm();
        drop(give_up);
        assert!(second.await.is_err());
    }
}
