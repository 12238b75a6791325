//! API keys: made, listed, turned, revoked, and followed by gateways.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, SystemTime},
};

use attestation::time::to_rfc3339;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::{RngExt as _, random};
use serde_json::json;
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::{
    KeyHash, Store, StoreError,
    audit::{Event, What, append},
    on,
};
use crate::config::terms::KeyTerms;

/// What a key begins with, so that people and secret scanners recognise one.
const PREFIX: &str = "sk-sealgate-";
/// Longest name, and longest owner, in bytes.
const MAX_NAME: usize = 64;
const MAX_OWNER: usize = 256;

/// An API key: 256 random bits behind a prefix.
pub(crate) struct KeySecret(Zeroizing<String>);

impl KeySecret {
    pub(crate) fn generate() -> Self {
        let bits = Zeroizing::new(rand::rng().random::<[u8; 32]>());
        let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(*bits));
        Self(Zeroizing::new(text))
    }

    /// A key that somebody chose.
    pub(crate) fn given(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The key itself, to be shown once.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(..)")
    }
}

/// A key that is to be.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) terms: KeyTerms,
    pub(crate) expires_at: Option<SystemTime>,
}

/// A key as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    /// Nothing where this version cannot read them: nobody may use such a key.
    pub(crate) terms: Option<KeyTerms>,
    pub(crate) created_at: SystemTime,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) revoked_at: Option<SystemTime>,
    /// What opens it, and until when.
    pub(crate) secrets: Vec<(KeyHash, Option<SystemTime>)>,
}

/// A change: its number, and its mark, which no other change has. The number of one can come again, where the
/// database was brought back from an older copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    n: i64,
    mark: String,
}

/// What changed since another change.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    /// The last one.
    pub(crate) last: Change,
    /// The keys that were made or changed, as they are now.
    pub(crate) keys: Vec<Key>,
    /// Whether these are all: others that were known are not there any more.
    pub(crate) is_all: bool,
}

/// Why a key is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a name is 1 to {MAX_NAME} visible ASCII characters")]
    BadName,
    #[error("an owner is 1 to {MAX_OWNER} bytes without control characters")]
    BadOwner,
    #[error("a key named {0:?} exists already: choose another name, or revoke it first")]
    Taken(String),
    #[error("no key is named {0:?}: see `sealgate keys list`")]
    Unknown(String),
    #[error(
        "the key {0:?} has expired: another secret would open nothing; revoke it, and make it anew"
    )]
    Expired(String),
}

impl From<sqlx::Error> for KeyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Whether a key can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

impl NewKey {
    /// # Errors
    /// [`KeyError::BadName`], [`KeyError::BadOwner`].
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        if !is_name(&self.name) {
            return Err(KeyError::BadName);
        }
        let legal = |owner: &String| {
            (1..=MAX_OWNER).contains(&owner.len()) && !owner.contains(char::is_control)
        };
        if !self.owner.iter().all(legal) {
            return Err(KeyError::BadOwner);
        }
        Ok(())
    }
}

/// Changes that are told from those of another copy of the database; who saw an earlier one reads all keys.
const MARKS: i64 = 10_000;

/// Counts a change, and holds all others back until it is committed.
macro_rules! count {
    ($tx:ident) => {{
        let count = "UPDATE change_count SET n = n + 1 RETURNING n";
        let n: i64 = sqlx::query_scalar(count).fetch_one(&mut *$tx).await?;
        let mark = "INSERT INTO key_change (n, mark) VALUES ($1, $2) \
                    ON CONFLICT (n) DO UPDATE SET mark = excluded.mark";
        sqlx::query(mark)
            .bind(n)
            .bind(hex::encode(random::<[u8; 16]>()))
            .execute(&mut *$tx)
            .await?;
        sqlx::query("DELETE FROM key_change WHERE n <= $1")
            .bind(n.saturating_sub(MARKS))
            .execute(&mut *$tx)
            .await?;
        n
    }};
}

