//! What keys have spent in a day, a month, and ever, exactly: it grows with the rows of usage, in the same
//! transaction, and only by those that were not there before.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::SystemTime,
};

use sqlx::{QueryBuilder, Row as _};

use super::{
    Store, StoreError, UsageRow,
    keys::{millis, time},
    on,
    usage::MAX_ROWS,
};
use crate::config::terms::Period;

/// Most keys that are asked for at once.
const MAX_KEYS: usize = 512;
/// Milliseconds that days and months stay once they are over: nobody's budget asks for them then.
const KEPT: i64 = 62 * 86_400_000;

/// What a key has spent in a period; it only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spend {
    pub(crate) key_id: String,
    pub(crate) period: Period,
    /// Milliseconds since the Unix epoch.
    pub(crate) starts_at: i64,
    pub(crate) tokens: u64,
    pub(crate) cost: i64,
}

/// What rows add, by key, period and its beginning.
pub(super) type Added = BTreeMap<(String, &'static str, i64), (i64, i64)>;

/// What the rows with these ids add to what their keys have spent. In order, so that no two gateways wait
/// for each other.
pub(super) fn added(rows: &[UsageRow], mut new: HashSet<String>) -> Added {
    let mut added = Added::new();
    // Of two rows with one id, one was inserted.
    for row in rows.iter().filter(|row| new.remove(&row.request_id)) {
        let (tokens, cost) = row.charge();
        for period in Period::ALL {
            let starts_at = millis(period.start(time(row.started_at)));
            let key = (row.key_id.clone(), period.as_str(), starts_at);
            let sum = added.entry(key).or_default();
            sum.0 = sum.0.saturating_add(super::usage::number(tokens));
            sum.1 = sum.1.saturating_add(cost);
        }
    }
    added
}

/// Adds to a sum, up to where it stands still.
pub(super) const ADD: &str = " ON CONFLICT (key_id, period, starts_at) DO UPDATE SET \
    tokens = CASE WHEN spend.tokens > 2305843009213693952 THEN spend.tokens \
    ELSE spend.tokens + excluded.tokens END, \
    cost = CASE WHEN spend.cost > 2305843009213693952 THEN spend.cost \
    ELSE spend.cost + excluded.cost END";

impl Store {
    /// What these keys have spent in the periods that are now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn spent(
        &self,
        keys: &BTreeSet<String>,
        now: SystemTime,
    ) -> Result<Vec<Spend>, StoreError> {
        let mut spent = Vec::new();
        let keys: Vec<_> = keys.iter().collect();
        for keys in keys.chunks(MAX_KEYS) {
            on!(self, pool: Db => {
                let mut statement: QueryBuilder<Db> = QueryBuilder::new(
                    "SELECT key_id, period, starts_at, tokens, cost FROM spend WHERE starts_at IN (",
                );
                let mut starts = statement.separated(", ");
                for period in Period::ALL {
                    starts.push_bind(millis(period.start(now)));
                }
                starts.push_unseparated(") AND key_id IN (");
                let mut ids = statement.separated(", ");
                for key in keys {
                    ids.push_bind(*key);
                }
                ids.push_unseparated(")");
                for row in statement.build().persistent(false).fetch_all(pool).await? {
                    let period: String = row.try_get(1)?;
                    // One of a newer version is no budget's here.
                    let Ok(period) = period.parse() else { continue };
                    let tokens: i64 = row.try_get(3)?;
                    spent.push(Spend {
                        key_id: row.try_get(0)?,
                        period,
                        starts_at: row.try_get(2)?,
                        tokens: u64::try_from(tokens).unwrap_or(0),
                        cost: row.try_get(4)?,
                    });
                }
            });
        }
        // The first of a month is a day, too: what begins then is of both.
        spent.retain(|it| it.starts_at == millis(it.period.start(now)));
        Ok(spent)
    }

    /// Removes days and months that have long been over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prune_spend(&self, now: SystemTime) -> Result<(), StoreError> {
        let statement = "DELETE FROM spend WHERE period <> 'ever' AND starts_at < $1";
        let before = millis(now).saturating_sub(KEPT);
        on!(self, pool => { sqlx::query(statement).bind(before).execute(pool).await?; });
        Ok(())
    }
}

const _: () = assert!(MAX_ROWS * 3 * 5 < 32_766);
