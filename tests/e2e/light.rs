//! First light: what is allowed works, and nothing of it touches the host in the clear.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{process::wait_until, registry};
use nix::libc;

use crate::{
    Case,
    fixture::{Fixture, HELLO},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("output_and_exit_code_come_back", output_and_exit_code_come_back),
    ("a_signal_ends_it_with_128_plus_its_number", a_signal_ends_it),
    ("containerd_fetches_no_layer", containerd_fetches_no_layer),
    ("the_model_is_a_read_only_file_in_locked_memory", the_model_is_locked),
    (
        "a_container_cannot_change_or_lock_a_model",
        the_model_is_nobodys_to_change,
    ),
    ("the_process_is_confined", the_process_is_confined),
    ("no_plaintext_reaches_the_host", no_plaintext_reaches_the_host),
    ("the_guest_image_is_within_its_bounds", guest_image_is_small),
    ("the_firmware_boots_what_the_digest_names", firmware_boots),
    ("a_plain_image_runs_where_the_policy_names_no_key", a_plain_image_runs),
];

fn output_and_exit_code_come_back(f: &Fixture) -> Result<()> {
    let out = f.run(&format!("echo {HELLO}; echo to stderr >&2; exit 7"))?;
    ensure!(out.stdout == format!("{HELLO}\n"), "{out:?}");
    ensure!(out.stderr.contains("to stderr"), "{out:?}");
    ensure!(out.code == 7, "{out:?}");
    Ok(())
}

fn a_signal_ends_it(f: &Fixture) -> Result<()> {
    let line = "sleep 1000 & wait";
    let policy = f.allowed(&f.shell(line))?;
    let run = f.start(&policy, line).detached();
    ensure!(run.go(&f.stack)?.code == 0);
    f.stack.ctr(&["task", "kill", "-s", "SIGKILL", &run.id])?;
    wait_until(Duration::from_secs(20), || {
        let list = f.stack.ctr(&["task", "ls"])?;
        Ok(String::from_utf8_lossy(&list.stdout).contains("STOPPED").then_some(()))
    })?;
    let removed = f.stack.ctr(&["task", "rm", &run.id])?;
    ensure!(
        String::from_utf8_lossy(&removed.stderr).contains("exit code 137"),
        "{removed:?}"
    );
    f.stack.ctr(&["container", "rm", &run.id])?;
    Ok(())
}

fn containerd_fetches_no_layer(f: &Fixture) -> Result<()> {
    let mark = f.stack.mark()?;
    let out = f.stack.ctr(&[
        "images",
        "pull",
        "--snapshotter",
        "cella",
        "--hosts-dir",
        &f.stack.path("ctd/certs.d").to_string_lossy(),
        &f.image,
    ])?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let log = f.stack.registry_since(mark)?;
    for layer in registry::layers(&f.stack, &f.image)? {
        ensure!(!log.contains(&layer), "layer {layer} was fetched by the host:\n{log}");
    }
    Ok(())
}

fn the_model_is_locked(f: &Fixture) -> Result<()> {
    let line = "sha256sum /models/demo/demo.gguf; echo x >> /models/demo/demo.gguf || echo refused; exec tail -f /models/demo/demo.gguf > /dev/null";
    let policy = f.allowed(&f.with_model(line))?;
    let run = f.start(&policy, line);
    let output = f.stack.path("model.out");
    let mut ctr = run.spawn(&f.stack, &output)?;
    let printed = wait_until(Duration::from_secs(60), || {
        let text = fs::read_to_string(&output).unwrap_or_default();
        Ok((text.contains("refused") || ctr.try_wait()?.is_some()).then_some(text))
    })?;
    ensure!(printed.contains("refused"), "{printed}");
    ensure!(
        printed.contains(&f.model_sha256),
        "the model's bytes differ from what was sealed: {printed}"
    );
    let status = status(f)?;
    let file = status.pointer("/models/0/files/0").context("no model in the status")?;
    let number = |name: &str| {
        file.get(name)
            .and_then(serde_json::Value::as_u64)
            .context(name.to_owned())
    };
    ensure!(number("bytes")? == f.model_bytes);
    ensure!(number("mapped_bytes")? == f.model_bytes.next_multiple_of(2 << 20));
    ensure!(number("locked_bytes")? == number("mapped_bytes")?, "{file}");
    ensure!(number("huge_bytes")? == number("mapped_bytes")?, "{file}");
    let memory = |name: &str| {
        status
            .pointer(&format!("/memory/{name}"))
            .and_then(serde_json::Value::as_u64)
            .context(name.to_owned())
    };
    ensure!(memory("swap_total_bytes")? == 0);
    ensure!(memory("mlocked_bytes")? >= number("mapped_bytes")?, "{status}");
    ensure!(
        status.pointer("/evidence/simulated") == Some(&serde_json::Value::Bool(true)),
        "{status}"
    );
    run.remove(&f.stack)?;
    ctr.wait()?;
    Ok(())
}

