//! `cella-conformance SKIPS (LINE RUNC-REPORT CELLA-REPORT)...`: judges runs of critest, ends with the line of figures, fails if anything is wrong.
#![forbid(unsafe_code)]
use std::{env, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use cella_tests::conformance::{judge, read_report, read_skips};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cella-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (skips, runs) = args
        .split_first()
        .context("usage: cella-conformance SKIPS (LINE RUNC-REPORT CELLA-REPORT)...")?;
    let skips = read_skips(Path::new(skips))?;
    let (mut passed, mut failed, mut skipped, mut runc_passed) = (0, 0, 0, 0);
    for chunk in runs.chunks(3) {
        let [line, runc, cella] = chunk else {
            bail!("a containerd line, runc's report and cella's report belong together");
        };
        let verdict = judge(
            line,
            &read_report(Path::new(runc))?,
            &read_report(Path::new(cella))?,
            &skips,
        );
        for problem in &verdict.problems {
            println!("containerd {line}: {problem}");
        }
        println!(
            "containerd {line}: passed={} failed={} skipped={} runc_passed={}",
            verdict.passed,
            verdict.problems.len(),
            verdict.skipped,
            verdict.runc_passed
        );
        passed += verdict.passed;
        failed += verdict.problems.len();
        skipped += verdict.skipped;
        runc_passed += verdict.runc_passed;
    }
    println!("critest: passed={passed} failed={failed} skipped={skipped} runc_passed={runc_passed}");
    Ok(failed == 0 && passed > 0)
}
