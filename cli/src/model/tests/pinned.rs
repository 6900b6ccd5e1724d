//! What says which model it is: BLAKE3 of the plaintext, from sealing to the policy.

use cella_seal::tree::{Blake3Digest, InOrder, model_digest};

use super::*;

fn blake3(desk: &Desk, path: &str) -> Blake3Digest {
    let mut hash = InOrder::default();
    hash.update(&fs::read(desk.path("model").join(path)).unwrap());
    hash.digest()
}

/// Lines of both files, and of the policy.
fn expected(desk: &Desk) -> (Vec<String>, String) {
    let files = ["deep/config.json", "model.gguf"].map(|path| (path, blake3(desk, path)));
    let lines = files.iter().map(|(path, digest)| format!("tree {digest}  {path}\n"));
    let pin = format!(
        "pin  provenance = \"digest\"\n     digest = \"{}\"\n",
        model_digest(files)
    );
    (lines.collect(), pin)
}

#[tokio::test]
async fn inspect_verify_and_unseal_say_what_a_policy_pins() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    let (files, pin) = expected(&desk);
    let verify = ["verify", "oci:@sealed", "--key-file", "@kek"];
    let unseal = ["unseal", "oci:@sealed", "--key-file", "@kek", "--out", "@opened"];
    let (inspected, verified) = (
        desk.run(&["inspect", "oci:@sealed"]).await.unwrap(),
        desk.run(&verify).await.unwrap(),
    );
    for said in [&inspected, &verified] {
        assert!(files.iter().all(|line| said.contains(line)), "{said}");
        assert!(said.contains(&pin), "{said}");
    }
    assert!(verified.lines().last().unwrap().starts_with("sha256:"), "{verified}");
    let unsealed = desk.run(&unseal).await.unwrap();
    assert!(unsealed.ends_with(&pin), "{unsealed}");
    let unkeyed = desk.run(&["verify", "oci:@sealed"]).await.unwrap();
    assert!(!unkeyed.contains("blake3:"), "nothing was opened: {unkeyed}");
    let json: serde_json::Value =
        serde_json::from_str(&desk.run(&["inspect", "oci:@sealed", "--json"]).await.unwrap()).unwrap();
    assert_eq!(
        json["files"][1]["plaintext_blake3"],
        blake3(&desk, "model.gguf").to_string()
    );
    assert!(pin.contains(json["model_digest"].as_str().unwrap()), "{json}");

    // A new key changes nothing about the plaintext.
    let rekey = ["rekey", "oci:@sealed", "--old-key-file", "@kek", "--key", KID, "--deep"];
    let to = ["--key-file", "@new", "--out", "@rekeyed"];
    desk.run(&[rekey.as_slice(), &to].concat()).await.unwrap();
    let said = desk.run(&["inspect", "oci:@rekeyed"]).await.unwrap();
    assert!(said.contains(&pin), "{said}");
}

#[tokio::test]
async fn what_the_manifest_does_not_say_is_computed_with_the_key() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    let layout = crate::layout::Layout::open(&desk.path("sealed")).unwrap();
    let mut manifest = open(&desk.path("sealed")).await.manifest;
    for layer in &mut manifest.layers {
        layer.annotations.remove("dev.cella.model.blake3").unwrap();
    }
    layout.publish(&manifest, None).unwrap();
    let (files, pin) = expected(&desk);
    let said = desk.run(&["inspect", "oci:@sealed"]).await.unwrap();
    assert!(said.contains("pin  not known") && !said.contains("blake3:"), "{said}");
    let said = desk.run(&["inspect", "oci:@sealed", "--json"]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(json["model_digest"].is_null() && json["files"][0]["plaintext_blake3"].is_null());
    let said = desk
        .run(&["verify", "oci:@sealed", "--key-file", "@kek"])
        .await
        .unwrap();
    assert!(
        files.iter().all(|line| said.contains(line)) && said.contains(&pin),
        "{said}"
    );
}
