//! The audit log: what was changed and judged, by whom, in a chain that tells what is done to it.
//!
//! Each entry has a number, one more than the one before, and the SHA-256 of all that it says and of the
//! hash before it. Whoever adds one holds the row of the head until he commits, so that many who write
//! make one chain. A change of keys and its entry are one transaction: neither is there without the other.
//!
//! The chain tells an edit of what is in it. Who may write into the database can make a whole other one:
//! that is told by a head that was kept elsewhere.
//!
//! `add` is how entries get in, whatever else is written into the table, `verify` finds what was done to the
//! chain, and `prune` removes the oldest entries with an anchor in their place.

use std::{fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::{
    Store, StoreError,
    keys::{millis, time},
    on,
};

pub(super) mod add;
mod prune;
mod verify;

pub(super) use self::add::append;
pub(crate) use self::{
    prune::Pruned,
    verify::{Audited, Kept, Wrong},
};

/// What entries are hashed as; another encoding has another one.
const DOMAIN: &[u8] = b"sealgate audit entry v1";
/// What the first entry names as the one before.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Most bytes of an actor, a subject, and the details.
const MAX_ACTOR: usize = 256;
const MAX_SUBJECT: usize = 1024;
const MAX_DETAIL: usize = 16 * 1024;

/// What an entry can be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    KeyCreated,
    KeyRotated,
    KeyRevoked,
    GatewayStarted,
    GatewayStopped,
    PolicyInForce,
    PolicyRefused,
    BundleRefused,
    ConfigInForce,
    ConfigRefused,
    NodeAdded,
    NodeRemoved,
    NodeAnnounced,
    NodeLeft,
    AppraisalAccepted,
    AppraisalRefused,
    /// There was no room for some entries.
    AuditLost,
    /// The oldest entries are kept no longer.
    AuditPruned,
}

impl What {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "key.created",
            Self::KeyRotated => "key.rotated",
            Self::KeyRevoked => "key.revoked",
            Self::GatewayStarted => "gateway.started",
            Self::GatewayStopped => "gateway.stopped",
            Self::PolicyInForce => "policy.in_force",
            Self::PolicyRefused => "policy.refused",
            Self::BundleRefused => "bundle.refused",
            Self::ConfigInForce => "config.in_force",
            Self::ConfigRefused => "config.refused",
            Self::NodeAdded => "node.added",
            Self::NodeRemoved => "node.removed",
            Self::NodeAnnounced => "node.announced",
            Self::NodeLeft => "node.left",
            Self::AppraisalAccepted => "appraisal.accepted",
            Self::AppraisalRefused => "appraisal.refused",
            Self::AuditLost => "audit.lost",
            Self::AuditPruned => "audit.pruned",
        }
    }
}

/// Something that is to be in the log.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    at: i64,
    what: What,
    subject: String,
    detail: String,
}

impl Event {
    pub(crate) fn new(at: SystemTime, what: What, subject: &str) -> Self {
        Self {
            at: millis(at),
            what,
            subject: bounded(subject, MAX_SUBJECT),
            detail: "{}".to_owned(),
        }
    }

    /// With details, which are an object. What is too long is there by its digest.
    pub(crate) fn with(self, detail: Value) -> Self {
        let mut detail = detail.to_string();
        if detail.len() > MAX_DETAIL {
            let sha256 = hex::encode(Sha256::digest(&detail));
            detail = json!({ "bytes": detail.len(), "sha256": sha256 }).to_string();
        }
        Self { detail, ..self }
    }
}

pub(super) fn actor(name: &str) -> Arc<str> {
    bounded(name, MAX_ACTOR).into()
}

/// A text that every database takes and no terminal obeys.
fn bounded(text: &str, most: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let c = if c.is_control() { '\u{fffd}' } else { c };
        if clean.len().saturating_add(c.len_utf8()) > most {
            break;
        }
        clean.push(c);
    }
    clean
}

/// An entry as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) at: i64,
    pub(crate) actor: String,
    pub(crate) event: String,
    pub(crate) subject: String,
    /// JSON.
    pub(crate) detail: String,
    pub(crate) prev: String,
    pub(crate) hash: String,
}

impl Entry {
    /// What follows `prev` as number `seq`.
    pub(super) fn following(seq: i64, prev: String, actor: &str, event: &Event) -> Self {
        let mut entry = Self {
            seq,
            at: event.at,
            actor: actor.to_owned(),
            event: event.what.as_str().to_owned(),
            subject: event.subject.clone(),
            detail: event.detail.clone(),
            prev,
            hash: String::new(),
        };
        entry.hash = entry.digest();
        entry
    }

    pub(crate) fn at(&self) -> SystemTime {
        time(self.at)
    }

    /// `SHA-256(len || DOMAIN || len || prev || seq || at || len || actor || …)` in hex, each length and
    /// number as 8 bytes, the highest first: two entries that differ anywhere are two inputs.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut text = |bytes: &[u8]| {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(bytes);
        };
        text(DOMAIN);
        text(self.prev.as_bytes());
        text(&self.seq.to_be_bytes());
        text(&self.at.to_be_bytes());
        for field in [&self.actor, &self.event, &self.subject, &self.detail] {
            text(field.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// The last entry of a log at some time, by which the whole of it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) seq: i64,
    pub(crate) hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.hash)
    }
}

