//! T3: what a server prints, where the host keeps it.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use cella_tests::{Fixture, process::wait_until};

use crate::attack::{Attack, Ground, On, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 3,
    title: "Prompts through stdout and stderr",
    attacks: &[Attack {
        name: "a_canary_printed",
        tried: "a server prints a prompt on stdout, on stderr, to /dev/kmsg and as its last words; the host looks into all of its files",
        on: On::Machine,
        run: printed,
    }],
    open: &[],
};

fn printed(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let without = found_after(f, "allow")?;
    ensure!(
        !without.is_empty(),
        "with stdio = \"allow\" the canary is nowhere: the search proves nothing"
    );
    g.leaves_nothing()?;
    let with = found_after(f, "deny")?;
    ensure!(with.is_empty(), "the canary is in {with:?}");
    let names: Vec<_> = without
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy())
        .collect();
    Ok(Seen::new(
        format!("with `stdio = \"allow\"` the host has it in {}", names.join(", ")),
        "with `stdio = \"deny\"` no file of the host has it: nothing is printed",
    ))
}

/// Files of the host that hold what a container printed under this policy.
fn found_after(f: &Fixture, stdio: &str) -> Result<Vec<PathBuf>> {
    // Put together in the guest: the policy, which the host may read, has the halves only.
    let (left, right) = (f.stack.fresh("prompt"), "of-a-tenant");
    let canary = format!("{left}-{right}");
    let line = format!(
        "c={left}; c=$c-{right}; echo $c; echo $c >&2; echo $c > /dev/kmsg; echo $c > /dev/termination-log; touch /tmp/done; sleep 1; echo $c; sh -c 'exit 3'"
    );
    let more = format!("stdio = {stdio:?}\n[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n");
    let policy = f.allowed(&f.shell(&line).container(&more))?;
    let run = f.start(&policy, &line);
    let output = f.stack.path(&f.stack.fresh("printed"));
    let mut ctr = run.spawn(&f.stack, &output)?;
    wait_until(Duration::from_secs(120), || Ok(ctr.try_wait()?))?;
    let mut found = Vec::new();
    for folder in ["vm", "snap", "ctd", "logs"] {
        search(&f.stack.path(folder), canary.as_bytes(), &mut found)?;
    }
    if holds(&output, canary.as_bytes()) {
        found.push(output);
    }
    f.stack.ctr(&["task", "rm", "-f", &run.id])?;
    f.stack.ctr(&["container", "rm", &run.id])?;
    Ok(found)
}

fn search(folder: &Path, canary: &[u8], found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            search(&entry.path(), canary, found)?;
        } else if kind.is_file() && holds(&entry.path(), canary) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn holds(path: &Path, canary: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, canary).is_some())
}
