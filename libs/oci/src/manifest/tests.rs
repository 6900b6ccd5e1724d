use serde_json::{Value, json};

use super::*;

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"").to_string(), "size": 0})
}

fn manifest() -> Value {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
           "config": descriptor(media_type::OCI_CONFIG), "layers": [descriptor("application/x")]})
}

fn parse(value: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(&serde_json::to_vec(value).unwrap())
}

#[test]
fn reads_what_registries_hold() {
    let read = parse(&manifest()).unwrap();
    assert_eq!(Manifest::parse(&read.to_json().unwrap()).unwrap(), read);
    let mut docker = manifest();
    docker["mediaType"] = media_type::DOCKER_MANIFEST.into();
    docker["layers"][0]["urls"] = json!(["https://elsewhere.example"]);
    docker["annotations"] = Value::Null;
    docker["somethingNew"] = json!({"a": 1});
    assert_eq!(parse(&docker).unwrap().layers, read.layers);
    docker.as_object_mut().unwrap().remove("mediaType");
    assert_eq!(parse(&docker).unwrap().media_type, None);
}

#[test]
fn refuses_what_is_no_manifest() {
    let with = |key: &str, value: Value| {
        let mut changed = manifest();
        changed[key] = value;
        parse(&changed).unwrap_err()
    };
    assert!(matches!(
        with("schemaVersion", 1.into()),
        ManifestError::SchemaVersion { found: 1 }
    ));
    assert!(matches!(
        with("mediaType", media_type::OCI_INDEX.into()),
        ManifestError::MediaType { .. }
    ));
    assert!(matches!(with("layers", Value::Null), ManifestError::Json { .. }));
    let mut bad = descriptor("application/x");
    bad["size"] = (-1).into();
    assert!(matches!(with("layers", json!([bad])), ManifestError::Json { .. }));
    bad["size"] = json!(1u64 << 63);
    assert!(parse(&json!({"schemaVersion": 2, "config": bad, "layers": []})).is_ok());
    bad["digest"] = "sha256:zz".into();
    assert!(matches!(with("config", bad), ManifestError::Json { .. }));
    let many = Value::Array(vec![descriptor("a"); MAX_LAYERS + 1]);
    assert!(matches!(with("layers", many), ManifestError::TooMany { found: 4097 }));
    assert!(matches!(
        Manifest::parse(&vec![b' '; MAX_MANIFEST + 1]),
        Err(ManifestError::TooLong { .. })
    ));
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(matches!(Manifest::parse(&deep), Err(ManifestError::Json { .. })));
}

#[test]
fn cut_or_flipped_bytes_never_panic() {
    let bytes = serde_json::to_vec(&manifest()).unwrap();
    for at in 0..bytes.len() {
        assert!(Manifest::parse(&bytes[..at]).is_err());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let _ = Manifest::parse(&flipped);
    }
}

#[test]
fn an_index_gives_the_machine_asked_for() {
    let entry = |os: &str, architecture: &str, content: &[u8]| {
        let mut entry = descriptor(media_type::OCI_MANIFEST);
        entry["digest"] = Digest::of(content).to_string().into();
        entry["platform"] = json!({"os": os, "architecture": architecture, "os.version": "1"});
        entry
    };
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
        descriptor("a"), entry("unknown", "unknown", b"0"), entry("linux", "arm64", b"1"), entry("linux", "amd64", b"2")]});
    let index = Index::parse(&serde_json::to_vec(&index).unwrap()).unwrap();
    assert_eq!(index.select("linux", "amd64").unwrap().digest, Digest::of(b"2"));
    let error = index.select("linux", "s390x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of the 4 manifests of the index is for linux/s390x"
    );
}
