//! Which node is asked, what a failure says of it, and whether another try is allowed
//! (docs/wire.md, "Retrying").

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    Shared,
    admit::Permit,
    budget::RetryPermit,
    error::{Error, NodeFailure},
    exchange::Job,
    health::Shown,
    labels::Wish,
    node::{BAR, Chosen, Node, Reattested, Verified},
    nodes::Served,
    receipts::Receipting,
    record::Record,
    select::choose,
};
use crate::sealer::{ExchangeError, Incomplete, Next, Problem, Reply, SendError};

/// Most further tries after the first.
const MAX_FURTHER_TRIES: u32 = 2;
/// How long other nodes go first after one could not be reached, or is full.
const AVOID_UNREACHABLE: Duration = Duration::from_secs(2);
const AVOID_FULL: Duration = Duration::from_secs(1);
/// Longest time that a node's own `Retry-After` keeps requests away from it.
const MAX_AVOID: Duration = Duration::from_secs(30);

/// What a request holds until its last byte: places here and with the node.
#[must_use]
#[derive(Debug)]
pub(super) struct Held {
    pub(super) permit: Permit,
    pub(super) node: Chosen,
    pub(super) _retries: Vec<RetryPermit>,
}

/// A node's reply, as far as it must be known before the caller gets a status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) verified: Arc<Verified>,
    pub(super) node: Chosen,
    pub(super) retries: Vec<RetryPermit>,
    pub(super) reply: Reply,
    /// Which of the node's keys was sealed to.
    pub(super) key_id: u8,
    /// What is to become of its receipt.
    pub(super) receipt: Receipting,
}

impl Shared {
    /// Asks nodes that serve the model and fit the wish until one answers for good.
    ///
    /// # Errors
    /// The last node's failure, [`Error::NoAttestedNode`], [`Error::NoPostQuantumNode`] or
    /// [`Error::NoFittingHardware`] if none fits, or [`Error::NoNodeAvailable`] if none may be asked.
    pub(super) async fn ask(
        &self,
        job: &Job<'_>,
        served: &Served,
        wish: Wish,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let nodes = served.nodes.within(wish);
        if nodes.is_empty() {
            return Err(none_fits(served, wish));
        }
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut retries = Vec::new();
        let mut resealed = false;
        let model = served.on_nodes();
        let mut chosen = choose(&nodes, &tried, model).ok_or(Error::NoNodeAvailable)?;
        self.admission.tried();
        loop {
            record.tries = record.tries.saturating_add(1);
            let (verified, failure) = match self.ask_one(job, served, &chosen.node, record).await {
                Ok((verified, (reply, key_id))) => {
                    chosen.began();
                    record.answered_by(&chosen.node);
                    return Ok(Answer {
                        verified,
                        node: chosen,
                        retries,
                        reply,
                        key_id,
                        receipt: Receipting::None,
                    });
                }
                Err(failed) => failed,
            };
            tracing::debug!(
                request_id = %job.id, node = %chosen.node.url, cause = %failure, "try failed"
            );
            record.try_failed(&chosen.node, &failure);
            take_note(&chosen.node, Some(model), &failure);
            let (next, is_last) = (failure.next(), record.tries > MAX_FURTHER_TRIES);
            if next == Next::Reseal && resealed {
                chosen.node.health.bar(BAR);
            }
            if next == Next::Fail || is_last {
                return Err(failure.into());
            }
            if next == Next::Reseal && !resealed {
                resealed = self.attested_again(&chosen.node, verified).await;
                if resealed {
                    record.reseals = record.reseals.saturating_add(1);
                    continue;
                }
            }
            tried.push(Arc::clone(&chosen.node));
            let another = choose(&nodes, &tried, model);
            let leave = another.and_then(|another| Some((another, self.admission.retry()?)));
            let Some((another, permit)) = leave else {
                return Err(failure.into());
            };
            chosen = another;
            resealed = false;
            retries.push(permit);
        }
    }

    async fn attested_again(&self, node: &Node, stale: Option<Arc<Verified>>) -> bool {
        let Some(stale) = stale else { return false };
        let digest = stale.node.statement_digest();
        match node.reattest(&digest, self.timeouts.attest).await {
            Reattested::Passed => return true,
            Reattested::Failed => node.health.bar(BAR),
            Reattested::TooSoon(rest) => node.health.bar(rest),
        }
        false
    }

