//! Encrypted HTTP bodies at the node's inference paths.

use attestation::Dialect;
use http::HeaderMap;
use hyper::body::Incoming;

use super::{Opened, clear::Clear};
use crate::{
    attester::request::Room as _,
    config::node::NodeConfig,
    node::{State, buffered::Buffered, record::Record, request, seal::Seal, take},
    seal::{ENCAPSULATED_KEY, EhbpOpener, EncapsulatedKey, encode_ehbp_key_config},
};

/// The node's newest key, as clients of EHBP read it; `None` if it has none.
pub(in crate::node) fn key_config(state: &State) -> Option<Vec<u8>> {
    let now = state.clock.unix_now();
    let newest = state
        .identity
        .open_with(|ring| ring.newest_of(Dialect::Ehbp, now));
    newest.map(|key| encode_ehbp_key_config(&key))
}

/// Most bytes of a body: frames of ordinary length double nothing. The opener counts exactly.
pub(super) fn max_body(config: &NodeConfig) -> u64 {
    take::max_body(config)
}

/// Reads a body and opens it as it arrives.
///
/// # Errors
/// [`Clear`] if it is not sealed, does not arrive, does not fit or does not open.
pub(super) async fn receive(
    state: &State,
    headers: &HeaderMap,
    body: &mut Incoming,
    record: &mut Record,
) -> Result<Opened, Clear> {
    let mut opener = EhbpOpener::new(encapsulated_key(headers)?, take::limits(&state.config));
    let mut buffered = Buffered::none(&state.buffered);
    let mut coming = take::coming(body, &state.config);
    while let Some(data) = coming.next().await? {
        record.came(data.len());
        buffered.grow(data.len())?;
        state
            .identity
            .open_with(|ring| opener.push(ring.ehbp(), data))?;
    }
    let (body, sealer) = opener.finish()?;
    Ok(Opened {
        seal: Seal::Ehbp(sealer),
        digest: body.enc_digest,
        key_id: body.key_id,
        content: body.content,
        outer: None,
        buffered,
    })
}

fn encapsulated_key(headers: &HeaderMap) -> Result<EncapsulatedKey, Clear> {
    if !headers.contains_key(ENCAPSULATED_KEY) {
        return Err(Clear::NotSealed);
    }
    let value = request::single(headers, http::HeaderName::from_static(ENCAPSULATED_KEY));
    let key = value.and_then(|text| text.parse().ok());
    key.ok_or(Clear::EncapsulatedKey)
}
