//! What requests used: a row for each, and sums of them.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    str::FromStr,
    time::SystemTime,
};

use attestation::time::to_rfc3339;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _};

use super::{
    Spend, Store, StoreError,
    journal::Journaled,
    keys::{millis, time},
    on, spend,
};
use crate::openai::Usage;

/// Most rows of one statement: each has 21 values, and SQLite takes 32,766.
pub(super) const MAX_ROWS: usize = 256;
/// Most rows that go at once when their time is over.
const PRUNED: i64 = 10_000;
/// Largest number of a row.
const MOST: i64 = 10_000_000_000_000;
/// Parts of a unit of the currency that costs are counted in.
const NANO: u64 = 1_000_000_000;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A request, once it has ended. Never its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageRow {
    pub(crate) request_id: String,
    pub(crate) key_id: String,
    pub(crate) model: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) path: String,
    pub(crate) stream: bool,
    pub(crate) outcome: String,
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    /// Nothing where nobody counted: that is not 0.
    pub(crate) tokens: Option<Tokens>,
    /// In thousand-millionths of the currency; nothing where the model has no price, or nobody counted.
    pub(crate) cost: Option<i64>,
    /// What its key is charged where nobody counted, by what was seen, and what that costs.
    pub(crate) charged_tokens: Option<u64>,
    pub(crate) charged_cost: Option<i64>,
    /// Milliseconds since the Unix epoch.
    pub(crate) started_at: i64,
    pub(crate) first_byte_ms: Option<u64>,
    pub(crate) took_ms: Option<u64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// How a request ended of which only the beginning is known.
pub(super) const LOST: &str = "lost";

impl Journaled for UsageRow {
    /// A page, which is written in one piece.
    const PLACE: usize = 4096;
    const MAGIC: [u8; 4] = *b"SGJ1";

    fn was_lost(&mut self) {
        LOST.clone_into(&mut self.outcome);
    }
}

impl UsageRow {
    /// Tokens and money that its key is charged.
    pub(crate) fn charge(&self) -> (u64, i64) {
        let counted = self
            .tokens
            .map(|tokens| tokens.prompt.saturating_add(tokens.completion));
        let tokens = counted.or(self.charged_tokens).unwrap_or(0);
        let cost = self.cost.or(self.charged_cost).unwrap_or(0);
        (tokens, cost.max(0))
    }
}

/// Tokens by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) completion: u64,
    pub(crate) reasoning: u64,
}

impl From<&Usage> for Tokens {
    fn from(usage: &Usage) -> Self {
        Self {
            prompt: usage.prompt_tokens,
            cached: usage.prompt_tokens_details.cached_tokens,
            completion: usage.completion_tokens,
            reasoning: usage.completion_tokens_details.reasoning_tokens,
        }
    }
}

/// What rows are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Key,
    Model,
    Node,
    Day,
}

impl By {
    pub(crate) const ALL: [Self; 4] = [Self::Key, Self::Model, Self::Node, Self::Day];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Node => "node",
            Self::Day => "day",
        }
    }

    /// What is told of a sum because of it: names, and what they are in the database. A key's id is what makes it
    /// one: a name is free again once its key is revoked, and the next one can be of another owner.
    pub(crate) const fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Key => &[
                ("key", "COALESCE(k.name, u.key_id)"),
                ("key_id", "u.key_id"),
            ],
            Self::Model => &[("model", "u.model")],
            Self::Node => &[("node", "u.node")],
            Self::Day => &[("day", "CAST(u.started_at / 86400000 AS TEXT)")],
        }
    }
}

/// A text that names no [`By`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("usage is summed by key, model, node or day")]
pub(crate) struct UnknownBy;

impl FromStr for By {
    type Err = UnknownBy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|by| by.as_str() == text).ok_or(UnknownBy)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which rows, and how they are summed.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) by: Vec<By>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) until: Option<SystemTime>,
    /// The id of one key, or its name: that of the key that has it now, or else of the last one that had.
    pub(crate) key: Option<String>,
}

impl Query {
    /// What each sum is of: names, and what they are in the database.
    pub(crate) fn of(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.by.iter().flat_map(|by| by.columns()).copied()
    }
}

