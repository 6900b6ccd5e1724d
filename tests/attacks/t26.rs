//! T26: keys where others can read them: command lines, environments, files, on the host and in the guest.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Result, ensure};
use base64::Engine;
use cella_tests::{Fixture, process::wait_until};

use crate::attack::{Attack, Ground, On, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 26,
    title: "Secrets in argv, environment, files",
    attacks: &[
        Attack {
            name: "keys_on_the_host",
            tried: "every command line, environment and file of the node is searched for the keys while a pod runs",
            on: On::Machine,
            run: on_the_host,
        },
        Attack {
            name: "keys_in_the_guest",
            tried: "a container reads /proc of every process that it can see, its descriptors, and the whole file system",
            on: On::Machine,
            run: in_the_guest,
        },
    ],
    open: &[],
};

/// A key in the forms in which it could stand somewhere.
fn forms(key: &[u8]) -> Vec<Vec<u8>> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    vec![
        key.to_vec(),
        hex::encode(key).into_bytes(),
        STANDARD.encode(key).into_bytes(),
        URL_SAFE_NO_PAD.encode(key).into_bytes(),
    ]
}

fn keys(f: &Fixture) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for name in ["image.kek", "model.kek"] {
        all.extend(forms(&fs::read(f.stack.path(name))?));
    }
    Ok(all)
}

fn holds(path: &Path, keys: &[Vec<u8>]) -> bool {
    fs::read(path).is_ok_and(|bytes| keys.iter().any(|key| memchr::memmem::find(&bytes, key).is_some()))
}

/// Command lines and environments of all processes, and files below the node's folders, that hold a key.
fn found(f: &Fixture, keys: &[Vec<u8>]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        if entry.file_name().to_string_lossy().parse::<u32>().is_ok() {
            for file in ["cmdline", "environ"] {
                let path = entry.path().join(file);
                if holds(&path, keys) {
                    found.push(path);
                }
            }
        }
    }
    let mut folders: Vec<PathBuf> = ["vm", "snap", "ctd", "logs"]
        .iter()
        .map(|name| f.stack.path(name))
        .collect();
    folders.push(f.stack.var("REGISTRY_ROOT").into());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() && holds(&entry.path(), keys) => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// A process that does it wrong; killed in the end.
struct Careless(Child);

impl Drop for Careless {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn on_the_host(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let keys = keys(f)?;
    let line = "cat /models/demo/demo.gguf > /dev/null; sleep 1000 & wait";
    let policy = f.allowed(&f.with_model(line))?;
    let run = f.start(&policy, line).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let with = found(f, &keys)?;
    let key = hex::encode(fs::read(f.stack.path("image.kek"))?);
    let careless = Careless(Command::new("sleep").args(["1000"]).env("KEY", &key).spawn()?);
    let argv = Careless(Command::new("sh").args(["-c", "sleep 1000; true", &key]).spawn()?);
    let file = f.stack.path("logs/careless");
    fs::write(&file, &key)?;
    let without = wait_until(Duration::from_secs(5), || {
        Ok(Some(found(f, &keys)?).filter(|found| found.len() >= 3))
    })?;
    drop((careless, argv));
    fs::remove_file(&file)?;
    run.remove(&f.stack)?;
    ensure!(with.is_empty(), "a key is in {with:?}");
    Ok(Seen::new(
        format!(
            "programs that take a key as an argument, in the environment or in a file are found: {} places",
            without.len()
        ),
        "the keys of the running pod are in no command line, environment or file of the node",
    ))
}

/// Looks into everything that a process of the container can open.
const SEARCH: &str = "for p in /proc/[0-9]*; do for f in $p/cmdline $p/environ $p/fd/*; do [ -f $f ] && look $f; done; done; \
    find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type f -print | while read f; do look $f; done; \
    ls /proc | grep -cE '^[0-9]+$' | sed 's/^/@PROCESSES /'; ls -l /proc/1/fd | sed 's/^/@FD /'; echo @DONE";

fn in_the_guest(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    // In halves: whoever searches must not be what is found, and the policy is public.
    let halves: Vec<(String, String)> = keys(f)?
        .into_iter()
        .filter_map(|key| String::from_utf8(key).ok())
        .map(|key| {
            let (left, right) = key.split_at(key.len() / 2);
            (left.to_owned(), right.to_owned())
        })
        .collect();
    let mut look = String::new();
    let mut patterns = String::new();
    for (number, (left, right)) in halves.iter().enumerate() {
        look += &format!("A{number}='{left}'; B{number}='{right}'; ");
        patterns += &format!("-e \"$A{number}$B{number}\" ");
    }
    // grep would stop at the first NUL.
    look += &format!("look() {{ tr '\\000' '\\n' 2>/dev/null < $1 | grep -qaF {patterns} && echo @FOUND $1; }}; ");
    let search = |plant: &str| -> Result<Vec<String>> {
        let line = format!("{look}{plant}; {SEARCH}");
        let more = "[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n";
        let policy = f.allowed(&f.shell(&line).container(more))?;
        let out = f.start(&policy, &line).go(&f.stack)?;
        ensure!(out.stdout.contains("@DONE"), "{out:?}");
        Ok(out.stdout.lines().map(str::to_owned).collect())
    };
    let with = search("true")?;
    ensure!(!with.iter().any(|line| line.starts_with("@FOUND")), "{with:?}");
    let without = search("echo $A0$B0 > /tmp/careless; /bin/busybox sh -c 'sleep 1000; true' $A0$B0 & sleep 1")?;
    let found: Vec<_> = without.iter().filter_map(|line| line.strip_prefix("@FOUND ")).collect();
    ensure!(
        found.contains(&"/tmp/careless") && found.len() > 1,
        "keys that were planted were not found: {without:?}"
    );
    let descriptors = with.iter().filter(|line| line.starts_with("@FD l")).count();
    let processes = with.iter().find_map(|line| line.strip_prefix("@PROCESSES "));
    Ok(Seen::new(
        format!(
            "a key that is put into a file and a command line is found: {}",
            found.join(", ")
        ),
        format!(
            "no key in {} visible processes, {descriptors} descriptors of the first, nor in any file",
            processes.unwrap_or_default()
        ),
    ))
}
