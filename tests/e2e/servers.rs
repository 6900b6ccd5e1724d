//! Inference servers: they map what the agent has locked, copy none of it, and say when they are ready.
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run, Workload,
    fixture::MODEL_KEY,
    process::{run, succeed, wait_until},
    stack::repository,
};
use serde_json::{Value, json};

use crate::{Case, fixture::Fixture, light::status};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("a_python_server_maps_safetensors_and_copies_nothing", python),
    (
        "llama_cpp_has_a_second_copy_of_q4_0_unless_it_is_told_not_to",
        llama_cpp,
    ),
];

const ANSWER: &str = "The sealed model was opened inside the guest and every weight byte is intact.";
const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);
/// Emulated processors load and answer slowly.
const READY: Duration = Duration::from_secs(240);
/// What an exec probe runs, and what looks at the server's memory. The policy names both.
const PROBE: &[&str] = &[
    "/usr/bin/busybox",
    "wget",
    "-q",
    "-O",
    "-",
    "http://127.0.0.1:8080/health",
];
const MEMORY: &[&str] = &["/usr/bin/busybox", "grep", "-E", "^(Rss|VmLck)", "/proc/1/status"];

fn python(f: &Fixture) -> Result<()> {
    let shape = [
        "--format",
        "safetensors",
        "--layers",
        "3",
        "--embd",
        "1024",
        "--ff",
        "2048",
    ];
    let server = Server {
        image: image(f, "python-server", "python-rootfs")?,
        model: sealed(f, "safetensors", &shape)?,
        args: &[
            "/usr/bin/python3",
            "/srv/serve.py",
            "--host",
            "0.0.0.0",
            "--port",
            "8080",
        ],
        // The server finds the model by what the policy says.
        env: &["MODEL_PATH=/models/demo", "OPENBLAS_NUM_THREADS=1"],
        cpu: None,
    };
    let running = server.start(f)?;
    // Neither kind of probe takes it for ready before it can answer.
    ensure!(!running.probe(f)?, "an exec probe succeeded at once");
    let mut codes = Vec::new();
    wait_until(READY, || {
        let code = running.health()?;
        if codes.last() != Some(&code) {
            codes.push(code);
        }
        Ok((codes.last().map(String::as_str) == Some("200")).then_some(()))
    })
    .with_context(|| format!("{codes:?}"))?;
    ensure!(
        codes.iter().any(|code| code == "503"),
        "it never said that it is loading: {codes:?}"
    );
    ensure!(running.probe(f)?, "the exec probe fails while the server is ready");
    running.answers(40, ANSWER)?;

    let status = status(f)?;
    let weights = file(&status, "model.safetensors")?;
    one_copy(weights)?;
    // Every file of the folder is locked, and the whole once.
    let files = status.pointer("/models/0/files").and_then(Value::as_array);
    let mapped: u64 = files
        .context("files")?
        .iter()
        .map(|file| number(file, "mapped_bytes"))
        .sum();
    let locked = number(status.get("memory").context("memory")?, "mlocked_bytes");
    ensure!(
        (mapped..mapped + 32 * MIB).contains(&locked),
        "{locked} locked, {mapped} mapped"
    );
    let anonymous = running.anonymous(f)?;
    ensure!(
        anonymous < number(weights, "bytes") / 2,
        "the server has {anonymous} bytes of its own: {weights}"
    );
    running.run.remove(&f.stack)
}

