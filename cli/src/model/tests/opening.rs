//! Verified, unsealed, put under another key; and an interrupted sealing.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::staging::Staging;

fn same_as_model(desk: &Desk, opened: &str) {
    for path in ["model.gguf", "deep/config.json"] {
        let (one, two) = (desk.path("model").join(path), desk.path(opened).join(path));
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{path}");
    }
}

fn manifest_of(layout: &Path) -> cella_oci::Manifest {
    let layout = crate::layout::Layout::open(layout).unwrap();
    let bytes = layout.bytes(&layout.entry().unwrap(), 1 << 20).unwrap();
    cella_oci::Manifest::parse(&bytes).unwrap()
}

#[tokio::test]
async fn what_was_sealed_is_verified_and_opened() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    let said = desk.run(&["verify", "oci:@sealed"]).await.unwrap();
    assert!(said.contains("digests are right"), "{said}");
    let said = desk
        .run(&["verify", "oci:@sealed", "--key-file", "@kek"])
        .await
        .unwrap();
    assert!(said.contains("4 segments are authentic"), "{said}");
    let said = desk
        .run(&[
            "unseal",
            "oci:@sealed",
            "--kek",
            "@kek",
            "--out",
            "@opened",
            "--name",
            "models/demo",
            "--version",
            "7",
        ])
        .await
        .unwrap();
    assert!(said.contains("2,100,002 bytes"), "{said}");
    same_as_model(&desk, "opened");
    let mode = |path: &str| fs::metadata(desk.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("opened"), mode("opened/deep"), mode("opened/model.gguf")),
        (0o700, 0o700, 0o600)
    );
    let again = desk
        .run(&["unseal", "oci:@sealed", "--kek", "@kek", "--out", "@opened"])
        .await;
    assert!(words(&again.unwrap_err()).contains("not empty"));
    let inspected = desk.run(&["inspect", "oci:@sealed"]).await.unwrap();
    for part in [KID, "model.gguf", "says paramSize 2.1m", "diff sha256:"] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&desk.run(&["inspect", "oci:@sealed", "--json"]).await.unwrap()).unwrap();
    let diff_id = cella_oci::Digest::of(&fs::read(desk.path("model/model.gguf")).unwrap()).to_string();
    assert_eq!(json["files"][1]["plaintext_digest"], diff_id);
    assert_eq!(json["config"]["precision"], "int8");
}

#[tokio::test]
async fn another_name_or_version_is_refused_with_both() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    for (flag, value) in [("--name", "models/other"), ("--version", "8")] {
        let refused = desk.run(&["verify", "oci:@sealed", flag, value]).await.unwrap_err();
        assert!(words(&refused).contains(value), "{refused:#}");
        let refused = desk
            .run(&[
                "unseal",
                "oci:@sealed",
                "--key-file",
                "@kek",
                "--out",
                "@opened",
                flag,
                value,
            ])
            .await
            .unwrap_err();
        assert!(words(&refused).contains("was asked for"), "{refused:#}");
        assert!(!desk.path("opened").exists());
    }
}

#[tokio::test]
async fn rekeying_leaves_the_ciphertext_and_takes_the_old_key_away() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    let new = "kbs:///demo/model-kek/2";
    let args = [
        "rekey",
        "oci:@sealed",
        "--old-key-file",
        "@kek",
        "--key",
        new,
        "--key-file",
        "@new",
        "--out",
        "@rekeyed",
    ];
    desk.run(&args).await.unwrap();
    let (before, after) = (manifest_of(&desk.path("sealed")), manifest_of(&desk.path("rekeyed")));
    let digests = |manifest: &cella_oci::Manifest| manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    assert_eq!((digests(&before), before.config), (digests(&after), after.config));
    assert!(desk.run(&["inspect", "oci:@rekeyed"]).await.unwrap().contains(new));
    let refused = desk
        .run(&["verify", "oci:@rekeyed", "--key-file", "@kek"])
        .await
        .unwrap_err();
    assert!(
        words(&refused).contains("layer 0, deep/config.json: its key cannot be had"),
        "{refused:#}"
    );
    assert!(words(&refused).contains(new), "{refused:#}");
    desk.run(&["unseal", "oci:@rekeyed", "--key-file", "@new", "--out", "@opened"])
        .await
        .unwrap();
    same_as_model(&desk, "opened");
    // To the same key is no rekeying; with the wrong old key nothing is made.
    let mut same = args;
    (same[7], same[9]) = ("@kek", "@other");
    assert!(words(&desk.run(&same).await.unwrap_err()).contains("already"));
    let mut wrong = args;
    (wrong[3], wrong[7], wrong[9]) = ("@new", "@newer", "@other");
    assert!(desk.run(&wrong).await.is_err());
    assert!(!desk.path("other").exists() && !desk.path("newer").exists());
}

