use super::*;

const RULE: &[u8] = br#"{"launch-digests":[],"policy-digests":[]}"#;

fn key(text: &str) -> StorageKey {
    StorageKey::parse(text.as_bytes()).unwrap()
}

fn ring(text: &str) -> KeyRing {
    KeyRing::new(key(text), Vec::new())
}

fn path(text: &str) -> ResourcePath {
    text.parse().unwrap()
}

struct Fixture {
    dir: tempfile::TempDir,
    key: Zeroizing<String>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: StorageKey::generate().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("kbs.redb")
    }

    fn open(&self) -> Storage {
        Storage::open(&self.file(), ring(&self.key)).unwrap()
    }
}

fn put(storage: &Storage, at: &str, bytes: &[u8]) -> u64 {
    storage.put_resource(&path(at), None, bytes).unwrap()
}

fn listed(path: &str, resource: Option<(u64, usize)>, rule: Option<(u64, Rule)>) -> Listed {
    let path = path.to_owned();
    Listed { path, resource, rule }
}

#[test]
fn keeps_resources_and_rules_across_reopening() {
    let fixture = Fixture::new();
    let rule = Rule::from_json(RULE).unwrap();
    {
        let storage = fixture.open();
        assert_eq!(put(&storage, "a/b/c", b"one"), 1);
        assert_eq!(put(&storage, "a/b/c", b"two"), 2);
        assert_eq!(storage.put_rule(&path("a/b/d"), Some(7), &rule).unwrap(), 7);
    }
    let storage = fixture.open();
    let Resource { version, bytes } = storage.resource(&path("a/b/c")).unwrap().unwrap();
    assert_eq!((version, bytes.as_slice()), (2, b"two".as_slice()));
    assert_eq!(storage.rule(&path("a/b/c")).unwrap(), None);
    assert_eq!(storage.rule(&path("a/b/d")).unwrap(), Some(rule.clone()));
    assert!(storage.resource(&path("a/b/d")).unwrap().is_none());
    assert!(storage.contains(&path("a/b/d")).unwrap() && !storage.contains(&path("a/b/e")).unwrap());
    let expected = [
        listed("a/b/c", Some((2, 3)), None),
        listed("a/b/d", None, Some((7, rule))),
    ];
    assert_eq!(storage.list().unwrap(), expected);
}

#[test]
fn a_resource_goes_with_its_rule_and_a_rule_alone() {
    let storage = Fixture::new().open();
    let name = path("a/b/c");
    let rule = Rule::from_json(RULE).unwrap();
    put(&storage, "a/b/c", b"x");
    storage.put_rule(&name, None, &rule).unwrap();
    assert!(storage.delete_rule(&name).unwrap());
    assert!(!storage.delete_rule(&name).unwrap());
    assert!(storage.resource(&name).unwrap().is_some());
    storage.put_rule(&name, None, &rule).unwrap();
    assert!(storage.delete_resource(&name).unwrap());
    assert!(!storage.delete_resource(&name).unwrap());
    assert_eq!(storage.rule(&name).unwrap(), None);
}

#[test]
fn t5_versions_only_grow_even_through_removal_and_restart() {
    let fixture = Fixture::new();
    let name = path("a/b/c");
    let refused = |storage: &Storage, version, bytes: &[u8]| match storage.put_resource(&name, Some(version), bytes) {
        Err(StoreError::Rollback(rollback)) => rollback,
        other => panic!("{version}: {other:?}"),
    };
    let stored = |have, offered| Rollback::Stored {
        name: "a/b/c".to_owned(),
        have,
        offered,
    };
    {
        let storage = fixture.open();
        assert_eq!(storage.put_resource(&name, Some(3), b"three").unwrap(), 3);
        // Asked twice: the same answer, nothing changed.
        assert_eq!(storage.put_resource(&name, Some(3), b"three").unwrap(), 3);
        let differs = Rollback::Differs {
            name: "a/b/c".to_owned(),
            have: 3,
        };
        assert_eq!(refused(&storage, 3, b"other"), differs);
        assert_eq!(refused(&storage, 2, b"two"), stored(3, 2));
        assert_eq!(refused(&storage, 0, b"none"), stored(3, 0));
        assert_eq!(storage.resource(&name).unwrap().unwrap().bytes.as_slice(), b"three");
        assert!(storage.delete_resource(&name).unwrap());
    }
    let storage = fixture.open();
    assert_eq!(refused(&storage, 2, b"two"), stored(3, 2));
    assert_eq!(storage.next_resource_version(&name).unwrap(), 4);
    assert_eq!(put(&storage, "a/b/c", b"four"), 4);
    assert_eq!(storage.put_resource(&name, Some(u64::MAX), b"last").unwrap(), u64::MAX);
    assert!(storage.put_resource(&name, None, b"none").is_err());
}

