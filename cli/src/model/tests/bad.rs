//! Manifests that lie, keys that are others, bytes that are another model's: a clear error, by layer and segment, and no file.

use cella_oci::{Descriptor, Digest, Manifest};
use serde_json::Value;

use super::*;
use crate::layout::Layout;

/// A sealed model whose manifest, configuration or blobs are changed afterwards.
struct Forged {
    desk: Desk,
}

impl Forged {
    async fn new() -> Self {
        let desk = Desk::new();
        desk.seal("model", "sealed", &[]).await.unwrap();
        Self { desk }
    }

    fn layout(&self) -> Layout {
        Layout::open(&self.desk.path("sealed")).unwrap()
    }

    fn manifest(&self) -> Value {
        let layout = self.layout();
        serde_json::from_slice(&layout.bytes(&layout.entry().unwrap(), 4 << 20).unwrap()).unwrap()
    }

    /// Puts another manifest in place, its digest right.
    fn write(&self, manifest: &Value) {
        let bytes = serde_json::to_vec(manifest).unwrap();
        self.layout()
            .publish_bytes("application/vnd.oci.image.manifest.v1+json", &bytes, None)
            .unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        self.write(&manifest);
    }

    fn layer(&self, index: usize) -> Descriptor {
        let layout = self.layout();
        let bytes = layout.bytes(&layout.entry().unwrap(), 4 << 20).unwrap();
        Manifest::parse(&bytes).unwrap().layers[index].clone()
    }

    /// Puts other bytes in place of a layer's; with their digest in the manifest.
    fn replace(&self, index: usize, bytes: &[u8]) {
        let blob = self.layout().put("x", bytes).unwrap();
        self.change(|manifest| {
            manifest["layers"][index]["digest"] = blob.digest.to_string().into();
            manifest["layers"][index]["size"] = blob.size.into();
        });
    }

    /// What each command says; nothing is there afterwards.
    async fn refused(&self) -> String {
        let desk = &self.desk;
        let verified = desk.run(&["verify", "oci:@sealed", "--key-file", "@kek"]).await;
        let unsealed = desk
            .run(&["unseal", "oci:@sealed", "--key-file", "@kek", "--out", "@opened"])
            .await;
        let (verified, unsealed) = (words(&verified.unwrap_err()), words(&unsealed.unwrap_err()));
        assert!(!desk.path("opened").exists() && !desk.path(".opened.unfinished").exists());
        assert!(!desk.path("escaped").exists());
        assert_eq!(verified, unsealed);
        verified
    }
}

#[tokio::test]
async fn sizes_that_are_lies() {
    let size = |size: Value| {
        move |manifest: &mut Value| {
            manifest["layers"][1]["size"] = size;
        }
    };
    for (lie, expected) in [
        (
            Value::from(2_100_000),
            "layer 1, model.gguf: it is damaged or cannot be read",
        ),
        (
            Value::from(9_000_000),
            "layer 1, model.gguf: it is damaged or cannot be read",
        ),
        (Value::from(3), "too few for a sealed file"),
        (Value::from(1_048_580), "its last segment would be empty"),
        (Value::from(u64::MAX), "bytes together, more than"),
        (Value::from(1_u64 << 60), "bytes together, more than"),
        (Value::from(-1), "not the JSON"),
        (serde_json::from_str("99999999999999999999").unwrap(), "not the JSON"),
    ] {
        let forged = Forged::new().await;
        forged.change(size(lie.clone()));
        let said = forged.refused().await;
        assert!(said.contains(expected), "{lie}: {said}");
    }
    // Sums that cannot be counted.
    let forged = Forged::new().await;
    forged.change(|manifest| {
        manifest["layers"][0]["size"] = u64::MAX.into();
        manifest["layers"][1]["size"] = 5.into();
    });
    assert!(forged.refused().await.contains("bytes together, more than"));
}

#[tokio::test]
async fn thousands_of_layers() {
    let forged = Forged::new().await;
    forged.change(|manifest| {
        let layer = manifest["layers"][1].clone();
        let many = (0..5000).map(|index| {
            let mut layer = layer.clone();
            layer["annotations"] = serde_json::json!({"org.cncf.model.filepath": format!("{index}.gguf")});
            layer
        });
        manifest["layers"] = many.collect();
    });
    assert!(forged.refused().await.contains("5000 entries, more than 4096"));
}

