//! One accepted form and the ways around it, for each name.

use super::*;

#[test]
fn key_ids_have_three_parts_and_no_host() {
    let key: KeyId = "kbs:///demo/model-kek/1".parse().unwrap();
    assert_eq!(key.path(), "demo/model-kek/1");
    for bad in [
        "",
        "kbs://host/demo/model-kek/1",
        "kbs:///demo/model-kek",
        "kbs:///demo/model-kek/1/2",
        "kbs:///demo//1",
        "kbs:///../model-kek/1",
        "kbs:///demo/model kek/1",
        "kbs:///default/test-key/1",
        "kbs+plugin:///demo/model-kek/1",
    ] {
        assert!(bad.parse::<KeyId>().is_err(), "{bad}");
    }
    assert!(format!("kbs:///{}/b/c", "a".repeat(129)).parse::<KeyId>().is_err());
}

#[test]
fn references_need_registry_and_digest() {
    let hex = "ab".repeat(32);
    let text = format!("localhost:5000/demo/llama-server@sha256:{hex}");
    let reference: DigestRef = text.parse().unwrap();
    assert_eq!(reference.registry().as_str(), "localhost:5000");
    assert_eq!(reference.repository(), "demo/llama-server");
    assert_eq!(reference.digest().as_bytes(), &[0xab; 32]);
    assert_eq!(reference.to_string(), text);
    for bad in [
        "localhost:5000/demo/server".to_owned(),
        "localhost:5000/demo/server:latest".to_owned(),
        format!("localhost:5000/demo/server:latest@sha256:{hex}"),
        format!("server@sha256:{hex}"),
        format!("localhost:5000/Demo@sha256:{hex}"),
        format!("localhost:5000/demo//server@sha256:{hex}"),
        format!("localhost:5000/a..b@sha256:{hex}"),
        format!("localhost:5000/-a@sha256:{hex}"),
        format!("localhost:5000/a___b@sha256:{hex}"),
        format!("localhost:0/demo@sha256:{hex}"),
        format!("localhost:+5/demo@sha256:{hex}"),
        format!("localhost/demo@sha256:{}", hex.to_uppercase()),
        format!("localhost/demo@sha256:{hex}00"),
        format!("localhost/demo@sha512:{hex}"),
    ] {
        assert!(bad.parse::<DigestRef>().is_err(), "{bad}");
    }
}

#[test]
fn endpoints_are_scheme_host_and_port() {
    let show = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
    assert_eq!(show("https://10.0.2.2:8443").unwrap(), "https://10.0.2.2:8443");
    assert_eq!(show("https://kbs.example/").unwrap(), "https://kbs.example:443");
    assert_eq!(show("http://[::1]:5000").unwrap(), "http://[::1]:5000");
    assert_eq!(show("http://[::1]").unwrap(), "http://[::1]:80");
    for bad in [
        "kbs.example",
        "ftp://a",
        "https://",
        "https://a/b",
        "https://u@a",
        "https://a?b",
        "https://a:0",
        "https://a:70000",
        "https://-a",
        "https://[::1",
        "https://a:",
    ] {
        assert!(show(bad).is_err(), "{bad}");
    }
}

#[test]
fn paths_are_absolute_and_normalised() {
    for good in ["/", "/a", "/a/b.c/d"] {
        assert_eq!(good.parse::<GuestPath>().unwrap().as_str(), good);
    }
    for bad in ["", "a", "//", "/a/", "/a//b", "/./a", "/a/..", "/a\nb", "/a\0"] {
        assert!(bad.parse::<GuestPath>().is_err(), "{bad:?}");
    }
    let path = |text: &str| text.parse::<GuestPath>().unwrap();
    assert!(path("/a/b").is_within(&path("/a")));
    assert!(path("/a").is_within(&path("/a")));
    assert!(path("/a").is_within(&path("/")));
    assert!(!path("/ab").is_within(&path("/a")));
    assert!(!path("/a").is_within(&path("/a/b")));
}

#[test]
fn foreign_text_is_escaped_and_cut() {
    assert_eq!(shown("a\u{1b}[0m\n"), r#""a\u{1b}[0m\n""#);
    assert_eq!(shown(&"é".repeat(500)).chars().count(), 120 + 3);
}
