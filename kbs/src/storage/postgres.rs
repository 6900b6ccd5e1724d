//! PostgreSQL, for several brokers behind one name.
//!
//! One table, `cella_kbs(map, key, value)`, of sealed values. A change takes a lock for each of its cells, which two brokers
//! derive alike from map and key, looks whether everything is as expected, and writes: exact compare-and-swap, with no
//! conflict between changes that have nothing in common. Locks are taken in one order, so changes cannot wait for one
//! another in a circle. `SERIALIZABLE` was the alternative: on small tables PostgreSQL tracks whole tables, and changes fail that
//! have nothing in common.
//!
//! A connection that breaks before a commit was sent is replaced and the work done again, for [`PATIENCE`]; then the answer
//! is [`StorageError::Unavailable`]. Where it breaks *while* a commit is answered nobody knows whether the change was made:
//! [`StorageError::Uncertain`], and it is not made again by itself.
//!
//! Every method blocks, and must not be called from a task of a runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;

use super::StorageError;
use super::backend::{Backend, Batch, Cell, Table, View};

mod connect;
mod tls;

pub use connect::ConnectionError;
use connect::{Connection, Settings};

/// For how long a dead connection is replaced by another one.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one try: connecting, and one piece of work.
const TRY: Duration = Duration::from_secs(6);
/// For the one try that is made while PostgreSQL is known to be away.
const SHORT_TRY: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are kept for later: one for each thread of the program that works on requests.
const IDLE: usize = 8;
/// A change of more cells than this has the table alone: PostgreSQL has room for a bounded number of locks.
const MANY: usize = 64;

const READS: bool = false;
const COMMITS: bool = true;

/// A PostgreSQL database.
pub(crate) struct Postgres {
    /// Drives the connections. `None` only while this is dropped.
    runtime: Option<Runtime>,
    settings: Settings,
    idle: Mutex<Vec<Connection>>,
    /// Whether the last piece of work found nobody.
    away: AtomicBool,
}

/// A piece of work was not done.
enum Failure {
    /// The connection or the server went away, or the server is busy: another try may work.
    Lost(Box<dyn std::error::Error + Send + Sync>),
    /// The same, while a commit was answered.
    Uncertain(Box<dyn std::error::Error + Send + Sync>),
    /// The server says no, and will again.
    Refused(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            return Self::Lost(Box::new(error));
        };
        // Connections, conflicts, no resources (a full disk, too many connections), an operator's hand, the system under it.
        let again = matches!(code.code().get(..2), Some("08" | "40" | "53" | "57" | "58"))
            || [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::LOCK_NOT_AVAILABLE].contains(code);
        if again {
            Self::Lost(Box::new(error))
        } else {
            Self::Refused(error)
        }
    }
}

