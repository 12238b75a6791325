//! The endpoints of the dialects that clients already speak (docs/wire.md, "Two further dialects").
//!
//! A request is taken in the same order in both: head, credential, place, body, opening, claim.
//! From then on it is answered as any other. What is refused before it opened is refused in clear.

use std::sync::Arc;

use attestation::Dialect;
use http::{HeaderMap, HeaderName, Request, Response, header, request::Parts};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use self::clear::Clear;
use super::{
    State,
    answer::{self, Outer, Question},
    buffered::Buffered,
    problem::Refusal,
    record::Record,
    replay::{ClaimError, ReplayTable},
    reply::{Exchange, Place, ReplyBody},
    request,
    seal::Seal,
};
use crate::{
    config::node::{CredentialDigest, NodeConfig},
    ids::RequestId,
    listener::Peer,
    openai::Endpoint,
};

mod clear;
mod ehbp;
mod seed;

pub(super) use ehbp::key_config;

/// Where clients of EHBP fetch the node's key.
pub(super) const EHBP_KEYS: &str = "/.well-known/hpke-keys";
/// The header in which a gateway that carries a request tells its id.
const REQUEST_ID: &str = "sealgate-request-id";
/// What the seed's confidential paths begin with, in place of `/v1/`.
const CONFIDENTIAL: &str = "/v1/confidential/";

/// What remembers the requests of each dialect.
pub(super) struct ReplayTables {
    ehbp: ReplayTable,
    seed: ReplayTable,
}

impl ReplayTables {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let capacity = config.limits.dialect_replay_entries.get();
        Self {
            ehbp: ReplayTable::new(capacity),
            seed: ReplayTable::new(capacity),
        }
    }

    pub(super) fn of(&self, dialect: Dialect) -> &ReplayTable {
        match dialect {
            Dialect::Ehbp => &self.ehbp,
            Dialect::Seed => &self.seed,
        }
    }
}

/// Which dialect's endpoint stands at a path, if the node speaks it.
pub(super) fn at(config: &NodeConfig, path: &str) -> Option<(Dialect, Endpoint)> {
    let (dialect, endpoint) = match path.strip_prefix(CONFIDENTIAL) {
        Some(rest) => {
            let plain = |endpoint: &Endpoint| endpoint.path().strip_prefix("/v1/") == Some(rest);
            (Dialect::Seed, Endpoint::ALL.into_iter().find(plain)?)
        }
        None => (Dialect::Ehbp, Endpoint::of(path)?),
    };
    let spoken = config.dialects.contains(&dialect);
    spoken.then_some((dialect, endpoint))
}

/// A request that opened.
struct Opened {
    seal: Seal,
    /// What a replay is known by.
    digest: [u8; 32],
    key_id: u8,
    content: bytes::Bytes,
    /// What stands outside the seal and must fit what is inside.
    outer: Option<Outer>,
    buffered: Buffered,
}

/// Answers one request in a dialect.
pub(super) async fn answer(
    state: &Arc<State>,
    dialect: Dialect,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let mut record = Record::begin(&state.metrics);
    record.dialect = Some(dialect.as_str());
    record.path = Some(endpoint.path());
    let (head, mut body) = request.into_parts();
    let (opened, place) = match take(state, dialect, &head, &mut body, &mut record).await {
        Ok(taken) => taken,
        Err(clear) => {
            record.refused_with(clear.status(), clear.code());
            if clear.lets_the_body_come() {
                request::discard(body).await;
            }
            return clear.response();
        }
    };
    let claimed = claim(state, dialect, &opened, &head);
    if claimed == Err(ClaimError::Ended) {
        let clear = Clear::key_ended(dialect);
        record.refused_with(clear.status(), clear.code());
        return clear.response();
    }
    let id = request_id(&head.headers);
    record.id = Some(id);
    let exchange = Exchange {
        seal: opened.seal,
        record,
        place,
    };
    let let_in = claimed.map_err(Refusal::from).and_then(|()| {
        let draining = state.draining.is_cancelled();
        if draining {
            Err(Refusal::Draining)
        } else {
            Ok(())
        }
    });
    if let Err(refusal) = let_in {
        return exchange.refuse(refusal, &state.clock).await;
    }
    let question = Question {
        receipt: None,
        id,
        endpoint,
        content: opened.content,
        model: None,
        caller: None,
        outer: opened.outer,
        buffered: opened.buffered,
    };
    answer::answer(state, exchange, question).await
}

/// The id that a gateway gave it in passing it on, or one of the node's own.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = request::single(headers, HeaderName::from_static(REQUEST_ID));
    let given = given.and_then(|text| text.parse().ok());
    given.unwrap_or_else(RequestId::generate)
}

/// Takes a request in: head, credential, place, body.
async fn take(
    state: &State,
    dialect: Dialect,
    head: &Parts,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<(Opened, Place), Clear> {
    let most = match dialect {
        Dialect::Ehbp => ehbp::max_body(&state.config),
        Dialect::Seed => seed::max_body(&state.config),
    };
    check_head(&head.headers, most)?;
    let credential = state.config.credential_sha256.as_ref();
    if !credential.is_none_or(|expected| has_credential(&head.headers, expected)) {
        return Err(Clear::Credential);
    }
    if state.draining.is_cancelled() {
        return Err(Clear::Draining);
    }
    let place = Arc::clone(&state.requests).try_acquire_owned();
    let place = place.map_err(|_| Clear::TooMany)?;
    let opened = match dialect {
        Dialect::Ehbp => ehbp::receive(state, &head.headers, body, record).await?,
        Dialect::Seed => seed::receive(state, body, record).await?,
    };
    Ok((opened, place))
}

fn check_head(headers: &HeaderMap, max_body: u64) -> Result<(), Clear> {
    let media_type = request::single(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json")
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        return Err(Clear::MediaType);
    }
    let length = request::single(headers, header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_body) {
        return Err(Clear::TooLarge);
    }
    Ok(())
}

/// The credential stands outside the seal here: these formats have no place for it inside.
fn has_credential(headers: &HeaderMap, expected: &CredentialDigest) -> bool {
    let value = request::single(headers, header::AUTHORIZATION);
    let token = value.and_then(|value| value.split_at_checked(7));
    token.is_some_and(|(scheme, token)| {
        let digest: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case("bearer ") && bool::from(digest.ct_eq(expected.as_bytes()))
    })
}

/// Claims a request until its key ends: nothing in it says when it was made.
fn claim(state: &State, dialect: Dialect, opened: &Opened, head: &Parts) -> Result<(), ClaimError> {
    let end = state
        .identity
        .open_with(|ring| ring.opens_until(opened.key_id));
    let end = end.ok_or(ClaimError::Ended)?;
    let source = match state.config.credential_sha256 {
        Some(_) => None,
        None => head
            .extensions
            .get::<Peer>()
            .map(|Peer(peer)| peer.ip().into()),
    };
    let now = state.clock.unix_now();
    state
        .replay_of
        .of(dialect)
        .claim(opened.digest, end, now, source)
}