#[test]
fn t5_floors_are_raised_and_never_lowered() {
    let fixture = Fixture::new();
    let model: FloorName = "model/models/demo".parse().unwrap();
    {
        let storage = fixture.open();
        assert_eq!(storage.floor(&model).unwrap(), 0);
        storage.raise_floor(&model, 2).unwrap();
        storage.raise_floor(&model, 2).unwrap();
    }
    let storage = fixture.open();
    assert_eq!(storage.floors().unwrap(), [(model.clone(), 2)]);
    let lowered = Rollback::Lowered {
        name: "model/models/demo".to_owned(),
        have: 2,
        offered: 1,
    };
    match storage.raise_floor(&model, 1) {
        Err(StoreError::Rollback(rollback)) => assert_eq!(rollback, lowered),
        other => panic!("{other:?}"),
    }
    // The versions of resources and rules are kept beside the floors and are none of them.
    put(&storage, "a/b/c", b"x");
    assert_eq!(storage.floors().unwrap().len(), 1);
}

#[test]
fn names_of_floors() {
    for good in ["resource/demo/model-kek", "model/demo", "model/a/b/c", "policy/demo"] {
        assert_eq!(good.parse::<FloorName>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "model",
        "model/",
        "resource/demo",
        "resource/a/b/c",
        "policy/a/b",
        "model/../a",
        "x/y",
        "model/a b",
    ] {
        assert_eq!(bad.parse::<FloorName>(), Err(FloorNameError), "{bad}");
    }
}

/// A value whose place was written by somebody else between the look and the commit.
#[test]
fn a_change_that_lost_the_race_runs_again() {
    let storage = Fixture::new().open();
    let name = path("a/b/c");
    let runs = std::cell::Cell::new(0);
    let done: Result<usize, StorageError> = storage.transact(|transaction| {
        let seen = transaction
            .get(Table::Resources, "a/b/c")?
            .map_or(0, |value| value.len());
        if runs.replace(runs.get() + 1) == 0 {
            put(&storage, "a/b/c", b"meanwhile");
        }
        transaction.put(Table::Resources, "a/b/c", &[0; 12])?;
        Ok(seen)
    });
    assert_eq!((done.unwrap(), runs.get()), (8 + 9, 2));
    assert_eq!(storage.resource(&name).unwrap().unwrap().bytes.len(), 4);
    let never: Result<(), StorageError> = storage.transact(|transaction| {
        transaction.get(Table::Resources, "a/b/c")?;
        put(&storage, "a/b/c", b"always");
        transaction.put(Table::Resources, "a/b/c", b"12345678")
    });
    assert!(matches!(never, Err(StorageError::Contended)));
}

#[test]
fn a_new_key_takes_over_what_the_old_one_sealed() {
    let fixture = Fixture::new();
    put(&fixture.open(), "a/b/c", b"secret");
    let new = StorageKey::generate().unwrap();
    let both = || KeyRing::new(key(&new), vec![key(&fixture.key)]);
    // The old key alone seals nothing after this, so the new one alone opens everything.
    drop(Storage::open(&fixture.file(), both()).unwrap());
    let storage = Storage::open(&fixture.file(), ring(&new)).unwrap();
    assert_eq!(
        storage.resource(&path("a/b/c")).unwrap().unwrap().bytes.as_slice(),
        b"secret"
    );
    drop(storage);
    let old = Storage::open(&fixture.file(), ring(&fixture.key)).map(drop);
    assert!(matches!(old, Err(StorageError::WrongKey)), "{old:?}");
}

#[test]
fn nothing_is_readable_on_disk() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    put(&fixture.open(), "a/b/c", b"canary-of-a-key-at-rest");
    let bytes = std::fs::read(fixture.file()).unwrap();
    assert!(!bytes.windows(23).any(|window| window == b"canary-of-a-key-at-rest"));
    assert_eq!(std::fs::metadata(fixture.file()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn another_key_and_another_process_are_refused() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let again = Storage::open(&fixture.file(), ring(&fixture.key)).map(drop);
    assert!(matches!(again, Err(StorageError::Database { .. })), "{again:?}");
    drop(storage);
    let other = StorageKey::generate().unwrap();
    let wrong = Storage::open(&fixture.file(), ring(&other)).map(drop);
    assert!(matches!(wrong, Err(StorageError::WrongKey)), "{wrong:?}");
}

#[test]
fn a_database_of_an_earlier_form_is_named_so() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let mut sealed = storage
        .backend
        .view()
        .unwrap()
        .read(Table::Meta, KEY_CHECK)
        .unwrap()
        .unwrap();
    sealed[0] = 1;
    let cell = Cell {
        table: Table::Meta,
        key: KEY_CHECK.to_owned(),
        value: Some(sealed),
    };
    let batch = Batch {
        write: vec![cell],
        ..Batch::default()
    };
    assert!(storage.backend.commit(&batch).unwrap());
    drop(storage);
    let old = Storage::open(&fixture.file(), ring(&fixture.key)).map(drop);
    assert!(matches!(old, Err(StorageError::Form)), "{old:?}");
}

#[test]
fn a_moved_or_changed_value_does_not_open() {
    let storage = Fixture::new().open();
    put(&storage, "a/b/c", b"secret");
    let sealed = storage
        .backend
        .view()
        .unwrap()
        .read(Table::Resources, "a/b/c")
        .unwrap()
        .unwrap();
    let plant = |table, key: &str, value: &[u8]| {
        let cell = Cell {
            table,
            key: key.to_owned(),
            value: Some(value.to_vec()),
        };
        let batch = Batch {
            write: vec![cell],
            ..Batch::default()
        };
        assert!(storage.backend.commit(&batch).unwrap());
    };
    plant(Table::Resources, "a/b/d", &sealed);
    plant(Table::Rules, "a/b/c", &sealed);
    assert!(matches!(
        storage.resource(&path("a/b/d")),
        Err(StorageError::NotAuthentic { .. })
    ));
    assert!(matches!(
        storage.rule(&path("a/b/c")),
        Err(StorageError::NotAuthentic { .. })
    ));
    let open = |bytes: &[u8]| storage.keys.open(Table::Resources, "a/b/c", bytes);
    assert!(open(&sealed).is_some());
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(open(&changed).is_none(), "byte {index}");
        assert!(open(&sealed[..index]).is_none(), "cut at {index}");
    }
}

