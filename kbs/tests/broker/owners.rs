//! Resources that two owners must say yes to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cella_kbs_client::statement::{Approval, Ownership};
use http::Method;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Sent};
use crate::guest::Guest;

const KEY: &[u8] = b"thirty-two bytes of a model key.";
const PATH: &str = "a/b/1";

pub(crate) struct Owner {
    name: &'static str,
    pair: Ed25519KeyPair,
}

impl Owner {
    pub(crate) fn new(name: &'static str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { name, pair }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().unwrap()
    }

    fn sign(&self, statement: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(statement.as_bytes()))
    }

    /// A word about a guest. It counts for `lifetime` seconds; 0 takes back what was said before.
    pub(crate) fn word(&self, guest: &Guest, version: u64, issued: u64, lifetime: u64) -> Value {
        let approval = Approval {
            resource: PATH.parse().unwrap(),
            version,
            launch_digest: guest.measurement,
            policy_digest: guest.policy_digest(),
            issued,
            expires: issued + lifetime,
        };
        json!({
            "owner": self.name, "version": version, "issued": issued, "expires": issued + lifetime,
            "launch-digest": hex::encode(guest.measurement), "policy-digest": hex::encode(guest.policy_digest()),
            "signature": self.sign(&approval.statement()),
        })
    }
}

struct Both {
    fixture: Fixture,
    guest: Guest,
    alice: Owner,
    bob: Owner,
}

impl Both {
    /// A resource of Alice and Bob, whose rule names the guest.
    async fn new() -> Self {
        let both = Self {
            fixture: Fixture::new().await,
            guest: Guest::new(),
            alice: Owner::new("alice", 1),
            bob: Owner::new("bob", 2),
        };
        both.fixture.store(PATH, KEY, &both.guest.rule()).await;
        let answer = both.name(&[&both.alice, &both.bob], &[]).await;
        assert_eq!(answer.body, json!({"generation": 1}));
        both
    }

    async fn name(&self, owners: &[&Owner], consents: &[(&Owner, &str)]) -> Answer {
        let owner = |owner: &&Owner| json!({"name": owner.name, "key": hex::encode(owner.public())});
        let consent = |(owner, signature): &(&Owner, &str)| json!({"owner": owner.name, "signature": signature});
        let body = json!({
            "owners": owners.iter().map(owner).collect::<Vec<_>>(),
            "consents": consents.iter().map(consent).collect::<Vec<_>>(),
        });
        let token = self.fixture.admin_token();
        let request = Sent::post(&format!("cella-owners/{PATH}"), body.to_string().into_bytes());
        self.fixture.send(request.bearer(&token)).await
    }

    /// Anybody may hand in an owner's word: no token.
    async fn hand_in(&self, word: &Value) -> Answer {
        let request = Sent::post(&format!("cella-approval/{PATH}"), word.to_string().into_bytes());
        self.fixture.send(request).await
    }

    async fn ask(&self, guest: &Guest) -> Answer {
        let (cookie, _) = self.fixture.attested(guest).await;
        let request = Sent::get(&format!("resource/{PATH}")).cookie(&cookie);
        self.fixture.send(request).await
    }

    async fn assert_missing(&self, guest: &Guest, names: &str) {
        let detail = format!("approval missing: {names}");
        assert_eq!(self.ask(guest).await.refusal(), (401, "PolicyDeny", detail.as_str()));
    }

    fn now(&self) -> u64 {
        use cella_kbs::clock::Clock;
        self.fixture.clock.unix().as_secs()
    }
}

#[tokio::test]
async fn both_must_have_said_yes_and_who_has_not_is_named() {
    let mut both = Both::new().await;
    let now = both.now();
    both.assert_missing(&both.guest, "alice, bob").await;
    let yes = both.alice.word(&both.guest, 1, now, 600);
    assert_eq!(both.hand_in(&yes).await.status, 200);
    both.assert_missing(&both.guest, "bob").await;
    let yes = both.bob.word(&both.guest, 1, now, 600);
    assert_eq!(both.hand_in(&yes).await.status, 200);
    assert_eq!(both.ask(&both.guest).await.status, 200);
    // After a restart too.
    both.fixture.stop().await;
    both.fixture.start().await;
    assert_eq!(both.ask(&both.guest).await.status, 200);
    // Not for another guest that the rule comes to name, and not for another version of the key.
    let other = Guest {
        measurement: [0x77; 48],
        ..Guest::new()
    };
    both.fixture.store_rule(PATH, &other.rule()).await;
    both.assert_missing(&other, "alice, bob").await;
    both.fixture.store(PATH, b"another key", &both.guest.rule()).await;
    both.assert_missing(&both.guest, "alice, bob").await;

    let lines = both.fixture.audit();
    let approved: Vec<_> = lines.iter().filter(|line| line["event"] == "approve").collect();
    assert_eq!((approved.len(), &approved[0]["owners"]), (2, &json!(["alice"])));
    let denied = lines.iter().rfind(|line| line["event"] == "release").unwrap();
    assert_eq!(denied["reason"], "approval missing: alice, bob");
}

