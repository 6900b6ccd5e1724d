//! The status for people. Text that came from the guest is stripped of control characters: it goes to a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use cella_protos::agent::{Container, Evidence, Ingress, JobOutput, Model, ModelFile, Stage, StatusResponse};

use crate::units;

pub(super) fn render(status: &StatusResponse) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "agent     {}", clean(&status.agent_version));
    let _ = writeln!(out, "initdata  sha256 {}", hex::encode(&status.initdata_digest));
    stages(&mut out, &status.stages);
    if let Some(evidence) = status.evidence.as_ref() {
        self::evidence(&mut out, evidence);
    }
    for model in &status.models {
        self::model(&mut out, model);
    }
    if let Some(output) = status.output.as_ref() {
        self::output(&mut out, output);
    }
    containers(&mut out, &status.containers);
    if let Some(ingress) = status.ingress.as_ref() {
        self::ingress(&mut out, ingress);
    }
    if let Some(memory) = status.memory.as_ref() {
        let _ = writeln!(
            out,
            "\nmemory    {} total, {} available, {} locked, {} swap, agent {}",
            units::bytes(memory.total_bytes),
            units::bytes(memory.available_bytes),
            units::bytes(memory.mlocked_bytes),
            if memory.swap_total_bytes == 0 {
                "no".to_owned()
            } else {
                units::bytes(memory.swap_total_bytes)
            },
            units::bytes(memory.agent_rss_bytes)
        );
    }
    out
}

fn stages(out: &mut String, stages: &[Stage]) {
    if stages.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{:<10} {:>12} {:>12}  subject", "stage", "begins at", "takes");
    for stage in stages {
        let takes = match stage.end_us.checked_sub(stage.start_us) {
            _ if !stage.failure.is_empty() => "failed".to_owned(),
            Some(us) if stage.end_us != 0 => units::duration(Duration::from_micros(us)),
            _ => "running".to_owned(),
        };
        let begins = units::duration(Duration::from_micros(stage.start_us));
        let _ = writeln!(
            out,
            "{:<10} {begins:>12} {takes:>12}  {}",
            clean(&stage.name),
            clean(&stage.subject)
        );
        if !stage.failure.is_empty() {
            let _ = writeln!(out, "           {}", clean(&stage.failure));
        }
    }
}

fn evidence(out: &mut String, evidence: &Evidence) {
    let kind = if evidence.simulated {
        "SIMULATED: no memory encryption, for development only"
    } else {
        "hardware"
    };
    let _ = writeln!(out, "\nevidence    {}, {kind}", clean(&evidence.tee));
    let _ = writeln!(out, "measurement {}", hex::encode(&evidence.measurement));
    let bound = if evidence.tee == "tdx" {
        "MRCONFIGID"
    } else {
        "host data"
    };
    let _ = writeln!(out, "{bound:<11} {}", hex::encode(&evidence.host_data));
    let _ = writeln!(out, "tcb         {}", clean(&evidence.tcb));
    let _ = writeln!(out, "key broker  {}", clean(&evidence.kbs));
    for key in &evidence.keys {
        let _ = writeln!(out, "key         {}", clean(key));
    }
}

fn model(out: &mut String, model: &Model) {
    let _ = writeln!(out, "\nmodel {} version {}", clean(&model.name), model.version);
    let _ = writeln!(out, "  {}", clean(&model.artifact));
    for file in &model.files {
        self::file(out, file);
    }
}

fn file(out: &mut String, file: &ModelFile) {
    let _ = writeln!(out, "  {}: {} bytes", clean(&file.path), units::grouped(file.bytes));
    let verdict = if file.locked_bytes >= file.mapped_bytes && file.mapped_bytes > 0 {
        "all"
    } else {
        "NOT all"
    };
    let _ = writeln!(
        out,
        "    mapped {}, locked {} ({verdict}), in huge pages {}, agent's share {}",
        units::grouped(file.mapped_bytes),
        units::grouped(file.locked_bytes),
        units::grouped(file.huge_bytes),
        units::grouped(file.agent_pss_bytes)
    );
    for mapping in &file.mappings {
        let _ = writeln!(
            out,
            "    also mapped by {} (pid {}): rss {}, pss {}, {}",
            clean(&mapping.container),
            mapping.pid,
            units::grouped(mapping.rss_bytes),
            units::grouped(mapping.pss_bytes),
            if mapping.writable { "WRITABLE" } else { "read-only" }
        );
    }
}

fn output(out: &mut String, output: &JobOutput) {
    let (name, container) = (clean(&output.name), clean(&output.container));
    let _ = writeln!(
        out,
        "\noutput {name} version {} of {container}: {}",
        output.version,
        clean(&output.state)
    );
    if output.artifact.is_empty() {
        let _ = writeln!(out, "  for {}", clean(&output.repository));
    } else {
        let (files, bytes) = (units::grouped(output.files), units::grouped(output.bytes));
        let _ = writeln!(out, "  {}\n  files {files}, bytes {bytes}", clean(&output.artifact));
    }
    if !output.failure.is_empty() {
        let _ = writeln!(out, "  {}", clean(&output.failure));
    }
}

fn containers(out: &mut String, containers: &[Container]) {
    if containers.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{:<20} {:<16} {:<9} pid", "container", "policy name", "state");
    for container in containers {
        let _ = writeln!(
            out,
            "{:<20} {:<16} {:<9} {}",
            clean(&container.id),
            clean(&container.name),
            clean(&container.state),
            container.pid
        );
    }
}

fn ingress(out: &mut String, ingress: &Ingress) {
    if ingress.missing.is_empty() {
        let _ = writeln!(out, "\ningress   open");
        return;
    }
    let _ = writeln!(out, "\ningress   SHUT: nobody comes in while");
    for missing in &ingress.missing {
        let _ = writeln!(out, "          {}", clean(missing));
    }
}

/// At most 200 characters, none of them a control character.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_stages_locking_and_simulation() {
        let mut status = StatusResponse::new();
        let stage = |name: &str, start, end, failure: &str| {
            let mut stage = Stage::new();
            stage.name = name.to_owned();
            (stage.start_us, stage.end_us, stage.failure) = (start, end, failure.to_owned());
            stage
        };
        status.stages = vec![
            stage("boot", 0, 900_000, ""),
            stage("image", 900_000, 0, ""),
            stage("model", 1, 2, "no\u{1b}"),
        ];
        let mut evidence = Evidence::new();
        evidence.simulated = true;
        status.evidence = Some(evidence).into();
        let mut file = ModelFile::new();
        (file.path, file.bytes, file.mapped_bytes, file.locked_bytes) = ("m.gguf".to_owned(), 10, 2 << 20, 2 << 20);
        let mut model = Model::new();
        model.files = vec![file];
        status.models = vec![model];
        let mut ingress = Ingress::new();
        ingress.missing = vec!["container \"filter\" does not run".to_owned()];
        status.ingress = Some(ingress).into();
        let text = render(&status);
        assert!(
            text.contains("SHUT: nobody comes in while\n          container \"filter\" does not run"),
            "{text}"
        );
        for expected in ["900.0 ms", "running", "failed", "SIMULATED", "2,097,152 (all)"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(!render(&StatusResponse::new()).is_empty());
    }
}
