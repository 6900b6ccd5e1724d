use super::*;
use crate::testing::{facts, snp_facts, td_facts};
use cella_attest::snp::Product;
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
    let turin = snp_facts(|snp| {
        snp.product = Product::Turin;
        snp.tcb.fmc = Some(1);
    });
    let td = td_facts(|td| {
        td.status = TcbStatus::OutOfDate;
        td.advisories = vec!["INTEL-SA-1".to_owned()];
    });
    let td15 = td_facts(|td| {
        td.tee_tcb_svn2 = Some([3; 16]);
        td.platform.instance_id = Some([4; 16]);
        td.replayed = true;
        td.version = 5;
    });
    for facts in [facts(), turin, td, td15] {
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
    let real = payload(&issue(&key, &snp_facts(|snp| snp.simulated = false)));
    assert_eq!(real["simulated"], false);
    assert_eq!(real["submods"]["cpu0"]["ear.status"], "affirming");
    let simulated = payload(&issue(&key, &facts()));
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
fn t22_simulated_tdx_guests_are_marked() {
    let claims = payload(&issue(&key(), &td_facts(|_| {})));
    let cpu0 = &claims["submods"]["cpu0"];
    assert_eq!(
        (&claims["simulated"], &cpu0["ear.status"]),
        (&json!(true), &json!("contraindicated"))
    );
    assert_eq!(cpu0["ear.trustworthiness-vector"]["hardware"], 97);
    assert_eq!(cpu0["ear.veraison.annotated-evidence"]["tdx"]["simulated"], true);
}

#[test]
fn a_tdx_guests_claims_have_trustees_names() {
    let facts = td_facts(|td| td.simulated = false);
    let evidence = payload(&issue(&key(), &facts))["submods"]["cpu0"]["ear.veraison.annotated-evidence"].clone();
    assert_eq!(evidence["snp"], Value::Null);
    let hex = |byte: &str, n: usize| json!(byte.repeat(n));
    for (pointer, value) in [
        ("/init_data", hex("bb", 48)),
        ("/tdx/quote/header/version", json!("0400")),
        ("/tdx/quote/header/tee_type", json!("81000000")),
        ("/tdx/quote/body/mr_td", hex("01", 48)),
        ("/tdx/quote/body/rtmr_0", hex("02", 48)),
        ("/tdx/quote/body/rtmr_3", hex("00", 48)),
        ("/tdx/quote/body/mr_config_id", hex("bb", 48)),
        ("/tdx/quote/body/td_attributes", json!("0000001000000000")),
        ("/tdx/quote/body/xfam", json!("e700000000000000")),
        ("/tdx/quote/body/tcb_svn", hex("08", 16)),
        ("/tdx/td_attributes/debug", json!(false)),
        ("/tdx/td_attributes/septve_disable", json!(true)),
        ("/tdx/tcb_status", json!("UpToDate")),
        ("/tdx/tcb_date", json!("2024-03-13T00:00:00Z")),
        ("/tdx/advisory_ids", json!([])),
        ("/tdx/collateral_expiration_status", json!("0")),
        ("/tdx/platform_provider_id", hex("09", 16)),
        ("/tdx/is_cached_keys", json!(true)),
        ("/tdx/launch_digest", json!(hex::encode(facts.launch_digest()))),
        ("/tdx/simulated", json!(false)),
    ] {
        assert_eq!(evidence.pointer(pointer), Some(&value), "{pointer}");
    }
}

#[test]
fn t23_the_status_of_a_tdx_platform_is_the_tokens() {
    use TcbStatus::*;
    for (status, advisories, expected) in [
        (UpToDate, 0, ("affirming", 2)),
        (UpToDate, 1, ("warning", 32)),
        (SWHardeningNeeded, 0, ("warning", 32)),
        (ConfigurationNeeded, 0, ("warning", 32)),
        (ConfigurationAndSWHardeningNeeded, 1, ("warning", 32)),
        (TDRelaunchAdvised, 0, ("warning", 32)),
        (TDRelaunchAdvisedConfigurationNeeded, 0, ("warning", 32)),
        (OutOfDate, 0, ("contraindicated", 96)),
        (OutOfDateConfigurationNeeded, 1, ("contraindicated", 96)),
    ] {
        let facts = td_facts(|td| {
            td.simulated = false;
            td.status = status;
            td.advisories = vec!["INTEL-SA-1".to_owned(); advisories];
        });
        assert_eq!(judgement(&facts), expected, "{status}");
    }
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
