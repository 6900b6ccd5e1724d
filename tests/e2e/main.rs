//! End to end, one case after another: the built programs against real containerd, QEMU, registry and key broker. What an attacker tries
//! is in the attack suite (`tests/attacks`).
//!
//! `cargo test -p cella-tests --test e2e -- NAME` runs the cases whose name contains NAME. Needs root and `make build guest-image`.
mod broker;
mod config;
mod content;
mod faults;
mod finetune;
mod full_disk;
mod kills;
mod light;
mod models;
mod network;
mod operator;
mod policy;
mod record;
mod servers;
mod task;
mod tdx;

use std::{process::ExitCode, sync::Arc};

use cella_tests::fixture::{self, Fixture};
use libtest_mimic::{Arguments, Failed, Trial};

type Case = fn(&Fixture) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let groups: &[(&str, &[(&str, Case)])] = &[
        ("light", light::CASES),
        ("content", content::CASES),
        ("broker", broker::CASES),
        ("faults", faults::CASES),
        ("faults", kills::CASES),
        ("faults", full_disk::CASES),
        ("config", config::CASES),
        ("models", models::CASES),
        ("network", network::CASES),
        ("operator", operator::CASES),
        ("record", record::CASES),
        ("servers", servers::CASES),
        ("task", task::CASES),
        ("tdx", tdx::CASES),
        ("finetune", finetune::CASES),
        ("policy", policy::CASES),
    ];
    let cases = groups.iter().flat_map(|(group, cases)| {
        cases
            .iter()
            .map(move |(name, case)| (format!("{group}::{name}"), *case))
    });
    if arguments.list {
        return libtest_mimic::run(
            &arguments,
            cases.map(|(name, _)| Trial::test(name, || Ok(()))).collect(),
        )
        .exit_code();
    }
    let fixture = match Fixture::prepare() {
        Ok(fixture) => Arc::new(fixture),
        Err(error) => {
            eprintln!("the fixture could not be prepared: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases
        .map(|(name, case)| {
            let fixture = Arc::clone(&fixture);
            Trial::test(name, move || {
                case(&fixture)
                    .and_then(|()| fixture.stack.leaves_nothing())
                    .map_err(|e| {
                        fixture.clean();
                        Failed::from(format!("{e:?}\n{}", fixture.last_words()))
                    })
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    match Arc::try_unwrap(fixture).map(Fixture::finish) {
        Ok(Ok(())) => conclusion.exit_code(),
        Ok(Err(error)) => {
            eprintln!("the stack did not end clean: {error:?}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}
