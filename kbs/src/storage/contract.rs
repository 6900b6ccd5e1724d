//! What every backend does, shown with each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::{Backend, Batch, Cell, Table};
use super::embedded::Embedded;
use super::postgres::Postgres;
use super::{BackupError, KeyRing, Storage, StorageError, StorageKey, StoreError, postgres_server};
use crate::files;

/// Runs a test with a database of each kind.
fn each(test: impl Fn(&dyn Backend)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Embedded::open(&dir.path().join("db")).unwrap());
    let server = postgres_server::Postgres::start();
    test(&connect(&server, dir.path()));
}

fn connect(server: &postgres_server::Postgres, dir: &std::path::Path) -> Postgres {
    let path = dir.join("connection");
    files::replace(&path, server.connection().as_bytes()).unwrap();
    Postgres::open(&path, None).unwrap()
}

fn cell(table: Table, key: &str, value: Option<&[u8]>) -> Cell {
    Cell {
        table,
        key: key.to_owned(),
        value: value.map(<[u8]>::to_vec),
    }
}

fn put(backend: &dyn Backend, table: Table, key: &str, value: &[u8]) {
    let batch = Batch {
        expect: Vec::new(),
        write: vec![cell(table, key, Some(value))],
    };
    assert!(backend.commit(&batch).unwrap());
}

fn read(backend: &dyn Backend, key: &str) -> Option<Vec<u8>> {
    backend.view().unwrap().read(Table::Rules, key).unwrap()
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    each(|backend| {
        put(backend, Table::Rules, "a", b"1");
        let all = |a: Option<&[u8]>, b: Option<&[u8]>| Batch {
            expect: vec![cell(Table::Rules, "a", a), cell(Table::Rules, "b", b)],
            write: vec![
                cell(Table::Rules, "a", None),
                cell(Table::Rules, "b", Some(b"2")),
                // The last word counts.
                cell(Table::Rules, "c", Some(b"3")),
                cell(Table::Rules, "c", None),
                cell(Table::Rules, "d", None),
                cell(Table::Rules, "d", Some(b"\0\xff")),
            ],
        };
        for (a, b) in [
            (Some(b"2".as_slice()), None),
            (None, None),
            (Some(b"1".as_slice()), Some(b"".as_slice())),
        ] {
            assert!(!backend.commit(&all(a, b)).unwrap());
            assert_eq!((read(backend, "a"), read(backend, "b")), (Some(b"1".to_vec()), None));
        }
        assert!(backend.commit(&all(Some(b"1"), None)).unwrap());
        let found: Vec<_> = ["a", "b", "c", "d"].map(|key| read(backend, key)).into();
        assert_eq!(found, [None, Some(b"2".to_vec()), None, Some(b"\0\xff".to_vec())]);
        assert!(backend.commit(&Batch::default()).unwrap());
    });
}

#[test]
fn a_snapshot_is_in_order_of_maps_and_keys() {
    each(|backend| {
        for key in ["b", "a/b", "a", "B", "a b", "ä"] {
            put(backend, Table::Rules, key, b"x");
        }
        put(backend, Table::Floors, "z", b"y");
        let found = |tables: &[Table]| -> Vec<_> {
            let cells = backend.snapshot(tables).unwrap();
            cells.into_iter().map(|cell| (cell.table, cell.key)).collect()
        };
        let rules = ["B", "a", "a b", "a/b", "b", "ä"].map(|key| (Table::Rules, key.to_owned()));
        let floors = [(Table::Floors, "z".to_owned())];
        assert_eq!(
            found(&[Table::Rules, Table::Floors]),
            [rules.as_slice(), &floors].concat()
        );
        assert_eq!(
            found(&[Table::Floors, Table::Rules]),
            [floors.as_slice(), &rules].concat()
        );
        assert!(found(&[Table::Owners]).is_empty());
    });
}