fn the_model_is_nobodys_to_change(f: &Fixture) -> Result<()> {
    let line = "model-probe; sha256sum /models/demo/demo.gguf; cat /proc/sys/vm/compact_unevictable_allowed | sed s/^/compaction=/";
    let policy = f.allowed(&f.with_model(line))?;
    let out = f.start(&policy, line).go(&f.stack)?;
    let said = |what: &str| {
        let mut lines = out.stdout.lines().filter_map(|line| line.split_once('='));
        let number = lines.find_map(|(name, number)| (name == what).then(|| number.parse::<i32>()));
        number
            .with_context(|| format!("nothing of {what}: {out:?}"))?
            .context("no number")
    };
    for (what, expected) in [
        ("open-for-reading", 0),
        ("map-for-reading", 0),
        ("map-for-writing", libc::EACCES),
        ("make-writable", libc::EACCES),
        ("punch-a-hole", libc::EBADF),
        ("memlock-limit", 0),
        ("lock", libc::EPERM),
        ("compaction", 0),
    ] {
        ensure!(said(what)? == expected, "{what}: {out:?}");
    }
    // The mount is read-only, and the file's mode too.
    for what in ["open-for-writing", "truncate", "chmod", "unlink"] {
        ensure!([libc::EROFS, libc::EACCES].contains(&said(what)?), "{what}: {out:?}");
    }
    ensure!(out.stdout.contains(&f.model_sha256), "the model was changed: {out:?}");
    Ok(())
}

fn the_process_is_confined(f: &Fixture) -> Result<()> {
    let out = f.run(
        "grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd|Threads' /proc/self/status; \
         mount -t tmpfs none /tmp 2>/dev/null && echo mounted; cat /proc/kcore 2>/dev/null | head -c 1; echo pid $$; ls /proc | grep -c '^[0-9]'; \
         ulimit -c; echo x > /proc/sys/kernel/hostname || echo ro",
    )?;
    for word in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "ro",
    ] {
        ensure!(out.stdout.contains(word), "{word:?} is missing: {out:?}");
    }
    ensure!(!out.stdout.contains("mounted"), "{out:?}");
    ensure!(
        out.stdout.contains("\npid 1\n"),
        "the process is not PID 1 of a namespace of its own: {out:?}"
    );
    Ok(())
}

fn no_plaintext_reaches_the_host(f: &Fixture) -> Result<()> {
    // The sentence stands in the model in the clear; the host's side of a run must not hold it anywhere.
    let line = "cat /models/demo/demo.gguf > /dev/null; sleep 1000 & wait";
    let policy = f.allowed(&f.with_model(line))?;
    let run = f.start(&policy, line).detached();
    ensure!(run.go(&f.stack)?.code == 0);
    let canary = b"sealed-demo-chain";
    let mut files = vec![
        f.stack.path("vm"),
        f.stack.path("snap"),
        f.stack.path("ctd"),
        f.stack.path("logs"),
        f.stack.var("REGISTRY_ROOT").into(),
    ];
    let mut looked_at = 0;
    while let Some(path) = files.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            files.extend(fs::read_dir(&path)?.flatten().map(|e| e.path()));
        } else if meta.is_file() {
            looked_at += 1;
            let bytes = fs::read(&path).unwrap_or_default();
            ensure!(
                !bytes.windows(canary.len()).any(|w| w == canary),
                "plaintext of the model is in {}",
                path.display()
            );
        }
    }
    ensure!(looked_at > 10, "only {looked_at} files were looked at");
    run.remove(&f.stack)
}

fn guest_image_is_small(f: &Fixture) -> Result<()> {
    // docs/specification.md. The initramfs is the agent and empty folders, so one bound holds both.
    let initrd = fs::metadata(std::path::Path::new(f.stack.var("GUEST_IMAGE")).join("initrd"))?.len();
    ensure!(initrd <= 8 << 20, "the initramfs has {initrd} bytes");
    Ok(())
}

/// The machine boots the pinned firmware with the table of kernel hashes, as with SNP: what the evidence names is what the firmware let through.
fn firmware_boots(f: &Fixture) -> Result<()> {
    let line = format!("echo {HELLO}");
    let policy = f.allowed(&f.shell(&line))?;
    let out = f
        .start(&policy, &line)
        .configured(&f.stack, &[("sim-firmware-boot", "true")])?
        .go(&f.stack)?;
    ensure!(out.code == 0 && out.stdout.contains(HELLO), "{out:?}");
    Ok(())
}

fn a_plain_image_runs(f: &Fixture) -> Result<()> {
    let line = format!("echo {HELLO}");
    let workload = cella_tests::Workload::new(&f.stack, &f.plain_image, &[], &["/bin/busybox", "sh", "-c", &line]);
    let policy = f.allowed(&workload)?;
    let out =
        cella_tests::Run::new(&f.stack, &f.plain_image, &policy, &["/bin/busybox", "sh", "-c", &line]).go(&f.stack)?;
    ensure!(out.stdout == format!("{HELLO}\n"), "{out:?}");
    Ok(())
}

/// What the only guest that runs says of itself.
pub(crate) fn status(f: &Fixture) -> Result<serde_json::Value> {
    let vm = fs::read_dir(f.stack.path("vm"))?
        .flatten()
        .next()
        .context("no VM")?
        .path();
    let text = f
        .stack
        .cellactl(["status", "--json", "--vsock", &vm.join("vsock").to_string_lossy()])?;
    Ok(serde_json::from_str(&text)?)
}
