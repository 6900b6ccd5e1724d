//! A run's record in words.

use cella_record::RunRecord;

use super::printable;
use crate::units::grouped;

/// What the guest says of a run. Above it stands nothing that is proved less: the run was signed by the boot whose record follows.
pub(super) fn for_people(run: &RunRecord) -> String {
    let mut text = String::from("run record: genuine, and as expected\n");
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    line(
        "ran",
        &format!("{}: {}", printable(&run.container), printable(&run.image)),
    );
    for input in &run.inputs {
        let (name, artifact) = (printable(&input.name), printable(&input.artifact));
        line("read", &format!("{name} version {}: {artifact}", input.version));
    }
    line("ended", &format!("with status {}", run.exit_status));
    match &run.output {
        None => line("left", "nothing"),
        Some(output) => {
            let (name, artifact) = (printable(&output.name), printable(&output.artifact));
            line("left", &format!("{name} version {}: {artifact}", output.version));
            for file in &output.files {
                let (path, digest) = (printable(&file.path), printable(&file.digest));
                line("", &format!("{path}: {digest}, {} bytes", grouped(file.bytes)));
            }
        }
    }
    if let Some(time) = run.time {
        line(
            "from, to",
            &format!("{}, {} (Unix time, by the broker's clock)", time.started, time.ended),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use cella_record::{Hex, InputRecord, OutputFileRecord, OutputRecord, RUN_VERSION, RunTime};

    use super::*;

    #[test]
    fn a_run_is_told_without_control_characters() {
        let run = RunRecord {
            version: RUN_VERSION,
            boot: Hex([0; 32]),
            container: "trainer".into(),
            image: "localhost:5000/demo/trainer@sha256:11".into(),
            inputs: vec![InputRecord {
                name: "datasets/demo".into(),
                version: 3,
                artifact: "localhost:5000/datasets/demo@sha256:22".into(),
            }],
            exit_status: 0,
            output: Some(OutputRecord {
                name: "models/demo".into(),
                version: 2,
                artifact: "localhost:5000/models/tuned@sha256:33".into(),
                files: vec![OutputFileRecord {
                    path: "a\u{1b}[2J".into(),
                    digest: "sha256:44".into(),
                    bytes: 1_716_800,
                }],
            }),
            time: Some(RunTime { started: 5, ended: 9 }),
        };
        let text = for_people(&run);
        for expected in [
            "trainer: localhost:5000/demo/trainer@sha256:11",
            "datasets/demo version 3: ",
            "with status 0",
            "models/demo version 2: localhost:5000/models/tuned@sha256:33",
            "a?[2J: sha256:44, 1,716,800 bytes",
            "5, 9 (Unix time",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let failed = RunRecord {
            exit_status: 1,
            output: None,
            ..run
        };
        assert!(for_people(&failed).contains("left         nothing"));
    }
}
