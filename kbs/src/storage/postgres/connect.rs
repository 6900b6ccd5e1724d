//! How PostgreSQL is reached, and the statements that a connection knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Error, NoTls, Row, Statement};

use super::tls::Tls;
use crate::files::{self, FileError};
use crate::storage::backend::{Cell, Table};

/// For the TCP connection or the Unix socket.
const CONNECT: Duration = Duration::from_secs(2);
/// Taken alone by changes of many cells, and shared by all others.
const TABLE_LOCK: i64 = 0x6365_6c6c_612d_6b62;

/// A server that hangs is given up by the program; these make the server give up a broker that hangs, with its locks.
/// A role or database that lets commits return before they are on the disk is overruled.
const SESSION: &str = "SET statement_timeout = '5s'; SET lock_timeout = '4s'; SET idle_in_transaction_session_timeout = '10s'; \
     SET client_min_messages = warning; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS cella_kbs (map text COLLATE \"C\" NOT NULL, key text COLLATE \"C\" NOT NULL, \
     value bytea NOT NULL, PRIMARY KEY (map, key))";

/// How to reach the server. Holds the password, so it has no `Debug`.
pub(super) struct Settings {
    config: Config,
    tls: Option<Tls>,
}

impl Settings {
    /// Reads the connection string, and the roots of a server that is not on a Unix socket.
    pub(super) fn read(connection: &Path, ca: Option<&Path>) -> Result<Self, ConnectionError> {
        let invalid = || ConnectionError::Invalid {
            path: connection.to_owned(),
        };
        let bytes = files::read_private(connection)?;
        // The parser's own message repeats what it read, which may be the password.
        let text = std::str::from_utf8(&bytes).map_err(|_| invalid())?;
        let mut config: Config = text.trim().parse().map_err(|_| invalid())?;
        let unix = config
            .get_hosts()
            .iter()
            .filter(|host| matches!(host, Host::Unix(_)))
            .count();
        let tls = match ca {
            _ if config.get_hosts().is_empty() => return Err(invalid()),
            _ if unix == config.get_hosts().len() => {
                config.ssl_mode(SslMode::Disable);
                None
            }
            _ if unix > 0 => return Err(invalid()),
            None => return Err(ConnectionError::NoCa),
            Some(ca) => {
                config.ssl_mode(SslMode::Require);
                let tls = Tls::under(&files::read_text(ca)?);
                Some(tls.ok_or_else(|| ConnectionError::Ca { path: ca.to_owned() })?)
            }
        };
        config
            .application_name("cella-kbs")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(10))
            // A standby would show what was true a while ago.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self { config, tls })
    }

    /// A connection to a server that writes.
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        // The tasks end with their clients.
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                tokio::spawn(connection);
                client
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(connection);
                client
            }
        };
        client.batch_execute(SESSION).await?;
        Ok(Connection {
            client,
            statements: BTreeMap::new(),
        })
    }
}

/// A connection.
pub(super) struct Connection {
    client: Client,
    /// Those that were prepared, by their text.
    statements: BTreeMap<&'static str, Statement>,
}

const READ: &str = "SELECT value FROM cella_kbs WHERE map = $1 AND key = $2";
const ALL: &str = "SELECT map, key, value FROM cella_kbs WHERE map = ANY($1) ORDER BY map, key";
const SOME: &str =
    "SELECT map, key, value FROM cella_kbs JOIN unnest($1::text[], $2::text[]) AS wanted(map, key) USING (map, key)";
const LOCK: &str = "SELECT pg_advisory_xact_lock(number) FROM unnest($1::bigint[]) AS number";
const LOCK_SHARED: &str = "SELECT pg_advisory_xact_lock_shared($1)";
const PUT: &str = "INSERT INTO cella_kbs (map, key, value) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) \
     ON CONFLICT (map, key) DO UPDATE SET value = EXCLUDED.value";
