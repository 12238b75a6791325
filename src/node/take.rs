//! How the node takes a sealed request in: within its limits, and by its own credential.

use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{State, buffered::Buffered, record::Record};
use crate::{
    attester::{
        problem::{Outside, Refusal},
        request::{self, Coming, Form, Gate, Patience},
    },
    config::node::{CredentialDigest, NodeConfig},
    listener::Peer,
    openai::Endpoint,
    pace::LeastRate,
    seal::{Fields, OpenedRequest, RequestLimits},
};

/// A request that was opened, with what it holds.
pub(super) type Received = request::Received<Buffered>;

/// Most bytes of an encapsulated request.
pub(super) fn max_body(config: &NodeConfig) -> u64 {
    request::max_body(config.limits.body_bytes.get().into())
}

/// What the content of any request may take up.
pub(super) fn limits(config: &NodeConfig) -> RequestLimits {
    RequestLimits {
        content_bytes: usize::try_from(config.limits.body_bytes.get()).unwrap_or(usize::MAX),
    }
}

/// A body that comes, and begins now.
pub(super) fn coming<'a>(body: &'a mut Incoming, config: &NodeConfig) -> Coming<'a> {
    let timeouts = &config.timeouts;
    let patience = Patience {
        within: timeouts.body_ms.duration(),
        idle: timeouts.body_idle_ms.duration(),
        rate: LeastRate {
            bytes_per_s: config.limits.min_body_bytes_per_s,
            behind: timeouts.slow_body_ms.duration(),
        },
    };
    Coming::new(body, patience)
}

/// Reads the body and opens it as it arrives.
///
/// # Errors
/// [`Outside`] if it does not arrive, does not fit or does not open.
pub(super) async fn receive(
    state: &State,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<Received, Outside> {
    let coming = coming(body, &state.config);
    let room = Buffered::none(&state.buffered);
    let came = |bytes| record.came(bytes);
    request::receive(&state.identity, limits(&state.config), coming, room, came).await
}

/// Lets a well-formed request in, or refuses it. Once claimed, it stays claimed.
///
/// # Errors
/// The first [`Refusal`] in the order of docs/wire.md: credential, date, replay, statement, path,
/// load.
pub(super) fn accept(
    state: &State,
    request: &OpenedRequest,
    form: &Form,
    peer: Option<Peer>,
) -> Result<Endpoint, Refusal> {
    let credential = state.config.credential_sha256.as_ref();
    if !credential.is_none_or(|expected| has_credential(&request.fields, expected)) {
        return Err(Refusal::Credential);
    }
    let source = match credential {
        Some(_) => None,
        None => peer.map(|Peer(address)| address.ip().into()),
    };
    let gate = Gate {
        identity: &state.identity,
        replay: &state.replay,
        now: state.clock.unix_now(),
    };
    gate.admit(request.enc_digest, form, source)?;
    let endpoint = Endpoint::of(&request.path).ok_or(Refusal::Path)?;
    if state.draining.is_cancelled() {
        return Err(Refusal::Draining);
    }
    Ok(endpoint)
}

fn has_credential(fields: &Fields, expected: &CredentialDigest) -> bool {
    let token = fields
        .get("authorization")
        .and_then(|value| value.split_at_checked(7));
    token.is_some_and(|(scheme, token)| {
        let digest: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case("bearer ") && bool::from(digest.ct_eq(expected.as_bytes()))
    })
}
