//! The attack suite: each threat of the list tried against the built system. An attack is first shown to work where the defence is off,
//! then to be refused where it is on, and what the operator reads is kept.
//!
//! `cargo test -p cella-tests --test attacks -- t05` runs those whose name contains `t05`. Those on a machine need root and
//! `make build guest-image`; those in process need neither. The report goes to `$CELLA_CACHE/logs/attacks.md` and `.json`, that of a
//! part to `attacks-partial.*`; the last line is `attacks: refused=N of=N`.
mod agent;
mod attack;
mod broker;
mod hardware;
mod hostile;
mod memory;
mod nbd;
mod own;
mod relay;
mod report;
mod stock;

mod t01;
mod t02;
mod t03;
mod t04;
mod t05;
mod t06;
mod t07;
mod t08;
mod t09;
mod t10;
mod t11;
mod t12;
mod t13;
mod t14;
mod t15;
mod t16;
mod t17;
mod t18;
mod t19;
mod t20;
mod t21;
mod t22;
mod t23;
mod t24;
mod t25;
mod t26;
mod t27;
mod t28;
mod vectors;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
};

use attack::{Ground, Threat};
use libtest_mimic::{Arguments, Failed, Trial};
use report::{Report, Row};

const THREATS: &[&Threat] = &[
    &t01::THREAT,
    &t02::THREAT,
    &t03::THREAT,
    &t04::THREAT,
    &t05::THREAT,
    &t06::THREAT,
    &t07::THREAT,
    &t08::THREAT,
    &t09::THREAT,
    &t10::THREAT,
    &t11::THREAT,
    &t12::THREAT,
    &t13::THREAT,
    &t14::THREAT,
    &t15::THREAT,
    &t16::THREAT,
    &t17::THREAT,
    &t18::THREAT,
    &t19::THREAT,
    &t20::THREAT,
    &t21::THREAT,
    &t22::THREAT,
    &t23::THREAT,
    &t24::THREAT,
    &t25::THREAT,
    &t26::THREAT,
    &t27::THREAT,
    &t28::THREAT,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let ground = Arc::new(Ground::default());
    let rows = Arc::new(Mutex::new(Vec::new()));
    let mut trials: Vec<_> = THREATS
        .iter()
        .flat_map(|threat| trials(threat, &ground, &rows))
        .collect();
    trials.push(Trial::test("the_threat_model_names_each_attack", || {
        report::documented(THREATS).map_err(|error| Failed::from(format!("{error:#}")))
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let clean = match Arc::try_unwrap(ground).map(Ground::finish) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            eprintln!("the stack did not end clean: {error:?}");
            false
        }
        Err(_) => false,
    };
    let rows = rows.lock().map(|rows| rows.clone()).unwrap_or_default();
    let all = THREATS.iter().map(|threat| threat.attacks.len()).sum::<usize>();
    let complete = rows.len() == all;
    let report = Report {
        threats: THREATS,
        rows,
        complete,
    };
    match report.write() {
        Ok(line) if clean && !conclusion.has_failed() => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Ok(line) => {
            println!("{line}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the report could not be written: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// A test for each attack of a threat, and one that is ignored for each part of it that cannot be attacked yet.
fn trials(threat: &'static Threat, ground: &Arc<Ground>, rows: &Arc<Mutex<Vec<Row>>>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for attack in threat.attacks {
        let (ground, rows) = (Arc::clone(ground), Arc::clone(rows));
        trials.push(Trial::test(threat.test_name(attack.name), move || {
            let outcome = (attack.run)(&ground).and_then(|seen| ground.leaves_nothing().map(|()| seen));
            let outcome = outcome.map_err(|error| format!("{error:#}"));
            let failed = outcome.as_ref().err().cloned();
            if let Ok(mut rows) = rows.lock() {
                rows.push(Row::tried(threat, attack, outcome));
            }
            match failed {
                None => Ok(()),
                Some(text) => Err(Failed::from(format!("{text}\n{}", ground.clean()))),
            }
        }));
    }
    for open in threat.open {
        trials.push(Trial::test(threat.test_name(open.name), || Ok(())).with_ignored_flag(true));
    }
    trials
}
