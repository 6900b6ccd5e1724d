//! Workloads: the file that `cellactl policy write` reads, with the stack's broker and registry filled in.
use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::Stack;

/// A workload file in the making: one container, perhaps a model.
#[derive(Clone)]
pub struct Workload {
    /// Image reference with digest.
    pub image: String,
    /// Key ids of the image's layers.
    pub image_keys: Vec<String>,
    /// The whole command line. Empty: any.
    pub args: Vec<String>,
    /// Where the guest finds the broker. Empty: the policy has none, and its images are plain.
    pub kbs: String,
    /// PEM file of the only authority that it trusts for it.
    pub kbs_ca: String,
    /// Where the guest finds the registry.
    pub registry: String,
    /// Model: artifact reference, key id, name, version.
    pub model: Option<(String, String, String, u64)>,
    /// Further lines of the container's table.
    pub container: String,
    /// Further lines of the broker's table.
    pub broker: String,
}

/// A written policy.
pub struct Written {
    /// The initdata document.
    pub initdata: PathBuf,
    /// Its digest, hex.
    pub digest: String,
    /// The annotation that carries it.
    pub annotation: String,
}

impl Workload {
    /// The usual addresses of the stack.
    #[must_use]
    pub fn new(stack: &Stack, image: &str, image_keys: &[&str], args: &[&str]) -> Self {
        Self {
            image: image.to_owned(),
            image_keys: image_keys.iter().map(|&k| k.to_owned()).collect(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            kbs: stack.var("KBS_GUEST").to_owned(),
            kbs_ca: stack.var("KBS_CA").to_owned(),
            registry: stack.var("REGISTRY_GUEST").to_owned(),
            model: None,
            container: String::new(),
            broker: String::new(),
        }
    }

    /// Adds lines to the container's table; tables of its own last.
    #[must_use]
    pub fn container(mut self, lines: &str) -> Self {
        self.container.push_str(lines);
        self
    }

    /// Adds a model, mounted at `/models/demo`.
    #[must_use]
    pub fn with_model(mut self, artifact: &str, key: &str, name: &str, version: u64) -> Self {
        self.model = Some((artifact.to_owned(), key.to_owned(), name.to_owned(), version));
        self
    }

    /// Writes the policy with `cellactl policy write`.
    ///
    /// # Errors
    /// What cellactl says.
    pub fn write(&self, stack: &Stack) -> Result<Written> {
        let quoted = |items: &[String]| toml::Value::from(items.to_vec()).to_string();
        let mut text = String::new();
        if !self.kbs.is_empty() {
            text += &format!("[kbs]\nurl = {:?}\nca = {:?}\n{}", self.kbs, self.kbs_ca, self.broker);
        }
        text += &format!(
            "[[registry]]\nname = {name:?}\nendpoint = {endpoint:?}\nca = {ca:?}\n\
             [[container]]\nname = \"probe\"\nimage = {image:?}\nimage-keys = {keys}\nargs = {args}\n",
            name = stack.var("REGISTRY"),
            endpoint = self.registry,
            ca = stack.var("REGISTRY_CA"),
            image = self.image,
            keys = quoted(&self.image_keys),
            args = if self.args.is_empty() {
                "\"any\"".to_owned()
            } else {
                quoted(&self.args)
            },
        );
        // What most cases look at is what the container prints, and what the agent does for the operator.
        if !self.container.contains("stdio") {
            text += "stdio = \"allow\"\n";
        }
        text += &self.container;
        if !self.container.contains("[network]") {
            text += "[network]\ningress = [\"8080/tcp\"]\n";
        }
        if !self.container.contains("[pod]") {
            text += "[pod]\ncalls = [\"pause\", \"update\", \"processes\"]\nstats = \"exact\"\n";
        }
        if let Some((artifact, key, name, version)) = &self.model {
            text += &format!(
                "[[container.mount]]\ndestination = \"/models/demo\"\nmodel = {name:?}\n\
                 [[model]]\nname = {name:?}\nversion = {version}\nartifact = {artifact:?}\nkeys = [{key:?}]\n"
            );
        }
        let stem = stack.fresh("workload");
        let file = stack.path(&format!("{stem}.toml"));
        let initdata = stack.path(&format!("{stem}.initdata.toml"));
        fs::write(&file, text)?;
        let (from, out) = (
            file.to_string_lossy().into_owned(),
            initdata.to_string_lossy().into_owned(),
        );
        stack.cellactl(["policy", "write", "--from", &from, "--out", &out])?;
        Written::read(stack, initdata)
    }
}

impl Written {
    /// Takes digest and annotation of a document that is there.
    ///
    /// # Errors
    /// What cellactl says.
    pub fn read(stack: &Stack, initdata: PathBuf) -> Result<Self> {
        let path = initdata.to_str().context("path")?.to_owned();
        Ok(Self {
            digest: stack.cellactl(["policy", "digest", &path])?.trim().to_owned(),
            annotation: stack.cellactl(["policy", "annotation", &path])?.trim().to_owned(),
            initdata,
        })
    }
}