impl Store {
    /// Adds a key, and gives its id.
    ///
    /// # Errors
    /// [`KeyError`]: what is wrong with it, or that its name is taken.
    pub(crate) async fn create_key(
        &self,
        key: &NewKey,
        secret: &KeySecret,
        now: SystemTime,
    ) -> Result<String, KeyError> {
        key.check()?;
        let id = format!("key_{}", hex::encode(rand::rng().random::<[u8; 8]>()));
        let hash = self.hash(secret.as_str().as_bytes()).to_hex();
        let terms = serde_json::to_string(&key.terms).map_err(|_| unreadable())?;
        let said = Event::new(now, What::KeyCreated, &key.name).with(json!({
            "id": id,
            "owner": key.owner,
            "expires_at": key.expires_at.map(to_rfc3339),
            "terms": key.terms,
        }));
        let (now, expires_at) = (millis(now), key.expires_at.map(millis));
        let taken = |error: sqlx::Error| match &error {
            sqlx::Error::Database(e) if e.is_unique_violation() => {
                KeyError::Taken(key.name.clone())
            }
            _ => error.into(),
        };
        on!(self, pool => {
            let mut tx = pool.begin().await?;
            let n = count!(tx);
            let added = sqlx::query(
                "INSERT INTO api_key (id, name, owner, terms, created_at, expires_at, change_n) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(&id).bind(&key.name).bind(&key.owner).bind(&terms).bind(now).bind(expires_at).bind(n)
            .execute(&mut *tx)
            .await;
            added.map_err(taken)?;
            sqlx::query("INSERT INTO api_key_secret (hash, key_id, created_at) VALUES ($1, $2, $3)")
                .bind(&hash).bind(&id).bind(now)
                .execute(&mut *tx)
                .await?;
            append!(self, tx, said);
            tx.commit().await?;
        });
        Ok(id)
    }

    /// Gives a key another secret. Those of before open it for `overlap` more, and no longer than they
    /// would have. Gives the key's id.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Expired`].
    pub(crate) async fn rotate_key(
        &self,
        name: &str,
        secret: &KeySecret,
        overlap: Duration,
        now: SystemTime,
    ) -> Result<String, KeyError> {
        let unknown = || KeyError::Unknown(name.to_owned());
        // Nothing else is told to the database: PostgreSQL takes no zero byte in a text.
        if !is_name(name) {
            return Err(unknown());
        }
        let hash = self.hash(secret.as_str().as_bytes()).to_hex();
        let ends_at = now.checked_add(overlap).map_or(i64::MAX, millis);
        let said = Event::new(now, What::KeyRotated, name);
        let now = millis(now);
        let id = on!(self, pool => {
            let mut tx = pool.begin().await?;
            let n = count!(tx);
            let found: Option<(String, Option<i64>)> = sqlx::query_as(
                "UPDATE api_key SET change_n = $1 WHERE name = $2 AND revoked_at IS NULL \
                 RETURNING id, expires_at",
            )
            .bind(n).bind(name)
            .fetch_optional(&mut *tx)
            .await?;
            let (id, expires_at) = found.ok_or_else(unknown)?;
            if expires_at.is_some_and(|at| at <= now) {
                return Err(KeyError::Expired(name.to_owned()));
            }
            // What has ended opens nothing any more.
            sqlx::query("DELETE FROM api_key_secret WHERE key_id = $1 AND ends_at <= $2")
                .bind(&id).bind(now)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "UPDATE api_key_secret SET ends_at = $1 \
                 WHERE key_id = $2 AND (ends_at IS NULL OR ends_at > $1)",
            )
            .bind(ends_at).bind(&id)
            .execute(&mut *tx)
            .await?;
            sqlx::query("INSERT INTO api_key_secret (hash, key_id, created_at) VALUES ($1, $2, $3)")
                .bind(&hash).bind(&id).bind(now)
                .execute(&mut *tx)
                .await?;
            append!(self, tx, said.with(json!({ "id": id, "overlap_s": overlap.as_secs() })));
            tx.commit().await?;
            id
        });
        Ok(id)
    }

