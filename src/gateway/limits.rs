//! What a key's requests may be in number, in tokens and in money.
//!
//! A request takes its part before anything is done for it, by what it may use at most, and holds that
//! until it has ended; then its budgets hold what it did use, until its row is in the database and counts
//! there. So what is spent, with what is held, is never less than what was used.
//!
//! What gateways beside this one hold and count is added as they told it last.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use self::{
    minutes::{Minutes, minute},
    rates::{Rate, Rates},
};
use super::error::Error;
use crate::{
    clock::Clock,
    config::{
        prices::Price,
        terms::{Budget, KeyLimits, KeyTerms, Most, Period},
    },
    openai::Asked,
    store::{Settle, Share, Spend, unix_millis},
};

pub(super) mod minutes;
pub(super) mod rates;

/// Bytes of a body, or of a reply, that are taken for a token where nobody has counted.
const BYTES_PER_TOKEN: usize = 4;
/// Most tokens that a body's parts are taken for that are no text: the bytes of a picture are not its tokens.
const MOST_OF_OTHER_PARTS: u64 = 16_384;

/// Tokens, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) tokens: u64,
    pub(super) cost: i64,
}

impl Amount {
    fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: self.cost.saturating_sub(other.cost).max(0),
        }
    }
}

/// So many bytes as tokens.
pub(super) fn tokens_of(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX)
}

/// A prompt's tokens, by the bytes of the body that it came in.
pub(super) fn prompt_of(asked: &Asked, body: usize) -> u64 {
    let text = tokens_of(body.saturating_sub(asked.other_bytes));
    text.saturating_add(tokens_of(asked.other_bytes).min(MOST_OF_OTHER_PARTS))
}

/// Tokens that a request allows to be made, or `assumed` for each text where it does not say.
pub(super) fn completion_of(asked: &Asked, assumed: u32) -> u64 {
    let assumed = || u64::from(assumed).saturating_mul(asked.made());
    asked.most_completion_tokens().unwrap_or_else(assumed)
}

/// What a request may use: its prompt by its bytes, and what it allows to be made.
pub(super) fn at_most(asked: &Asked, body: usize, assumed: u32, price: Option<&Price>) -> Amount {
    let (prompt, completion) = (prompt_of(asked, body), completion_of(asked, assumed));
    Amount {
        tokens: prompt.saturating_add(completion),
        cost: price.map_or(0, |price| price.of(prompt, 0, completion)),
    }
}

/// What the requests of one key hold and did, whatever becomes of its row.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: u64,
    requests: Minutes,
    tokens: Minutes,
    /// Of budgets: what requests may still use, and what they used that is not in the database.
    held: Amount,
    /// What the database said last, by period.
    spent: [Spent; Period::ALL.len()],
    /// The same of all other gateways.
    others: Others,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    starts_at: i64,
    amount: Amount,
}

/// What other gateways told last.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    in_flight: u64,
    requests: Minutes,
    tokens: Minutes,
    held: Amount,
}

/// A key's meter with what it is held to.
#[derive(Debug)]
pub(super) struct Metered {
    meter: Arc<Meter>,
    limits: KeyLimits,
    budgets: Vec<Budget>,
}

/// What one request holds, until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Hold {
    meter: Arc<Meter>,
    clock: Clock,
    reserved: Amount,
    /// The minute in which its tokens count.
    minute: u64,
    is_open: bool,
}

/// What a request has used that is not in the database yet.
#[derive(Debug)]
struct Used {
    meter: Arc<Meter>,
    clock: Clock,
    amount: Amount,
}

impl Meter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the database says was spent.
    pub(super) fn learn<'a>(&self, spent: impl IntoIterator<Item = &'a Spend>, now: SystemTime) {
        self.state().learn(spent, now);
    }

    /// What this gateway's part is, for the others; nothing where there is none.
    pub(super) fn share(&self, now: SystemTime) -> Option<Share> {
        let state = self.state();
        let is_idle = state.in_flight == 0 && state.held == Amount::default();
        if is_idle && state.requests.is_over(now) && state.tokens.is_over(now) {
            return None;
        }
        let n = minute(now).0;
        let (requests, tokens) = (state.requests.at(n), state.tokens.at(n));
        Some(Share {
            in_flight: state.in_flight,
            minute: requests.n.max(tokens.n),
            requests: (requests.now, requests.before),
            tokens: (tokens.now, tokens.before),
            held_tokens: state.held.tokens,
            held_cost: state.held.cost,
        })
    }

    /// Takes in the parts of all others, and what was spent when it was asked after them.
    pub(super) fn hear<'a>(
        &self,
        shares: impl IntoIterator<Item = &'a Share>,
        spent: impl IntoIterator<Item = &'a Spend>,
        now: SystemTime,
    ) {
        let mut others = Others::default();
        for share in shares {
            let minutes = |(now, before)| Minutes {
                n: share.minute,
                now,
                before,
            };
            others.in_flight = others.in_flight.saturating_add(share.in_flight);
            others.requests = others.requests.and(minutes(share.requests), now);
            others.tokens = others.tokens.and(minutes(share.tokens), now);
            others.held = others.held.and(Amount {
                tokens: share.held_tokens,
                cost: share.held_cost,
            });
        }
        let mut state = self.state();
        state.learn(spent, now);
        state.others = others;
    }
}

