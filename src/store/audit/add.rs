//! How entries get into the log.
//!
//! Each takes the next number that is free, and names the hash of the last one that this program wrote. A row
//! that something else put there under the next number stays where it is, beside the chain, and holds up
//! nothing.

use super::Event;
use crate::store::{Store, StoreError, on};

/// Takes the next number, and holds all others back until it is committed.
pub(in crate::store) const NEXT: &str =
    "UPDATE audit_head SET seq = seq + 1 RETURNING seq, SUBSTR(hash, 1, 65)";
/// Adds nothing where the number is taken.
pub(in crate::store) const ADD: &str = "INSERT INTO audit \
     (seq, at, actor, event, subject, detail, prev, hash) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
/// The first number from one on that is free.
pub(in crate::store) const FREE: &str = "SELECT CAST(MIN(f.seq) + 1 AS BIGINT) FROM audit f \
     WHERE f.seq >= $1 AND f.seq < 9223372036854775807 \
     AND NOT EXISTS (SELECT 1 FROM audit g WHERE g.seq = f.seq + 1)";
pub(in crate::store) const SET_HEAD: &str = "UPDATE audit_head SET seq = $1, hash = $2";
/// Most looks for a free number: others write at the same time.
pub(in crate::store) const MAX_LOOKS: u32 = 16;

/// Adds an entry in a transaction.
macro_rules! append {
    ($store:expr, $tx:ident, $event:expr) => {{
        use $crate::store::audit::{Entry, add};
        let event = $event;
        let next = sqlx::query_as(add::NEXT);
        let (mut seq, last): (i64, String) = next.fetch_one(&mut *$tx).await?;
        let mut looks = 0_u32;
        loop {
            let entry = Entry::following(seq, last.clone(), &$store.actor, &event);
            let adding = sqlx::query(add::ADD)
                .bind(entry.seq)
                .bind(entry.at)
                .bind(&entry.actor)
                .bind(&entry.event)
                .bind(&entry.subject)
                .bind(&entry.detail)
                .bind(&entry.prev)
                .bind(&entry.hash);
            if adding.execute(&mut *$tx).await?.rows_affected() > 0 {
                sqlx::query(add::SET_HEAD)
                    .bind(entry.seq)
                    .bind(&entry.hash)
                    .execute(&mut *$tx)
                    .await?;
                break;
            }
            if looks >= add::MAX_LOOKS {
                Err($crate::store::StoreError::AuditTaken)?;
            }
            looks = looks.saturating_add(1);
            let free: Option<i64> = sqlx::query_scalar(add::FREE)
                .bind(seq)
                .fetch_one(&mut *$tx)
                .await?;
            seq = free.unwrap_or(seq);
        }
    }};
}
pub(in crate::store) use append;

impl Store {
    /// Adds entries: all of them, or none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn append_audit(&self, events: &[Event]) -> Result<(), StoreError> {
        on!(self, pool => {
            let mut tx = pool.begin().await?;
            for event in events {
                append!(self, tx, event);
            }
            tx.commit().await?;
        });
        Ok(())
    }
}