#[test]
fn a_view_is_of_one_moment() {
    each(|backend| {
        put(backend, Table::Rules, "a", b"1");
        put(backend, Table::Rules, "b", b"1");
        let view = backend.view().unwrap();
        assert_eq!(view.read(Table::Rules, "a").unwrap(), Some(b"1".to_vec()));
        put(backend, Table::Rules, "b", b"2");
        assert_eq!(view.read(Table::Rules, "b").unwrap(), Some(b"1".to_vec()));
        drop(view);
        assert_eq!(read(backend, "b"), Some(b"2".to_vec()));
    });
}

#[test]
fn entries_before_a_bound_are_removed() {
    each(|backend| {
        for key in ["1", "2", "3"] {
            put(backend, Table::Sessions, key, b"x");
            put(backend, Table::Rules, key, b"x");
        }
        assert_eq!(backend.remove_before(Table::Sessions, "3").unwrap(), 2);
        assert_eq!(backend.remove_before(Table::Sessions, "3").unwrap(), 0);
        assert_eq!(backend.snapshot(&[Table::Sessions, Table::Rules]).unwrap().len(), 4);
    });
}

/// Adds one, as often as it takes.
fn count(backend: &dyn Backend, keys: &[&str]) -> u64 {
    let mut refused = 0;
    loop {
        let mut batch = Batch::default();
        for key in keys {
            let found = read(backend, key);
            let number = found.as_deref().map_or(0, |value| value[0]);
            batch.expect.push(cell(Table::Rules, key, found.as_deref()));
            batch.write.push(cell(Table::Rules, key, Some(&[number + 1])));
        }
        if backend.commit(&batch).unwrap() {
            return refused;
        }
        refused += 1;
    }
}

#[test]
fn no_change_is_lost_and_none_waits_in_a_circle() {
    each(|backend| {
        let refused = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for keys in [["a", "b"], ["b", "a"], ["b", "c"], ["c", "a"]] {
                let refused = &refused;
                scope.spawn(move || {
                    for _ in 0..20 {
                        refused.fetch_add(count(backend, &keys), Ordering::Relaxed);
                    }
                });
            }
        });
        for (key, number) in [("a", 60), ("b", 60), ("c", 40)] {
            assert_eq!(read(backend, key), Some(vec![number]), "{key}");
        }
    });
}

#[test]
fn a_change_of_many_cells_has_the_table_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = postgres_server::Postgres::start();
    let postgres = Arc::new(connect(&server, dir.path()));
    let many = |value: &[u8]| Batch {
        expect: Vec::new(),
        write: (0..500)
            .map(|number| cell(Table::Rules, &format!("{number:03}"), Some(value)))
            .collect(),
    };
    std::thread::scope(|scope| {
        for value in [[7], [8]] {
            let (postgres, many) = (&postgres, &many);
            scope.spawn(move || assert!(postgres.commit(&many(&value)).unwrap()));
        }
        scope.spawn(|| {
            for _ in 0..10 {
                count(postgres.as_ref(), &["one", "499"]);
            }
        });
    });
    let cells = postgres.snapshot(&[Table::Rules]).unwrap();
    assert_eq!(cells.len(), 501);
    let first = cells[0].value.clone();
    assert!(cells[..499].iter().all(|cell| cell.value == first));
    assert_eq!(read(postgres.as_ref(), "one"), Some(vec![10]));
}

#[test]
fn a_server_that_may_lose_what_it_acknowledges_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = postgres_server::Postgres::start();
    let path = dir.path().join("connection");
    files::create_private(&path, server.connection().as_bytes()).unwrap();
    server.ask("ALTER ROLE kbs SET synchronous_commit = off");
    let postgres = Postgres::open(&path, None).unwrap();
    assert_eq!(postgres.shown("synchronous_commit").unwrap(), "on");
    server.ask("ALTER SYSTEM SET fsync = off");
    server.ask("SELECT pg_reload_conf()");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.ask("SHOW fsync").trim() != "off" {
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(matches!(
        Postgres::open(&path, None).map(drop),
        Err(StorageError::NotDurable)
    ));
}

