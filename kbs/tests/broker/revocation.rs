//! AMD's revocation lists, as the configuration names them.

use cella_kbs::Config;
use cella_kbs::clock::{Clock, SystemClock};

use crate::fixture::{Answer, Fixture};
use crate::guest::{Guest, authority};

/// The configuration names a list that revokes the chips' signing key, or nothing.
fn with_list(config: &mut Config, revoke: bool) {
    let path = config.state_dir.join("amd.crl");
    let list = authority().crl(revoke, SystemClock::new().unix()).unwrap();
    std::fs::write(&path, list).unwrap();
    config.snp.crls = vec![path];
}

async fn attest(fixture: &Fixture) -> Answer {
    let (cookie, nonce) = fixture.challenge().await;
    fixture.attest(&cookie, &Guest::new().attestation(&nonce)).await
}

#[tokio::test]
async fn t20_a_revoked_signing_key_proves_nothing() {
    let fixture = Fixture::with(|config| with_list(config, true)).await;
    let refused = attest(&fixture).await;
    assert_eq!(refused.refusal(), (401, "AttestationError", "certificate revoked"));
}

#[tokio::test]
async fn t20_a_list_that_names_others_is_no_hindrance_until_it_expires() {
    let fixture = Fixture::with(|config| {
        with_list(config, false);
        config.snp.require_crl = true;
    })
    .await;
    assert_eq!(attest(&fixture).await.status, 200);
    fixture.clock.advance(3700);
    let refused = attest(&fixture).await;
    assert_eq!(refused.refusal(), (401, "AttestationError", "revocation list refused"));
}

#[tokio::test]
async fn t20_no_list_where_one_is_demanded() {
    let fixture = Fixture::with(|config| config.snp.require_crl = true).await;
    let refused = attest(&fixture).await;
    assert_eq!(refused.refusal(), (401, "AttestationError", "revocation list refused"));
}
