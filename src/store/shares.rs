//! What the requests of each key hold and did at each gateway, so that limits hold across all of them.
//!
//! A gateway writes its own rows, whole each time, and reads those of the others: what is written twice or
//! read late is never counted twice.

use sqlx::{QueryBuilder, Row as _};

use super::{Store, StoreError, on, usage::number};

/// Most rows of one statement: each has 11 values.
const MAX_ROWS: usize = 256;

/// What the requests of one key hold and did at one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) in_flight: u64,
    /// Minutes since the Unix epoch.
    pub(crate) minute: u64,
    /// In that minute, and in the one before.
    pub(crate) requests: (u64, u64),
    pub(crate) tokens: (u64, u64),
    pub(crate) held_tokens: u64,
    pub(crate) held_cost: i64,
}

/// One that another gateway wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherShare {
    pub(crate) gateway_id: String,
    pub(crate) key_id: String,
    /// Grows with every writing.
    pub(crate) beat: i64,
    pub(crate) share: Share,
}

impl Store {
    /// Puts a gateway's shares in place of those it wrote before.
    ///
    /// # Errors
    /// [`StoreError`]: then those of before are there.
    pub(crate) async fn put_shares(
        &self,
        gateway_id: &str,
        beat: i64,
        shares: &[(String, Share)],
    ) -> Result<(), StoreError> {
        on!(self, pool: Db => {
            let mut tx = pool.begin().await?;
            sqlx::query("DELETE FROM share WHERE gateway_id = $1")
                .bind(gateway_id)
                .execute(&mut *tx)
                .await?;
            for shares in shares.chunks(MAX_ROWS) {
                let mut statement: QueryBuilder<Db> = QueryBuilder::new(
                    "INSERT INTO share (gateway_id, key_id, beat, in_flight, minute_n, requests, \
                     requests_before, tokens, tokens_before, held_tokens, held_cost) ",
                );
                statement.push_values(shares, |mut value, (key_id, share)| {
                    value
                        .push_bind(gateway_id)
                        .push_bind(key_id)
                        .push_bind(beat)
                        .push_bind(number(share.in_flight))
                        .push_bind(number(share.minute))
                        .push_bind(number(share.requests.0))
                        .push_bind(number(share.requests.1))
                        .push_bind(number(share.tokens.0))
                        .push_bind(number(share.tokens.1))
                        .push_bind(number(share.held_tokens))
                        .push_bind(share.held_cost);
                });
                statement.build().persistent(false).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        });
        Ok(())
    }

    /// The shares that all other gateways wrote last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn other_shares(
        &self,
        gateway_id: &str,
    ) -> Result<Vec<OtherShare>, StoreError> {
        let statement = "SELECT gateway_id, key_id, beat, in_flight, minute_n, requests, \
                         requests_before, tokens, tokens_before, held_tokens, held_cost \
                         FROM share WHERE gateway_id <> $1";
        let mut shares = Vec::new();
        on!(self, pool => {
            for row in sqlx::query(statement).bind(gateway_id).fetch_all(pool).await? {
                let count = |n: usize| -> Result<u64, sqlx::Error> {
                    Ok(u64::try_from(row.try_get::<i64, _>(n)?).unwrap_or(0))
                };
                shares.push(OtherShare {
                    gateway_id: row.try_get(0)?,
                    key_id: row.try_get(1)?,
                    beat: row.try_get(2)?,
                    share: Share {
                        in_flight: count(3)?,
                        minute: count(4)?,
                        requests: (count(5)?, count(6)?),
                        tokens: (count(7)?, count(8)?),
                        held_tokens: count(9)?,
                        held_cost: row.try_get(10)?,
                    },
                });
            }
        });
        Ok(shares)
    }
}
