//! Models sealed, moved and opened again.

mod bad;
mod broker;
mod moving;
mod opening;
mod pinned;

use std::fs;
use std::path::{Path, PathBuf};

use cella_oci::modelpack::ModelConfig;
use cella_seal::packet;
use cella_seal::place::associated_data;
use cella_seal::stream::{SegmentSize, open_reader};
use clap::Parser;

use super::seal::SealModelError;
use super::*;
use crate::keyfile;
use crate::store::{Access, Artifact, Location};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: ModelCommand,
}

const KID: &str = "kbs:///demo/model-kek/1";
/// Two segments and a part of a third.
const WEIGHTS: usize = 2_100_000;

struct Desk {
    dir: tempfile::TempDir,
}

/// A GGUF file of this length, with one tensor of bytes.
fn gguf(length: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(b"t");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((length as u64 - 64).to_le_bytes());
    bytes.extend(24_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend((0..251).cycle().take(length - 64));
    bytes
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("model/deep")).unwrap();
        fs::write(dir.path().join("model/model.gguf"), gguf(WEIGHTS)).unwrap();
        fs::write(dir.path().join("model/deep/config.json"), b"{}").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs `cellactl model` with these arguments; a word that starts with `@` is a path on the desk.
    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let words = args.iter().map(|word| match word.strip_prefix("oci:@") {
            Some(path) => format!("oci:{}", self.text(path)),
            None => word
                .strip_prefix('@')
                .map_or_else(|| (*word).to_owned(), |path| self.text(path)),
        });
        let program = Program::try_parse_from(std::iter::once("model".to_owned()).chain(words))?;
        run(program.command).await
    }

    async fn seal(&self, from: &str, to: &str, more: &[&str]) -> Result<String, SealModelError> {
        self.seal_with(from, &["--out", &self.text(to)], more).await
    }

    async fn seal_with(&self, from: &str, to: &[&str], more: &[&str]) -> Result<String, SealModelError> {
        let (from, kek) = (self.text(from), self.text("kek"));
        let fixed = ["seal", &from, "--name", "models/demo", "--version", "7", "--key", KID];
        let key = ["--key-file", &kek];
        let words = fixed.iter().chain(&key).chain(to).chain(more);
        let program = Program::try_parse_from(std::iter::once(&"model").chain(words)).unwrap();
        let ModelCommand::Seal(args) = program.command else {
            panic!("another command");
        };
        super::seal::run(&args, Stop::default()).await
    }
}

async fn open(path: &Path) -> Artifact {
    Location::Layout(path.to_owned())
        .open(&Access::default(), "amd64")
        .await
        .unwrap()
}

/// An error and its causes.
fn words(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

#[tokio::test]
async fn sealed_files_open_at_their_place_only() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    let artifact = open(&desk.path("sealed")).await;
    let facts = Facts::of(&artifact.manifest).unwrap();
    assert_eq!((facts.name.as_str(), facts.version), ("models/demo", 7));
    assert_eq!(facts.keys.iter().collect::<Vec<_>>(), [KID]);
    assert_eq!(facts.bytes(), WEIGHTS as u64 + 2);
    let paths: Vec<_> = facts.files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
    assert_eq!(paths, [("deep/config.json", "weight.config"), ("model.gguf", "weight")]);

    let config = ModelConfig::parse(&artifact.config(1 << 20).await.unwrap()).unwrap();
    let says = &config.config;
    assert_eq!(
        (says.format.as_deref(), says.precision.as_deref()),
        (Some("gguf"), Some("int8"))
    );
    assert_eq!(says.param_size.as_deref(), Some("2.1m"));
    let kek = keyfile::load(&desk.path("kek")).unwrap();
    for (layer, diff_id) in artifact.manifest.layers.iter().zip(&config.modelfs.diff_ids) {
        let path = &layer.annotations["org.cncf.model.filepath"];
        let plain = fs::read(desk.path("model").join(path)).unwrap();
        assert_eq!(cella_oci::Digest::of(&plain), *diff_id);
        let sealed = artifact.store.bytes(layer, 1 << 30).await.unwrap();
        let keys = packet::unwrap_layer(&layer.annotations, |kid| (kid == KID).then_some(&kek)).unwrap();
        let (key, digest) = keys.for_model().unwrap();
        assert_eq!(digest.0, *diff_id.as_bytes());
        let open_as = |name: &str, version| {
            let data = associated_data(name, path, version).unwrap();
            let mut opened = Vec::new();
            let size = SegmentSize::MIB1;
            open_reader(&key, &data, size, layer.size, sealed.as_slice(), &mut opened).map(|()| opened)
        };
        assert_eq!(open_as("models/demo", 7).unwrap(), plain);
        assert!(open_as("models/demo", 6).is_err(), "t5: not as an older version");
        assert!(open_as("models/other", 7).is_err());
    }
}

