//! T15: what survives a process, a container or a guest.
use std::{fs, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use cella_tests::process::wait_until;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    agent::Guest,
    attack::{Attack, Ground, On, Seen, Threat},
    memory::{memory_of, occurrences, qemu},
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
            run: model_after_the_end,
        },
        Attack {
            name: "what_ciphers_left_of_keys",
            tried: "the same for the keys, of which ciphers leave copies on stacks and in expanded keys",
            on: On::Machine,
            run: keys_after_the_end,
        },
    ],
    open: &[],
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
/// What the container keeps in its memory.
const CARELESS: &[u8] = b"carelesssecret";

/// How often the model, a secret of the container's, and the keys were found, while the pod ran and after its end.
struct Found {
    before: [usize; 4],
    after: [usize; 4],
}

fn found(g: &Ground) -> Result<&'static Found> {
    static FOUND: OnceLock<Result<Found, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| memory_after_the_end(g).map_err(|e| format!("{e:#}")));
    found.as_ref().map_err(|e| anyhow!("{e}"))
}

fn model_after_the_end(g: &Ground) -> Result<Seen> {
    let Found {
        before: [running, ..],
        after: [after, ..],
    } = *found(g)?;
    ensure!(
        running > 0,
        "the model is not in the memory of the running machine: the scan proves nothing"
    );
    ensure!(
        after == 0,
        "the model is {after} times in the memory of the machine that has ended"
    );
    Ok(Seen::new(
        format!("while the pod ran the model stood {running} times in the machine's memory"),
        "after its end it is not found in the same memory",
    ))
}

fn keys_after_the_end(g: &Ground) -> Result<Seen> {
    let Found {
        before: [.., model_running, image_running],
        after: [_, careless, model, image],
    } = *found(g)?;
    ensure!(
        careless > 0,
        "what a container left is not in the memory of the machine that has ended: the scan proves nothing"
    );
    ensure!(
        model == 0 && image == 0,
        "the model's key is {model} times in the memory of the machine that has ended, the image's {image} times"
    );
    Ok(Seen::new(
        format!(
            "a program of the container's, which zeroes nothing, left its own secret {careless} times in that memory"
        ),
        format!(
            "neither key is found after the end, of copies that stood there while the pod ran ({model_running} of the model's, {image_running} of the \
             image's): the agent zeroes what it frees, and all that it has before it powers off"
        ),
    ))
}

fn memory_after_the_end(g: &Ground) -> Result<Found> {
    let f = g.fixture()?;
    let (model_key, image_key) = (
        fs::read(f.stack.path("model.kek"))?,
        fs::read(f.stack.path("image.kek"))?,
    );
    let needles = [MODEL, CARELESS, &model_key, &image_key];
    // The secret is put together in the guest: it stands in no command line.
    let line = "s=$(yes \"$(printf %s%s careless secret)\" | head -c 1000000); cat /models/demo/demo.gguf > /dev/null; echo read; \
        sleep 1000 & wait; echo $s";
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
    let before = occurrences(&memory, &needles)?;
    // What the shim asks for as well; it kills a machine that is not off after 3 s, so it has to stand still for this.
    let (machine, guest) = (qemu(f)?, Guest::of(f)?);
    let shim = Stopped::parent_of(machine)?;
    let ended = guest.api()?.shut_down();
    ensure!(ended.is_ok(), "{ended:?}");
    wait_until(Duration::from_secs(60), || {
        let (state, _) = process(machine)?;
        Ok((state == 'Z').then_some(()))
    })
    .context("waiting until the machine is off")?;
    drop(shim);
    ctr.wait()?;
    run.remove(&f.stack)?;
    g.leaves_nothing()?;
    let after = occurrences(&memory, &needles)?;
    let four = |counts: Vec<usize>| <[usize; 4]>::try_from(counts).map_err(|_| anyhow!("four counts"));
    Ok(Found {
        before: four(before)?,
        after: four(after)?,
    })
}

/// A process that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn parent_of(process_id: i32) -> Result<Self> {
        let (_, parent) = process(process_id)?;
        ensure!(parent > 1, "process {process_id} has lost its parent");
        kill(Pid::from_raw(parent), Signal::SIGSTOP)?;
        Ok(Self(Pid::from_raw(parent)))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).ok();
    }
}

/// A process's state and parent. One whose parent stands still stays as a zombie.
fn process(id: i32) -> Result<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let mut words = stat.rsplit_once(')').context("stat")?.1.split_ascii_whitespace();
    let state = words.next().and_then(|word| word.chars().next()).context("state")?;
    Ok((state, words.next().context("parent")?.parse()?))
}