fn llama_cpp(f: &Fixture) -> Result<()> {
    let shape = ["--type", "q4_0", "--layers", "6", "--embd", "1024", "--ff", "4096"];
    let (image, model) = (
        image(f, "llama-server", "workload-rootfs")?,
        sealed(f, "q4_0.gguf", &shape)?,
    );
    let maps = [
        "/usr/bin/llama-server",
        "--model",
        "/models/demo/q4_0.gguf",
        "--load-mode",
        "mmap",
        "-fit",
        "off",
        "--offline",
        "--no-ui",
        "-np",
        "1",
        "-c",
        "256",
        "-t",
        "2",
        "--host",
        "0.0.0.0",
        "--port",
        "8080",
    ];
    let told = [maps.as_slice(), &["--no-repack"]].concat();
    let mut own = Vec::new();
    for args in [told.as_slice(), maps.as_slice()] {
        let server = Server {
            image: image.clone(),
            model: model.clone(),
            args,
            env: &["OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=0"],
            // It repacks for AVX2, which emulated processors do not show by default.
            cpu: Some("\"max,-erms,-fsrm,-vaes\""),
        };
        let running = server.start(f)?;
        wait_until(READY, || Ok((running.health()? == "200").then_some(())))?;
        let status = status(f)?;
        let weights = file(&status, "q4_0.gguf")?;
        own.push((running.anonymous(f)?, number(weights, "bytes")));
        if args.len() == told.len() {
            one_copy(weights)?;
            // One token: emulated AVX2 is slow. `make demo` has whole answers.
            running.answers(1, "The")?;
        }
        running.run.remove(&f.stack)?;
    }
    let [(told, bytes), (not_told, _)] = own.as_slice() else {
        anyhow::bail!("{own:?}");
    };
    ensure!(*told < bytes / 2, "{told} bytes of its own beside a model of {bytes}");
    // Almost all of the model a second time: if that ends, the flag and this test have become needless.
    ensure!(
        not_told.saturating_sub(*told) > bytes / 10 * 8,
        "without the flag {not_told}, with it {told} bytes of its own beside a model of {bytes}"
    );
    Ok(())
}

/// What runs, on which model.
struct Server<'a> {
    image: String,
    model: String,
    args: &'a [&'a str],
    env: &'a [&'a str],
    cpu: Option<&'a str>,
}

/// A server in a guest, its port forwarded to `port` of this machine.
struct Running {
    run: Run,
    port: u16,
}

impl Server<'_> {
    fn start(&self, f: &Fixture) -> Result<Running> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let container = format!("env = {}\nexec = {}\n", json!(self.env), json!([PROBE, MEMORY]));
        let workload = Workload::new(&f.stack, &self.image, &[], self.args)
            .container(&container)
            .with_model(&self.model, MODEL_KEY, "models/server", 1);
        let policy = f.allowed(&workload)?;
        let ports = format!("io.cella.ports=127.0.0.1:{port}:8080");
        let mut flags = vec!["--annotation", &ports];
        flags.extend(self.env.iter().flat_map(|variable| ["--env", variable]));
        let mut run = Run::new(&f.stack, &self.image, &policy, self.args).flags(&flags);
        if let Some(cpu) = self.cpu {
            run = run.configured(&f.stack, &[("cpu-model", cpu)])?;
        }
        let run = run.detached();
        let out = run.go(&f.stack)?;
        ensure!(out.code == 0, "{out:?}");
        Ok(Running { run, port })
    }
}

impl Running {
    /// What an HTTP probe sees: the status, 000 when nobody answers.
    fn health(&self) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/health", self.port);
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", &url]);
        Ok(String::from_utf8_lossy(&run(&mut curl, SOON)?.stdout).into_owned())
    }

    /// Whether an exec probe succeeds.
    fn probe(&self, f: &Fixture) -> Result<bool> {
        Ok(self.exec(f, PROBE)?.status.success())
    }

    /// Bytes of memory that the server shares with nobody and has from no file.
    fn anonymous(&self, f: &Fixture) -> Result<u64> {
        let out = self.exec(f, MEMORY)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let kib = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(found, rest)| {
                (found == name).then(|| rest.split_whitespace().next()?.parse::<u64>().ok())?
            })
        };
        // It locks nothing itself: the lock is the agent's.
        ensure!(kib("VmLck") == Some(0), "{out:?}");
        Ok(kib("RssAnon").with_context(|| format!("{out:?}"))? * 1024)
    }

    fn exec(&self, f: &Fixture, command: &[&str]) -> Result<std::process::Output> {
        let id = f.stack.fresh("probe");
        let mut exec = Command::new(f.stack.var("CTR"));
        exec.args([
            "-a",
            f.stack.var("CONTAINERD"),
            "task",
            "exec",
            "--exec-id",
            &id,
            &self.run.id,
        ]);
        run(exec.args(command).stdin(Stdio::null()), SOON)
    }

    /// Asks for an answer of so many tokens, and checks that it says `expected`.
    fn answers(&self, tokens: u32, expected: &str) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/v1/completions", self.port);
        let request = json!({"prompt": "?", "max_tokens": tokens, "temperature": 0}).to_string();
        let mut curl = Command::new("curl");
        curl.args([
            "-sSf",
            "--max-time",
            "200",
            "-H",
            "Content-Type: application/json",
            "-d",
            &request,
            &url,
        ]);
        let answer: Value = serde_json::from_str(&succeed(&mut curl, READY)?)?;
        let text = answer
            .pointer("/choices/0/text")
            .and_then(Value::as_str)
            .context("text")?;
        let text = text.replace(" .", ".");
        ensure!(text.trim() == expected, "{answer}");
        Ok(())
    }
}

