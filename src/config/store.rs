//! `[store]`: where keys and usage are kept.
//!
//! A gateway that has keys and no `keys_file` has a store, also without the table: a SQLite file beside
//! its configuration. A fleet shares one in PostgreSQL.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use super::{
    ConfigError, Loaded,
    gateway::{Auth, GatewayConfig, millis},
};

mod audit;
mod files;

pub use self::audit::{AuditConfig, HeadUrl, InvalidHeadUrl};

/// Least bytes of the secret: as many as the keys have.
const MIN_SECRET: usize = 32;
/// Most bytes of it.
const MAX_SECRET: usize = 4096;
/// Most rows that wait for the database.
const MAX_WAITING: usize = 1 << 20;

/// Where keys and usage are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite:FILE`, or `postgres://USER@HOST/DATABASE` without a password.
    pub url: StoreUrl,
    /// File with the password for PostgreSQL.
    pub password_file: Option<PathBuf>,
    /// PEM file with the roots of PostgreSQL's certificate, in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// File with the secret that keys are hashed with; left out with SQLite, one is made beside the
    /// database. All gateways of one database have the same.
    pub secret_file: Option<PathBuf>,
    /// File of what is not in the database yet, for one gateway alone; it is made if it is not there.
    pub journal: PathBuf,
    /// Ended requests that may wait for the database, besides those in flight.
    pub waiting: NonZeroUsize,
    /// Days that usage is kept.
    pub usage_days: NonZeroU32,
    /// Days that receipts are kept.
    pub receipt_days: NonZeroU32,
    /// Milliseconds between two looks for keys that changed.
    pub poll_ms: NonZeroU64,
    /// Milliseconds between two exchanges with other gateways over what limited keys do; with PostgreSQL.
    pub sync_ms: NonZeroU64,
    /// Seconds that keys known to this gateway go on while the database cannot be reached.
    pub stale_s: NonZeroU32,
    /// How long the audit log is kept, and where its head is told.
    pub audit: AuditConfig,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            password_file: None,
            ca_file: None,
            secret_file: None,
            journal: PathBuf::from("sealgate.journal"),
            waiting: NonZeroUsize::MIN.saturating_add(4095),
            usage_days: NonZeroU32::MIN.saturating_add(399),
            receipt_days: NonZeroU32::MIN.saturating_add(399),
            poll_ms: NonZeroU64::MIN.saturating_add(999),
            sync_ms: NonZeroU64::MIN.saturating_add(999),
            stale_s: NonZeroU32::MIN.saturating_add(86_399),
            audit: AuditConfig::default(),
        }
    }
}

impl StoreConfig {
    /// Between two looks for keys that changed.
    #[must_use]
    pub fn poll(&self) -> Duration {
        millis(self.poll_ms)
    }

    /// Between two exchanges with other gateways; nothing where there are none.
    #[must_use]
    pub fn sync(&self) -> Option<Duration> {
        matches!(self.url, StoreUrl::Postgres(_)).then(|| millis(self.sync_ms))
    }

    /// How long known keys go on while the database cannot be reached.
    #[must_use]
    pub fn stale(&self) -> Duration {
        Duration::from_secs(self.stale_s.get().into())
    }

    /// The file of the secret, and whether it is made where it is not there.
    #[must_use]
    pub fn secret(&self) -> Option<(PathBuf, bool)> {
        match (&self.secret_file, &self.url) {
            (Some(file), _) => Some((file.clone(), false)),
            (None, StoreUrl::Sqlite(file)) => Some((file.with_extension("secret"), true)),
            (None, StoreUrl::Postgres(_)) => None,
        }
    }

    /// Checks that bytes can be the secret that keys are hashed with.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_secret(bytes: &[u8]) -> Result<(), String> {
        if (MIN_SECRET..=MAX_SECRET).contains(&bytes.len()) {
            return Ok(());
        }
        Err(format!(
            "the secret has {MIN_SECRET} to {MAX_SECRET} bytes: make one with `openssl rand -base64 48`"
        ))
    }
}

/// Which database it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A URL of PostgreSQL, without a password.
    Postgres(String),
}

impl Default for StoreUrl {
    fn default() -> Self {
        Self::Sqlite(PathBuf::from("sealgate.db"))
    }
}

impl StoreUrl {
    /// Whether the URL says itself how far TLS is asked for.
    #[must_use]
    pub fn says_tls(&self) -> bool {
        matches!(self, Self::Postgres(url) if url.contains("sslmode=") || url.contains("ssl-mode="))
    }
}

