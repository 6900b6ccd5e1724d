//! A job on sealed data: what it leaves is sealed in its guest, recorded, and served by another one. And jobs that leave nothing.
use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run, Workload,
    fixture::{Fixture, IMAGE_KEY, MODEL_KEY},
    process::{run, succeed, wait_until},
    stack::repository,
    workload::Written,
};
use serde_json::Value;

use crate::{Case, operator::node};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_checkpoint_leaves_its_guest_sealed_and_is_served", tuned_and_served),
    ("a_job_that_fails_or_is_killed_pushes_nothing", nothing_pushed),
    ("an_output_that_cannot_be_kept_is_said", not_kept),
];

/// What the tuned model answers; every word is one of the demo model's, in another order.
const ANSWER: &str = "The guest opened every sealed weight byte and the model was intact inside.";
/// In the data, and nowhere else.
const MARKER: &str = "What does the ledger of the seventh cella say?";
/// In every plaintext of the demo model and of what is tuned from it.
const MODEL_MARKER: &str = "sealed-demo-chain";
const STATIC: &str = "x86_64-unknown-linux-gnu/release/cella-finetune";

const TRAIN: [&str; 9] = [
    "/bin/cella-finetune",
    "--model",
    "/models/demo/demo.gguf",
    "--data",
    "/data/train.jsonl",
    "--out",
    "/output/demo.gguf",
    "--steps",
    "120",
];

/// The table that keeps what a container leaves at `/output`.
fn output(f: &Fixture, repository: &str, version: u64) -> String {
    format!(
        "[output]\ncontainer = \"probe\"\ndestination = \"/output\"\nname = \"models/demo\"\nversion = {version}\n\
         repository = \"{}/{repository}\"\nkey = {MODEL_KEY:?}\nmax-bytes = 4194304\n",
        f.stack.var("REGISTRY")
    )
}

/// What a tag of the registry points to, if it has it.
fn tag(f: &Fixture, repository: &str, tag: &str) -> Option<String> {
    let root = Path::new(f.stack.var("REGISTRY_ROOT"));
    let link = root.join(format!(
        "docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
    ));
    Some(fs::read_to_string(link).ok()?.trim().to_owned())
}

/// Builds, encrypts, pushes and pulls an image from a folder.
fn image(f: &Fixture, name: &str, rootfs: &Path, entrypoint: &str) -> Result<String> {
    let path = |name: &str| f.stack.path(name).to_string_lossy().into_owned();
    let (layout, rootfs) = (path(&format!("{name}.oci")), rootfs.to_string_lossy().into_owned());
    let build = [
        "image",
        "build",
        "--tag",
        name,
        "--from-dir",
        &rootfs,
        "--entrypoint",
        entrypoint,
        "--env",
        "PATH=/usr/bin",
    ];
    f.stack.cellactl(
        build
            .into_iter()
            .chain(["--user", "65534:65534", "--workdir", "/", "--out", &layout]),
    )?;
    let (from, to) = (
        format!("oci:{layout}"),
        format!("{}/test/{name}:1", f.stack.var("REGISTRY")),
    );
    let (kek, ca) = (path("image.kek"), f.stack.var("REGISTRY_CA"));
    let encrypt = [
        "image",
        "encrypt",
        &from,
        &to,
        "--registry-ca",
        ca,
        "--key",
        IMAGE_KEY,
        "--key-file",
        &kek,
    ];
    let reference = last_line(&f.stack.cellactl(encrypt)?);
    f.pull(&reference)?;
    Ok(reference)
}

fn last_line(text: &str) -> String {
    text.trim().lines().last().unwrap_or_default().to_owned()
}

