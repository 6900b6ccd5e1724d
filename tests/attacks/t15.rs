//! T15: what survives a process, a container or a guest.
use std::{
    fs,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{Fixture, process::wait_until};
use memchr::memmem;

use crate::{
    agent::Guest,
    attack::{Attack, Ground, On, Open, Seen, Threat},
};

pub(crate) const THREAT: Threat = Threat {
    number: 15,
    title: "Swap, core dump, hibernation, kexec",
    attacks: &[
        Attack {
            name: "swap_dumps_and_other_kernels",
            tried: "a container with every power turns swap on, crashes for a dump, and looks for kexec and hibernation",
            on: On::Machine,
            run: leftovers,
        },
        Attack {
            name: "the_guests_memory_after_its_end",
            tried: "the host keeps the memory of a machine (no TEE protects it here) and looks for the model after the pod's end",
            on: On::Machine,
            run: memory_after_the_end,
        },
    ],
    open: &[Open {
        name: "what_ciphers_left_of_keys",
        part: "keys looked for in the same memory",
        because: "keys are zeroed where they are kept, but copies that ciphers leave on stacks and in expanded keys are found: nothing wipes these yet; with a TEE the host sees such memory encrypted",
    }],
};

fn leftovers(g: &Ground) -> Result<Seen> {
    let (stock, ours) = (g.stock()?, g.hostile()?);
    ensure!(stock.leftovers.len() == 4, "{stock:?}");
    ensure!(ours.leftovers.is_empty(), "{ours:?}");
    Ok(Seen::new(
        format!(
            "Debian's kernel {} has all four: {}",
            stock.version,
            stock.leftovers.join(", ")
        ),
        "none of them: swapon fails, /proc/swaps, core_pattern, kexec_loaded and /sys/power/disk are not there, a crash leaves no file",
    ))
}

/// The sentence stands in the model in the clear.
const MODEL: &[u8] = b"sealed-demo-chain";

fn memory_after_the_end(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let keys = [
        ("the model's key", fs::read(f.stack.path("model.kek"))?),
        ("the image's key", fs::read(f.stack.path("image.kek"))?),
    ];
    let line = "cat /models/demo/demo.gguf > /dev/null; echo read; sleep 1000 & wait";
    let policy = f.allowed(&f.with_model(line))?;
    let run = f.start(&policy, line);
    let output = f.stack.path(&f.stack.fresh("memory-output"));
    let mut ctr = run.spawn(&f.stack, &output)?;
    wait_until(Duration::from_secs(120), || {
        let text = fs::read_to_string(&output).unwrap_or_default();
        ensure!(ctr.try_wait()?.is_none(), "{text}");
        Ok(text.contains("read").then_some(()))
    })?;
    let memory = memory_of(f)?;
    let mut needles = vec![("the model", MODEL)];
    needles.extend(keys.iter().map(|(name, key)| (*name, key.as_slice())));
    let texts: Vec<_> = needles.iter().map(|(_, text)| *text).collect();
    let before = occurrences(&memory, &texts)?;
    // What the shim asks for as well; it waits for 3 s only.
    let ended = Guest::of(f)?.api()?.shut_down();
    ensure!(ended.is_ok(), "{ended:?}");
    ctr.wait()?;
    run.remove(&f.stack)?;
    g.leaves_nothing()?;
    let running = before.first().copied().unwrap_or_default();
    ensure!(
        running > 0,
        "the model is not in the memory of the running machine: the scan proves nothing"
    );
    let after = occurrences(&memory, &texts)?;
    ensure!(
        after.first() == Some(&0),
        "the model is in the memory of the machine that has ended: {after:?}"
    );
    let keys: Vec<_> = needles
        .iter()
        .zip(&after)
        .skip(1)
        .map(|((name, _), count)| format!("{name} {count} times"))
        .collect();
    Ok(Seen::new(
        format!("while the pod ran the model stood {running} times in the machine's memory"),
        format!(
            "after its end it is not found in the same memory (keys, which is open: {})",
            keys.join(", ")
        ),
    ))
}

/// The memory of the only machine that runs, held open: it outlives QEMU as long as it is.
fn memory_of(f: &Fixture) -> Result<fs::File> {
    let vm = fs::read_dir(f.stack.path("vm"))?
        .flatten()
        .next()
        .context("no VM")?
        .path();
    let pid = fs::read_to_string(vm.join("qemu.pid"))?;
    let folder = PathBuf::from(format!("/proc/{}/fd", pid.trim()));
    for fd in fs::read_dir(&folder)?.flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        if target.to_string_lossy().contains("memfd:") && fs::metadata(fd.path())?.len() >= 1 << 28 {
            return Ok(fs::File::open(fd.path())?);
        }
    }
    anyhow::bail!("no memory among {}", folder.display())
}

/// How often each text stands in a file. One that crosses the border of two reads is found as well.
fn occurrences(file: &fs::File, needles: &[&[u8]]) -> Result<Vec<usize>> {
    const STEP: u64 = 8 << 20;
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    let mut reader = fs::File::open(path)?; // from the beginning, each time
    let mut counts = vec![0; needles.len()];
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or_default();
    let mut window = Vec::new();
    loop {
        let kept = window.len();
        if reader.by_ref().take(STEP).read_to_end(&mut window)? == 0 {
            return Ok(counts);
        }
        for (needle, count) in needles.iter().zip(&mut counts) {
            // What ends within the part that was kept was counted before.
            let known = |at: &usize| at + needle.len() > kept;
            *count += memmem::find_iter(&window, needle).filter(known).count();
        }
        let keep = window.len().saturating_sub(longest.saturating_sub(1));
        window.drain(..keep);
    }
}