#[tokio::test]
async fn deep_rekeying_changes_every_key_and_may_change_the_version() {
    let desk = Desk::new();
    desk.seal("model", "sealed", &[]).await.unwrap();
    desk.run(&[
        "rekey",
        "oci:@sealed",
        "--old-key-file",
        "@kek",
        "--key",
        KID,
        "--key-file",
        "@new",
        "--out",
        "@rekeyed",
        "--deep",
        "--version",
        "8",
    ])
    .await
    .unwrap();
    let (before, after) = (manifest_of(&desk.path("sealed")), manifest_of(&desk.path("rekeyed")));
    for (one, two) in before.layers.iter().zip(&after.layers) {
        assert_ne!(one.digest, two.digest);
        assert_eq!((&one.media_type, one.size), (&two.media_type, two.size));
    }
    let said = desk
        .run(&["verify", "oci:@rekeyed", "--key-file", "@new", "--version", "8"])
        .await
        .unwrap();
    assert!(said.contains("version 8") && said.contains("4 segments"), "{said}");
    desk.run(&["unseal", "oci:@rekeyed", "--key-file", "@new", "--out", "@opened"])
        .await
        .unwrap();
    same_as_model(&desk, "opened");
}

#[tokio::test]
async fn a_stopped_sealing_leaves_nothing() {
    let desk = Desk::new();
    let mut program = ["model", "seal", "--name", "a/b", "--version", "1", "--key", KID]
        .map(str::to_owned)
        .to_vec();
    program.extend([
        desk.text("model"),
        "--key-file".to_owned(),
        desk.text("kek"),
        "--out".to_owned(),
        desk.text("sealed"),
    ]);
    let ModelCommand::Seal(args) = Program::try_parse_from(program).unwrap().command else {
        panic!("another command");
    };
    let stop = Stop::default();
    stop.set();
    let stopped = super::super::seal::run(&args, stop).await;
    assert!(matches!(stopped, Err(SealModelError::Stopped)));
    let left: Vec<_> = fs::read_dir(desk.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "the model and the key: {left:?}");
    // A killed run's leftovers are wiped, and hold no plaintext by construction: what is staged is ciphertext.
    let mut killed = Staging::fresh(&desk.path("sealed"), 0o755).unwrap();
    fs::write(killed.path().join("half"), b"x").unwrap();
    killed.keep();
    drop(killed);
    desk.seal("model", "sealed", &[]).await.unwrap();
    assert!(!desk.path("sealed/half").exists() && !desk.path(".sealed.unfinished").exists());
}

#[tokio::test]
async fn a_file_that_changes_length_is_not_sealed() {
    let desk = Desk::new();
    let collected = super::super::files::collect(
        &desk.path("model"),
        super::super::files::Reading {
            contents: super::super::files::Contents::Model,
            headers: true,
        },
    )
    .unwrap();
    assert_eq!(collected.bytes(), WEIGHTS as u64 + 2);
    // A header that promises more than there is: as a download under way.
    fs::write(desk.path("model/model.gguf"), &gguf(WEIGHTS)[..WEIGHTS - 5]).unwrap();
    let refused = desk.seal("model", "sealed", &[]).await.unwrap_err();
    assert!(words(&refused.into()).contains("cut short"));
    assert!(!desk.path("sealed").exists() && !desk.path("kek").exists());
}
