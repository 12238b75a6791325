//! The seed's confidential requests.

use bytes::BytesMut;
use hyper::body::Incoming;

use super::{Opened, clear::Clear};
use crate::{
    attester::request::Room as _,
    config::node::NodeConfig,
    node::{State, answer::Outer, buffered::Buffered, record::Record, seal::Seal, take},
    seal::SeedEnvelope,
};

/// Most bytes of a body: its content in base64, and the members beside it.
pub(super) fn max_body(config: &NodeConfig) -> u64 {
    let content = u64::from(config.limits.body_bytes.get());
    content
        .div_ceil(3)
        .saturating_mul(4)
        .saturating_add(64 * 1024)
}

/// Reads a body and opens it.
///
/// # Errors
/// [`Clear`] if it does not arrive, does not fit or does not open.
pub(super) async fn receive(
    state: &State,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<Opened, Clear> {
    let most = usize::try_from(max_body(&state.config)).unwrap_or(usize::MAX);
    let mut buffered = Buffered::none(&state.buffered);
    let mut envelope = BytesMut::new();
    let mut coming = take::coming(body, &state.config);
    while let Some(data) = coming.next().await? {
        record.came(data.len());
        if data.len() > most.saturating_sub(envelope.len()) {
            return Err(Clear::TooLarge);
        }
        buffered.grow(data.len())?;
        envelope.extend_from_slice(&data);
    }
    let envelope = SeedEnvelope::parse(&envelope, take::limits(&state.config))?;
    let opened = state.identity.open_with(|ring| envelope.open(ring.seed()));
    let (request, sealer) = opened?;
    Ok(Opened {
        seal: Seal::Seed(sealer),
        digest: request.claim,
        key_id: request.key_id,
        content: request.content,
        outer: Some(Outer {
            model: request.model_name,
            stream: request.stream,
        }),
        buffered,
    })
}
