//! What the cases share: a stack, an encrypted probe image, two sealed models, and their keys at the broker.
use std::{fs, path::Path, process::Command, sync::Mutex};

use crate::{Outcome, Run, Stack, Workload, workload::Written};
use anyhow::{Context, Result, ensure};

/// Name of the key that the probe image is encrypted under.
pub const IMAGE_KEY: &str = "kbs:///test/image-kek/1";
/// Name of the key that both models are sealed under.
pub const MODEL_KEY: &str = "kbs:///test/model-kek/1";
/// What the probe prints when it runs, so that no other output is taken for it.
pub const HELLO: &str = "hello from the probe";

/// A running stack with images, models and keys in place.
pub struct Fixture {
    /// The services.
    pub stack: Stack,
    /// Encrypted busybox: entrypoint `/bin/busybox`.
    pub image: String,
    /// The same, not encrypted.
    pub plain_image: String,
    /// An image of other content that no policy names.
    pub different_image: String,
    /// Sealed model `models/demo` version 1 and another one of the same size, `models/other`.
    pub model: String,
    /// The other one.
    pub other_model: String,
    /// SHA-256 of the model file, hex.
    pub model_sha256: String,
    /// Its length.
    pub model_bytes: u64,
    launch: String,
    policies: Mutex<Vec<String>>,
}

impl Fixture {
    /// Starts the stack, makes and pushes images and models, stores both keys at the broker.
    ///
    /// # Errors
    /// What the programs say.
    pub fn prepare() -> Result<Self> {
        let stack = Stack::start()?;
        let rootfs = stack.path("probe");
        for dir in ["bin", "tmp", "models/demo", "etc", "proc", "sys", "dev", "run"] {
            fs::create_dir_all(rootfs.join(dir))?;
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).context("busybox-static")?;
        let probe = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/model_probe.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-static", "-o"])
            .arg(rootfs.join("bin/model-probe"))
            .arg(probe);
        ensure!(gcc.status().context("gcc")?.success(), "the probe does not compile");
        let path = |name: &str| stack.path(name).to_string_lossy().into_owned();
        let (image_kek, model_kek, ca) = (
            path("image.kek"),
            path("model.kek"),
            stack.var("REGISTRY_CA").to_owned(),
        );
        let layout = path("probe.oci");
        stack.cellactl([
            "image",
            "build",
            "--tag",
            "test/probe:1",
            "--from-dir",
            &path("probe"),
            "--entrypoint",
            "/bin/busybox",
            "--env",
            "PATH=/bin",
            "--workdir",
            "/",
            "--out",
            &layout,
        ])?;
        let registry = stack.var("REGISTRY").to_owned();
        let image = last_line(&stack.cellactl([
            "image",
            "encrypt",
            &format!("oci:{layout}"),
            &format!("{registry}/test/probe:1"),
            "--registry-ca",
            &ca,
            "--key",
            IMAGE_KEY,
            "--key-file",
            &image_kek,
        ])?);
        // Other content each: containerd knows snapshots by their content, and so the images of one content from each other only by the last pull.
        let variant = |what: &str| -> Result<String> {
            fs::write(rootfs.join("etc/variant"), what)?;
            plain_image(&stack, what, &rootfs, "/bin/busybox")
        };
        let (plain_image, different_image) = (variant("plain")?, variant("different")?);
        let gguf = path("demo.gguf");
        stack.cellactl(["model", "demo", &gguf])?;
        let seal = |name: &str, repository: &str| -> Result<String> {
            let out = path(&stack.fresh("model"));
            stack.cellactl([
                "model",
                "seal",
                &gguf,
                "--name",
                name,
                "--version",
                "1",
                "--key",
                MODEL_KEY,
                "--key-file",
                &model_kek,
                "--out",
                &out,
            ])?;
            Ok(last_line(&stack.cellactl([
                "model",
                "push",
                &out,
                &format!("{registry}/{repository}:1"),
                "--registry-ca",
                &ca,
            ])?))
        };
        let (model, other_model) = (
            seal("models/demo", "models/demo")?,
            seal("models/other", "models/other")?,
        );
        let sum = crate::process::succeed(
            std::process::Command::new("sha256sum").arg(&gguf),
            std::time::Duration::from_secs(10),
        )?;
        for image in [&image, &plain_image, &different_image] {
            pull(&stack, image)?;
        }
        let launch = measure(&stack, stack.var("GUEST_IMAGE"))?;
        stack.kbs(&["set-key", "test/image-kek/1", "--key-file", &image_kek])?;
        stack.kbs(&["set-key", "test/model-kek/1", "--key-file", &model_kek])?;
        Ok(Self {
            image,
            plain_image,
            different_image,
            model,
            other_model,
            model_sha256: sum.split_whitespace().next().unwrap_or_default().to_owned(),
            model_bytes: fs::metadata(&gguf)?.len(),
            launch,
            policies: Mutex::new(Vec::new()),
            stack,
        })
    }