#[tokio::test]
async fn each_sealing_has_keys_of_its_own() {
    let desk = Desk::new();
    let digest = |said: String| said.lines().last().unwrap().to_owned();
    let one = digest(desk.seal("model", "one", &[]).await.unwrap());
    let two = digest(desk.seal("model", "two", &[]).await.unwrap());
    assert_ne!(one, two);
}

#[tokio::test]
async fn the_format_and_the_place_of_output_are_checked() {
    let desk = Desk::new();
    let wrong = desk.seal("model", "sealed", &["--format", "safetensors"]).await;
    assert!(matches!(
        wrong,
        Err(SealModelError::Format {
            wanted: "safetensors",
            found: "gguf"
        })
    ));
    assert!(!desk.path("sealed").exists() && !desk.path("kek").exists());
    for inside in ["model/sealed", "model/deep/a/b"] {
        assert!(
            matches!(
                desk.seal("model", inside, &[]).await,
                Err(SealModelError::Inside { .. })
            ),
            "{inside}"
        );
    }
    std::os::unix::fs::symlink(desk.path("model/deep"), desk.path("link")).unwrap();
    assert!(matches!(
        desk.seal("model", "link/out", &[]).await,
        Err(SealModelError::Inside { .. })
    ));
    assert!(!desk.path("kek").exists());
    desk.seal("model/model.gguf", "sealed", &["--format", "gguf", "--threads", "1"])
        .await
        .unwrap();
    assert!(matches!(
        desk.seal("model", "sealed", &[]).await,
        Err(SealModelError::Staging(_))
    ));
    fs::write(desk.path("model/run.py"), b"").unwrap();
    assert!(matches!(
        desk.seal("model", "other", &[]).await,
        Err(SealModelError::Files(_))
    ));
    desk.seal("model", "any", &["--contents", "any"]).await.unwrap();
    let artifact = open(&desk.path("any")).await;
    assert!(Facts::of(&artifact.manifest).is_err(), "a guest would refuse it");
    assert_eq!(Facts::lenient(&artifact.manifest).unwrap().files.len(), 3);
}

#[tokio::test]
async fn nothing_is_said_where_nothing_shall_be_said() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &["--no-facts"]).await.unwrap();
    let artifact = open(&desk.path("sealed")).await;
    let config = ModelConfig::parse(&artifact.config(1 << 20).await.unwrap()).unwrap();
    let says = config.config;
    assert_eq!(
        (says.format.as_deref(), says.precision, says.param_size),
        (Some("gguf"), None, None)
    );
}

#[tokio::test]
async fn names_versions_and_keys_are_usage_errors() {
    let parse = |name: &str, version: &str, key: &str| {
        let args = [
            "x",
            "seal",
            "m",
            "--name",
            name,
            "--version",
            version,
            "--key",
            key,
            "--key-file",
            "k",
            "--out",
            "o",
        ];
        Program::try_parse_from(args).is_ok()
    };
    assert!(parse("models/demo", "1", KID));
    assert!(!parse("Models/demo", "1", KID));
    assert!(!parse("../demo", "1", KID));
    assert!(!parse("models/demo", "0", KID));
    assert!(!parse("models/demo", "-1", KID));
    assert!(!parse("models/demo", "1", "kbs://host/a/b/c"));
    assert!(!parse("models/demo", "1", "kbs:///default/test-key/1"));
    let fixed = [
        "x",
        "seal",
        "m",
        "--name",
        "a/b",
        "--version",
        "1",
        "--key",
        KID,
        "--kek",
        "k",
    ];
    let with = |more: &[&str]| Program::try_parse_from(fixed.iter().chain(more)).is_ok();
    assert!(!with(&[]), "a place is needed");
    assert!(with(&["--push", "r.example/a/b:1"]));
    assert!(
        !with(&["--out", "o", "--kbs", "https://b"]),
        "a broker needs its authority and an admin's key"
    );
    assert!(!with(&["--out", "o", "--raise-floor"]));
    assert!(with(&[
        "--out",
        "o",
        "--kbs",
        "https://b",
        "--kbs-ca",
        "c",
        "--admin-key",
        "a",
        "--raise-floor"
    ]));
}

#[tokio::test]
async fn images_are_not_taken_for_models() {
    let desk = Desk::new();
    let layout = crate::layout::Layout::create(&desk.path("image")).unwrap();
    let manifest = cella_oci::Manifest {
        schema_version: 2,
        media_type: None,
        artifact_type: None,
        config: layout.put("application/vnd.oci.image.config.v1+json", b"{}").unwrap(),
        layers: vec![],
        annotations: Default::default(),
    };
    layout.publish(&manifest, None).unwrap();
    let artifact = open(&desk.path("image")).await;
    assert!(matches!(
        Facts::of(&artifact.manifest),
        Err(FactsError::NotSealed { .. })
    ));
    assert!(desk.run(&["push", "@image", "127.0.0.1:1/a:1"]).await.is_err());
}
