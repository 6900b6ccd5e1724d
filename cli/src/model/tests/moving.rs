//! To registries and back.

use http::Method;

use super::*;
use crate::test_registry::{Fault, TestRegistry};

#[tokio::test]
async fn pushed_pulled_and_verified_where_it_lies() {
    let desk = Desk::new();
    let registry = TestRegistry::start().await;
    let reference = format!("{}/models/demo:7", registry.name);
    let sealed = desk.seal("model", "sealed", &[]).await.unwrap();
    let digest = sealed.lines().last().unwrap().to_owned();
    let pushed = desk.run(&["push", "@sealed", &reference]).await.unwrap();
    assert_eq!(pushed, format!("{}/models/demo@{digest}\n", registry.name));
    let pulled = desk.run(&["pull", &reference, "@pulled"]).await.unwrap();
    assert_eq!(pulled, pushed);
    desk.run(&["verify", "oci:@pulled", "--key-file", "@kek"])
        .await
        .unwrap();
    desk.run(&["verify", pushed.trim(), "--key-file", "@kek"])
        .await
        .unwrap();
    assert!(!desk.path(".pulled.unfinished").exists());
    let other = desk.run(&["pull", &reference, "@pulled"]).await.unwrap_err();
    assert!(words(&other).contains("not empty"));
}

#[tokio::test]
async fn a_pull_that_fails_leaves_no_layout_and_goes_on() {
    let desk = Desk::new();
    let registry = TestRegistry::start().await;
    let reference = format!("{}/models/demo:7", registry.name);
    desk.seal("model", "sealed", &[]).await.unwrap();
    desk.run(&["push", "@sealed", &reference]).await.unwrap();
    // The configuration comes whole; then one blob breaks, and whatever is asked next is refused.
    registry.fail(Method::GET, &[Fault::None]);
    registry.fail(Method::GET, &[Fault::Cut(90), Fault::Cut(90), Fault::Cut(90)]);
    registry.fail(Method::GET, &[Fault::Status(403); 3]);
    let failed = desk.run(&["pull", &reference, "@pulled"]).await.unwrap_err();
    assert!(words(&failed).contains("pulling blob sha256:"), "{failed:#}");
    assert!(!desk.path("pulled").exists() && desk.path(".pulled.unfinished").exists());
    let mut retried = Err(failed);
    // What is left of the faults is used up.
    for _ in 0..4 {
        retried = desk.run(&["pull", &reference, "@pulled"]).await;
        if retried.is_ok() {
            break;
        }
    }
    retried.unwrap();
    desk.run(&["verify", "oci:@pulled", "--key-file", "@kek"])
        .await
        .unwrap();
}

#[tokio::test]
async fn mirrors_have_the_bytes_and_not_the_say() {
    let desk = Desk::new();
    let (registry, mirror, other) = (
        TestRegistry::start().await,
        TestRegistry::start().await,
        TestRegistry::start().await,
    );
    let reference = format!("{}/models/demo:7", registry.name);
    desk.seal("model", "sealed", &[]).await.unwrap();
    let pushed = desk.run(&["push", "@sealed", &reference]).await.unwrap();
    mirror.mirror(&registry);
    // Another model under the same tag at the mirror: nobody asks it what the tag means.
    desk.seal("model", "second", &[]).await.unwrap();
    desk.run(&["push", "@second", &format!("{}/models/demo:7", mirror.name)])
        .await
        .unwrap();
    let pull = |to: &'static str, first: String, second: String, reference: String| {
        let desk = &desk;
        async move {
            desk.run(&["pull", &reference, to, "--mirror", &first, "--mirror", &second])
                .await
        }
    };
    let pulled = pull("@one", other.name.clone(), mirror.name.clone(), reference)
        .await
        .unwrap();
    assert_eq!(pulled, pushed);
    assert_eq!(
        (mirror.ranges().len(), registry.ranges().len()),
        (3, 0),
        "layers and configuration"
    );
    // By digest, where the registry itself has lost them.
    registry.lose(0);
    mirror.damage(1000);
    let by_digest = pushed.trim().to_owned();
    let failed = pull("@two", other.name.clone(), mirror.name.clone(), by_digest)
        .await
        .unwrap_err();
    assert!(!desk.path("two").exists(), "{failed:#}");
}

#[tokio::test]
async fn sealed_straight_to_a_registry() {
    let desk = Desk::new();
    let registry = TestRegistry::start().await;
    let to = format!("{}/models/demo:7", registry.name);
    // A session that is forgotten in the middle, a connection that breaks: the first costs the layer, the second a chunk.
    registry.fail(
        Method::PATCH,
        &[
            Fault::None,
            Fault::Cut(1000),
            Fault::None,
            Fault::Forget,
            Fault::Status(502),
        ],
    );
    let said = desk.seal_with("model", &["--push", &to], &[]).await.unwrap();
    let reference = said.lines().last().unwrap().to_owned();
    assert!(reference.contains("/models/demo@sha256:"), "{said}");
    desk.run(&["verify", &reference, "--key-file", "@kek"]).await.unwrap();
    desk.run(&["unseal", &reference, "--key-file", "@kek", "--out", "@opened"])
        .await
        .unwrap();
    assert!(fs::read(desk.path("opened/model.gguf")).unwrap() == gguf(WEIGHTS));
    let left: Vec<_> = fs::read_dir(desk.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "model, key and what was opened: {left:?}");

    // Only the manifest changes, and only it is pushed.
    let uploads = registry.uploads();
    let rekeyed = desk
        .run(&[
            "rekey",
            &reference,
            "--old-key-file",
            "@kek",
            "--key",
            "kbs:///demo/model-kek/2",
            "--key-file",
            "@new",
            "--push",
            &to,
        ])
        .await
        .unwrap();
    assert_eq!(registry.uploads(), uploads);
    desk.run(&["verify", rekeyed.trim(), "--key-file", "@new"])
        .await
        .unwrap();
    assert!(desk.run(&["verify", &to, "--key-file", "@kek"]).await.is_err());
    let elsewhere = format!("{}/models/other:7", registry.name);
    let refused = desk
        .run(&[
            "rekey",
            &reference,
            "--old-key-file",
            "@kek",
            "--key",
            KID,
            "--key-file",
            "@third",
            "--push",
            &elsewhere,
        ])
        .await;
    assert!(words(&refused.unwrap_err()).contains("--out"));
    assert!(!desk.path("third").exists());
}

#[tokio::test]
async fn sealed_into_a_layout_and_pushed_from_there() {
    let desk = Desk::new();
    let registry = TestRegistry::start().await;
    let to = format!("{}/models/demo:7", registry.name);
    let said = desk.seal("model", "sealed", &["--push", &to]).await.unwrap();
    desk.run(&["verify", said.lines().last().unwrap(), "--key-file", "@kek"])
        .await
        .unwrap();
    desk.run(&["verify", "oci:@sealed", "--key-file", "@kek"])
        .await
        .unwrap();
}
