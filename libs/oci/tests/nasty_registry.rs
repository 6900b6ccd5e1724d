//! Against a server that lies, redirects, and ends when it likes.
#![allow(clippy::expect_used, reason = "helpers of tests")]
use cella_oci::{Digest, RegistryError};

mod support;
use support::{NastyRegistry, answer, descriptor};

const BODY: &str = "0123456789";

fn digest() -> Digest {
    Digest::of(BODY.as_bytes())
}

/// What comes of asking for bytes 2 to 6 when the server answers like this.
async fn range_of(status: &'static str, headers: &'static [&'static str], body: &'static str) -> RegistryError {
    let registry = NastyRegistry::start(move |head, _| {
        assert!(head.contains("range: bytes=2-5\r\n"), "{head}");
        answer(status, headers, body)
    })
    .await;
    registry
        .client
        .blob_stream("a", &digest(), Some(2..6))
        .await
        .err()
        .expect("a stream was given")
}

#[tokio::test]
async fn only_the_range_that_was_asked_for() {
    for content_range in [
        "Content-Range: bytes 0-3/10",
        "Content-Range: bytes 2-4/10",
        "Content-Range: bytes 2-6/10",
        "Content-Range: bytes 2-5/5",
        "Content-Range: bytes 2-5/x",
        "Content-Range: lines 2-5/10",
        "Other: 1",
    ] {
        let headers: &'static [&'static str] = Box::leak(Box::new([content_range]));
        let error = range_of("206 Partial Content", headers, "2345").await;
        assert!(
            matches!(error, RegistryError::ContentRange { status: 206, .. }),
            "{content_range}: {error}"
        );
    }
    let error = range_of("200 OK", &[], BODY).await;
    assert!(
        matches!(error, RegistryError::ContentRange { status: 200, .. }),
        "{error}"
    );
    let error = range_of("206 Partial Content", &["Content-Range: bytes 2-5/10"], "23456").await;
    assert!(
        matches!(
            error,
            RegistryError::Length {
                expected: 4,
                found: 5,
                ..
            }
        ),
        "{error}"
    );
    let error = range_of("206 Partial Content", &["Content-Range: bytes 2-5/10"], "234").await;
    assert!(
        matches!(
            error,
            RegistryError::Length {
                expected: 4,
                found: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn bodies_of_unannounced_length_must_have_the_right_one() {
    let chunked = |body: &str| {
        let range = "Content-Range: bytes 2-5/10";
        format!(
            "HTTP/1.1 206 Partial Content\r\n{range}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    for (body, offset) in [("234", 5), ("23456", 6), ("2345", 6)] {
        let whole = chunked(body);
        let registry = NastyRegistry::start(move |_, _| whole.clone()).await;
        let mut stream = registry.client.blob_stream("a", &digest(), Some(2..6)).await.unwrap();
        let outcome = loop {
            match stream.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(stream.offset()),
                Err(error) => break Err(error),
            }
        };
        match (body.len(), outcome) {
            (
                3,
                Err(RegistryError::Truncated {
                    blob,
                    offset: 5,
                    expected: 6,
                    ..
                }),
            ) => assert_eq!(blob, digest()),
            (5, Err(RegistryError::Overlong { blob, expected: 6, .. })) => assert_eq!(blob, digest()),
            (4, Ok(end)) => assert_eq!(end, offset),
            (_, outcome) => panic!("{body}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_names_blob_and_offset() {
    let registry = NastyRegistry::start(|_, _| {
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\n23".to_owned()
    })
    .await;
    let mut stream = registry.client.blob_stream("a", &digest(), Some(2..6)).await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "23");
    let error = stream.chunk().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Interrupted { blob, offset: 4, .. } if blob == digest()),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_stay_at_the_origin() {
    let registry = NastyRegistry::start(|head, port| match head.split(' ').nth(1) {
        Some("/second") => answer(
            "302 Found",
            &[&format!("Location: http://127.0.0.1:{port}/third?x=1")],
            "",
        ),
        Some("/third?x=1") => answer("200 OK", &[], BODY),
        Some(path) if path.starts_with("/v2/") => answer("307 Temporary Redirect", &["Location: /second"], ""),
        _ => answer("404 Not Found", &[], ""),
    })
    .await;
    let bytes = registry
        .client
        .blob("a", &descriptor(BODY.as_bytes()), 100)
        .await
        .unwrap();
    assert_eq!(bytes, BODY.as_bytes());
}

#[tokio::test]
async fn redirects_elsewhere_or_without_end_are_refused() {
    let redirect = |location: &'static str| async move {
        let headers = format!("Location: {location}");
        let registry = NastyRegistry::start(move |_, _| answer("307 Temporary Redirect", &[&headers], "")).await;
        registry
            .client
            .blob("a", &descriptor(BODY.as_bytes()), 100)
            .await
            .unwrap_err()
    };
    let error = redirect("https://cdn.example/blob?token=secret").await;
    assert!(matches!(&error, RegistryError::Elsewhere { target, .. } if target == "https://cdn.example"));
    assert!(
        error.to_string().contains("https://cdn.example") && !error.to_string().contains("secret"),
        "{error}"
    );
    assert!(matches!(
        redirect("/loop").await,
        RegistryError::TooManyRedirects { .. }
    ));
    let registry = NastyRegistry::start(|_, _| answer("307 Temporary Redirect", &[], "")).await;
    let error = registry.client.blob_exists("a", &digest()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoLocation { .. }), "{error}");
    // Manifests are not redirected at all.
    let registry = NastyRegistry::start(|_, _| answer("307 Temporary Redirect", &["Location: /x"], "")).await;
    let error = registry.client.manifest("a", &digest()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 307, .. }), "{error}");
}

#[tokio::test]
async fn uploads_are_not_sent_elsewhere() {
    let registry =
        NastyRegistry::start(|_, _| answer("202 Accepted", &["Location: http://evil.example/upload"], "")).await;
    let error = registry.client.push_blob("a", BODY.into()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere { target, .. } if target == "http://evil.example"));
}

#[tokio::test]
async fn refusals_are_told_apart_and_their_bodies_not_shown() {
    let refusal = |status: &'static str, body: &'static str| async move {
        let registry = NastyRegistry::start(move |_, _| answer(status, &[], body)).await;
        registry.client.manifest("a", &digest()).await.unwrap_err()
    };
    assert!(matches!(
        refusal("401 Unauthorized", "").await,
        RegistryError::Unauthorized { .. }
    ));
    assert!(matches!(
        refusal("403 Forbidden", "").await,
        RegistryError::Unauthorized { .. }
    ));
    assert!(matches!(
        refusal("404 Not Found", "").await,
        RegistryError::NotFound { .. }
    ));
    let error = refusal(
        "429 Too Many Requests",
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"<b>"}]}"#,
    )
    .await;
    let shown = format!(
        "pulling manifest {} of registry.example/a: the registry answered 429 (TOOMANYREQUESTS)",
        digest()
    );
    assert_eq!(error.to_string(), shown);
    let error = refusal("500 Internal Server Error", "<html>").await;
    assert!(matches!(
        error,
        RegistryError::Status {
            status: 500,
            code: None,
            ..
        }
    ));
}

#[tokio::test]
async fn manifests_of_any_length_but_the_right_one() {
    let registry = NastyRegistry::start(|_, _| answer("200 OK", &[], "x")).await;
    let error = registry.client.manifest("a", &digest()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }));
    let registry = NastyRegistry::start(|_, _| answer("200 OK", &[], &"x".repeat((4 << 20) + 1))).await;
    let error = registry.client.manifest("a", &digest()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Http { .. }));
    let registry = NastyRegistry::start(|_, _| answer("200 OK", &[], "012345678")).await;
    let error = registry
        .client
        .blob("a", &descriptor(BODY.as_bytes()), 100)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        RegistryError::Length {
            expected: 10,
            found: 9,
            ..
        }
    ));
    let registry = NastyRegistry::start(|_, _| answer("200 OK", &[], "0123456780")).await;
    let error = registry
        .client
        .blob("a", &descriptor(BODY.as_bytes()), 100)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }));
}
