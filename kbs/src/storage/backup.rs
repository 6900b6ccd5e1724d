//! A copy of everything in the database, as of one moment, encrypted; and the way back.
//!
//! ```text
//! "cella-kbs-backup-1\n" || key id (8) || salt (32) || AES-256-GCM(JSON) || tag (16)
//! ```
//! The key is derived from the storage key (HKDF-SHA256, purpose and salt in its info), fresh for each backup, so the nonce is
//! zero; the bytes before the ciphertext are its associated data. Whoever has the backup needs the storage key to read it, and
//! cannot leave a part of it out.
//!
//! A backup is restored into a database that holds nothing yet: over newer contents it would be the rollback that floors
//! are there to refuse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::backend::{Batch, Cell, Table};
use super::seal::{ID_LEN, KeyRing};
use super::{Storage, StorageError};

/// Largest backup that is made or read, in bytes.
pub const MAX_BACKUP: usize = 64 << 20;

const MAGIC: &[u8] = b"cella-kbs-backup-1\n";
const SALT_LEN: usize = 32;
const HEADER_LEN: usize = MAGIC.len() + ID_LEN + SALT_LEN;

/// What is copied: everything but what belongs to one database file.
const COPIED: [Table; 7] = [
    Table::Resources,
    Table::Rules,
    Table::Floors,
    Table::Owners,
    Table::Approvals,
    Table::TokenKeys,
    Table::References,
];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    made: u64,
    cells: Vec<Copied>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copied {
    table: String,
    key: String,
    value: Zeroizing<String>,
}

impl Storage {
    /// A backup as of one moment. `now` is in Unix seconds.
    pub fn backup(&self, now: u64) -> Result<Vec<u8>, BackupError> {
        let mut cells = Vec::new();
        for Cell { table, key, value } in self.backend.snapshot(&COPIED)? {
            let value = self.keys.unseal(table, &key, &value.unwrap_or_default())?;
            cells.push(Copied {
                table: table.name().to_owned(),
                key,
                value: Zeroizing::new(STANDARD.encode(&*value)),
            });
        }
        let contents = Contents { made: now, cells };
        let plain = serde_json::to_vec(&contents).map_err(|_| StorageError::Seal)?;
        let mut body = Zeroizing::new(plain);
        if body.len() > MAX_BACKUP - 1024 {
            return Err(BackupError::TooLarge);
        }
        let mut salt = [0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).map_err(|_| StorageError::Seal)?;
        let header = [MAGIC, self.keys.current().raw_id(), &salt].concat();
        let key = cipher(&self.keys, &header).ok_or(StorageError::Seal)?;
        let tag = key
            .seal_in_place_separate_tag(nonce(), Aad::from(&header), body.as_mut_slice())
            .map_err(|_| StorageError::Seal)?;
        Ok([header.as_slice(), &body, tag.as_ref()].concat())
    }

    /// Puts a backup into a database that holds nothing yet; gives when it was made and how many values it has.
    pub fn restore(&self, backup: &[u8]) -> Result<(u64, usize), BackupError> {
        let contents = open(&self.keys, backup)?;
        let mut batch = Batch::default();
        // The keys that the empty broker made for its own tokens go; everything else must not be there.
        for cell in self.backend.snapshot(&COPIED)? {
            if cell.table != Table::TokenKeys {
                return Err(BackupError::NotEmpty);
            }
            batch.write.push(Cell {
                value: None,
                ..cell.clone()
            });
            batch.expect.push(cell);
        }
        let count = contents.cells.len();
        for Copied { table, key, value } in contents.cells {
            let table = COPIED
                .into_iter()
                .find(|known| known.name() == table)
                .ok_or(BackupError::Malformed)?;
            let plain = STANDARD
                .decode(value.as_bytes())
                .map(Zeroizing::new)
                .map_err(|_| BackupError::Malformed)?;
            let value = Some(self.keys.seal(table, &key, &plain).ok_or(StorageError::Seal)?);
            if table != Table::TokenKeys {
                batch.expect.push(Cell {
                    table,
                    key: key.clone(),
                    value: None,
                });
            }
            batch.write.push(Cell { table, key, value });
        }
        if self.backend.commit(&batch)? {
            Ok((contents.made, count))
        } else {
            Err(BackupError::NotEmpty)
        }
    }
}

fn open(keys: &KeyRing, backup: &[u8]) -> Result<Contents, BackupError> {
    if backup.len() > MAX_BACKUP {
        return Err(BackupError::TooLarge);
    }
    let (header, body) = backup.split_at_checked(HEADER_LEN).ok_or(BackupError::Malformed)?;
    if !header.starts_with(MAGIC) {
        return Err(BackupError::Malformed);
    }
    let key = cipher(keys, header).ok_or(BackupError::OtherKey)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = key
        .open_in_place(nonce(), Aad::from(header), &mut body)
        .map_err(|_| BackupError::NotAuthentic)?;
    serde_json::from_slice(plain).map_err(|_| BackupError::Malformed)
}