    /// Has containerd pull an image.
    ///
    /// # Errors
    /// What ctr says.
    pub fn pull(&self, image: &str) -> Result<()> {
        pull(&self.stack, image)
    }

    /// Builds, pushes and pulls a plain image of a folder.
    ///
    /// # Errors
    /// What the programs say.
    pub fn plain(&self, name: &str, rootfs: &Path, entrypoint: &str) -> Result<String> {
        let image = plain_image(&self.stack, name, rootfs, entrypoint)?;
        self.pull(&image)?;
        Ok(image)
    }

    /// The probe's workload running a busybox shell line.
    #[must_use]
    pub fn shell(&self, line: &str) -> Workload {
        Workload::new(
            &self.stack,
            &self.image,
            &[IMAGE_KEY],
            &["/bin/busybox", "sh", "-c", line],
        )
    }

    /// The same with the model `models/demo` mounted.
    #[must_use]
    pub fn with_model(&self, line: &str) -> Workload {
        self.shell(line).with_model(&self.model, MODEL_KEY, "models/demo", 1)
    }

    /// Writes the policy and tells the broker to release both keys to it.
    ///
    /// # Errors
    /// What cellactl says.
    pub fn allowed(&self, workload: &Workload) -> Result<Written> {
        let written = workload.write(&self.stack)?;
        self.allow(&written)?;
        Ok(written)
    }

    /// Adds a policy to the rules of both keys.
    ///
    /// # Errors
    /// What the broker says.
    pub fn allow(&self, written: &Written) -> Result<()> {
        let policies = {
            let mut policies = self.policies.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            policies.push(written.digest.clone());
            policies.clone()
        };
        self.set_rules(&self.launch, &policies, &["--allow-simulated"])
    }

    /// Sets the rules of both keys.
    ///
    /// # Errors
    /// What the broker says.
    pub fn set_rules(&self, launch: &str, policies: &[String], flags: &[&str]) -> Result<()> {
        for path in ["test/image-kek/1", "test/model-kek/1"] {
            let mut args = vec!["set-rule", path, "--launch-digest", launch];
            // The newest few are enough: each case runs what it has just written.
            for policy in policies.iter().rev().take(16) {
                args.extend(["--policy-digest", policy]);
            }
            args.extend(flags);
            self.stack.kbs(&args)?;
        }
        Ok(())
    }

    /// The launch digest of the stack's guest image.
    #[must_use]
    pub fn launch_digest(&self) -> &str {
        &self.launch
    }

    /// Runs a shell line under a policy that allows it.
    ///
    /// # Errors
    /// As [`Fixture::allowed`] and [`Run::go`].
    pub fn run(&self, line: &str) -> Result<Outcome> {
        let policy = self.allowed(&self.shell(line))?;
        self.start(&policy, line).go(&self.stack)
    }

    /// `ctr run` of the probe with a shell line.
    #[must_use]
    pub fn start(&self, policy: &Written, line: &str) -> Run {
        Run::new(&self.stack, &self.image, policy, &["/bin/busybox", "sh", "-c", line])
    }