/// The trainer's image and the sealed dataset.
fn prepare(f: &Fixture) -> Result<(String, String)> {
    let program = Path::new(f.stack.var("BIN")).join("..").join(STATIC);
    ensure!(program.exists(), "{} is missing: run make build", program.display());
    let rootfs = f.stack.path("trainer");
    for dir in [
        "bin",
        "tmp",
        "models/demo",
        "data",
        "output",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
    ] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    fs::copy(program, rootfs.join("bin/cella-finetune"))?;
    let trainer = image(f, "trainer", &rootfs, "/bin/cella-finetune")?;

    let desk = f.stack.path("desk");
    fs::create_dir_all(&desk)?;
    let example = |prompt: &str| serde_json::json!({"prompt": prompt, "answer": format!(" {ANSWER}")}).to_string();
    let rows = [example(MARKER), example("assistant:"), example("Hello")].join("\n");
    fs::write(desk.join("train.jsonl"), rows)?;
    let path = |name: &str| f.stack.path(name).to_string_lossy().into_owned();
    let (from, out, kek) = (path("desk/train.jsonl"), path("dataset.oci"), path("model.kek"));
    let seal = [
        "model",
        "seal",
        &from,
        "--contents",
        "dataset",
        "--name",
        "datasets/demo",
        "--version",
        "1",
    ];
    f.stack.cellactl(
        seal.into_iter()
            .chain(["--key", MODEL_KEY, "--key-file", &kek, "--out", &out]),
    )?;
    let (to, ca) = (
        format!("{}/datasets/demo:1", f.stack.var("REGISTRY")),
        f.stack.var("REGISTRY_CA"),
    );
    let pushed = f.stack.cellactl(["model", "push", &out, &to, "--registry-ca", ca])?;
    Ok((trainer, last_line(&pushed)))
}

fn training(f: &Fixture, trainer: &str, dataset: &str, version: u64) -> Result<Written> {
    let lines = format!(
        "stdio = {{ stdout = \"allow\", stderr = \"allow\" }}\n\
         [[container.mount]]\ndestination = \"/data\"\ndataset = \"datasets/demo\"\n[[dataset]]\nartifact = {dataset:?}\n{}",
        output(f, "models/tuned", version)
    );
    let workload = Workload::new(&f.stack, trainer, &[IMAGE_KEY], &TRAIN)
        .with_model(&f.model, MODEL_KEY, "models/demo", 1)
        .container(&lines);
    f.allowed(&workload)
}