/// A sum of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// As [`Query::of`] has them; a day as `YYYY-MM-DD`. Nothing where a row has no such thing.
    pub(crate) of: Vec<Option<String>>,
    pub(crate) requests: u64,
    /// Those of them whose tokens nobody counted.
    pub(crate) uncounted: u64,
    pub(crate) tokens: Tokens,
    /// Nothing where no request had a price.
    pub(crate) cost: Option<i64>,
    /// What keys were charged: what was counted, and where nobody counted what was seen.
    pub(crate) charged_tokens: u64,
    pub(crate) charged_cost: Option<i64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Store {
    /// Adds rows; one that is there already stays as it is. Says what their keys have spent by then in the
    /// periods that are `now`.
    ///
    /// # Errors
    /// [`StoreError`]: then none of them was added.
    pub(crate) async fn add_usage(
        &self,
        rows: &[UsageRow],
        now: SystemTime,
    ) -> Result<Vec<Spend>, StoreError> {
        for rows in rows.chunks(MAX_ROWS) {
            on!(self, pool: Db => {
                let mut tx = pool.begin().await?;
                let mut statement: QueryBuilder<Db> = QueryBuilder::new(
                    "INSERT INTO usage_row (request_id, key_id, model, node, path, stream, outcome, \
                     status, code, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, \
                     cost, charged_tokens, charged_cost, started_at, first_byte_ms, took_ms, bytes_in, \
                     bytes_out) ",
                );
                statement.push_values(rows, |mut value, row| {
                    let tokens = |of: fn(&Tokens) -> u64| row.tokens.as_ref().map(|it| number(of(it)));
                    value
                        .push_bind(&row.request_id)
                        .push_bind(&row.key_id)
                        .push_bind(&row.model)
                        .push_bind(&row.node)
                        .push_bind(&row.path)
                        .push_bind(row.stream)
                        .push_bind(&row.outcome)
                        .push_bind(row.status.map(i64::from))
                        .push_bind(&row.code)
                        .push_bind(tokens(|it| it.prompt))
                        .push_bind(tokens(|it| it.cached))
                        .push_bind(tokens(|it| it.completion))
                        .push_bind(tokens(|it| it.reasoning))
                        .push_bind(row.cost)
                        .push_bind(row.charged_tokens.map(number))
                        .push_bind(row.charged_cost)
                        .push_bind(row.started_at)
                        .push_bind(row.first_byte_ms.map(number))
                        .push_bind(row.took_ms.map(number))
                        .push_bind(number(row.bytes_in))
                        .push_bind(number(row.bytes_out));
                });
                statement.push(" ON CONFLICT (request_id) DO NOTHING RETURNING request_id");
                let new = statement.build_query_scalar().persistent(false).fetch_all(&mut *tx).await?;
                let added = spend::added(rows, HashSet::from_iter(new));
                if !added.is_empty() {
                    let mut statement: QueryBuilder<Db> =
                        QueryBuilder::new("INSERT INTO spend (key_id, period, starts_at, tokens, cost) ");
                    statement.push_values(added, |mut value, ((key, period, starts_at), (tokens, cost))| {
                        value
                            .push_bind(key)
                            .push_bind(period)
                            .push_bind(starts_at)
                            .push_bind(tokens)
                            .push_bind(cost);
                    });
                    statement.push(spend::ADD);
                    statement.build().persistent(false).execute(&mut *tx).await?;
                }
                tx.commit().await?;
            });
        }
        let keys: BTreeSet<_> = rows.iter().map(|row| row.key_id.clone()).collect();
        self.spent(&keys, now).await
    }

    /// Sums of rows, by what the query says.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn usage(&self, query: &Query) -> Result<Vec<Sum>, StoreError> {
        let groups: Vec<_> = query.of().collect();
        let mut statement = String::from("SELECT ");
        for (_, group) in &groups {
            statement.push_str(group);
            statement.push_str(", ");
        }
        statement.push_str(SUMS);
        let numbers: Vec<_> = (1..=groups.len()).map(|n| n.to_string()).collect();
        if !numbers.is_empty() {
            let numbers = numbers.join(", ");
            statement.push_str(&format!(" GROUP BY {numbers} ORDER BY {numbers}"));
        }
        let key = match &query.key {
            Some(key) => Some(self.key_id(key).await?),
            None => None,
        };
        let since = query.since.map_or(0, millis);
        let until = query.until.map_or(i64::MAX, millis);
        let first = groups.len();
        let mut sums = Vec::new();
        on!(self, pool => {
            let rows = sqlx::query(AssertSqlSafe(statement))
                .bind(since).bind(until).bind(&key)
                .fetch_all(pool)
                .await?;
            for row in rows {
                let number = |n: usize| -> Result<u64, sqlx::Error> {
                    let value: Option<i64> = row.try_get(first.saturating_add(n))?;
                    Ok(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0))
                };
                let requests = number(0)?;
                let of = groups.iter().enumerate().map(|(n, (name, _))| {
                    let text: Option<String> = row.try_get(n)?;
                    Ok(text.map(|text| if *name == By::Day.as_str() { date(&text) } else { text }))
                });
                let of = of.collect::<Result<Vec<_>, sqlx::Error>>()?;
                sums.push(Sum {
                    of,
                    requests,
                    uncounted: requests.saturating_sub(number(1)?),
                    tokens: Tokens {
                        prompt: number(2)?,
                        cached: number(3)?,
                        completion: number(4)?,
                        reasoning: number(5)?,
                    },
                    cost: row.try_get(first.saturating_add(6))?,
                    charged_tokens: number(7)?,
                    charged_cost: row.try_get(first.saturating_add(8))?,
                    bytes_in: number(9)?,
                    bytes_out: number(10)?,
                });
            }
        });
        // A sum of nothing is a row without groups: there is nothing to tell.
        sums.retain(|sum| sum.requests > 0);
        Ok(sums)
    }

    /// The id of the key that somebody means: by its id, or by its name the one that has it now, or else the last
    /// one that had. What no key here has is an id of a key that is not here.
    async fn key_id(&self, meant: &str) -> Result<String, StoreError> {
        let statement = "SELECT id FROM api_key WHERE id = $1 OR name = $1 \
                         ORDER BY CASE WHEN id = $1 THEN 0 WHEN revoked_at IS NULL THEN 1 ELSE 2 END, \
                         revoked_at DESC, created_at DESC LIMIT 1";
        let found: Option<String> = on!(self, pool => {
            sqlx::query_scalar(statement).bind(meant).fetch_optional(pool).await?
        });
        Ok(found.unwrap_or_else(|| meant.to_owned()))
    }

    /// Removes some of the rows that began before `before`, and says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prune_usage(&self, before: SystemTime) -> Result<u64, StoreError> {
        let statement = "DELETE FROM usage_row WHERE request_id IN \
                         (SELECT request_id FROM usage_row WHERE started_at < $1 LIMIT $2)";
        let gone = on!(self, pool => {
            let done = sqlx::query(statement).bind(millis(before)).bind(PRUNED).execute(pool).await?;
            done.rows_affected()
        });
        Ok(gone)
    }
}

