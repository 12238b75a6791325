//! Removes the oldest entries of the log, so that what is left is still proved.
//!
//! Number and hash of the last one that goes stay as the anchor: the chain begins there. That it does is an
//! entry itself, in the same transaction, and the triggers let an entry go only so. Nothing goes from a part of
//! the log that is not whole: what was done to it stays to be seen.

use std::time::{Duration, SystemTime};

use attestation::time::to_rfc3339;
use serde_json::json;

use super::{
    Event, What, append,
    verify::{Walk, Wrong},
};
use crate::store::{Store, StoreError, keys::millis, on};

/// Most entries that go at once.
const MOST: usize = 10_000;
/// How much older the oldest one is before any goes: it is an entry each time.
const SPARE: Duration = Duration::from_secs(86_400);

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pruned {
    Nothing,
    /// So many.
    Removed(usize),
    /// Nothing, for this entry is not as it was written.
    NotWhole(i64, Wrong),
}

impl Store {
    /// Removes entries up to the first that was made at `before` or later, at most some thousands: none until
    /// the oldest is a day older than that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prune_audit(
        &self,
        before: SystemTime,
        now: SystemTime,
    ) -> Result<Pruned, StoreError> {
        let old = millis(before);
        let due = before.checked_sub(SPARE).map_or(0, millis);
        let anchor = self.audit_anchor().await?;
        let mut walk = Walk::from(anchor.clone());
        let mut end = anchor.clone();
        let mut entries = 0_usize;
        'pages: while entries < MOST {
            let page = self.page((walk.last(), i64::MAX), None, 1000).await?;
            if page.is_empty() {
                break;
            }
            for read in page {
                let at = read.as_ref().map_or(0, |entry| entry.at);
                let stepped = walk.step(read).map_err(|(seq, wrong)| (seq, *wrong));
                if let Some((seq, wrong)) = stepped.err().or(walk.flaw()) {
                    // What another gateway removes meanwhile makes no flaw.
                    let is_same = self.audit_anchor().await? == anchor;
                    let flaw = Pruned::NotWhole(seq, wrong);
                    return Ok(if is_same { flaw } else { Pruned::Nothing });
                }
                // Only of an entry of the chain: what another wrote there says any time.
                let is_due = entries > 0 || at < due;
                if at >= old || !is_due {
                    break 'pages;
                }
                end.clone_from(walk.head());
                entries = entries.saturating_add(1);
            }
        }
        if entries == 0 {
            return Ok(Pruned::Nothing);
        }
        let detail = json!({ "entries": entries, "before": to_rfc3339(before) });
        let event = Event::new(now, What::AuditPruned, &end.to_string()).with(detail);
        on!(self, pool => {
            let mut tx = pool.begin().await?;
            append!(self, tx, &event);
            let moved = sqlx::query("UPDATE audit_anchor SET seq = $1, hash = $2 WHERE seq = $3")
                .bind(end.seq).bind(&end.hash).bind(anchor.seq)
                .execute(&mut *tx)
                .await?;
            // Another gateway was there first.
            if moved.rows_affected() == 0 {
                tx.rollback().await?;
                return Ok(Pruned::Nothing);
            }
            sqlx::query(
                "DELETE FROM audit WHERE seq > $1 AND seq <= $2 AND seq = CAST(seq AS BIGINT)",
            )
            .bind(anchor.seq).bind(end.seq)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
        });
        Ok(Pruned::Removed(entries))
    }
}
