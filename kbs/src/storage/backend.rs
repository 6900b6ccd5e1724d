//! What a database has to do for the broker: named maps from text to bytes, and one kind of change.
//!
//! A change is a list of cells to write and a list of cells that must still be as they were read. It is made whole and is
//! durable when [`Backend::commit`] returns, or it is not made at all. That is enough for every rule of the broker to hold
//! when several brokers share a database, and little enough that two backends can be alike.
//!
//! A backend sees sealed bytes only.

use super::StorageError;

/// The maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// About the database itself.
    Meta,
    /// Resources, by path.
    Resources,
    /// Release rules, by path.
    Rules,
    /// Version floors, by name, and the last version of each resource and rule.
    Floors,
    /// Owners, by path.
    Owners,
    /// Approvals, by path, owner and guest.
    Approvals,
    /// Keys that sign tokens, by number.
    TokenKeys,
    /// Reference values, by name.
    References,
    /// Sessions that have proved themselves, by when they end and name; only where brokers share the database.
    Sessions,
}

impl Table {
    /// Every map.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Resources,
        Self::Rules,
        Self::Floors,
        Self::Owners,
        Self::Approvals,
        Self::TokenKeys,
        Self::References,
        Self::Sessions,
    ];

    /// Its name in the database; part of what values are sealed for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Resources => "resources",
            Self::Rules => "rules",
            Self::Floors => "floors",
            Self::Owners => "owners",
            Self::Approvals => "approvals",
            Self::TokenKeys => "token-keys",
            Self::References => "references",
            Self::Sessions => "sessions",
        }
    }
}

/// One place and what is there: `None` is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which map.
    pub table: Table,
    /// Which entry.
    pub key: String,
    /// Its sealed value.
    pub value: Option<Vec<u8>>,
}

/// A change, made whole or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// What must be there before.
    pub expect: Vec<Cell>,
    /// What is there afterwards.
    pub write: Vec<Cell>,
}

/// A database.
pub trait Backend: Send + Sync {
    /// The values as of this moment, for any number of looks.
    fn view(&self) -> Result<Box<dyn View + '_>, StorageError>;

    /// Every value of these maps as of one moment, in order of maps and keys.
    fn snapshot(&self, tables: &[Table]) -> Result<Vec<Cell>, StorageError>;

    /// Makes a change. False when something was not as expected: then nothing was changed.
    fn commit(&self, batch: &Batch) -> Result<bool, StorageError>;

    /// Removes the entries of a map whose keys come before `bound`, byte by byte; gives how many.
    fn remove_before(&self, table: Table, bound: &str) -> Result<u64, StorageError>;
}

/// The values of one moment.
pub trait View {
    /// One value.
    fn read(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, StorageError>;
}