impl Postgres {
    /// Connects, and makes the table if it is not there. `connection` is a private file with a connection string, `ca` the
    /// roots of a server that is not on a Unix socket.
    pub(crate) fn open(connection: &Path, ca: Option<&Path>) -> Result<Self, StorageError> {
        let settings = Settings::read(connection, ca)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|source| StorageError::Unavailable {
                source: Box::new(source),
            })?;
        let postgres = Self {
            runtime: Some(runtime),
            settings,
            idle: Mutex::default(),
            away: AtomicBool::new(false),
        };
        let (connection, durable) = postgres.work(READS, async |connection| Ok(connection.schema().await?))?;
        postgres.keep(connection);
        if durable {
            Ok(postgres)
        } else {
            Err(StorageError::NotDurable)
        }
    }

    /// Does `work` over a connection; gives that connection too. `commits`: that it may have, where it was not heard of in time.
    fn work<T>(
        &self,
        commits: bool,
        work: impl AsyncFn(&mut Connection) -> Result<T, Failure>,
    ) -> Result<(Connection, T), StorageError> {
        let away = self.away.load(Ordering::Relaxed);
        let (patience, bound) = if away {
            (Duration::ZERO, SHORT_TRY)
        } else {
            (PATIENCE, TRY)
        };
        let begun = Instant::now();
        let done = self.block(async {
            loop {
                let tried = timeout(bound, async {
                    let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let mut connection = match kept.filter(Connection::is_open) {
                        Some(connection) => connection,
                        None => self.settings.connect().await?,
                    };
                    let done = work(&mut connection).await?;
                    Ok::<_, Failure>((connection, done))
                });
                let failure = match tried.await {
                    Ok(Ok(done)) => return Ok(done),
                    Ok(Err(failure)) => failure,
                    Err(elapsed) if commits => Failure::Uncertain(Box::new(elapsed)),
                    Err(elapsed) => Failure::Lost(Box::new(elapsed)),
                };
                match failure {
                    Failure::Refused(source) => {
                        return Err(StorageError::Postgres {
                            source: Box::new(source),
                        });
                    }
                    Failure::Uncertain(source) => return Err(StorageError::Uncertain { source }),
                    Failure::Lost(source) if begun.elapsed() >= patience => {
                        return Err(StorageError::Unavailable { source });
                    }
                    // The others were made in the same life of the server, and are as dead.
                    Failure::Lost(_) => self.forget(),
                }
                sleep(PAUSE).await;
            }
        })?;
        let lost = matches!(
            done,
            Err(StorageError::Unavailable { .. } | StorageError::Uncertain { .. })
        );
        self.away.store(lost, Ordering::Relaxed);
        done
    }

    /// A setting of the server, as a connection has it.
    #[cfg(test)]
    pub(crate) fn shown(&self, name: &str) -> Result<String, StorageError> {
        let (_, setting) = self.work(READS, async |connection| Ok(connection.shown(name).await?))?;
        Ok(setting)
    }

    fn block<T>(&self, work: impl Future<Output = T>) -> Result<T, StorageError> {
        let runtime = self.runtime.as_ref().ok_or(StorageError::Seal)?;
        Ok(runtime.block_on(work))
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Postgres {
    /// Whoever drops this may be a task, in which a runtime cannot be waited for.
    fn drop(&mut self) {
        self.forget();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend for Postgres {
    fn view(&self) -> Result<Box<dyn View + '_>, StorageError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let (connection, ()) = self.work(READS, async |connection| Ok(connection.run(begin).await?))?;
        Ok(Box::new(Reading {
            postgres: self,
            connection: Mutex::new(Some(connection)),
        }))
    }

    /// One statement sees one moment.
    fn snapshot(&self, tables: &[Table]) -> Result<Vec<Cell>, StorageError> {
        let names: Vec<_> = tables.iter().map(|table| table.name()).collect();
        let (connection, mut cells) = self.work(READS, async |connection| Ok(connection.all(&names).await?))?;
        self.keep(connection);
        cells.sort_by_key(|cell| tables.iter().position(|table| *table == cell.table));
        Ok(cells)
    }

    fn commit(&self, batch: &Batch) -> Result<bool, StorageError> {
        let (connection, made) = self.work(COMMITS, async |connection| change(connection, batch).await)?;
        self.keep(connection);
        Ok(made)
    }

    fn remove_before(&self, table: Table, bound: &str) -> Result<u64, StorageError> {
        let (connection, removed) = self.work(READS, async |connection| {
            Ok(connection.remove_before(table, bound).await?)
        })?;
        self.keep(connection);
        Ok(removed)
    }
}

/// One transaction. When it fails the connection is not used again, and the server rolls back.
async fn change(connection: &mut Connection, batch: &Batch) -> Result<bool, Failure> {
    // The last write of each cell is what counts.
    let writes: BTreeMap<_, _> = batch
        .write
        .iter()
        .map(|cell| ((cell.table, cell.key.as_str()), cell.value.as_deref()))
        .collect();
    let expected: Vec<_> = batch
        .expect
        .iter()
        .map(|cell| (cell.table, cell.key.as_str()))
        .collect();
    let cells: BTreeSet<_> = expected.iter().chain(writes.keys()).copied().collect();
    // Not older than the locks: each statement sees what was committed before it began.
    connection
        .run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        .await?;
    let alone = cells.len() > MANY;
    let locks: BTreeSet<_> = cells.iter().map(|(table, key)| lock(*table, key)).collect();
    let locks: Vec<_> = locks.into_iter().collect();
    connection.lock(alone, &locks).await?;
    let there = connection.some(&expected).await?;
    let same = |cell: &Cell| {
        let found = there
            .iter()
            .find(|found| found.table == cell.table && found.key == cell.key);
        found.and_then(|found| found.value.as_deref()) == cell.value.as_deref()
    };
    if !batch.expect.iter().all(same) {
        connection.run("ROLLBACK").await?;
        return Ok(false);
    }
    connection.write(&writes).await?;
    match connection.run("COMMIT").await.map_err(Failure::from) {
        Ok(()) => Ok(true),
        Err(Failure::Lost(source)) => Err(Failure::Uncertain(source)),
        Err(failure) => Err(failure),
    }
}

/// The number of a cell's lock, the same for every broker. Two cells with one number only wait for one another.
fn lock(table: Table, key: &str) -> i64 {
    let place = [b"cella-kbs cell", table.name().as_bytes(), key.as_bytes()].join(&0);
    let digest = digest::digest(&digest::SHA256, &place);
    digest
        .as_ref()
        .first_chunk()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// A transaction that only reads, all of it as of its beginning.
struct Reading<'a> {
    postgres: &'a Postgres,
    /// `None` after it broke.
    connection: Mutex<Option<Connection>>,
}

impl View for Reading<'_> {
    fn read(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: when this fails, what comes after cannot be of the same moment.
        let mut connection = kept.take().ok_or_else(|| StorageError::Unavailable {
            source: "the connection broke before".into(),
        })?;
        let read = self
            .postgres
            .block(async { timeout(TRY, connection.read(table, key)).await })?;
        let value = match read {
            Ok(read) => read.map_err(|error| match Failure::from(error) {
                Failure::Lost(source) | Failure::Uncertain(source) => StorageError::Unavailable { source },
                Failure::Refused(source) => StorageError::Postgres {
                    source: Box::new(source),
                },
            })?,
            Err(elapsed) => {
                return Err(StorageError::Unavailable {
                    source: Box::new(elapsed),
                });
            }
        };
        *kept = Some(connection);
        Ok(value)
    }
}

impl Drop for Reading<'_> {
    /// Ends the transaction, so that the connection can be used again. If that fails the server ends it with the connection.
    fn drop(&mut self) {
        let kept = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = kept.take()
            && let Ok(Ok(Ok(()))) = self
                .postgres
                .block(async { timeout(SHORT_TRY, connection.run("ROLLBACK")).await })
        {
            self.postgres.keep(connection);
        }
    }
}
