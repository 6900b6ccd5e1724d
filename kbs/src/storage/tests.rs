use super::*;

const RULE: &[u8] = br#"{"launch-digests":[],"policy-digests":[]}"#;

fn key(text: &str) -> StorageKey {
    StorageKey::parse(text.as_bytes()).unwrap()
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
        Storage::open(&self.file(), key(&self.key)).unwrap()
    }
}

#[test]
fn keeps_resources_and_rules_across_reopening() {
    let fixture = Fixture::new();
    let rule = Rule::from_json(RULE).unwrap();
    {
        let storage = fixture.open();
        storage.put_resource(&path("a/b/c"), b"one").unwrap();
        storage.put_resource(&path("a/b/c"), b"two").unwrap();
        storage.put_rule(&path("a/b/d"), &rule).unwrap();
    }
    let storage = fixture.open();
    assert_eq!(&**storage.resource(&path("a/b/c")).unwrap().unwrap(), b"two");
    assert_eq!(storage.rule(&path("a/b/c")).unwrap(), None);
    assert_eq!(storage.rule(&path("a/b/d")).unwrap(), Some(rule.clone()));
    assert_eq!(storage.resource(&path("a/b/d")).unwrap(), None);
    assert!(storage.contains(&path("a/b/d")).unwrap() && !storage.contains(&path("a/b/e")).unwrap());
    let listed = storage.list().unwrap();
    assert_eq!(
        listed,
        [
            Listed {
                path: "a/b/c".into(),
                bytes: Some(3),
                rule: None
            },
            Listed {
                path: "a/b/d".into(),
                bytes: None,
                rule: Some(rule)
            },
        ]
    );
}

#[test]
fn a_resource_goes_with_its_rule_and_a_rule_alone() {
    let storage = Fixture::new().open();
    let name = path("a/b/c");
    storage.put_resource(&name, b"x").unwrap();
    storage.put_rule(&name, &Rule::from_json(RULE).unwrap()).unwrap();
    assert!(storage.delete_rule(&name).unwrap());
    assert!(!storage.delete_rule(&name).unwrap());
    assert!(storage.resource(&name).unwrap().is_some());
    storage.put_rule(&name, &Rule::from_json(RULE).unwrap()).unwrap();
    assert!(storage.delete_resource(&name).unwrap());
    assert!(!storage.delete_resource(&name).unwrap());
    assert_eq!(storage.rule(&name).unwrap(), None);
}

#[test]
fn nothing_is_readable_on_disk() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    fixture
        .open()
        .put_resource(&path("a/b/c"), b"canary-of-a-key-at-rest")
        .unwrap();
    let bytes = std::fs::read(fixture.file()).unwrap();
    assert!(!bytes.windows(23).any(|window| window == b"canary-of-a-key-at-rest"));
    assert_eq!(std::fs::metadata(fixture.file()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn another_key_and_another_process_are_refused() {
    let fixture = Fixture::new();
    let storage = fixture.open();
    let again = Storage::open(&fixture.file(), key(&fixture.key)).map(|_| ());
    assert!(matches!(again, Err(StorageError::Database { .. })), "{again:?}");
    drop(storage);
    let other = StorageKey::generate().unwrap();
    let wrong = Storage::open(&fixture.file(), key(&other)).map(|_| ());
    assert!(matches!(wrong, Err(StorageError::WrongKey)), "{wrong:?}");
}

#[test]
fn a_moved_or_changed_value_does_not_open() {
    let storage = Fixture::new().open();
    storage.put_resource(&path("a/b/c"), b"secret").unwrap();
    let sealed = storage.sealed(RESOURCES, "a/b/c").unwrap().unwrap();
    let plant = |table: Table, at: &str, value: &[u8]| {
        storage.write(|write| {
            write.open_table(table)?.insert(at, value)?;
            Ok(true)
        })
    };
    plant(RESOURCES, "a/b/d", &sealed).unwrap();
    plant(RULES, "a/b/c", &sealed).unwrap();
    assert!(matches!(
        storage.resource(&path("a/b/d")),
        Err(StorageError::NotAuthentic { .. })
    ));
    assert!(matches!(
        storage.rule(&path("a/b/c")),
        Err(StorageError::NotAuthentic { .. })
    ));
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        assert!(
            storage.key.open("resource", "a/b/c", &changed).is_none(),
            "byte {index}"
        );
        assert!(
            storage.key.open("resource", "a/b/c", &sealed[..index]).is_none(),
            "cut at {index}"
        );
    }
}

#[test]
fn a_failed_change_leaves_nothing() {
    let storage = Fixture::new().open();
    let failed = storage.write(|write| {
        write.open_table(RESOURCES)?.insert("a/b/c", b"x".as_slice())?;
        Err(StorageError::Seal.into())
    });
    assert!(matches!(failed, Err(StorageError::Seal)));
    assert!(!storage.contains(&path("a/b/c")).unwrap());
}

#[test]
fn key_files() {
    let text = StorageKey::generate().unwrap();
    assert_eq!(text.len(), 65);
    assert!(StorageKey::parse(text.as_bytes()).is_ok());
    for bad in ["", "00", &text[1..], &format!("{}00", text.trim())] {
        assert!(StorageKey::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}
