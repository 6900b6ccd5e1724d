//! Images from trees, and encrypted ones back again.

use std::fs;
use std::path::{Path, PathBuf};

use cella_oci::image::ImageConfig;
use cella_seal::layer::LayerDecryptor;
use cella_seal::packet;
use clap::Parser;

use super::build::{BuildArgs, BuildError, build};
use super::encrypt::{EncryptArgs, EncryptError, PlainImage};
use super::*;
use crate::keyfile;
use crate::store::Location;

#[derive(Parser)]
struct Build {
    #[command(flatten)]
    args: BuildArgs,
}

#[derive(Parser)]
struct Encrypt {
    #[command(flatten)]
    args: EncryptArgs,
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/usr/bin")).unwrap();
        fs::write(dir.path().join("tree/usr/bin/server"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("usr/bin", dir.path().join("tree/bin")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build_args(&self, out: &str, more: &[&str]) -> BuildArgs {
        let (tree, out) = (self.path("tree"), self.path(out));
        let fixed = [
            "build",
            "--from-dir",
            tree.to_str().unwrap(),
            "--tag",
            "demo:v1",
            "--out",
            out.to_str().unwrap(),
        ];
        Build::try_parse_from(fixed.iter().chain(more)).unwrap().args
    }

    fn encrypt_args(&self, from: &str, to: &str, more: &[&str]) -> EncryptArgs {
        let location = |name: &str| format!("oci:{}", self.path(name).display());
        let (from, to, kek) = (location(from), location(to), self.path("kek"));
        let fixed = ["encrypt", &from, &to, "--key", KID, "--key-file", kek.to_str().unwrap()];
        Encrypt::try_parse_from(fixed.iter().chain(more)).unwrap().args
    }
}

const KID: &str = "kbs:///demo/image-kek/1";

async fn open(path: &Path) -> crate::store::Artifact {
    Location::Layout(path.to_owned())
        .open(&Access::default(), "amd64")
        .await
        .unwrap()
}

fn dir_bytes(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(path.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    found.push(("index.json".into(), fs::read(path.join("index.json")).unwrap()));
    found.sort();
    found
}

#[tokio::test]
async fn the_same_tree_gives_the_same_image() {
    let (one, two) = (Desk::new(), Desk::new());
    let words = [
        "--entrypoint",
        "/usr/bin/server",
        "--cmd=-m",
        "--cmd",
        "[not json",
        "--env",
        "A=b",
        "--user",
        "1:2",
    ];
    let first = build(&one.build_args("image", &words)).unwrap();
    let second = build(&two.build_args("image", &words)).unwrap();
    assert_eq!(first, second);
    assert_eq!(dir_bytes(&one.path("image")), dir_bytes(&two.path("image")));

    let artifact = open(&one.path("image")).await;
    assert_eq!(artifact.digest, first.0);
    let config = ImageConfig::parse(&artifact.config(1 << 20).await.unwrap()).unwrap();
    assert_eq!(config.config.entrypoint, ["/usr/bin/server"]);
    assert_eq!(config.config.cmd, ["-m", "[not json"]);
    assert_eq!(
        (config.config.user.as_str(), config.config.env.as_slice()),
        ("1:2", ["A=b".to_owned()].as_slice())
    );
    let layer = artifact
        .store
        .bytes(&artifact.manifest.layers[0], 1 << 20)
        .await
        .unwrap();
    let mut tar = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut tar).unwrap();
    assert_eq!(cella_oci::Digest::of(&tar), config.rootfs.diff_ids[0]);
}

#[test]
fn a_json_list_is_a_list_of_words() {
    let desk = Desk::new();
    let args = desk.build_args("a", &["--entrypoint", r#"["/x","-y"]"#]);
    build(&args).unwrap();
    let args = desk.build_args("b", &["--entrypoint", "[x"]);
    assert!(matches!(build(&args), Err(BuildError::Words { .. })));
    assert!(
        matches!(build(&desk.build_args("a", &[])), Err(BuildError::Layout(_))),
        "not over another one"
    );
}

#[test]
fn t24_secrets_are_not_built_in() {
    let desk = Desk::new();
    let refused = build(&desk.build_args("a", &["--env", "API_KEY=abc"]));
    assert!(matches!(refused, Err(BuildError::Secret { .. })));
    assert!(!desk.path("a").exists(), "nothing was written");
    assert!(build(&desk.build_args("a", &["--env", "API_KEY=abc", "--allow-env", "API_KEY"])).is_ok());
    assert!(matches!(
        build(&desk.build_args("b", &["--env", "A"])),
        Err(BuildError::Variable { .. })
    ));
}

#[tokio::test]
async fn encrypted_layers_decrypt_to_the_plain_ones() {
    let desk = Desk::new();
    build(&desk.build_args("plain", &["--entrypoint", "/usr/bin/server"])).unwrap();
    let said = super::encrypt::run(&desk.encrypt_args("plain", "sealed", &[]))
        .await
        .unwrap();
    let (plain, sealed) = (open(&desk.path("plain")).await, open(&desk.path("sealed")).await);
    assert!(said.trim().ends_with(&sealed.digest.to_string()), "{said}");
    assert_eq!(sealed.manifest.config.digest, plain.manifest.config.digest);

    let kek = keyfile::load(&desk.path("kek")).unwrap();
    let layer = &sealed.manifest.layers[0];
    assert_eq!(
        layer.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    );
    let keys = packet::unwrap_layer(&layer.annotations, |kid| (kid == KID).then_some(&kek)).unwrap();
    let keys = keys.for_image().unwrap();
    let mut bytes = sealed.store.bytes(layer, 1 << 20).await.unwrap();
    let original = plain.store.bytes(&plain.manifest.layers[0], 1 << 20).await.unwrap();
    assert_ne!(bytes, original);
    let mut decryptor = LayerDecryptor::new(&keys);
    decryptor.update(&mut bytes);
    decryptor.finish().unwrap();
    assert_eq!(bytes, original);
}

#[tokio::test]
async fn each_encryption_has_keys_of_its_own() {
    let desk = Desk::new();
    build(&desk.build_args("plain", &[])).unwrap();
    let mut digests = Vec::new();
    for to in ["one", "two"] {
        super::encrypt::run(&desk.encrypt_args("plain", to, &[])).await.unwrap();
        digests.push(open(&desk.path(to)).await.manifest.layers[0].digest);
    }
    assert_ne!(digests[0], digests[1]);
}

#[tokio::test]
async fn encrypted_images_are_not_encrypted_again() {
    let desk = Desk::new();
    build(&desk.build_args("plain", &[])).unwrap();
    super::encrypt::run(&desk.encrypt_args("plain", "sealed", &[]))
        .await
        .unwrap();
    let again = super::encrypt::run(&desk.encrypt_args("sealed", "twice", &[])).await;
    assert!(matches!(again, Err(EncryptError::Encrypted { index: 0 })));
}

#[tokio::test]
async fn t24_an_image_that_shows_a_secret_is_not_encrypted() {
    let desk = Desk::new();
    build(&desk.build_args("plain", &["--env", "API_KEY=abc", "--allow-env", "API_KEY"])).unwrap();
    let refused = super::encrypt::run(&desk.encrypt_args("plain", "sealed", &[])).await;
    assert!(matches!(refused, Err(EncryptError::Secret { .. })));
    assert!(
        !desk.path("sealed").exists() && !desk.path("kek").exists(),
        "neither image nor key was made"
    );
    let artifact = open(&desk.path("plain")).await;
    assert!(PlainImage::read(&artifact, &["API_KEY".to_owned()]).await.is_ok());
}

#[tokio::test]
async fn a_key_file_of_the_wrong_length_stops_it() {
    let desk = Desk::new();
    build(&desk.build_args("plain", &[])).unwrap();
    let file = tempfile::NamedTempFile::new_in(desk.dir.path()).unwrap();
    fs::write(file.path(), b"short").unwrap();
    file.persist(desk.path("kek")).unwrap();
    let refused = super::encrypt::run(&desk.encrypt_args("plain", "sealed", &[])).await;
    assert!(matches!(
        refused,
        Err(EncryptError::KeyFile(keyfile::KeyFileError::Length { found: 5, .. }))
    ));
    assert!(!desk.path("sealed").exists());
}

#[test]
fn bad_references_and_keys_are_usage_errors() {
    for args in [
        ["x", "busybox", "oci:a", "--key", KID, "--key-file", "k"],
        ["x", "oci:a", "localhost/A", "--key", KID, "--key-file", "k"],
        ["x", "oci:a", "oci:b", "--key", "kbs:///a/b", "--key-file", "k"],
    ] {
        assert!(Encrypt::try_parse_from(args).is_err(), "{args:?}");
    }
}
