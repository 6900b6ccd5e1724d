//! TDX guests: what counts as proof, and which rules name them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cella_attest::sim::TdJudgement;
use cella_attest::tdx::{ATTRIBUTE_DEBUG, ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, TcbStatus, TdReport};
use cella_kbs_client::KbsClient;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::Guest;
use crate::td::{self, STRANGER, TdGuest, up_to_date};

const KEY: &[u8] = b"thirty-two bytes of a model key.";

async fn attest_with(fixture: &Fixture, guest: &TdGuest, change: impl FnOnce(&mut Value)) -> (String, Answer) {
    let (cookie, nonce) = fixture.challenge_for("tdx").await;
    let mut body = guest.attestation(&nonce);
    change(&mut body);
    let answer = fixture.attest(&cookie, &body).await;
    (cookie, answer)
}

async fn attest(fixture: &Fixture, guest: &TdGuest) -> Answer {
    attest_with(fixture, guest, |_| {}).await.1
}

/// What a guest that has attested gets for the key.
async fn ask(fixture: &Fixture, guest: &TdGuest) -> Answer {
    let (cookie, answer) = attest_with(fixture, guest, |_| {}).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await
}

fn assert_refused(answer: &Answer, detail: &str) {
    assert_eq!(answer.refusal(), (401, "AttestationError", detail));
}

fn assert_denied(answer: &Answer, detail: &str) {
    assert_eq!(answer.refusal(), (401, "PolicyDeny", detail));
}

#[tokio::test]
async fn a_tdx_guest_gets_its_keys() {
    let fixture = Fixture::with(td::known).await;
    let guest = TdGuest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let mut client = KbsClient::new(fixture.client(), "tdx");
    let evidence = async |report_data| Ok::<_, std::convert::Infallible>(guest.evidence(report_data));
    let mut session = client.attest(&guest.initdata, evidence).await.unwrap();
    assert_eq!(&**session.resource("a/b/c").await.unwrap(), KEY);

    let lines = fixture.audit();
    let released = lines.iter().find(|line| line["event"] == "release").unwrap();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = guest.rtmr.map(hex::encode);
    for (member, value) in [
        ("outcome", json!("allowed")),
        ("tee", json!("tdx")),
        ("product", json!("FMSPC 53494d000000")),
        ("measurement", json!(hex::encode(guest.launch_digest()))),
        (
            "registers",
            json!({"mrtd": hex::encode(guest.mrtd), "rtmr": [rtmr0, rtmr1, rtmr2, rtmr3]}),
        ),
        ("initdata", json!(hex::encode(guest.policy_digest()))),
        ("tcb", json!("UpToDate")),
        ("simulated", json!(true)),
    ] {
        assert_eq!(released[member], value, "{member}");
    }
}

#[tokio::test]
async fn a_token_proves_as_much_as_its_session() {
    let fixture = Fixture::with(td::known).await;
    let guest = TdGuest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let (_, answer) = attest_with(&fixture, &guest, |_| {}).await;
    let token = answer.body["token"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["simulated"], true);
    let tdx = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tdx"];
    assert_eq!(tdx["quote"]["body"]["mr_td"], hex::encode(guest.mrtd));
    assert_eq!(
        fixture.send(Sent::get("resource/a/b/c").bearer(token)).await.status,
        200
    );
    let mut other = guest.rule();
    other["tdx"]["rtmr2"] = json!([]);
    fixture.store_rule("a/b/c", &other).await;
    let denied = fixture.send(Sent::get("resource/a/b/c").bearer(token)).await;
    assert_denied(&denied, "RTMR2 not in the rule");
}

#[tokio::test]
async fn t22_the_debug_attribute_is_refused_whatever_a_rule_says() {
    let fixture = Fixture::with(td::known).await;
    for change in [
        (|report| report.attributes |= ATTRIBUTE_DEBUG) as fn(&mut TdReport),
        |report| report.attributes |= 1 << 7,
    ] {
        let answer = attest(&fixture, &TdGuest::changed(change)).await;
        assert_refused(&answer, "guest attributes allow debugging");
    }
    let rule = json!({
        "launch-digests": [], "policy-digests": [],
        "tdx": {"mrtd": [], "rtmr0": "any", "rtmr1": [], "rtmr2": [], "allow-debug": true},
    });
    let token = fixture.admin_token();
    let stored = fixture
        .send(Sent::post("cella-rule/a/b/c", rule.to_string().into_bytes()).bearer(&token))
        .await;
    assert_eq!(stored.status, 400, "{:?}", stored.body);
}