#[tokio::test]
async fn an_approval_ends_and_can_be_taken_back() {
    let both = Both::new().await;
    let now = both.now();
    for owner in [&both.alice, &both.bob] {
        assert_eq!(both.hand_in(&owner.word(&both.guest, 1, now, 600)).await.status, 200);
    }
    assert_eq!(both.ask(&both.guest).await.status, 200);
    let no = both.bob.word(&both.guest, 1, now + 1, 0);
    assert_eq!(both.hand_in(&no).await.status, 200);
    both.assert_missing(&both.guest, "bob").await;
    // The yes of before, which anybody may have kept, does not come back.
    let again = both.hand_in(&both.bob.word(&both.guest, 1, now, 600)).await;
    assert_eq!(
        again.refusal(),
        (403, "OwnerConsent", "a later word of the same owner is there")
    );
    both.assert_missing(&both.guest, "bob").await;
    both.fixture.clock.advance(601);
    both.assert_missing(&both.guest, "alice, bob").await;
}

#[tokio::test]
async fn nobody_but_an_owner_approves() {
    let both = Both::new().await;
    let now = both.now();
    let refused = (403, "OwnerConsent", "not signed by an owner of the resource");
    let mallory = Owner::new("bob", 9);
    assert_eq!(
        both.hand_in(&mallory.word(&both.guest, 1, now, 600)).await.refusal(),
        refused
    );
    let mut changed = both.bob.word(&both.guest, 1, now, 600);
    changed["expires"] = json!(now + 6000);
    assert_eq!(both.hand_in(&changed).await.refusal(), refused);
    let future = both.bob.word(&both.guest, 1, now + 3600, 600);
    let detail = "the approval is from the future: compare the clocks";
    assert_eq!(both.hand_in(&future).await.refusal(), (400, "InvalidRequest", detail));
    let before = both.fixture.audit().len();
    assert_eq!(both.hand_in(&json!({})).await.status, 400);
    assert_eq!(both.fixture.audit().len(), before);
    both.assert_missing(&both.guest, "alice, bob").await;
}

#[tokio::test]
async fn an_admin_does_not_get_around_the_owners() {
    let both = Both::new().await;
    let missing = |names| {
        (
            403,
            format!("the owners of the resource must sign for others; missing: {names}"),
        )
    };
    let refusal = |answer: &Answer| (answer.status.as_u16(), answer.refusal().2.to_owned());
    let eve = Owner::new("eve", 5);
    assert_eq!(refusal(&both.name(&[], &[]).await), missing("alice, bob"));
    assert_eq!(
        refusal(&both.name(&[&eve], &[(&eve, "AAAA")]).await),
        missing("alice, bob")
    );
    // Neither by removing the resource and storing it again.
    let token = both.fixture.admin_token();
    let delete = Sent::new(Method::DELETE, &format!("resource/{PATH}"), Vec::new()).bearer(&token);
    assert_eq!(both.fixture.send(delete).await.status, 200);
    both.fixture.store(PATH, KEY, &both.guest.rule()).await;
    both.assert_missing(&both.guest, "alice, bob").await;

    let statement = Ownership {
        resource: PATH.parse().unwrap(),
        generation: 2,
        owners: vec![("alice".to_owned(), both.alice.public())],
    }
    .statement();
    let (alice, bob) = (both.alice.sign(&statement), both.bob.sign(&statement));
    let one = both.name(&[&both.alice], &[(&both.alice, &alice)]).await;
    assert_eq!(refusal(&one), missing("bob"));
    let all = both
        .name(&[&both.alice], &[(&both.alice, &alice), (&both.bob, &bob)])
        .await;
    assert_eq!(all.body, json!({"generation": 2}));
    both.assert_missing(&both.guest, "alice").await;
    let shown = Sent::get(&format!("cella-owners/{PATH}")).bearer(&token);
    let shown = both.fixture.send(shown).await.body;
    assert_eq!(
        (&shown["generation"], shown["owners"].as_array().unwrap().len()),
        (&json!(2), 1)
    );
}
