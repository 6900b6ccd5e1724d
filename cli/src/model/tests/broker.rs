//! Keys that a broker holds, or refuses.

use super::*;

#[tokio::test]
async fn a_broker_that_cannot_be_asked_ends_it_before_a_key_is_made() {
    let desk = Desk::new();
    let (admin, _) = crate::kbs::test_keys(desk.dir.path(), "admin");
    let refused = |url: &'static str, ca: String| {
        let (desk, admin) = (&desk, admin.clone());
        async move {
            let more = ["--kbs", url, "--kbs-ca", &ca, "--admin-key", &admin];
            words(&desk.seal("model", "sealed", &more).await.unwrap_err().into())
        }
    };
    assert!(
        refused("http://127.0.0.1:1", desk.text("none"))
            .await
            .contains("https only")
    );
    assert!(
        refused("https://127.0.0.1:1", desk.text("none"))
            .await
            .contains("reading")
    );
    assert!(
        refused("https://127.0.0.1:1", admin.clone())
            .await
            .contains("no certificate authority")
    );
    assert!(!desk.path("kek").exists() && !desk.path("sealed").exists());
}