#[tokio::test]
async fn t22_the_simulated_root_counts_only_where_it_is_named() {
    let fixture = Fixture::with(|config| {
        td::known(config);
        config.tdx.simulated_root = None;
    })
    .await;
    assert_refused(&attest(&fixture, &TdGuest::new()).await, "root not trusted");
    // Nor does the root of another kind of platform vouch for it.
    assert!(fixture.attested(&Guest::new()).await.0.len() == 32);
    let fixture = Fixture::with(td::known).await;
    let strange = TdGuest {
        platform: &STRANGER,
        ..TdGuest::new()
    };
    assert_refused(&attest(&fixture, &strange).await, "root not trusted");
    // And a rule must name it, too.
    let guest = TdGuest::new();
    let mut rule = guest.rule();
    rule["allow-simulated"] = json!(false);
    fixture.store("a/b/c", KEY, &rule).await;
    assert_denied(
        &ask(&fixture, &guest).await,
        "simulated evidence is not allowed by the rule",
    );
}

#[tokio::test]
async fn what_the_quote_must_say_is_compared() {
    let fixture = Fixture::with(td::known).await;
    type Change = fn(&mut TdReport);
    let cases: [(Change, &str); 7] = [
        (|report| report.report_data[0] ^= 1, "report data mismatch"),
        (|report| report.report_data[63] ^= 1, "report data mismatch"),
        (|report| report.mr_config_id[0] ^= 1, "initdata digest mismatch"),
        (|report| report.mr_config_id = [0; 48], "initdata digest mismatch"),
        (|report| report.mr_owner[0] = 1, "guest has another owner"),
        (
            |report| report.attributes |= ATTRIBUTE_MIGRATABLE,
            "guest attributes refused",
        ),
        (
            |report| report.attributes |= ATTRIBUTE_PERFMON,
            "guest attributes refused",
        ),
    ];
    for (change, detail) in cases {
        assert_refused(&attest(&fixture, &TdGuest::changed(change)).await, detail);
    }
    let guest = TdGuest::new();
    let (_, other) = attest_with(&fixture, &guest, |body| {
        body["init-data"]["body"] = json!(format!("{}# more\n", guest.initdata));
    })
    .await;
    assert_refused(&other, "initdata digest mismatch");
    let (_, stolen) = attest_with(&fixture, &guest, |body| {
        body["runtime-data"]["tee-pubkey"] = serde_json::to_value(TdGuest::new().key.public()).unwrap();
    })
    .await;
    assert_refused(&stolen, "report data mismatch");
}

#[tokio::test]
async fn evidence_of_another_form_or_kind_is_refused() {
    let fixture = Fixture::with(td::known).await;
    let guest = TdGuest::new();
    let form = "primary evidence is not a quote with its event log";
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 5] = [
        (|evidence| evidence["extra"] = json!(1), form),
        (|evidence| evidence["quote"] = json!(null), form),
        (|evidence| evidence["quote"] = json!("AAAA"), "quote malformed"),
        (|evidence| evidence["cc_eventlog"] = json!("!"), form),
        (
            |evidence| evidence["cc_eventlog"] = json!("AAAA"),
            "event log malformed",
        ),
    ];
    for (change, detail) in changes {
        let changed = |body: &mut Value| change(&mut body["tee-evidence"]["primary_evidence"]);
        assert_refused(&attest_with(&fixture, &guest, changed).await.1, detail);
    }
    let (cookie, nonce) = fixture.challenge_for("tdx").await;
    let snp = fixture.attest(&cookie, &Guest::new().attestation(&nonce)).await;
    assert_refused(&snp, form);
    let (cookie, nonce) = fixture.challenge().await;
    let td = fixture.attest(&cookie, &guest.attestation(&nonce)).await;
    assert_refused(&td, "primary evidence is not a report with its chain");
}

#[tokio::test]
async fn t6_each_byte_of_a_quote_counts() {
    let fixture = Fixture::with(|config| {
        td::known(config);
        config.limits.requests_per_second = 100_000;
    })
    .await;
    let guest = TdGuest::new();
    // One in each part: header, report, signature, key, certification data, certificates.
    for at in [0, 20, 48, 48 + 136, 48 + 520, 640, 700, 770, 1200, 1400, 2000] {
        let flip = |body: &mut Value| {
            let quote = &mut body["tee-evidence"]["primary_evidence"]["quote"];
            let mut bytes = STANDARD.decode(quote.as_str().unwrap()).unwrap();
            bytes[at] ^= 1;
            *quote = STANDARD.encode(bytes).into();
        };
        let answer = attest_with(&fixture, &guest, flip).await.1;
        assert_eq!(answer.refusal().1, "AttestationError", "byte {at}");
    }
}