/// An entry as it was read; only its number where the rest is none of what this program writes.
type Read = Result<Entry, i64>;

/// Whether a log holds an entry that was its last one once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    /// It is older than those that are kept.
    Pruned,
    /// It is not there, or another one is in its place.
    No,
}

/// Entries, each no longer than this program writes them and a bit: what somebody else wrote is as long as he
/// likes. A number that is none, which SQLite takes, is of no entry.
macro_rules! page_of_entries {
    ($order:literal) => {
        concat!(
            "SELECT seq, at, SUBSTR(actor, 1, 257), SUBSTR(event, 1, 65), \
             SUBSTR(subject, 1, 1025), SUBSTR(detail, 1, 16385), SUBSTR(prev, 1, 65), SUBSTR(hash, 1, 65) \
             FROM audit WHERE seq > $1 AND seq <= $2 AND seq = CAST(seq AS BIGINT) AND at >= $3 \
             ORDER BY seq",
            $order,
            " LIMIT $4"
        )
    };
}

impl Store {
    /// At most `limit` entries after number `after` that are no older than `since`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit(
        &self,
        after: i64,
        since: Option<SystemTime>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let page = self.page((after, i64::MAX), since, limit).await?;
        let read = page.into_iter().map(|read| {
            read.map_err(|_| StoreError::Unreadable("an entry of the audit log: verify it"))
        });
        read.collect()
    }

    async fn page(
        &self,
        range: (i64, i64),
        since: Option<SystemTime>,
        limit: u32,
    ) -> Result<Vec<Read>, StoreError> {
        let since = since.map_or(i64::MIN, millis);
        self.rows(page_of_entries!(""), range, since, limit).await
    }

    /// A page from the end on.
    async fn page_back(&self, range: (i64, i64), limit: u32) -> Result<Vec<Read>, StoreError> {
        let statement = page_of_entries!(" DESC");
        self.rows(statement, range, i64::MIN, limit).await
    }

    async fn rows(
        &self,
        statement: &'static str,
        (after, until): (i64, i64),
        since: i64,
        limit: u32,
    ) -> Result<Vec<Read>, StoreError> {
        let mut page = Vec::new();
        on!(self, pool => {
            let rows = sqlx::query(statement)
                .bind(after).bind(until).bind(since).bind(i64::from(limit))
                .fetch_all(pool)
                .await?;
            for row in rows {
                let seq = row.try_get(0)?;
                let entry = || Ok::<_, sqlx::Error>(Entry {
                    seq,
                    at: row.try_get(1)?,
                    actor: row.try_get(2)?,
                    event: row.try_get(3)?,
                    subject: row.try_get(4)?,
                    detail: row.try_get(5)?,
                    prev: row.try_get(6)?,
                    hash: row.try_get(7)?,
                });
                page.push(entry().map_err(|_| seq));
            }
        });
        Ok(page)
    }

    /// The last entry; number 0 in a log that is empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_head(&self) -> Result<Head, StoreError> {
        let statement = "SELECT seq, hash FROM audit_head";
        let (seq, hash) = on!(self, pool => sqlx::query_as(statement).fetch_one(pool).await?);
        Ok(Head { seq, hash })
    }

    /// The entry after which the log begins; number 0 while all are there.
    async fn audit_anchor(&self) -> Result<Head, StoreError> {
        let statement = "SELECT seq, hash FROM audit_anchor";
        let (seq, hash) = on!(self, pool => sqlx::query_as(statement).fetch_one(pool).await?);
        Ok(Head { seq, hash })
    }

    /// Whether the log goes on from `head`: it holds that entry as it was written, and the chain leads from it to
    /// the last one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn audit_holds(&self, head: &Head) -> Result<Held, StoreError> {
        loop {
            let anchor = self.audit_anchor().await?;
            if head.seq < anchor.seq {
                return Ok(Held::Pruned);
            }
            let last = self.audit_head().await?;
            let is_there = head.seq <= last.seq && self.is_there(head, &anchor).await?;
            if is_there && self.leads(head, &last).await? {
                return Ok(Held::Yes);
            }
            // Whoever removes the oldest ones meanwhile takes none away.
            if self.audit_anchor().await? == anchor {
                return Ok(Held::No);
            }
        }
    }

    /// Whether the log begins at `head`, or has it as an entry that says what its hash is of.
    async fn is_there(&self, head: &Head, anchor: &Head) -> Result<bool, StoreError> {
        if head.seq == anchor.seq {
            return Ok(head == anchor);
        }
        let one = (head.seq.saturating_sub(1), head.seq);
        let there = self.page(one, None, 1).await?.pop();
        Ok(there
            .and_then(Result::ok)
            .is_some_and(|entry| entry.hash == head.hash && entry.digest() == entry.hash))
    }

    /// How the log is called where its heads are kept: the same at all gateways of this store.
    pub(crate) fn audit_name(&self) -> String {
        self.pseudonym("the audit log")
    }
}

#[cfg(test)]
mod tests;