    async fn ask_one(
        &self,
        job: &Job<'_>,
        served: &Served,
        node: &Node,
        record: &mut Record,
    ) -> Result<(Arc<Verified>, (Reply, u8)), (Option<Arc<Verified>>, NodeFailure)> {
        let patience = self.timeouts.attest;
        let verified = node.verified_under(&self.rules, patience).await;
        let agreed = |it: &Arc<Verified>| {
            let policy = &it.rules.policy_digest;
            job.policy.is_none_or(|agreed| agreed == policy)
        };
        let fits = |it: &Arc<Verified>| agreed(it) && job.hardware.is_of(&it.node);
        let verified = verified.filter(|it| !self.halted.is_cancelled() && fits(it));
        let Some(verified) = verified else {
            return Err((None, NodeFailure::NotVerified));
        };
        record.node = Some(Arc::clone(&verified.id));
        let asked = Instant::now();
        let exchanged = tokio::select! {
            biased;
            () = verified.trust.ended() => Err(verified.trust.failure()),
            exchanged = self.exchange(job, served, node, &verified, record) => exchanged.map_err(Into::into),
        };
        match exchanged {
            Ok(reply) => {
                if matches!(reply.0, Reply::Stream { .. }) {
                    node.load.measured(asked.elapsed());
                }
                Ok((verified, reply))
            }
            Err(failure) => Err((Some(verified), failure)),
        }
    }
}

/// Why no verified node of a model takes what is wished for.
fn none_fits(served: &Served, wish: Wish) -> Error {
    let is_there = |wish: Wish| !served.nodes.within(wish).is_empty();
    if wish.requires_pq() && is_there(wish.of_any_key()) {
        Error::NoPostQuantumNode
    } else if is_there(wish.on_any_hardware().of_any_key()) {
        Error::NoFittingHardware
    } else {
        Error::NoAttestedNode
    }
}

impl NodeFailure {
    /// What it shows of the node; nothing where that is of the request, or the node's own word.
    pub(super) fn shows(&self) -> Option<Shown> {
        let error = match self {
            Self::Exchange(error) => error,
            // That there is no place for it here is not the node's doing.
            Self::Receipt(fault) => return fault.is_of_node().then_some(Shown::Failure),
            Self::NotVerified | Self::Cut | Self::NoLongerVerified => return None,
        };
        match error {
            // It shows another certificate, as after a restart: it is attested again.
            ExchangeError::Send(SendError::OtherCertificate) => None,
            ExchangeError::Send(SendError::Broken { .. }) | ExchangeError::Broken(_) => {
                Some(Shown::Lost)
            }
            ExchangeError::Send(_)
            | ExchangeError::NotSealed { .. }
            | ExchangeError::Open(_)
            | ExchangeError::Unexpected(_)
            | ExchangeError::Events(_)
            | ExchangeError::Incomplete(Incomplete::Other) => Some(Shown::Failure),
            ExchangeError::Outside { status, .. } => (status.is_server_error()
                && *status != StatusCode::SERVICE_UNAVAILABLE)
                .then_some(Shown::Failure),
            // What takes too long, or breaks the engine, may be the request.
            ExchangeError::FirstByteTimeout
            | ExchangeError::IdleTimeout
            | ExchangeError::TooLong { .. }
            | ExchangeError::Engine { .. }
            | ExchangeError::Incomplete(Incomplete::EngineFailed | Incomplete::Idle)
            | ExchangeError::Problem {
                problem: Problem::EngineFailed | Problem::EngineUnreachable,
                ..
            } => Some(Shown::EngineFailure),
            ExchangeError::Ineligible(_)
            | ExchangeError::Seal(_)
            | ExchangeError::Request(_)
            | ExchangeError::OhttpKey { .. }
            | ExchangeError::Incomplete(Incomplete::Cancelled)
            | ExchangeError::Problem { .. } => None,
        }
    }
}

/// Remembers for later requests what a failure says of the node, or of its engine for the model where that
/// is known.
pub(super) fn take_note(node: &Node, model: Option<&Arc<str>>, failure: &NodeFailure) {
    let rest = |retry_after_s: &Option<u32>| {
        let asked = retry_after_s.map(|s| Duration::from_secs(s.into()));
        asked.map_or(AVOID_FULL, |asked| asked.clamp(AVOID_FULL, MAX_AVOID))
    };
    if let Some(shown) = failure.shows() {
        node.note(shown);
    }
    let NodeFailure::Exchange(error) = failure else {
        return;
    };
    if matches!(error, ExchangeError::Send(error) if error.wants_appraisal()) {
        node.want_appraisal();
    }
    match error {
        ExchangeError::Send(
            SendError::Connect(_) | SendError::ConnectTimeout | SendError::Proxy(_),
        ) => {
            node.health.avoid(AVOID_UNREACHABLE);
        }
        // No proof for this request, or one that is carried only, but a hint for the next ones.
        ExchangeError::OhttpKey {
            not_executed: false,
        } => node.want_appraisal(),
        ExchangeError::Outside { retry_after_s, .. } => node.health.avoid(rest(retry_after_s)),
        ExchangeError::Problem {
            problem,
            retry_after_s,
        } => match problem {
            Problem::Date | Problem::Credential => node.health.bar(BAR),
            Problem::Draining => node.health.avoid(rest(retry_after_s)),
            Problem::Overloaded | Problem::EngineUnreachable => match model {
                Some(model) => node.health.avoid_for(model, rest(retry_after_s)),
                None => node.health.avoid(rest(retry_after_s)),
            },
            _ => {}
        },
        _ => {}
    }
}