#[tokio::test]
async fn an_event_log_must_replay() {
    let fixture = Fixture::with(td::known).await;
    // Events that lead to these registers, and to no others.
    let events = [[7; 48], [8; 48]];
    let mut guest = TdGuest {
        event_log: Some(log(&events)),
        ..TdGuest::new()
    };
    assert_refused(&attest(&fixture, &guest).await, "event log does not replay");
    guest.rtmr = cella_attest::tdx::EventLog::parse(&log(&events)).unwrap().replay();
    let mut rule = guest.rule();
    rule["tdx"]["event-log"] = json!(true);
    fixture.store("a/b/c", KEY, &rule).await;
    assert_eq!(ask(&fixture, &guest).await.status, 200);
    guest.event_log = None;
    assert_denied(&ask(&fixture, &guest).await, "event log missing");
}

/// An event log that extends RTMR1 with each digest.
fn log(digests: &[[u8; 48]]) -> Vec<u8> {
    let specification = [
        b"Spec ID Event03\0".as_slice(),
        &[0; 8],
        &[1, 0, 0, 0, 0x0c, 0, 48, 0, 0],
    ]
    .concat();
    let mut log = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend(u32::try_from(specification.len()).unwrap().to_le_bytes());
    log.extend(specification);
    for digest in digests {
        for number in [2_u32, 0x8000_0001, 1] {
            log.extend(number.to_le_bytes());
        }
        log.extend([0x0c, 0]);
        log.extend(digest);
        log.extend(0_u32.to_le_bytes());
    }
    log
}

#[tokio::test]
async fn each_register_is_compared_with_the_rule() {
    let fixture = Fixture::with(td::known).await;
    let guest = TdGuest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    for (register, name) in [(1, "RTMR1"), (2, "RTMR2"), (3, "RTMR3")] {
        let mut other = TdGuest::new();
        other.rtmr[register] = [9; 48];
        assert_denied(&ask(&fixture, &other).await, &format!("{name} not in the rule"));
    }
    let other = TdGuest {
        mrtd: [9; 48],
        ..TdGuest::new()
    };
    assert_denied(&ask(&fixture, &other).await, "MRTD not in the rule");
    fixture.store_rule("a/b/c", &Guest::new().rule()).await;
    assert_denied(&ask(&fixture, &guest).await, "TDX guests are not in the rule");
}

/// A broker that was given this judgement, and what it says to a good guest with and without an exception for the status.
async fn judged(change: fn(&mut cella_kbs::Config), status: &str) -> [Answer; 2] {
    let fixture = Fixture::with(change).await;
    let guest = TdGuest::new();
    let mut rule = guest.rule();
    fixture.store("a/b/c", KEY, &rule).await;
    let (cookie, answer) = attest_with(&fixture, &guest, |_| {}).await;
    if answer.status != 200 {
        let (_, again) = attest_with(&fixture, &guest, |_| {}).await;
        return [answer, again];
    }
    let without = fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await;
    rule["tdx"]["exceptions"] = json!([
        {"status": status, "advisories": ["INTEL-SA-00001"], "until": "2099-01-01T00:00:00Z"},
    ]);
    fixture.store_rule("a/b/c", &rule).await;
    let with = fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await;
    [without, with]
}

fn judge(config: &mut cella_kbs::Config, platform: TcbStatus, advisory: &str) {
    let judgement = TdJudgement {
        platform,
        advisories: vec![advisory.to_owned()],
        ..up_to_date()
    };
    td::configure(config, &judgement);
}

#[tokio::test]
async fn t23_only_an_exception_lets_a_platform_that_is_behind_in() {
    const NOT_ACCEPTED: &str = "platform TCB status not accepted";
    let known = "INTEL-SA-00001";
    let change = |config: &mut _| judge(config, TcbStatus::OutOfDate, "INTEL-SA-00001");
    let [without, with] = judged(change, "OutOfDate").await;
    assert_denied(&without, NOT_ACCEPTED);
    assert_eq!(with.status, 200, "{known}: {:?}", with.body);
    let change = |config: &mut _| judge(config, TcbStatus::ConfigurationNeeded, "INTEL-SA-00001");
    // For another status.
    for answer in judged(change, "OutOfDate").await {
        assert_denied(&answer, NOT_ACCEPTED);
    }
}