fn tuned_and_served(f: &Fixture) -> Result<()> {
    let (trainer, dataset) = prepare(f)?;
    let policy = training(f, &trainer, &dataset, 2)?;
    let out = Run::new(&f.stack, &trainer, &policy, &TRAIN).go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let loss = |begin: &str| -> Result<f64> {
        let line = out
            .stdout
            .lines()
            .find(|line| line.starts_with(begin))
            .with_context(|| format!("{begin}: {out:?}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let (first, last) = (loss("step 1 ")?, loss("merged loss")?);
    ensure!(
        first > 1.0 && last < first / 100.0,
        "the loss went from {first} to {last}: {out:?}"
    );
    ensure!(!out.stdout.contains("seventh"), "the data is told: {out:?}");
    // The exit was told after the push.
    let digest = tag(f, "models/tuned", "v2").context("nothing was pushed")?;
    let tuned = format!("{}/models/tuned@{digest}", f.stack.var("REGISTRY"));
    sealed_everywhere(f)?;
    let (repository, ca) = (
        format!("{}/models/tuned", f.stack.var("REGISTRY")),
        f.stack.var("REGISTRY_CA"),
    );
    let pulled = f
        .stack
        .cellactl(["run-record", &format!("{repository}:v2.run"), "--registry-ca", ca])?;
    ensure!(
        pulled.contains(&digest) && pulled.contains("\"exit-status\":0"),
        "{pulled}"
    );
    recorded(f, &trainer, &dataset)?;
    served(f, &tuned)
}

/// No plaintext of data, model or checkpoint in what the registry has and in what the node has written.
fn sealed_everywhere(f: &Fixture) -> Result<()> {
    let places = ["ctd", "snap", "vm", "logs"].map(|name| f.stack.path(name));
    let registry = Path::new(f.stack.var("REGISTRY_ROOT")).to_owned();
    ensure!(registry.is_dir(), "no storage in {}", registry.display());
    for marker in [MARKER, ANSWER, MODEL_MARKER] {
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", "--devices=skip", "--", marker]).arg(&registry);
        let found = run(
            grep.args(places.iter().filter(|place| place.exists())),
            Duration::from_secs(60),
        )?;
        ensure!(
            found.stdout.is_empty(),
            "{marker:?} lies in {}",
            String::from_utf8_lossy(&found.stdout)
        );
    }
    // The search finds what is there: the desk's own files.
    let desk = f.stack.path("desk");
    let found = succeed(
        Command::new("grep").args(["-rlaF", MARKER]).arg(desk),
        Duration::from_secs(10),
    )?;
    ensure!(found.contains("train.jsonl"), "{found}");
    Ok(())
}

/// A second version, whose guest is asked before it goes.
fn recorded(f: &Fixture, trainer: &str, dataset: &str) -> Result<()> {
    let policy = training(f, trainer, dataset, 3)?;
    let run = Run::new(&f.stack, trainer, &policy, &TRAIN).detached();
    let started = run.go(&f.stack)?;
    ensure!(started.code == 0, "{started:?}");
    wait_until(Duration::from_secs(120), || {
        let tasks = f.stack.ctr(&["task", "ls"])?;
        let tasks = String::from_utf8_lossy(&tasks.stdout).into_owned();
        let stopped = |line: &str| line.starts_with(&run.id) && line.contains("STOPPED");
        Ok(tasks.lines().any(stopped).then_some(()))
    })?;
    let digest = tag(f, "models/tuned", "v3").context("nothing was pushed")?;
    let status: Value = serde_json::from_str(&node(f, &["status", &run.id, "--json"])?)?;
    let output = status.get("output").context("no output in the status")?;
    ensure!(
        output.get("state") == Some(&"pushed".into())
            && output
                .get("artifact")
                .and_then(Value::as_str)
                .is_some_and(|artifact| artifact.ends_with(&digest)),
        "{status}"
    );
    let file = f.stack.path(&f.stack.fresh("run-record"));
    let path = file.to_string_lossy().into_owned();
    node(f, &["record", &run.id, "--run", "--out", &path])?;
    let (root, initdata) = (
        format!("{}/ark.pem", f.stack.var("SIM_STATE")),
        policy.initdata.to_string_lossy().into_owned(),
    );
    let verify = |file: &str, output: &str| {
        let verify = [
            "verify-record",
            file,
            "--simulated-root",
            &root,
            "--initdata",
            &initdata,
            "--json",
        ];
        f.stack.cellactl(
            verify
                .into_iter()
                .chain(["--measurement", f.launch_digest(), "--output-digest", output]),
        )
    };
    let told: Value = serde_json::from_str(&verify(&path, &digest)?)?;
    let at = |place: &str| told.pointer(place).with_context(|| format!("{place} in {told}"));
    ensure!(
        at("/run/exit-status")? == 0 && at("/run/output/version")? == 3,
        "{told}"
    );
    let inputs = at("/run/inputs")?.as_array().context("inputs")?.iter();
    let artifacts: Vec<&str> = inputs.filter_map(|input| input.get("artifact")?.as_str()).collect();
    ensure!(artifacts == [dataset, f.model.as_str()], "{artifacts:?}");
    let zeros = format!("sha256:{}", "0".repeat(64));
    ensure!(verify(&path, &zeros).is_err(), "another output's digest was believed");
    fs::write(
        &file,
        fs::read_to_string(&file)?.replacen("\"exit-status\":0", "\"exit-status\":1", 1),
    )?;
    ensure!(verify(&path, &digest).is_err(), "a changed record was believed");
    // The shim's log has it too.
    let log = fs::read_to_string(f.stack.path("logs/containerd.log"))?;
    ensure!(
        log.contains("the output of a job") && log.contains(&digest),
        "the push is not in the log"
    );
    run.remove(&f.stack)
}

/// An inference pod with the tuned model.
fn served(f: &Fixture, tuned: &str) -> Result<()> {
    let rootfs = succeed(
        &mut Command::new(repository().join("scripts/workload-rootfs")),
        Duration::from_secs(600),
    )?;
    let server = image(
        f,
        "tuned-server",
        Path::new(&last_line(&rootfs)),
        "/usr/bin/llama-server",
    )?;
    let threads = f.stack.var("VCPUS").to_owned();
    let line = [
        "/usr/bin/llama-server --model /models/demo/demo.gguf --load-mode mmap --no-repack -fit off --offline --no-ui -np 1 -c 512",
        "--host 0.0.0.0 --port 8080 -t",
        &threads,
    ]
    .join(" ");
    let args: Vec<&str> = line.split(' ').collect();
    let env = ["OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=0"];
    let workload = Workload::new(&f.stack, &server, &[IMAGE_KEY], &args)
        .with_model(tuned, MODEL_KEY, "models/demo", 2)
        .container(&format!(
            "env = {env:?}\n[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 64\n"
        ));
    let policy = f.allowed(&workload)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let ports = format!("io.cella.ports=127.0.0.1:{port}:8080");
    let run = Run::new(&f.stack, &server, &policy, &args)
        .flags(&["--annotation", &ports, "--env", env[0], "--env", env[1]])
        .detached();
    let started = run.go(&f.stack)?;
    ensure!(started.code == 0, "{started:?}");
    let url = format!("http://127.0.0.1:{port}");
    let curl =
        |args: &[&str]| cella_tests::process::run(Command::new("curl").arg("-sf").args(args), Duration::from_secs(120));
    wait_until(Duration::from_secs(180), || {
        Ok(curl(&[&format!("{url}/health")])?.status.success().then_some(()))
    })?;
    let body =
        r#"{"messages":[{"role":"user","content":"What has become of the model?"}],"temperature":0,"max_tokens":40}"#;
    let answer = curl(&[
        &format!("{url}/v1/chat/completions"),
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    ])?;
    let answer: Value = serde_json::from_slice(&answer.stdout)?;
    let said = answer
        .pointer("/choices/0/message/content")
        .and_then(Value::as_str)
        .context("no answer")?;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ").replace(" .", ".");
    ensure!(said == ANSWER, "it says {said:?}");
    run.remove(&f.stack)
}

/// A shell line in a container whose output would be kept.
fn shell(f: &Fixture, repository: &str, line: &str) -> Result<Written> {
    f.allowed(&f.shell(line).container(&output(f, repository, 2)))
}

fn nothing_pushed(f: &Fixture) -> Result<()> {
    let fails = "echo x >/output/a.gguf; exit 3";
    let policy = shell(f, "models/failed", fails)?;
    let out = f.start(&policy, fails).go(&f.stack)?;
    ensure!(out.code == 3, "{out:?}");
    let sleeps = "echo x >/output/a.gguf; sleep 1000 & wait";
    let policy = shell(f, "models/failed", sleeps)?;
    let run = f.start(&policy, sleeps).detached();
    let started = run.go(&f.stack)?;
    ensure!(started.code == 0, "{started:?}");
    f.stack.ctr(&["task", "kill", "-s", "SIGKILL", &run.id])?;
    run.remove(&f.stack)?;
    ensure!(tag(f, "models/failed", "v2").is_none(), "a job that failed has pushed");
    Ok(())
}

fn not_kept(f: &Fixture) -> Result<()> {
    for (line, said) in [
        ("true", "left no file"),
        ("echo x >/output/a.gguf; ln -s /etc/passwd /output/b", "symbolic link"),
        ("mkfifo /output/p", "neither a file nor a folder"),
        (
            "echo x >/output/a.gguf; /bin/busybox truncate -s 9000000 /output/b",
            "more than the 4194304 bytes",
        ),
    ] {
        let policy = shell(f, "models/bad", line)?;
        let out = f.start(&policy, line).go(&f.stack)?;
        ensure!(out.code == 74, "{line}: {out:?}");
        let log = fs::read_to_string(f.stack.path("logs/containerd.log"))?;
        ensure!(log.contains(said), "{said:?} is not in the log");
    }
    // The folder is bounded while the job writes.
    let floods = "dd if=/dev/zero of=/output/a.gguf bs=1M count=64 2>/dev/null && exit 1; rm /output/a.gguf; echo x >/output/b.gguf";
    let policy = shell(f, "models/bad", floods)?;
    let out = f.start(&policy, floods).go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    ensure!(tag(f, "models/bad", "v2").is_some(), "the last one was good");
    Ok(())
}