/// The key of one backup: of the storage key that its header names, and of its salt.
fn cipher(keys: &KeyRing, header: &[u8]) -> Option<LessSafeKey> {
    let (id, salt) = header.get(MAGIC.len()..)?.split_first_chunk::<ID_LEN>()?;
    let key = keys.find(id)?.derive(&[b"backup", salt])?;
    UnboundKey::new(&AES_256_GCM, key.as_ref()).map(LessSafeKey::new).ok()
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// A backup is not made or not taken. The texts go to admins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Not of this form.
    #[error("not a backup of cella-kbs")]
    Malformed,
    /// Made under another storage key.
    #[error("the backup was made with another storage key")]
    OtherKey,
    /// Changed or cut.
    #[error("the backup is not authentic")]
    NotAuthentic,
    /// More than is handled in one piece.
    #[error("the backup is larger than {MAX_BACKUP} bytes")]
    TooLarge,
    /// There is something already.
    #[error("the broker holds something already: restore into a new one")]
    NotEmpty,
    /// The database.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}

#[cfg(test)]
mod tests {
    use super::super::{FloorName, StorageKey, StoreError};
    use super::*;
    use crate::rule::Rule;

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

        fn open(&self, name: &str) -> Storage {
            let key = StorageKey::parse(self.key.as_bytes()).unwrap();
            Storage::open(&self.dir.path().join(name), KeyRing::new(key, Vec::new())).unwrap()
        }
    }

    /// A database with one of everything, and its backup.
    fn filled(fixture: &Fixture) -> (Storage, Vec<u8>) {
        let storage = fixture.open("one");
        let path = "a/b/1".parse().unwrap();
        storage.put_resource(&path, Some(3), b"canary of a key").unwrap();
        let rule = Rule::from_json(br#"{"launch-digests":[],"policy-digests":[]}"#).unwrap();
        storage.put_rule(&path, Some(2), &rule).unwrap();
        storage.raise_floor(&"model/demo".parse().unwrap(), 7).unwrap();
        let owners = br#"{"owners":[{"name":"alice","key":"0101010101010101010101010101010101010101010101010101010101010101"}]}"#;
        storage.replace_owners(&path, owners).unwrap();
        let backup = storage.backup(1_800_000_000).unwrap();
        (storage, backup)
    }

    #[test]
    fn everything_comes_back_floors_and_owners_too() {
        let fixture = Fixture::new();
        let (one, backup) = filled(&fixture);
        assert!(!backup.windows(6).any(|window| window == b"canary"));
        let two = fixture.open("two");
        let (made, values) = two.restore(&backup).unwrap();
        // Resource, rule, their two versions, floor, owners.
        assert_eq!((made, values), (1_800_000_000, 6));
        assert_eq!(one.list().unwrap(), two.list().unwrap());
        let path = "a/b/1".parse().unwrap();
        assert_eq!(
            two.resource(&path).unwrap().unwrap().bytes.as_slice(),
            b"canary of a key"
        );
        assert_eq!(one.owners(&path).unwrap(), two.owners(&path).unwrap());
        assert_eq!(two.floor(&"model/demo".parse::<FloorName>().unwrap()).unwrap(), 7);
        let older = two.put_resource(&path, Some(2), b"old");
        assert!(matches!(older, Err(StoreError::Rollback(_))), "{older:?}");
    }

    #[test]
    fn t5_a_backup_does_not_take_the_place_of_anything() {
        let fixture = Fixture::new();
        let (one, backup) = filled(&fixture);
        assert!(matches!(one.restore(&backup), Err(BackupError::NotEmpty)));
        let two = fixture.open("two");
        two.raise_floor(&"model/demo".parse().unwrap(), 8).unwrap();
        assert!(matches!(two.restore(&backup), Err(BackupError::NotEmpty)));
        assert_eq!(two.floor(&"model/demo".parse().unwrap()).unwrap(), 8);
    }

    #[test]
    fn changed_cut_and_foreign_backups_are_refused() {
        let fixture = Fixture::new();
        let (_one, backup) = filled(&fixture);
        let two = fixture.open("two");
        for index in 0..backup.len() {
            let mut changed = backup.clone();
            changed[index] ^= 1;
            assert!(two.restore(&changed).is_err(), "byte {index}");
            assert!(two.restore(&backup[..index]).is_err(), "cut at {index}");
        }
        assert!(two.list().unwrap().is_empty());
        let other = Fixture::new();
        assert!(matches!(other.open("one").restore(&backup), Err(BackupError::OtherKey)));
        assert!(two.restore(&backup).is_ok());
    }
}