#[tokio::test]
async fn t23_an_advisory_that_is_not_on_the_list_is_refused() {
    let change = |config: &mut _| judge(config, TcbStatus::OutOfDate, "INTEL-SA-00002");
    for answer in judged(change, "OutOfDate").await {
        assert_denied(&answer, "platform TCB status not accepted");
    }
}

#[tokio::test]
async fn t23_a_revoked_platform_proves_nothing() {
    let change = |config: &mut _| judge(config, TcbStatus::Revoked, "INTEL-SA-00001");
    for answer in judged(change, "Revoked").await {
        assert_refused(&answer, "platform TCB status not accepted");
    }
}

#[tokio::test]
async fn t23_expired_collateral_proves_nothing() {
    let fixture = Fixture::with(td::known).await;
    assert_eq!(attest(&fixture, &TdGuest::new()).await.status, 200);
    fixture.clock.advance(3700);
    // Lists and documents of the simulated authority end together; the lists are looked at first.
    assert_refused(&attest(&fixture, &TdGuest::new()).await, "revocation list refused");
}

#[tokio::test]
async fn t23_collateral_older_than_the_owner_accepts_proves_nothing() {
    let fixture = Fixture::with(|config| {
        td::known(config);
        config.tdx.collateral_max_age_hours = 0;
    })
    .await;
    fixture.clock.advance(5);
    assert_refused(&attest(&fixture, &TdGuest::new()).await, "collateral too old");
}

#[tokio::test]
async fn t23_collateral_is_read_again_without_a_restart() {
    let fixture = Fixture::with(|config| {
        let other = TdJudgement {
            fmspc: [0xab; 6],
            ..up_to_date()
        };
        td::configure(config, &other);
    })
    .await;
    let none = "no collateral for platforms of FMSPC 53494d000000";
    assert_refused(&attest(&fixture, &TdGuest::new()).await, none);
    let file = fixture.folder().join("state/tdx/platform.json");
    let damaged = std::fs::write(&file, b"{").and_then(|()| std::fs::read(&file)).unwrap();
    fixture.reload().await;
    assert!(fixture.log.text().contains("not reloaded"), "{damaged:?}");
    assert_refused(&attest(&fixture, &TdGuest::new()).await, none);
    std::fs::write(&file, td::collateral(&up_to_date()).to_json()).unwrap();
    fixture.reload().await;
    assert_eq!(attest(&fixture, &TdGuest::new()).await.status, 200);
    // What was good stays, too.
    std::fs::write(&file, b"{").unwrap();
    fixture.reload().await;
    assert_eq!(attest(&fixture, &TdGuest::new()).await.status, 200);
}

#[tokio::test]
async fn owners_approve_a_tdx_guests_launch_digest() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let fixture = Fixture::with(td::known).await;
    let guest = TdGuest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let alice = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let token = fixture.admin_token();
    let owners = json!({"owners": [{"name": "alice", "key": hex::encode(alice.public_key())}]});
    let named = Sent::post("cella-owners/a/b/c", owners.to_string().into_bytes()).bearer(&token);
    assert_eq!(fixture.send(named).await.status, 200);
    assert_denied(&ask(&fixture, &guest).await, "approval missing: alice");
    let now = cella_kbs::clock::Clock::unix(&*fixture.clock).as_secs();
    let approval = cella_kbs_client::statement::Approval {
        resource: "a/b/c".parse().unwrap(),
        version: 1,
        launch_digest: guest.launch_digest(),
        policy_digest: guest.policy_digest(),
        issued: now,
        expires: now + 600,
    };
    let signature = URL_SAFE_NO_PAD.encode(alice.sign(approval.statement().as_bytes()));
    let approval = json!({
        "owner": "alice", "version": 1, "launch-digest": hex::encode(guest.launch_digest()),
        "policy-digest": hex::encode(guest.policy_digest()), "issued": now, "expires": now + 600, "signature": signature,
    });
    let given = Sent::post("cella-approval/a/b/c", approval.to_string().into_bytes());
    assert_eq!(fixture.send(given).await.status, 200);
    assert_eq!(ask(&fixture, &guest).await.status, 200);
    // RTMR0 is the rule's alone.
    let mut other = TdGuest::new();
    other.rtmr[0] = [9; 48];
    assert_eq!(ask(&fixture, &other).await.status, 200);
}
