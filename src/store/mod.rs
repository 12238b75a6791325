//! The store: keys and usage in SQLite or PostgreSQL. Nothing else in this program speaks SQL.
//!
//! `schema` brings a database to the present version, `keys`, `usage` and `audit` are what is in it, `hash` is
//! what is kept of a key, `receipts` what nodes signed, `spend` and `shares` what limits go by, `report` is how others are told of
//! it. `journal` is a file that holds what is not in the database yet; `ledger`, and `receipts` for its own, bring it
//! there, beside the requests. `retry` is how often that is tried.
//!
//! Both databases get the same statements. No content of a request is ever here: there is no column for it.

use std::{io, path::PathBuf, str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, SqlitePool,
    pool::PoolOptions,
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

use self::hash::Hasher;
use crate::config::{
    self, ConfigError,
    gateway::is_loopback_host,
    store::{StoreConfig, StoreUrl},
};

mod audit;
mod hash;
mod journal;
mod keys;
mod ledger;
mod receipts;
pub(crate) mod report;
mod retry;
mod schema;
mod shares;
mod spend;
#[cfg(test)]
pub(crate) mod tests;
mod usage;

pub(crate) use self::{
    audit::{Audited, Entry as AuditEntry, Event, Head, Held, Kept, Pruned, What, Wrong},
    hash::KeyHash,
    journal::{Journal, JournalError, Reserved},
    keys::{Change, Changes, Key, KeyError, KeySecret, NewKey, is_name, millis as unix_millis},
    ledger::{Ledger, Open, Settle, Watch as LedgerWatch, Writer},
    receipts::{PLACES as RECEIPT_PLACES, ReceiptQueue, ReceiptRow, ReceiptWriter, journal_beside},
    retry::Retry,
    shares::{OtherShare, Share},
    spend::Spend,
    usage::{By, Query, Sum, Tokens, UsageRow, in_currency},
};

/// Connections to PostgreSQL from one gateway, and those besides that what keys are known by has to itself.
const POSTGRES_CONNECTIONS: u32 = 4;
const POSTGRES_LOOKS: u32 = 2;
/// Connections to a SQLite file: one that writes, and what reads beside it.
const SQLITE_CONNECTIONS: u32 = 3;
/// How long a connection is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that is given back, or taken again, may take to show that it is alive.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long PostgreSQL works on one statement, waits for the next one of a transaction, and for a gateway that is
/// not there any more, whose locks others wait for.
const STATEMENT_TIMEOUT: &str = "15s";
/// How long another process may hold the SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Does the same with either database.
macro_rules! on {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.database {
            $crate::store::Database::Sqlite($pool) => $body,
            $crate::store::Database::Postgres($pool) => $body,
        }
    };
    ($store:expr, $pool:ident: $name:ident => $body:expr) => {
        match &$store.database {
            $crate::store::Database::Sqlite($pool) => {
                type $name = sqlx::Sqlite;
                $body
            }
            $crate::store::Database::Postgres($pool) => {
                type $name = sqlx::Postgres;
                $body
            }
        }
    };
}
use on;

/// A database that is at the present version.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    database: Database,
    /// Of PostgreSQL: connections for what must not wait for all else.
    looks: Option<PgPool>,
    hasher: Hasher,
    /// Who changes things through this one, for the audit log.
    actor: Arc<str>,
}