#[test]
fn two_brokers_that_start_at_once_make_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let server = postgres_server::Postgres::start();
    let path = dir.path().join("connection");
    files::create_private(&path, server.connection().as_bytes()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| drop(Postgres::open(&path, None).unwrap()));
        }
    });
}

#[test]
fn work_waits_for_a_restart_and_says_so_when_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = postgres_server::Postgres::start();
    let postgres = connect(&server, dir.path());
    put(&postgres, Table::Rules, "a", b"1");
    let view = postgres.view().unwrap();
    server.stop("INT");
    assert!(matches!(
        view.read(Table::Rules, "a"),
        Err(StorageError::Unavailable { .. })
    ));
    assert!(matches!(
        view.read(Table::Rules, "a"),
        Err(StorageError::Unavailable { .. })
    ));
    drop(view);
    let begun = std::time::Instant::now();
    assert!(matches!(
        postgres.view().map(drop),
        Err(StorageError::Unavailable { .. })
    ));
    let long = begun.elapsed().as_secs();
    assert!((4..15).contains(&long), "{long} s");
    // It is known by now.
    let begun = std::time::Instant::now();
    let batch = Batch {
        expect: Vec::new(),
        write: vec![cell(Table::Rules, "a", Some(b"2"))],
    };
    assert!(matches!(postgres.commit(&batch), Err(StorageError::Unavailable { .. })));
    assert!(begun.elapsed().as_secs() < 3);
    server.resume();
    assert_eq!(read(&postgres, "a"), Some(b"1".to_vec()));
    assert!(postgres.commit(&batch).unwrap());
    // As a crash, and at once: the kept connections are dead, and nobody is told.
    server.stop("QUIT");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&postgres, "a"));
        server.resume();
        assert_eq!(reading.join().unwrap(), Some(b"2".to_vec()));
    });
}

#[test]
fn an_embedded_database_moves_to_postgresql_and_its_key_is_changed_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = postgres_server::Postgres::start();
    let path = dir.path().join("connection");
    files::create_private(&path, server.connection().as_bytes()).unwrap();
    let (old, new) = (StorageKey::generate().unwrap(), StorageKey::generate().unwrap());
    let key = |text: &str| StorageKey::parse(text.as_bytes()).unwrap();
    let embedded = Storage::open(&dir.path().join("db"), KeyRing::new(key(&old), Vec::new())).unwrap();
    // More than there is a lock for each.
    for number in 0..100 {
        let name = format!("demo/key/{number}").parse().unwrap();
        embedded.put_resource(&name, Some(7), b"canary of a key").unwrap();
    }
    embedded.raise_floor(&"model/demo".parse().unwrap(), 3).unwrap();
    let backup = embedded.backup(1_800_000_000).unwrap();
    {
        let storage = Storage::connect(&path, None, KeyRing::new(key(&old), Vec::new())).unwrap();
        assert_eq!(storage.restore(&backup).unwrap(), (1_800_000_000, 201));
        assert_eq!(storage.list().unwrap(), embedded.list().unwrap());
        assert!(matches!(storage.restore(&backup), Err(BackupError::NotEmpty)));
    }
    let wrong = Storage::connect(&path, None, KeyRing::new(key(&new), Vec::new()));
    assert!(matches!(wrong.map(drop), Err(StorageError::WrongKey)));
    drop(Storage::connect(&path, None, KeyRing::new(key(&new), vec![key(&old)])).unwrap());
    let storage = Storage::connect(&path, None, KeyRing::new(key(&new), Vec::new())).unwrap();
    assert_eq!(storage.list().unwrap(), embedded.list().unwrap());
    let lowered = storage.raise_floor(&"model/demo".parse().unwrap(), 2);
    assert!(matches!(lowered, Err(StoreError::Rollback(_))), "{lowered:?}");
}
