use super::*;
use crate::testing::facts;
use serde_json::Value;

const NOW: u64 = 1_800_000_000;

fn key() -> TokenKey {
    TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap()
}

fn issue(key: &TokenKey, facts: &Facts) -> String {
    key.issue(facts, "bm9uY2U=", "0011223344556677", NOW, 300).unwrap()
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn gives_back_what_it_was_issued_for() {
    let key = key();
    let mut turin = facts();
    turin.product = Product::Turin;
    turin.tcb.fmc = Some(1);
    for facts in [facts(), turin] {
        let proven = key.verify(&issue(&key, &facts), NOW + 299).unwrap();
        assert_eq!(
            proven,
            Proven {
                facts,
                session: "0011223344556677".to_owned()
            }
        );
    }
}

#[test]
fn simulated_is_marked() {
    let key = key();
    let real = payload(&issue(
        &key,
        &Facts {
            simulated: false,
            ..facts()
        },
    ));
    assert_eq!(real["simulated"], false);
    assert_eq!(real["submods"]["cpu0"]["ear.status"], "affirming");
    let simulated = payload(&issue(
        &key,
        &Facts {
            simulated: true,
            ..facts()
        },
    ));
    assert_eq!(simulated["simulated"], true);
    assert_eq!(simulated["submods"]["cpu0"]["ear.status"], "contraindicated");
    assert_eq!(
        simulated["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"],
        97
    );
    let evidence = &simulated["submods"]["cpu0"]["ear.veraison.annotated-evidence"];
    assert_eq!(evidence["snp"]["simulated"], true);
    assert_eq!(evidence["runtime_data_claims"]["tee-pubkey"]["crv"], "P-256");
}

#[test]
fn only_fresh_tokens_of_this_key_pass() {
    let key = key();
    let token = issue(&key, &facts());
    assert_eq!(key.verify(&token, NOW + 300), Err(TokenError::Expired));
    let other = self::key();
    assert_eq!(key.verify(&issue(&other, &facts()), NOW), Err(TokenError::Signature));
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] ^= 1;
        let changed = String::from_utf8(bytes).unwrap();
        assert!(key.verify(&changed, NOW).is_err(), "changed at {index}");
        assert!(key.verify(&token[..index], NOW).is_err(), "cut at {index}");
    }
}

#[test]
fn the_key_survives_a_restart() {
    let der = TokenKey::generate().unwrap();
    let token = issue(&TokenKey::from_pkcs8(&der).unwrap(), &facts());
    assert!(TokenKey::from_pkcs8(&der).unwrap().verify(&token, NOW).is_ok());
    assert!(TokenKey::from_pkcs8(&der[1..]).is_err());
}