#[derive(Clone, Debug)]
enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Why there is no answer of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {}", path.display(), config::in_words(source))]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Secret { path: PathBuf, message: String },
    #[error("store.url: {0}")]
    Url(sqlx::Error),
    #[error("the database was made by a newer version, or by something else: {0}")]
    Schema(sqlx::migrate::MigrateError),
    #[error("the database is not brought to version {version}: {source}")]
    Migration { version: i64, source: sqlx::Error },
    #[error("the keys in the database were hashed with another secret: {} is not theirs", .0.display())]
    OtherSecret(PathBuf),
    #[error("the database holds what this version cannot read: {0}")]
    Unreadable(&'static str),
    #[error("audit log: something else writes into it, and leaves no number free")]
    AuditTaken,
    #[error("no runtime: {0}")]
    Runtime(io::Error),
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl Store {
    /// Opens the database, brings it to the present version, and checks that the secret is its own.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong and where.
    pub(crate) async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let (secret_file, is_made) = config.secret().ok_or(StoreError::Unreadable("a secret"))?;
        let hasher = Hasher::read(&secret_file, is_made)?;
        let (database, looks) = match &config.url {
            StoreUrl::Sqlite(_) => (Database::Sqlite(sqlite(config).await?), None),
            StoreUrl::Postgres(url) => {
                let options = postgres_options(config, url)?;
                let pool = postgres(POSTGRES_CONNECTIONS).connect_with(options.clone());
                let looks = postgres(POSTGRES_LOOKS).connect_lazy_with(options);
                (Database::Postgres(pool.await?), Some(looks))
            }
        };
        let store = Self {
            database,
            looks,
            hasher,
            actor: "unknown".into(),
        };
        schema::migrate(&store).await?;
        if !store.knows_secret().await? {
            return Err(StoreError::OtherSecret(secret_file));
        }
        Ok(store)
    }

    /// The same for `actor`, who is named in the audit log.
    pub(crate) fn acting(&self, actor: &str) -> Self {
        Self {
            actor: audit::actor(actor),
            ..self.clone()
        }
    }

    /// The same over connections of their own, for what keys are known and held by: whatever else waits for the
    /// database, that has not to wait for it.
    pub(crate) fn for_looks(&self) -> Self {
        let looks = self.looks.clone().map(Database::Postgres);
        Self {
            database: looks.unwrap_or_else(|| self.database.clone()),
            ..self.clone()
        }
    }

    /// The same for administrators who ask this gateway.
    pub(crate) fn for_administrators(&self) -> Self {
        self.acting(&format!("admin-api of {}", self.actor))
    }

    /// Whether the database's keys are hashed with this secret; the first one to come is theirs.
    async fn knows_secret(&self) -> Result<bool, StoreError> {
        let own = self.hasher.check();
        let add = "INSERT INTO secret_check (only_row, hash) VALUES (1, $1) ON CONFLICT DO NOTHING";
        let known: String = on!(self, pool => {
            sqlx::query(add).bind(&own).execute(pool).await?;
            sqlx::query_scalar("SELECT hash FROM secret_check").fetch_one(pool).await?
        });
        Ok(known == own)
    }

    /// What a key that somebody shows is looked up by.
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// What nodes know a key by, 32 hex digits: the same for all of its secrets, and at all gateways of
    /// this store.
    pub(crate) fn pseudonym(&self, key_id: &str) -> String {
        self.hasher.pseudonym(key_id)
    }

    /// Closes all connections, so that SQLite's log is folded into its file.
    pub(crate) async fn close(&self) {
        if let Some(looks) = &self.looks {
            looks.close().await;
        }
        on!(self, pool => pool.close().await);
    }
}

async fn sqlite(config: &StoreConfig) -> Result<SqlitePool, StoreError> {
    let StoreUrl::Sqlite(file) = &config.url else {
        return Err(StoreError::Unreadable("the url"));
    };
    // Made here, so that nobody else may read it, and its companions get the same mode.
    let file_error = |source| StoreError::File {
        path: file.clone(),
        source,
    };
    hash::make_private(file).map_err(file_error)?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        // What is said to be there is there, also after the machine lost its power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let pool = PoolOptions::new()
        .max_connections(SQLITE_CONNECTIONS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options);
    Ok(pool.await?)
}

/// So many connections. One that was left in the middle of a statement, or whose other end is gone without a word,
/// would hold its place until TCP gives it up: each shows that it is alive before it is used again, or is closed.
fn postgres(connections: u32) -> PoolOptions<Postgres> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_alive(connection)))
        .after_release(|connection, _| Box::pin(is_alive(connection)))
}

/// # Errors
/// Then it is closed at once, and nothing more is sent.
async fn is_alive(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let silent = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    timeout(PING_TIMEOUT, connection.ping())
        .await
        .map_err(silent)??;
    Ok(true)
}

fn postgres_options(config: &StoreConfig, url: &str) -> Result<PgConnectOptions, StoreError> {
    let mut options = PgConnectOptions::from_str(url).map_err(StoreError::Url)?;
    options = options
        .application_name("sealgate")
        // What nobody waits for any more is not worked on.
        .options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", STATEMENT_TIMEOUT),
            ("tcp_user_timeout", STATEMENT_TIMEOUT),
        ])
        .disable_statement_logging();
    // By what it comes to: the query of a URL, and libpq's variables, can name another host.
    let is_local = options.get_socket().is_some() || is_loopback_host(options.get_host());
    if !config.url.says_tls() {
        options = options.ssl_mode(match is_local {
            true => PgSslMode::Prefer,
            false => PgSslMode::VerifyFull,
        });
    }
    if let Some(file) = &config.ca_file {
        options = options.ssl_root_cert_from_pem(config::read_text(file)?.into_bytes());
    }
    if let Some(file) = &config.password_file {
        let password = config::read_secret(file)?;
        let password = std::str::from_utf8(&password).map_err(|_| StoreError::Secret {
            path: file.clone(),
            message: "the password is no text".to_owned(),
        })?;
        options = options.password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(options)
}