const REMOVE: &str = "DELETE FROM cella_kbs USING unnest($1::text[], $2::text[]) AS gone(map, key) \
     WHERE cella_kbs.map = gone.map AND cella_kbs.key = gone.key";
const REMOVE_BEFORE: &str = "DELETE FROM cella_kbs WHERE map = $1 AND key < $2";

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Makes the table if it is not there. False when the server says of itself that it may lose what it acknowledges.
    pub(super) async fn schema(&self) -> Result<bool, Error> {
        self.client.batch_execute("BEGIN").await?;
        // Two brokers that start at once would both make it.
        self.client
            .query("SELECT pg_advisory_xact_lock($1)", &[&TABLE_LOCK])
            .await?;
        let row = self
            .client
            .query_one(
                "SELECT to_regclass('cella_kbs') IS NOT NULL, current_setting('fsync') = 'on'",
                &[],
            )
            .await?;
        // A role that may not make tables does not need to, where somebody else has made this one.
        if !row.try_get::<_, bool>(0)? {
            self.client.batch_execute(SCHEMA).await?;
        }
        self.client.batch_execute("COMMIT").await?;
        row.try_get(1)
    }

    #[cfg(test)]
    pub(super) async fn shown(&self, name: &str) -> Result<String, Error> {
        let row = self.client.query_one("SELECT current_setting($1)", &[&name]).await?;
        row.try_get(0)
    }

    /// Runs a statement without parameters and results.
    pub(super) async fn run(&self, statement: &str) -> Result<(), Error> {
        self.client.batch_execute(statement).await
    }

    /// One value.
    pub(super) async fn read(&mut self, table: Table, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let statement = self.statement(READ).await?;
        let row = self.client.query_opt(&statement, &[&table.name(), &key]).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Every cell of these maps, map by map in the order of their names.
    pub(super) async fn all(&mut self, maps: &[&str]) -> Result<Vec<Cell>, Error> {
        let statement = self.statement(ALL).await?;
        cells(self.client.query(&statement, &[&maps]).await?)
    }

    /// Those of these cells that are there.
    pub(super) async fn some(&mut self, wanted: &[(Table, &str)]) -> Result<Vec<Cell>, Error> {
        let statement = self.statement(SOME).await?;
        let (maps, keys) = columns(wanted.iter().copied());
        cells(self.client.query(&statement, &[&maps, &keys]).await?)
    }

    /// Takes these locks, or all of them at once, until the transaction ends.
    pub(super) async fn lock(&mut self, alone: bool, numbers: &[i64]) -> Result<(), Error> {
        if alone {
            let statement = self.statement(LOCK).await?;
            let table: &[i64] = &[TABLE_LOCK];
            self.client.query(&statement, &[&table]).await?;
        } else {
            let statement = self.statement(LOCK_SHARED).await?;
            self.client.query(&statement, &[&TABLE_LOCK]).await?;
            let statement = self.statement(LOCK).await?;
            self.client.query(&statement, &[&numbers]).await?;
        }
        Ok(())
    }

    /// Puts and removes values.
    pub(super) async fn write(&mut self, writes: &BTreeMap<(Table, &str), Option<&[u8]>>) -> Result<(), Error> {
        let removed = writes.iter().filter(|(_, value)| value.is_none());
        let (maps, keys) = columns(removed.map(|(place, _)| *place));
        if !maps.is_empty() {
            let statement = self.statement(REMOVE).await?;
            self.client.execute(&statement, &[&maps, &keys]).await?;
        }
        let put = writes.iter().filter(|(_, value)| value.is_some());
        let (maps, keys) = columns(put.map(|(place, _)| *place));
        let values: Vec<&[u8]> = writes.values().copied().flatten().collect();
        if !maps.is_empty() {
            let statement = self.statement(PUT).await?;
            self.client.execute(&statement, &[&maps, &keys, &values]).await?;
        }
        Ok(())
    }

    /// Removes the entries of a map whose keys are less than `bound`.
    pub(super) async fn remove_before(&mut self, table: Table, bound: &str) -> Result<u64, Error> {
        let statement = self.statement(REMOVE_BEFORE).await?;
        self.client.execute(&statement, &[&table.name(), &bound]).await
    }

    async fn statement(&mut self, text: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(text).await?;
        self.statements.insert(text, statement.clone());
        Ok(statement)
    }
}