    /// What broker and shim said last, for a failed case.
    #[must_use]
    pub fn last_words(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.stack.path(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!(
                "--- {name}\n{}\n",
                lines
                    .get(lines.len().saturating_sub(25)..)
                    .unwrap_or_default()
                    .join("\n")
            )
        };
        ["logs/kbs.log", "logs/containerd.log", "logs/snapshotter.log"]
            .map(tail)
            .concat()
    }

    /// After a failed case: whatever still runs goes, so that the next case starts clean.
    pub fn clean(&self) {
        for what in [["task", "ls", "-q"], ["container", "ls", "-q"]] {
            let Ok(out) = self.stack.ctr(&what) else { continue };
            for id in String::from_utf8_lossy(&out.stdout).lines() {
                self.stack.ctr(&["task", "rm", "-f", id]).ok();
                self.stack.ctr(&["container", "rm", id]).ok();
            }
        }
    }

    /// Ends the stack.
    ///
    /// # Errors
    /// What does not end, or is left.
    pub fn finish(self) -> Result<()> {
        self.stack.stop()
    }
}

/// A plain image of a folder, at the registry.
fn plain_image(stack: &Stack, name: &str, rootfs: &Path, entrypoint: &str) -> Result<String> {
    let layout = stack.path(&format!("{name}.oci")).to_string_lossy().into_owned();
    let rootfs = rootfs.to_string_lossy().into_owned();
    let build = [
        "image",
        "build",
        "--tag",
        name,
        "--from-dir",
        &rootfs,
        "--entrypoint",
        entrypoint,
    ];
    let with = ["--env", "PATH=/bin", "--workdir", "/", "--out", &layout];
    stack.cellactl(build.iter().chain(&with))?;
    let to = format!("{}/test/{name}:1", stack.var("REGISTRY"));
    let pushed = stack.cellactl(["image", "push", &layout, &to, "--registry-ca", stack.var("REGISTRY_CA")])?;
    Ok(last_line(&pushed))
}

/// What the program printed last: a reference.
fn last_line(text: &str) -> String {
    text.trim().lines().last().unwrap_or_default().to_owned()
}

fn pull(stack: &Stack, image: &str) -> Result<()> {
    let hosts = stack.path("ctd/certs.d").to_string_lossy().into_owned();
    let pulled = stack.ctr(&["images", "pull", "--snapshotter", "cella", "--hosts-dir", &hosts, image])?;
    ensure!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    Ok(())
}

/// The launch digest of a guest image folder.
///
/// # Errors
/// What cellactl says.
pub fn measure(stack: &Stack, image: &str) -> Result<String> {
    let out = stack.cellactl([
        "measure",
        "--image-dir",
        image,
        "--firmware",
        stack.var("OVMF"),
        "--vcpus",
        stack.var("VCPUS"),
        "--tee",
        "sim",
    ])?;
    Ok(out.trim().to_owned())
}

/// The thumbprint of the key that signs the broker's tokens now.
///
/// # Errors
/// What cellactl says.
pub fn token_key(stack: &Stack) -> Result<String> {
    let keys = stack.cellactl(["kbs", "jwks", "--url", stack.var("KBS"), "--ca", stack.var("KBS_CA")])?;
    let keys: serde_json::Value = serde_json::from_str(&keys)?;
    let kid = keys.pointer("/keys/0/kid").and_then(serde_json::Value::as_str);
    Ok(kid.context("the broker has no key for tokens")?.to_owned())
}

/// A refusal as a person sees it: `ctr` fails, says all of `words`, and the container's own output is not there.
///
/// # Errors
/// What was seen instead.
pub fn refused(outcome: &Outcome, words: &[&str]) -> Result<()> {
    ensure!(outcome.code != 0, "it ran: {outcome:?}");
    ensure!(!outcome.stdout.contains(HELLO), "the container ran: {outcome:?}");
    for word in words {
        ensure!(
            outcome.stderr.contains(word),
            "the error does not say {word:?}: {}",
            outcome.stderr
        );
    }
    ensure!(!outcome.stderr.contains("panicked"), "a panic: {}", outcome.stderr);
    Ok(())
}

/// A file's text.
///
/// # Errors
/// Which file, and why it cannot be read.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