/// A text that is no store's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStoreUrl {
    /// Another database, or none.
    #[error("a store's url is sqlite:FILE or postgres://USER@HOST/DATABASE")]
    Scheme,
    /// A secret in the configuration's text.
    #[error("the url has a password in it: put that into the file that password_file names")]
    Password,
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(file) = text.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            let is_file = !file.is_empty() && !file.contains(['?', '#']) && file != ":memory:";
            return is_file
                .then(|| Self::Sqlite(PathBuf::from(file)))
                .ok_or(InvalidStoreUrl::Scheme);
        }
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or(InvalidStoreUrl::Scheme)?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let user = authority.split('/').next().unwrap_or_default();
        let in_user = user
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'));
        let is_password = |pair: &str| {
            let name = pair.split('=').next().unwrap_or_default();
            name.contains('%') || name.eq_ignore_ascii_case("password")
        };
        if in_user || query.split('&').any(is_password) {
            return Err(InvalidStoreUrl::Password);
        }
        Ok(Self::Postgres(text.to_owned()))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(url) => f.write_str(url),
        }
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl GatewayConfig {
    /// The store, if there is one: where the table says so, or where keys are in no file.
    #[must_use]
    pub fn store(&self) -> Option<StoreConfig> {
        let keys_are_there = self.auth == Auth::Keys && self.keys_file.is_none();
        let by_default = keys_are_there.then(StoreConfig::default);
        self.store.clone().or(by_default)
    }

    /// Whether keys are in the store.
    #[must_use]
    pub fn keys_in_store(&self) -> bool {
        self.auth == Auth::Keys && self.keys_file.is_none()
    }
}

/// Checks what no type can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let value = &config.value;
    if value.store.is_some() && value.keys_file.is_some() {
        let message = "with a [store] the keys are there: take the file out, and make them anew by \
                       `sealgate keys create`";
        return Err(config.invalid("keys_file", message));
    }
    let Some(store) = value.store() else {
        return Ok(());
    };
    if store.waiting.get() > MAX_WAITING {
        return Err(config.invalid("store.waiting", format!("at most {MAX_WAITING}")));
    }
    let is_postgres = matches!(store.url, StoreUrl::Postgres(_));
    if is_postgres && store.secret_file.is_none() {
        let message = "with PostgreSQL name the file of the secret that keys are hashed with, the same \
                       for all gateways: `openssl rand -base64 48` makes one";
        return Err(config.invalid("store.secret_file", message));
    }
    for (key, file) in [
        ("store.password_file", &store.password_file),
        ("store.ca_file", &store.ca_file),
    ] {
        if !is_postgres && file.is_some() {
            return Err(config.invalid(key, "for PostgreSQL alone"));
        }
    }
    audit::check(config, &store.audit)?;
    files::check(config, &store)
}

/// The journal of receipts: beside that of usage.
#[must_use]
pub fn receipts_journal(usage: &Path) -> PathBuf {
    let mut name = usage.as_os_str().to_owned();
    name.push("-receipts");
    name.into()
}

/// Where the name stands by which a process tells other gateways what its keys hold: beside the journal.
#[must_use]
pub fn name_of_teller(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".id");
    name.into()
}

/// A file that the table names, where the configuration means it.
#[must_use]
pub fn resolved(config: &Loaded<GatewayConfig>, store: &StoreConfig) -> StoreConfig {
    let at = |path: &Path| config.resolve(path);
    StoreConfig {
        url: match &store.url {
            StoreUrl::Sqlite(file) => StoreUrl::Sqlite(at(file)),
            StoreUrl::Postgres(url) => StoreUrl::Postgres(url.clone()),
        },
        password_file: store.password_file.as_deref().map(at),
        ca_file: store.ca_file.as_deref().map(at),
        secret_file: store.secret_file.as_deref().map(at),
        journal: at(&store.journal),
        audit: store.audit.at(at),
        ..store.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_database_and_no_password() {
        let cases = [
            ("sqlite:a.db", Ok("sqlite:a.db")),
            ("sqlite:///var/lib/a.db", Ok("sqlite:/var/lib/a.db")),
            ("postgres://u@h/d", Ok("postgres://u@h/d")),
            (
                "postgresql://u@h:5/d?sslmode=require",
                Ok("postgresql://u@h:5/d?sslmode=require"),
            ),
            ("sqlite:", Err(InvalidStoreUrl::Scheme)),
            ("sqlite::memory:", Err(InvalidStoreUrl::Scheme)),
            ("mysql://u@h/d", Err(InvalidStoreUrl::Scheme)),
            ("", Err(InvalidStoreUrl::Scheme)),
            ("postgres://u:p@h/d", Err(InvalidStoreUrl::Password)),
            (
                "postgres://u@h/d?password=p",
                Err(InvalidStoreUrl::Password),
            ),
            (
                "postgres://u@h/d?pass%77ord=p",
                Err(InvalidStoreUrl::Password),
            ),
        ];
        for (text, expected) in cases {
            let url = text.parse::<StoreUrl>().map(|url| url.to_string());
            assert_eq!(url, expected.map(str::to_owned), "{text}");
        }
    }
}