impl State {
    /// Of periods that are now. What is known of another goes, also of one that begins later: the clock
    /// stood ahead when that was learnt.
    fn learn<'a>(&mut self, spent: impl IntoIterator<Item = &'a Spend>, now: SystemTime) {
        for spend in spent {
            if spend.starts_at != unix_millis(spend.period.start(now)) {
                continue;
            }
            let place = Period::ALL.iter().position(|it| *it == spend.period);
            let Some(known) = place.and_then(|place| self.spent.get_mut(place)) else {
                continue;
            };
            let said = Amount {
                tokens: spend.tokens,
                cost: spend.cost,
            };
            if spend.starts_at != known.starts_at {
                *known = Spent {
                    starts_at: spend.starts_at,
                    amount: said,
                };
            } else {
                // It only grows: what says less was read before.
                known.amount.tokens = known.amount.tokens.max(said.tokens);
                known.amount.cost = known.amount.cost.max(said.cost);
            }
        }
    }

    fn spent(&self, period: Period, now: SystemTime) -> Amount {
        let starts_at = unix_millis(period.start(now));
        let place = Period::ALL.iter().position(|it| *it == period);
        let known = place.and_then(|place| self.spent.get(place));
        let known = known.filter(|known| known.starts_at == starts_at);
        known.map_or(Amount::default(), |known| known.amount)
    }

    fn fits(&self, budget: &Budget, now: SystemTime, more: Amount) -> bool {
        let all = self.spent(budget.period, now).and(self.held);
        let all = all.and(self.others.held).and(more);
        match budget.most {
            Most::Tokens(most) => all.tokens <= most,
            Most::Money(most) => all.cost <= most.nano(),
        }
    }
}

impl Metered {
    /// Nothing where the terms of a key hold it to nothing.
    pub(super) fn new(meter: &Arc<Meter>, terms: &KeyTerms) -> Option<Self> {
        let is_free = terms.limits.is_none() && terms.budgets.is_empty();
        (!is_free).then(|| Self {
            meter: Arc::clone(meter),
            limits: terms.limits,
            budgets: terms.budgets.clone(),
        })
    }

    /// Whether what its requests use has to be known: of what is sealed past the gateway it is not.
    pub(super) fn counts_tokens(&self) -> bool {
        self.limits.tokens_per_minute.is_some() || !self.budgets.is_empty()
    }

    /// Whether its requests need a price.
    pub(super) fn counts_money(&self) -> bool {
        let mut budgets = self.budgets.iter();
        budgets.any(|budget| matches!(budget.most, Most::Money(_)))
    }

    /// How its limits of a minute stand.
    pub(super) fn rates(&self, clock: Clock) -> Rates {
        let now = clock.now();
        let state = self.meter.state();
        let rate = |own: Minutes, others, limit| Rate::of(own.and(others, now), limit, now);
        let KeyLimits {
            requests_per_minute,
            tokens_per_minute,
            ..
        } = self.limits;
        Rates {
            requests: requests_per_minute
                .map(|most| rate(state.requests, state.others.requests, most.get().into())),
            tokens: tokens_per_minute
                .map(|most| rate(state.tokens, state.others.tokens, most.get())),
        }
    }

    /// Lets a request in that may use so much.
    ///
    /// # Errors
    /// [`Error::RateLimited`], [`Error::BudgetExceeded`]; then it holds nothing.
    pub(super) fn take(&self, clock: Clock, more: Amount) -> Result<Hold, Error> {
        let now = clock.now();
        let mut state = self.meter.state();
        let all = state.in_flight.saturating_add(state.others.in_flight);
        if self
            .limits
            .in_flight
            .is_some_and(|most| all >= u64::from(most.get()))
        {
            return Err(Error::RateLimited { retry_after_s: 1 });
        }
        if let Some(most) = self.limits.requests_per_minute {
            let requests = state.requests.and(state.others.requests, now);
            requests.room(now, 1, most.get().into()).map_err(limited)?;
        }
        if let Some(most) = self.limits.tokens_per_minute {
            let tokens = state.tokens.and(state.others.tokens, now);
            // One that is larger than the limit goes where nothing else does.
            let count = more.tokens.min(most.get());
            tokens.room(now, count, most.get()).map_err(limited)?;
        }
        if !self
            .budgets
            .iter()
            .all(|budget| state.fits(budget, now, more))
        {
            return Err(Error::BudgetExceeded);
        }
        state.in_flight = state.in_flight.saturating_add(1);
        state.requests.add(now, 1);
        state.held = state.held.and(more);
        Ok(Hold {
            meter: Arc::clone(&self.meter),
            clock,
            reserved: more,
            minute: state.tokens.add(now, more.tokens),
            is_open: true,
        })
    }
}

fn limited(wait: Duration) -> Error {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    Error::RateLimited {
        retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX),
    }
}

impl Hold {
    /// Its request has ended and used so much, which counts until its row does.
    pub(super) fn used(mut self, used: Amount) -> Box<dyn Settle> {
        self.end(used);
        Box::new(Used {
            meter: Arc::clone(&self.meter),
            clock: self.clock,
            amount: used,
        })
    }

    fn end(&mut self, used: Amount) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let (now, reserved) = (self.clock.now(), self.reserved);
        let mut state = self.meter.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.held = state.held.without(reserved).and(used);
        match used.tokens.checked_sub(reserved.tokens) {
            Some(more) => {
                state.tokens.add(now, more);
            }
            None => {
                let less = reserved.tokens.saturating_sub(used.tokens);
                state.tokens.take_back(self.minute, less);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end(Amount::default());
    }
}

impl Settle for Used {
    fn settled(mut self: Box<Self>, spent: &[Spend]) {
        // At once: what leaves the one is in the other.
        let amount = std::mem::take(&mut self.amount);
        let mut state = self.meter.state();
        state.held = state.held.without(amount);
        state.learn(spent, self.clock.now());
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut state = self.meter.state();
        state.held = state.held.without(self.amount);
    }
}

#[cfg(test)]
mod tests;
