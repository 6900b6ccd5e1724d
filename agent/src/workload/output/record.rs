//! The record of a run. See `cella_record`.

use cella_policy::{ContainerPolicy, OutputPolicy, Policy};
use cella_record::{
    Hex, InputRecord, OutputFileRecord, OutputRecord, RUN_VERSION, RunRecord, RunTime, SignedRecord, SignedRun,
};
use slog::{Logger, error};

use super::push::Pushed;
use crate::boot::BootInfo;

/// What is known of a run at its end.
pub(super) struct Run<'r> {
    pub(super) policy: &'r OutputPolicy,
    pub(super) exit_status: u32,
    pub(super) pushed: Option<&'r Pushed>,
    /// By the broker's clock, seconds.
    pub(super) started: Option<u64>,
}

/// The canonical text of the signed record; `None` where the boot has none, on which it would rest.
pub(super) fn make(init: &BootInfo, boot: Option<String>, run: &Run<'_>, log: &Logger) -> Option<String> {
    let boot = SignedRecord::parse(boot?.as_bytes()).ok()?;
    let container = init.policy.container(&run.policy.container)?;
    let record = RunRecord {
        version: RUN_VERSION,
        boot: Hex([0; 32]),
        container: container.name.clone(),
        image: container.image.to_string(),
        inputs: inputs(&init.policy, container),
        exit_status: run.exit_status,
        output: run.pushed.map(|pushed| output(run.policy, pushed)),
        time: run.started.zip(init.time.now()).map(|(started, now)| RunTime {
            started,
            ended: now.as_secs(),
        }),
    };
    let signed = SignedRun::sign(boot, record, &init.record_key);
    let text = signed.and_then(|signed| signed.to_text());
    // A version above 2^53, which readers of JSON do not agree on: the output is pushed without a record.
    text.inspect_err(|error| error!(log, "no run record"; "error" => %error))
        .ok()
}

fn inputs(policy: &Policy, container: &ContainerPolicy) -> Vec<InputRecord> {
    let mounted = container
        .mounts
        .iter()
        .filter_map(|mount| policy.sealed_as(&mount.model));
    let mut inputs: Vec<_> = mounted
        .map(|sealed| InputRecord {
            name: sealed.name.clone(),
            version: sealed.version,
            artifact: sealed.artifact.to_string(),
        })
        .collect();
    // What is mounted twice is one input.
    inputs.sort();
    inputs.dedup();
    inputs
}

fn output(policy: &OutputPolicy, pushed: &Pushed) -> OutputRecord {
    let files = pushed.files.iter().map(|file| OutputFileRecord {
        path: file.path.clone(),
        digest: file.digest.to_string(),
        bytes: file.bytes,
    });
    OutputRecord {
        name: policy.name.clone(),
        version: policy.version,
        artifact: pushed.reference.clone(),
        files: files.collect(),
    }
}