const SUMS: &str = "CAST(COUNT(*) AS BIGINT), CAST(COUNT(u.completion_tokens) AS BIGINT), \
    CAST(SUM(u.prompt_tokens) AS BIGINT), CAST(SUM(u.cached_tokens) AS BIGINT), \
    CAST(SUM(u.completion_tokens) AS BIGINT), CAST(SUM(u.reasoning_tokens) AS BIGINT), \
    CAST(SUM(u.cost) AS BIGINT), \
    CAST(SUM(COALESCE(u.prompt_tokens + u.completion_tokens, u.charged_tokens)) AS BIGINT), \
    CAST(SUM(COALESCE(u.cost, u.charged_cost)) AS BIGINT), CAST(SUM(u.bytes_in) AS BIGINT), CAST(SUM(u.bytes_out) AS BIGINT) \
    FROM usage_row u LEFT JOIN api_key k ON k.id = u.key_id \
    WHERE u.started_at >= $1 AND u.started_at < $2 \
    AND ($3 IS NULL OR u.key_id = $3)";

/// A number as the database has it; sums of what is larger would overflow there.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX).min(MOST)
}

/// A cost in units of the currency, as a decimal number without needless zeros.
pub(crate) fn in_currency(cost: i64) -> String {
    let sign = if cost < 0 { "-" } else { "" };
    let (whole, part) = (cost.unsigned_abs() / NANO, cost.unsigned_abs() % NANO);
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `YYYY-MM-DD` of a number of days since the Unix epoch.
fn date(days: &str) -> String {
    let millis = days.parse::<i64>().unwrap_or(0).saturating_mul(DAY);
    let text = to_rfc3339(time(millis));
    text.get(..10).unwrap_or_default().to_owned()
}
