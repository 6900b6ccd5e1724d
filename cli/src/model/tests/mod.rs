//! Models sealed and opened again.

use std::fs;
use std::path::{Path, PathBuf};

use cella_oci::modelpack::ModelConfig;
use cella_seal::packet;
use cella_seal::place::associated_data;
use cella_seal::stream::{SegmentSize, open_reader};
use clap::Parser;

use super::seal::{SealArgs, SealModelError};
use super::*;
use crate::keyfile;
use crate::store::{Access, Artifact, Location};

#[derive(Parser)]
struct Seal {
    #[command(flatten)]
    args: SealArgs,
}

const KID: &str = "kbs:///demo/model-kek/1";
/// Two segments and a part of a third.
const WEIGHTS: usize = 2_100_000;

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut weights = b"GGUF".to_vec();
        weights.extend((0..WEIGHTS - 4).map(|index| u8::try_from(index % 251).unwrap()));
        fs::create_dir(dir.path().join("model")).unwrap();
        fs::write(dir.path().join("model/model.gguf"), weights).unwrap();
        fs::write(dir.path().join("model/config.json"), b"{}").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn seal(&self, from: &str, to: &str, more: &[&str]) -> Result<String, SealModelError> {
        let (from, to, kek) = (self.path(from), self.path(to), self.path("kek"));
        let fixed = [
            "seal",
            from.to_str().unwrap(),
            "--name",
            "models/demo",
            "--version",
            "7",
            "--key",
            KID,
            "--key-file",
            kek.to_str().unwrap(),
            "--out",
            to.to_str().unwrap(),
        ];
        super::seal::run(&Seal::try_parse_from(fixed.iter().chain(more)).unwrap().args)
    }
}

async fn open(path: &Path) -> Artifact {
    Location::Layout(path.to_owned())
        .open(&Access::default(), "amd64")
        .await
        .unwrap()
}

#[tokio::test]
async fn sealed_files_open_at_their_place_only() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).unwrap();
    let artifact = open(&desk.path("sealed")).await;
    let facts = Facts::of(&artifact.manifest).unwrap();
    assert_eq!((facts.name.as_str(), facts.version), ("models/demo", 7));
    assert_eq!(facts.keys.iter().collect::<Vec<_>>(), [KID]);
    assert_eq!(facts.bytes(), WEIGHTS as u64 + 2);
    let paths: Vec<_> = facts.files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
    assert_eq!(paths, [("config.json", "weight.config"), ("model.gguf", "weight")]);

    let config = ModelConfig::parse(&artifact.config(1 << 20).await.unwrap()).unwrap();
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

#[test]
fn each_sealing_has_keys_of_its_own() {
    let desk = Desk::new();
    let digest = |said: String| said.lines().last().unwrap().to_owned();
    let one = digest(desk.seal("model", "one", &[]).unwrap());
    let two = digest(desk.seal("model", "two", &[]).unwrap());
    assert_ne!(one, two);
}

#[test]
fn the_format_and_the_place_of_output_are_checked() {
    let desk = Desk::new();
    let wrong = desk.seal("model", "sealed", &["--format", "safetensors"]);
    assert!(matches!(
        wrong,
        Err(SealModelError::Format {
            wanted: "safetensors",
            found: "gguf"
        })
    ));
    assert!(!desk.path("sealed").exists() && !desk.path("kek").exists());
    desk.seal("model/model.gguf", "sealed", &["--format", "gguf", "--threads", "1"])
        .unwrap();
    assert!(matches!(
        desk.seal("model", "sealed", &[]),
        Err(SealModelError::Layout(_))
    ));
    fs::write(desk.path("model/run.py"), b"").unwrap();
    assert!(matches!(
        desk.seal("model", "other", &[]),
        Err(SealModelError::Files(_))
    ));
}

#[test]
fn names_versions_and_keys_are_usage_errors() {
    let parse = |name: &str, version: &str, key: &str| {
        let args = [
            "x",
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
        Seal::try_parse_from(args).is_ok()
    };
    assert!(parse("models/demo", "1", KID));
    assert!(!parse("Models/demo", "1", KID));
    assert!(!parse("../demo", "1", KID));
    assert!(!parse("models/demo", "0", KID));
    assert!(!parse("models/demo", "-1", KID));
    assert!(!parse("models/demo", "1", "kbs://host/a/b/c"));
    assert!(!parse("models/demo", "1", "kbs:///default/test-key/1"));
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
}