    /// Revokes a key for good, and gives its id; its name is free again.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub(crate) async fn revoke_key(&self, name: &str, now: SystemTime) -> Result<String, KeyError> {
        let unknown = || KeyError::Unknown(name.to_owned());
        if !is_name(name) {
            return Err(unknown());
        }
        let said = Event::new(now, What::KeyRevoked, name);
        let now = millis(now);
        let id = on!(self, pool => {
            let mut tx = pool.begin().await?;
            let n = count!(tx);
            let id: Option<String> = sqlx::query_scalar(
                "UPDATE api_key SET revoked_at = $1, change_n = $2 \
                 WHERE name = $3 AND revoked_at IS NULL RETURNING id",
            )
            .bind(now).bind(n).bind(name)
            .fetch_optional(&mut *tx)
            .await?;
            let id = id.ok_or_else(unknown)?;
            append!(self, tx, said.with(json!({ "id": id })));
            tx.commit().await?;
            id
        });
        Ok(id)
    }

    /// All keys that ever were, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        Ok(self.changes(None).await?.keys)
    }

    /// The last change, and whether `since` is one that led to it.
    async fn last_change(&self, since: Option<&Change>) -> Result<(Change, bool), StoreError> {
        let (n, mark) = since.map_or((-1, ""), |since| (since.n, &since.mark));
        let statement = "SELECT c.n, COALESCE(m.mark, ''), \
                         (SELECT COUNT(*) FROM key_change WHERE n = $1 AND mark = $2 AND n <= c.n) \
                         FROM change_count c LEFT JOIN key_change m ON m.n = c.n";
        let (n, mark, known): (i64, String, i64) = on!(self, pool => {
            sqlx::query_as(statement).bind(n).bind(mark).fetch_one(pool).await?
        });
        Ok((Change { n, mark }, known > 0))
    }

    /// What changed after another change; everything where the database does not have that one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn changes(&self, since: Option<&Change>) -> Result<Changes, StoreError> {
        let (last, is_known) = self.last_change(since).await?;
        if since == Some(&last) {
            return Ok(Changes {
                last,
                keys: Vec::new(),
                is_all: false,
            });
        }
        // One that has changed once more by now comes with the next look; where all are read, it must not
        // be missing until then.
        let (after, up_to) = match since.filter(|_| is_known) {
            Some(since) => (since.n, last.n),
            None => (-1, i64::MAX),
        };
        let mut keys: Vec<Key> = Vec::new();
        let mut at = HashMap::new();
        let statement = "SELECT k.id, k.name, k.owner, k.terms, k.created_at, k.expires_at, \
                         k.revoked_at, s.hash, s.ends_at FROM api_key k \
                         LEFT JOIN api_key_secret s ON s.key_id = k.id \
                         WHERE k.change_n > $1 AND k.change_n <= $2 ORDER BY k.created_at, k.id";
        on!(self, pool => {
            let rows = sqlx::query(statement).bind(after).bind(up_to).fetch_all(pool).await?;
            for row in rows {
                let id: String = row.try_get(0)?;
                let index = match at.get(&id) {
                    Some(index) => *index,
                    None => {
                        let terms: String = row.try_get(3)?;
                        at.insert(id.clone(), keys.len());
                        keys.push(Key {
                            id,
                            name: row.try_get(1)?,
                            owner: row.try_get(2)?,
                            terms: serde_json::from_str(&terms).ok(),
                            created_at: time(row.try_get(4)?),
                            expires_at: row.try_get::<Option<i64>, _>(5)?.map(time),
                            revoked_at: row.try_get::<Option<i64>, _>(6)?.map(time),
                            secrets: Vec::new(),
                        });
                        keys.len().saturating_sub(1)
                    }
                };
                let hash: Option<String> = row.try_get(7)?;
                let ends_at: Option<i64> = row.try_get(8)?;
                if let (Some(hash), Some(key)) = (hash, keys.get_mut(index)) {
                    // One that cannot be read opens nothing, and must not hold up all others.
                    let hash = KeyHash::from_hex(&hash);
                    key.secrets.extend(hash.map(|hash| (hash, ends_at.map(time))));
                }
            }
        });
        Ok(Changes {
            last,
            keys,
            is_all: !is_known,
        })
    }
}

fn unreadable() -> KeyError {
    StoreError::Unreadable("the terms of a key").into()
}

/// Milliseconds since the Unix epoch, as the database has times.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_millis());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// The other way.
pub(super) fn time(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
