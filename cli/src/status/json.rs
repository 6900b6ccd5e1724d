//! The status for programs. Byte strings are hexadecimal.

use cella_protos::agent::{Evidence, JobOutput, Model, ModelFile, StatusResponse};
use serde_json::{Value, json};

pub(super) fn render(status: &StatusResponse) -> String {
    let stages: Vec<_> = status
        .stages
        .iter()
        .map(|stage| {
            json!({
                "name": stage.name, "subject": stage.subject, "start_us": stage.start_us, "end_us": stage.end_us,
                "failure": stage.failure,
            })
        })
        .collect();
    let containers: Vec<_> = status
        .containers
        .iter()
        .map(|container| {
            json!({ "id": container.id, "name": container.name, "state": container.state, "pid": container.pid })
        })
        .collect();
    let memory = status.memory.as_ref().map(|memory| {
        json!({
            "total_bytes": memory.total_bytes, "available_bytes": memory.available_bytes,
            "mlocked_bytes": memory.mlocked_bytes, "swap_total_bytes": memory.swap_total_bytes,
            "agent_rss_bytes": memory.agent_rss_bytes,
        })
    });
    let value = json!({
        "agent_version": status.agent_version,
        "initdata_digest": hex::encode(&status.initdata_digest),
        "stages": stages,
        "evidence": status.evidence.as_ref().map(evidence),
        "models": status.models.iter().map(model).collect::<Vec<_>>(),
        "output": status.output.as_ref().map(output),
        "memory": memory,
        "containers": containers,
        "ingress": status.ingress.as_ref().map(|ingress| json!({
            "open": ingress.missing.is_empty(), "missing": ingress.missing,
        })),
    });
    format!("{value:#}\n")
}

fn evidence(evidence: &Evidence) -> Value {
    json!({
        "tee": evidence.tee, "simulated": evidence.simulated, "measurement": hex::encode(&evidence.measurement),
        "host_data": hex::encode(&evidence.host_data), "tcb": evidence.tcb, "kbs": evidence.kbs,
        "keys": evidence.keys,
    })
}

fn model(model: &Model) -> Value {
    json!({
        "name": model.name, "version": model.version, "artifact": model.artifact,
        "files": model.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn output(output: &JobOutput) -> Value {
    json!({
        "name": output.name, "version": output.version, "container": output.container, "repository": output.repository,
        "state": output.state, "artifact": output.artifact, "files": output.files, "bytes": output.bytes,
        "failure": output.failure,
    })
}

fn file(file: &ModelFile) -> Value {
    let mappings: Vec<_> = file
        .mappings
        .iter()
        .map(|mapping| {
            json!({
                "container": mapping.container, "pid": mapping.pid, "rss_bytes": mapping.rss_bytes,
                "pss_bytes": mapping.pss_bytes, "writable": mapping.writable,
            })
        })
        .collect();
    json!({
        "path": file.path, "bytes": file.bytes, "mapped_bytes": file.mapped_bytes, "locked_bytes": file.locked_bytes,
        "huge_bytes": file.huge_bytes, "agent_pss_bytes": file.agent_pss_bytes, "mappings": mappings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_status_is_json() {
        let value: Value = serde_json::from_str(&render(&StatusResponse::new())).unwrap();
        assert_eq!(
            (value["evidence"].is_null(), value["models"].as_array().unwrap().len()),
            (true, 0)
        );
    }
}