#[tokio::test]
async fn paths_that_lead_elsewhere() {
    for path in [
        "../escaped",
        "/etc/cella-escaped",
        "a/../../escaped",
        "a//b",
        "",
        ".",
        "a\\b",
        "a\0b",
        "a\nb",
    ] {
        let forged = Forged::new().await;
        forged.change(|manifest| manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = path.into());
        let said = forged.refused().await;
        assert!(
            said.contains("is not a relative path in normal form"),
            "{path:?}: {said}"
        );
    }
    for (path, expected) in [("model.gguf", "stands twice"), ("model.gguf/x", "is itself a file")] {
        let forged = Forged::new().await;
        forged.change(|manifest| manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = path.into());
        assert!(forged.refused().await.contains(expected), "{path}");
    }
}

#[tokio::test]
async fn links_where_files_will_be_lead_nowhere() {
    let forged = Forged::new().await;
    let desk = &forged.desk;
    // The folder to be made is a link to another place, or lies beside one with the name of the staging.
    fs::create_dir(desk.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(desk.path("elsewhere"), desk.path(".opened.unfinished")).unwrap();
    let refused = desk
        .run(&["unseal", "oci:@sealed", "--key-file", "@kek", "--out", "@opened"])
        .await;
    assert!(refused.is_err());
    assert_eq!(fs::read_dir(desk.path("elsewhere")).unwrap().count(), 0);
}

#[tokio::test]
async fn wrong_keys() {
    let forged = Forged::new().await;
    let desk = &forged.desk;
    desk.seal("model", "other", &[]).await.unwrap();
    let kek = desk.path("kek");
    fs::rename(&kek, desk.path("right")).unwrap();
    keyfile::load_or_create(&kek).unwrap();
    let said = forged.refused().await;
    assert!(
        said.contains("layer 0, deep/config.json: its key cannot be had"),
        "{said}"
    );
    assert!(said.contains("wrapped under another key"), "{said}");
    // Without the key the model is whole.
    desk.run(&["verify", "oci:@sealed"]).await.unwrap();
}

#[tokio::test]
async fn another_place_another_version_another_model() {
    // A manifest that says another version or name, as whoever wants an old model taken for a new one would write it.
    for (key, value) in [
        ("dev.cella.model.version", "8"),
        ("dev.cella.model.name", "models/other"),
    ] {
        let forged = Forged::new().await;
        forged.change(|manifest| manifest["annotations"][key] = value.into());
        let said = forged.refused().await;
        assert!(
            said.contains("segment 0 is not authentic") && said.contains("layer "),
            "{key}: {said}"
        );
    }
    // Two files of one model exchanged, keys with them.
    let forged = Forged::new().await;
    forged.change(|manifest| {
        let path = |index: usize| manifest["layers"][index]["annotations"]["org.cncf.model.filepath"].clone();
        let (one, two) = (path(0), path(1));
        manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = two;
        manifest["layers"][1]["annotations"]["org.cncf.model.filepath"] = one;
    });
    assert!(forged.refused().await.contains("segment 0 is not authentic"));
    // Another model's bytes: the digest says so; with the digest forged too, the segment does.
    let forged = Forged::new().await;
    let desk = &forged.desk;
    desk.seal("model", "other", &[]).await.unwrap();
    let layer = forged.layer(1);
    let foreign = Layout::open(&desk.path("other")).unwrap();
    let entry = foreign.bytes(&foreign.entry().unwrap(), 1 << 20).unwrap();
    let theirs = Manifest::parse(&entry).unwrap().layers[1].clone();
    let bytes = fs::read(foreign.path(&theirs.digest)).unwrap();
    fs::write(forged.layout().path(&layer.digest), &bytes).unwrap();
    let unkeyed = words(&desk.run(&["verify", "oci:@sealed"]).await.unwrap_err());
    assert!(
        unkeyed.contains("layer 1, model.gguf") && unkeyed.contains("a layer is damaged"),
        "{unkeyed}"
    );
    let said = forged.refused().await;
    assert!(
        said.contains("layer 1, model.gguf: it does not open") && said.contains("segment 0"),
        "{said}"
    );
    forged.replace(1, &bytes);
    desk.run(&["verify", "oci:@sealed"]).await.unwrap();
    assert!(forged.refused().await.contains("segment 0 is not authentic"));
}

#[tokio::test]
async fn changed_cut_and_longer_files_name_their_segment() {
    let forged = Forged::new().await;
    let layer = forged.layer(1);
    let whole = fs::read(forged.layout().path(&layer.digest)).unwrap();
    // One bit in the second segment, in place and with its digest forged.
    let mut flipped = whole.clone();
    flipped[1_500_000] ^= 1;
    fs::write(forged.layout().path(&layer.digest), &flipped).unwrap();
    let said = forged.refused().await;
    assert!(
        said.contains("layer 1, model.gguf") && said.contains("segment 1 is not authentic"),
        "{said}"
    );
    forged.replace(1, &flipped);
    assert!(forged.refused().await.contains("segment 1 is not authentic"));
    // Cut short in place: the length says so. With length and digest forged: the last segment is not the last.
    fs::write(forged.layout().path(&layer.digest), &whole[..2_000_000]).unwrap();
    forged.change(|manifest| {
        manifest["layers"][1]["digest"] = layer.digest.to_string().into();
        manifest["layers"][1]["size"] = layer.size.into();
    });
    assert!(forged.refused().await.contains("its descriptor says"));
    forged.replace(1, &whole[..1 << 20]);
    let said = forged.refused().await;
    assert!(said.contains("segment 0 is not authentic"), "{said}");
    forged.replace(1, &whole[..2_000_000]);
    assert!(forged.refused().await.contains("segment 1 is not authentic"));
    forged.replace(1, &[whole.as_slice(), &[0; 100]].concat());
    assert!(forged.refused().await.contains("segment 2 is not authentic"));
    forged.replace(1, &[&[24], &whole[1..]].concat());
    assert!(forged.refused().await.contains("this is not a sealed file"));
}

#[tokio::test]
async fn digests_that_are_lies() {
    let with = |text: String| async move {
        let forged = Forged::new().await;
        forged.change(|manifest| manifest["layers"][1]["annotations"]["dev.cella.model.blake3"] = text.into());
        forged
    };
    let forged = with(format!("blake3:{}", "7".repeat(64))).await;
    let said = forged.refused().await;
    assert!(
        said.contains("layer 1, model.gguf: it is not what it says") && said.contains("annotation says blake3:777"),
        "{said}"
    );
    for text in ["", "blake3:", "sha256:00", "blake3:\u{1b}[2J"] {
        let forged = with(text.to_owned()).await;
        let said = forged.refused().await;
        assert!(
            said.contains("layer 1, model.gguf") && said.contains("64 lower-case hex digits"),
            "{text:?}: {said}"
        );
        let said = words(&forged.desk.run(&["inspect", "oci:@sealed"]).await.unwrap_err());
        assert!(
            said.contains("model.gguf") && !said.contains('\u{1b}'),
            "{text:?}: {said}"
        );
    }
}

#[tokio::test]
async fn configurations_that_do_not_fit() {
    let with = |change: fn(&mut Value)| async move {
        let forged = Forged::new().await;
        let manifest = forged.manifest();
        let layout = forged.layout();
        let descriptor: Descriptor = serde_json::from_value(manifest["config"].clone()).unwrap();
        let mut config: Value = serde_json::from_slice(&layout.bytes(&descriptor, 1 << 20).unwrap()).unwrap();
        change(&mut config);
        let blob = layout.put("x", &serde_json::to_vec(&config).unwrap()).unwrap();
        forged.change(|manifest| {
            manifest["config"]["digest"] = blob.digest.to_string().into();
            manifest["config"]["size"] = blob.size.into();
        });
        forged.refused().await
    };
    let said = with(|config| {
        config["modelfs"]["diffIds"].as_array_mut().unwrap().pop();
    })
    .await;
    assert!(said.contains("lists 2 layers and the configuration names 1"), "{said}");
    let said = with(|config| config["modelfs"]["diffIds"][1] = Digest::of(b"x").to_string().into()).await;
    assert!(
        said.contains("layer 1, model.gguf") && said.contains("the configuration's diffIds say"),
        "{said}"
    );
    let said = with(|config| config["more"] = 1.into()).await;
    assert!(said.contains("not the JSON"), "{said}");
    // A layer in the clear where weights should be sealed.
    let forged = Forged::new().await;
    forged.change(|manifest| manifest["layers"][1]["mediaType"] = "application/vnd.cncf.model.weight.v1.raw".into());
    assert!(forged.refused().await.contains("are not sealed"));
    // The images' cipher, which releases plaintext before it is checked.
    let forged = Forged::new().await;
    forged.change(|manifest| {
        let options = br#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","cipheroptions":{}}"#;
        let options = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, options);
        manifest["layers"][1]["annotations"]["org.opencontainers.image.enc.pubopts"] = options.into();
    });
    assert!(forged.refused().await.contains("AES256_GCM_HKDF_1MB is required here"));
}