/// One set of pages, mapped by agent and server: all of it is there, locked, and nobody's to write.
fn one_copy(file: &Value) -> Result<()> {
    let (bytes, mapped) = (number(file, "bytes"), number(file, "mapped_bytes"));
    ensure!(number(file, "locked_bytes") == mapped && mapped >= bytes, "{file}");
    let mappings = file.get("mappings").and_then(Value::as_array).context("mappings")?;
    let [server] = mappings.as_slice() else {
        anyhow::bail!("one process with the model was expected: {file}");
    };
    let (rss, pss) = (number(server, "rss_bytes"), number(server, "pss_bytes"));
    ensure!(server.get("writable") == Some(&Value::Bool(false)), "{file}");
    ensure!(rss >= bytes / 100 * 95 && rss <= mapped, "{file}");
    ensure!(pss >= rss / 100 * 49 && pss <= rss / 100 * 51, "{file}");
    ensure!(pss + number(file, "agent_pss_bytes") <= mapped, "{file}");
    Ok(())
}

fn file<'s>(status: &'s Value, path: &str) -> Result<&'s Value> {
    let files = status.pointer("/models/0/files").and_then(Value::as_array);
    let mut files = files.context("no model in the status")?.iter();
    files
        .find(|file| file.get("path").and_then(Value::as_str) == Some(path))
        .with_context(|| format!("{path} is not in the status: {status}"))
}

fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The image of a root file system that a script of this repository makes, with busybox for the probes.
fn image(f: &Fixture, name: &str, script: &str) -> Result<String> {
    let made = succeed(
        &mut Command::new(repository().join("scripts").join(script)),
        Duration::from_secs(600),
    )?;
    let rootfs: PathBuf = f.stack.path(name);
    succeed(
        Command::new("cp")
            .args(["-r", "--no-dereference", made.trim()])
            .arg(&rootfs),
        SOON,
    )?;
    fs::copy("/bin/busybox", rootfs.join("usr/bin/busybox")).context("busybox-static")?;
    let image = f.plain(name, &rootfs, "/usr/bin/busybox");
    fs::remove_dir_all(&rootfs)?;
    image
}

/// Makes and seals a demo model, version 1 of `models/server`, and gives its reference.
fn sealed(f: &Fixture, name: &str, shape: &[&str]) -> Result<String> {
    let path = |name: &str| f.stack.path(name).to_string_lossy().into_owned();
    let (model, layout) = (path(name), path(&f.stack.fresh("model")));
    f.stack.cellactl(["model", "demo", &model].iter().chain(shape))?;
    let sealing = ["--name", "models/server", "--version", "1", "--key", MODEL_KEY];
    let files = ["--key-file", &path("model.kek"), "--out", &layout];
    f.stack
        .cellactl(["model", "seal", &model].iter().chain(&sealing).chain(&files))?;
    let to = format!("{}/models/server:1", f.stack.var("REGISTRY"));
    let pushed = f.stack.cellactl([
        "model",
        "push",
        &layout,
        &to,
        "--registry-ca",
        f.stack.var("REGISTRY_CA"),
    ])?;
    if Path::new(&model).is_dir() {
        fs::remove_dir_all(&model)?;
    } else {
        fs::remove_file(&model)?;
    }
    fs::remove_dir_all(&layout)?;
    Ok(pushed.trim().lines().last().unwrap_or_default().to_owned())
}
