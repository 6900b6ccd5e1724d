//! Mirrors of registries, and what says which model it is.

use super::{EXAMPLE, example, refused, said};
use crate::{Policy, PolicyError, Provenance};

const ENDPOINT: &str = "endpoint = \"http://10.0.2.2:5000\"\n";

fn with(from: &str, more: &str) -> Policy {
    Policy::parse(&EXAMPLE.replacen(from, &format!("{from}{more}"), 1)).unwrap()
}

#[test]
fn mirrors_keep_their_order_and_have_authorities_of_their_own() {
    let mirrors = "[[registry.mirror]]\nendpoint = \"http://10.0.2.3:5000\"\n\
                   [[registry.mirror]]\nendpoint = \"https://mirror.example\"\nca = \"\"\"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n\"\"\"\n";
    let policy = with(ENDPOINT, mirrors);
    let found: Vec<_> = policy.registries()[0]
        .mirrors
        .iter()
        .map(|mirror| mirror.endpoint.to_string())
        .collect();
    assert_eq!(found, ["http://10.0.2.3:5000", "https://mirror.example:443"]);
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    let naked = format!("{ENDPOINT}[[registry.mirror]]\nendpoint = \"https://mirror.example\"\n");
    assert!(matches!(refused(ENDPOINT, &naked), PolicyError::NoAuthority { .. }));
    let many = ENDPOINT.to_owned() + &"[[registry.mirror]]\nendpoint = \"http://m\"\n".repeat(9);
    assert!(said(ENDPOINT, &many).contains("mirror"));
    let no_origin = format!("{ENDPOINT}[[registry.mirror]]\nendpoint = \"mirror.example/v2\"\n");
    assert!(
        said(ENDPOINT, &no_origin).contains("mirror[0]"),
        "{}",
        said(ENDPOINT, &no_origin)
    );
}

#[test]
fn a_digest_counts_only_where_one_is_computed() {
    let bytes = "bytes = 1716800\n";
    assert_eq!(example().models()[0].provenance, Provenance::Sealed);
    let digest = format!("blake3:{}", "5f".repeat(32));
    let computed = with(bytes, "provenance = \"digest\"\n");
    assert_eq!(computed.models()[0].provenance, Provenance::Digest(None));
    let pinned = with(bytes, &format!("provenance = \"digest\"\ndigest = \"{digest}\"\n"));
    assert_eq!(
        pinned.models()[0].provenance,
        Provenance::Digest(Some(digest.parse().unwrap()))
    );
    for policy in [computed, pinned] {
        assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    }
    let alone = format!("{bytes}digest = \"{digest}\"\n");
    assert!(
        said(bytes, &alone).contains("unless provenance is"),
        "{}",
        said(bytes, &alone)
    );
    let sha256 = format!(
        "{bytes}provenance = \"digest\"\ndigest = \"sha256:{}\"\n",
        "5f".repeat(32)
    );
    assert!(said(bytes, &sha256).contains("blake3:"), "{}", said(bytes, &sha256));
}