fn columns<'a>(places: impl Iterator<Item = (Table, &'a str)>) -> (Vec<&'static str>, Vec<&'a str>) {
    places.map(|(table, key)| (table.name(), key)).unzip()
}

/// Rows of map, key and value. Maps of a later version of the broker are passed over.
fn cells(rows: Vec<Row>) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::with_capacity(rows.len());
    for row in rows {
        let map: &str = row.try_get(0)?;
        if let Some(table) = Table::ALL.into_iter().find(|table| table.name() == map) {
            cells.push(Cell {
                table,
                key: row.try_get(1)?,
                value: Some(row.try_get(2)?),
            });
        }
    }
    Ok(cells)
}

/// The configuration does not say how to reach PostgreSQL. No text repeats the connection string.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// A file cannot be used.
    #[error("a file about PostgreSQL cannot be used")]
    File(#[from] FileError),
    /// Not a connection string that is taken.
    #[error(
        "{} holds no connection string: host=… user=… dbname=… password=…, with all hosts folders of Unix sockets or none",
        path.display()
    )]
    Invalid {
        /// Which file.
        path: PathBuf,
    },
    /// Neither a Unix socket nor TLS.
    #[error("PostgreSQL is not on a Unix socket: postgres.ca must name the roots of its certificate")]
    NoCa,
    /// No roots.
    #[error("{} holds no PEM certificates that can be roots", path.display())]
    Ca {
        /// Which file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ca: Option<&str>) -> Result<Settings, ConnectionError> {
        let dir = tempfile::tempdir().unwrap();
        let (connection, root) = (dir.path().join("connection"), dir.path().join("ca.pem"));
        files::create_private(&connection, text.as_bytes()).unwrap();
        let ca = ca.map(|pem| {
            std::fs::write(&root, pem).unwrap();
            root.as_path()
        });
        Settings::read(&connection, ca)
    }

    fn root() -> String {
        rcgen::generate_simple_self_signed(vec!["ca".to_owned()])
            .unwrap()
            .cert
            .pem()
    }

    #[test]
    fn a_unix_socket_needs_no_tls_and_everything_else_does() {
        let unix = read("host=/run/postgresql user=kbs password=hunter2\n", None).unwrap();
        assert_eq!(unix.config.get_ssl_mode(), SslMode::Disable);
        assert!(unix.tls.is_none());
        for text in [
            "host=db.example.org user=kbs",
            "postgresql://kbs@db.example.org/kbs?sslmode=disable",
        ] {
            assert!(matches!(read(text, None), Err(ConnectionError::NoCa)), "{text}");
            let tls = read(text, Some(&root())).unwrap();
            assert_eq!(tls.config.get_ssl_mode(), SslMode::Require);
            assert!(tls.tls.is_some());
        }
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(
                read("host=db.example.org", Some(pem)),
                Err(ConnectionError::Ca { .. })
            ));
        }
    }

    #[test]
    fn t26_what_is_no_connection_string_is_not_repeated() {
        for text in [
            "",
            "user=kbs password=hunter2",
            "hunter2",
            "host=/run hunter2",
            "host=/run password='hunter2",
            "host=/run,db.example.org password=hunter2",
            "postgresql://kbs:hunter2@[::1",
        ] {
            let refused = read(text, Some(&root())).map(drop);
            let Err(error @ ConnectionError::Invalid { .. }) = refused else {
                panic!("{text}: {refused:?}");
            };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn t26_a_connection_string_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connection");
        std::fs::write(&path, "host=/run/postgresql").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Settings::read(&path, None),
            Err(ConnectionError::File(FileError::NotPrivate { mode: 0o640, .. }))
        ));
    }
}