#[test]
fn a_failed_change_leaves_nothing() {
    let storage = Fixture::new().open();
    let failed: Result<(), _> = storage.transact(|transaction| {
        transaction.put(Table::Resources, "a/b/c", b"x")?;
        Err(StorageError::Seal)
    });
    assert!(matches!(failed, Err(StorageError::Seal)));
    assert!(!storage.contains(&path("a/b/c")).unwrap());
}

#[test]
fn key_files() {
    let text = StorageKey::generate().unwrap();
    assert_eq!(text.len(), 65);
    assert_eq!(key(&text).id().len(), 16);
    for bad in ["", "00", &text[1..], &format!("{}00", text.trim())] {
        assert!(StorageKey::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// A decision reads one thing after another; what is changed in between is not its business.
#[test]
fn a_moment_stays_as_it_was() {
    let storage = Fixture::new().open();
    let name = path("a/b/1");
    put(&storage, "a/b/1", b"old");
    let floor: FloorName = "resource/a/b".parse().unwrap();
    let rule = |digit: &str| {
        let json = format!(r#"{{"launch-digests":["{}"],"policy-digests":[]}}"#, digit.repeat(96));
        Rule::from_json(json.as_bytes()).unwrap()
    };
    storage.put_rule(&name, None, &rule("1")).unwrap();
    let before = storage.now().unwrap();
    storage.put_rule(&name, None, &rule("2")).unwrap();
    put(&storage, "a/b/1", b"new");
    storage.raise_floor(&floor, 2).unwrap();
    let after = storage.now().unwrap();
    for (moment, digit, bytes, least) in [(&before, "1", b"old", 0), (&after, "2", b"new", 2)] {
        assert_eq!(moment.rule(&name).unwrap(), Some(rule(digit)));
        assert_eq!(moment.resource(&name).unwrap().unwrap().bytes.as_slice(), bytes);
        assert_eq!(moment.floor(&floor).unwrap(), least);
    }
    storage.delete_resource(&name).unwrap();
    assert!(after.contains(&name).unwrap() && !storage.contains(&name).unwrap());
}

#[test]
fn t28_reference_values_are_replaced_by_later_ones_only() {
    use cella_attest::reference::{Document, Measured, References, Values};
    let storage = Fixture::new().open();
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let signer = ring::signature::KeyPair::public_key(&pair).as_ref().try_into().unwrap();
    let other = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let others = ring::signature::KeyPair::public_key(&other)
        .as_ref()
        .try_into()
        .unwrap();
    let signed_by = |pair, issued, byte| {
        let mut values = Values::new();
        values.add(Measured::Mrtd, [byte; 48]);
        let document = Document::of(&values)
            .sign(pair, "guest".parse().unwrap(), issued, issued + 60)
            .unwrap();
        let references: References = document.verify(&[signer, others], issued).unwrap();
        (references, document)
    };
    let signed = |issued, byte| signed_by(&pair, issued, byte);
    let put = |(references, document): &(References, Document)| {
        storage.put_reference(references, document, &[signer, others])
    };
    let (first, second) = (signed(1000, 1), signed(1001, 2));
    put(&first).unwrap();
    put(&first).unwrap();
    put(&second).unwrap();
    for older in [&first, &signed(1001, 3)] {
        let refused = put(older);
        let expected = Rollback::Reference {
            name: "guest".to_owned(),
            have: 1001,
            offered: older.0.issued,
        };
        assert!(matches!(refused, Err(StoreError::Rollback(found)) if found == expected));
    }
    // A name is one signer's, until that one is not trusted any more.
    let theirs = signed_by(&other, 1002, 4);
    let refused = put(&theirs);
    assert!(matches!(
        refused,
        Err(StoreError::Rollback(Rollback::OtherSigner { .. }))
    ));
    let kept = storage.now().unwrap().reference(&first.0.name).unwrap();
    assert_eq!(kept, Some(second.1.clone()));
    assert_eq!(storage.references().unwrap(), [("guest".to_owned(), second.1)]);
    storage.put_reference(&theirs.0, &theirs.1, &[others]).unwrap();
}
