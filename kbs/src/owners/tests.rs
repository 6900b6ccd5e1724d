use std::cell::RefCell;

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::testing::facts;

const NOW: u64 = 1_800_000_000;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn path() -> ResourcePath {
    "a/b/1".parse().unwrap()
}

fn owner(name: &str, seed: u8) -> Owner {
    Owner {
        name: name.to_owned(),
        key: pair(seed).public_key().as_ref().try_into().unwrap(),
    }
}

fn both() -> Owners {
    Owners {
        generation: 1,
        owners: vec![owner("alice", 1), owner("bob", 2)],
    }
}

fn sign(seed: u8, statement: &str) -> String {
    URL_SAFE_NO_PAD.encode(pair(seed).sign(statement.as_bytes()))
}

/// An approval for the guest of [`facts`], changed and then signed.
fn approval(name: &str, seed: u8, change: impl FnOnce(&mut SignedApproval)) -> SignedApproval {
    let mut approval = SignedApproval {
        owner: name.to_owned(),
        version: 3,
        launch_digest: facts().launch_digest(),
        policy_digest: facts().initdata,
        issued: NOW - 60,
        expires: NOW + 60,
        signature: String::new(),
    };
    change(&mut approval);
    approval.signature = sign(seed, &approval.statement(&path()));
    approval
}

/// Who is missing with these approvals at hand.
fn missing_with(given: &[SignedApproval]) -> Option<String> {
    let find = |owner: &Owner| {
        let mut theirs = given.iter().filter(|approval| approval.owner == owner.name);
        Ok::<_, ()>(theirs.next().cloned())
    };
    let missing = both().check(&path(), 3, &facts(), NOW, find).unwrap();
    missing.map(|missing| missing.to_string())
}

#[test]
fn both_must_have_said_yes() {
    let alice = approval("alice", 1, |_| {});
    let bob = approval("bob", 2, |_| {});
    assert_eq!(missing_with(&[]).as_deref(), Some("alice, bob"));
    assert_eq!(missing_with(std::slice::from_ref(&alice)).as_deref(), Some("bob"));
    assert_eq!(missing_with(std::slice::from_ref(&bob)).as_deref(), Some("alice"));
    assert_eq!(missing_with(&[alice, bob]), None);
    let nobody = Owners::default().check(&path(), 3, &facts(), NOW, |_| Ok::<_, ()>(None));
    assert_eq!(nobody, Ok(None));
}

#[test]
fn each_part_of_an_approval_counts() {
    let alice = approval("alice", 1, |_| {});
    type Change = fn(&mut SignedApproval);
    let changes: [Change; 6] = [
        |approval| approval.version = 2,
        |approval| approval.launch_digest[0] ^= 1,
        |approval| approval.policy_digest[0] ^= 1,
        |approval| approval.expires = NOW,
        |approval| approval.issued = NOW + 120,
        |approval| approval.owner = "carol".to_owned(),
    ];
    for change in changes {
        // Signed as such: it says something else. Changed afterwards: it is signed by nobody.
        let honest = approval("bob", 2, change);
        let mut forged = approval("bob", 2, |_| {});
        change(&mut forged);
        for bob in [honest, forged] {
            assert_eq!(missing_with(&[alice.clone(), bob]).as_deref(), Some("bob"));
        }
    }
    let by_another = approval("bob", 1, |_| {});
    assert_eq!(missing_with(&[alice, by_another]).as_deref(), Some("bob"));
}

#[test]
fn an_approval_is_for_one_resource() {
    let bob = approval("bob", 2, |_| {});
    let json = serde_json::to_vec(&bob).unwrap();
    assert_eq!(both().approval(&path(), &json, NOW).unwrap(), bob);
    let elsewhere = "a/b/2".parse().unwrap();
    let refused = both().approval(&elsewhere, &json, NOW);
    assert!(matches!(refused, Err(OwnersError::Signature)), "{refused:?}");
    let refused = both().approval(&path(), &json, NOW - 3600);
    assert!(matches!(refused, Err(OwnersError::Future)), "{refused:?}");
    let refused = Owners::default().approval(&path(), &json, NOW);
    assert!(matches!(refused, Err(OwnersError::Signature)), "{refused:?}");
    let refused = both().approval(&path(), b"{}", NOW);
    assert!(matches!(refused, Err(OwnersError::Syntax { .. })), "{refused:?}");
}

fn request(owners: &[Owner], consents: &[(&str, String)]) -> Vec<u8> {
    let consents: Vec<Value> = consents
        .iter()
        .map(|(owner, signature)| json!({"owner": owner, "signature": signature}))
        .collect();
    json!({"owners": owners, "consents": consents}).to_string().into_bytes()
}

#[test]
fn owners_are_replaced_by_all_of_them_only() {
    let first = Owners::default()
        .replaced(&path(), &request(&both().owners, &[]))
        .unwrap();
    assert_eq!(first, both());
    let next = [owner("carol", 3)];
    let statement = Ownership {
        resource: path(),
        generation: 2,
        owners: vec![("carol".to_owned(), next[0].key)],
    };
    let (alice, bob) = (sign(1, &statement.statement()), sign(2, &statement.statement()));
    let missing = |consents: &[(&str, String)]| match first.replaced(&path(), &request(&next, consents)) {
        Err(OwnersError::Consent { missing }) => Some(missing.to_string()),
        Ok(owners) => {
            assert_eq!((owners.generation, owners.owners.as_slice()), (2, next.as_slice()));
            None
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&[]).as_deref(), Some("alice, bob"));
    assert_eq!(missing(&[("alice", alice.clone())]).as_deref(), Some("bob"));
    assert_eq!(
        missing(&[("alice", alice.clone()), ("bob", alice.clone())]).as_deref(),
        Some("bob")
    );
    assert_eq!(missing(&[("alice", alice.clone()), ("bob", bob.clone())]), None);
    // Neither for others nor, a generation later, for the same ones again.
    let others = request(&[owner("dave", 4)], &[("alice", alice.clone()), ("bob", bob.clone())]);
    assert!(matches!(
        first.replaced(&path(), &others),
        Err(OwnersError::Consent { .. })
    ));
    let later = Owners {
        generation: 2,
        ..first.clone()
    };
    let again = request(&next, &[("alice", alice), ("bob", bob)]);
    assert!(matches!(
        later.replaced(&path(), &again),
        Err(OwnersError::Consent { .. })
    ));
}

#[test]
fn owners_are_people_of_their_own() {
    let refused = RefCell::new(Vec::new());
    let try_with = |owners: &[Owner]| {
        let error = Owners::default().replaced(&path(), &request(owners, &[])).unwrap_err();
        refused.borrow_mut().push(error.to_string());
    };
    try_with(&[owner("alice", 1), owner("alice", 2)]);
    try_with(&[owner("alice", 1), owner("bob", 1)]);
    try_with(&[owner("a b", 1)]);
    try_with(&(0..9).map(|seed| owner(&format!("o{seed}"), seed)).collect::<Vec<_>>());
    assert_eq!(
        refused.into_inner(),
        [
            "owner 1 has the name or the key of another",
            "owner 1 has the name or the key of another",
            "the name of owner 0 is not 1 to 64 characters out of A-Z a-z 0-9 _ . -",
            "a resource has at most 8 owners",
        ]
    );
}
