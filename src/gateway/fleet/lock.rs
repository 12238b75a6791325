//! `POST /v1/nodes/lock`: a node for a caller's next sealed request, and the key to seal it to.

use std::{sync::Arc, time::Duration};

use attestation::{Dialect, Ineligible};
use http::{Response, request::Parts};
use hyper::body::Incoming;

use super::{Shared, json};
use crate::{
    config::gateway::LocksConfig,
    gateway::{
        body::ReplyBody,
        error::Error,
        labels::Wish,
        locks::Lock,
        node::{Chosen, Verified},
        nodes::Served,
        select::choose,
    },
    openai::{
        RequestError,
        nodes::{self as form, LockRequest},
    },
};

/// What a lock is for if its taker does not say (the seed's values).
const NUM_TOKENS: u64 = 8192;
const TIMEOUT_S: u64 = 5;
/// Most nodes that are looked at for one that speaks the format.
const MAX_TRIED: usize = 8;

/// A node that speaks the format, and its key.
struct Lockable {
    node: Chosen,
    verified: Arc<Verified>,
    key: [u8; 32],
    /// How long the key may still be given out.
    left: Duration,
}

impl Shared {
    /// Gives a lock.
    pub(super) async fn lock(
        &self,
        parts: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<ReplyBody>, Error> {
        if self.phase.is_draining() {
            return Err(Error::Draining);
        }
        let caller = self.callers.authenticate(&parts.headers).await?;
        if caller.wish.requires_pq() {
            return Err(Error::DialectNotPostQuantum);
        }
        let _permit = self.admission.admit(&caller)?;
        self.locks.check_room(&caller)?;
        let content = self.read_small(parts, body).await?;
        let request = LockRequest::parse(&content)?;
        let time = bounded(&request, &self.locks.limits)?;
        if !caller.may_use(&request.model) {
            return Err(Error::ModelNotAllowed);
        }
        let serving = self.nodes.serving(&request.model, self.timeouts.attest);
        let served = serving.await?;
        // Under the seal stands the name that the caller gives, and nobody can put another there.
        if served.node_name.is_some() {
            return Err(Error::ModelNotFound);
        }
        let Lockable {
            node,
            verified,
            key,
            left,
        } = self.lockable(&served, caller.wish).await?;
        let model = Arc::clone(&served.name);
        let lock = Lock { model, key, node };
        let id = self.locks.give(&caller, lock, time.min(left))?;
        Ok(json(form::Lock::new(&key, verified.small_id, id).to_json()))
    }

    /// A node of those that serve a model: one that speaks the format.
    async fn lockable(&self, served: &Served, wish: Wish) -> Result<Lockable, Error> {
        let nodes = served.nodes.within(wish);
        let hardware = wish.hardware();
        if nodes.is_empty() && !served.nodes.within(wish.on_any_hardware()).is_empty() {
            return Err(Error::NoFittingHardware);
        }
        let mut tried = Vec::new();
        while tried.len() < MAX_TRIED
            && let Some(node) = choose(&nodes, &tried, served.on_nodes())
        {
            let now = self.clock.now();
            let verified = self.verified(&node.node).await;
            if let Ok(verified) = verified
                && hardware.is_of(&verified.node)
            {
                match verified.node.dialect_key(Dialect::Seed, now) {
                    Ok(given) => {
                        if let Some(key) = given.at(now).copied() {
                            let left = given.expires_at().duration_since(now);
                            return Ok(Lockable {
                                node,
                                verified,
                                key,
                                left: left.unwrap_or_default(),
                            });
                        }
                    }
                    Err(Ineligible::Forbidden(_)) => return Err(Error::DialectForbidden),
                    Err(Ineligible::AppraisalExpired | Ineligible::NoKey) => {}
                }
            }
            tried.push(Arc::clone(&node.node));
        }
        Err(Error::NoNodeAvailable)
    }
}

/// How long a lock is to wait, if all that is asked of it is within bounds.
fn bounded(request: &LockRequest, limits: &LocksConfig) -> Result<Duration, Error> {
    let within = |name: &'static str, asked: Option<u64>, usual: u64, max: u64| {
        let asked = asked.unwrap_or(usual.min(max));
        let too_much = RequestError::Invalid {
            param: Some(name.into()),
            expected: "no more than this gateway's limit for locks",
        };
        if asked <= max {
            Ok(asked)
        } else {
            Err(too_much)
        }
    };
    let (max_tokens, max_time) = (limits.max_num_tokens.get(), limits.max_timeout_s.get());
    within(
        "max_num_tokens",
        request.max_num_tokens,
        NUM_TOKENS,
        max_tokens,
    )?;
    let seconds = within("timeout", request.timeout_s, TIMEOUT_S, max_time.into())?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;

    #[test]
    fn a_lock_is_bounded_by_the_configuration() {
        let limits = LocksConfig {
            max_num_tokens: NonZeroU64::new(100).unwrap(),
            max_timeout_s: NonZeroU32::new(3).unwrap(),
            ..LocksConfig::default()
        };
        let cases = [
            (None, None, Some(3)),
            (Some(100), Some(1), Some(1)),
            (Some(1), Some(3), Some(3)),
            (Some(101), Some(1), None),
            (Some(1), Some(4), None),
            (Some(u64::MAX), None, None),
            (None, Some(u64::MAX), None),
        ];
        for (max_num_tokens, timeout_s, expected) in cases {
            let request = LockRequest {
                model: "m".to_owned(),
                max_num_tokens,
                timeout_s,
            };
            let time = bounded(&request, &limits).ok().map(|time| time.as_secs());
            assert_eq!(time, expected, "{max_num_tokens:?} {timeout_s:?}");
        }
        let usual = LockRequest {
            model: "m".to_owned(),
            max_num_tokens: None,
            timeout_s: None,
        };
        let time = bounded(&usual, &LocksConfig::default()).unwrap();
        assert_eq!(time.as_secs(), TIMEOUT_S);
    }
}
