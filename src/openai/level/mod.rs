//! Levelling: what engines really say, turned into the contract.
//!
//! Engines agree on the names of paths and on little else. The node levels both ways behind
//! the seal: a request is changed only where an engine would misread it, and a reply is written anew
//! from what the contract names, so that no vendor's extra or slip reaches a caller. Whatever is
//! not recognisably what was asked for is an error, never an answer.

mod chat;
mod embeddings;
mod failure;
mod images;
mod logprobs;
mod reply;
mod request;
mod shapes;
mod stream;

use std::time::SystemTime;

pub use failure::level_error;
pub use reply::{LevelledReply, level_reply};
pub use request::{CacheSalt, LevelledRequest, RequestOptions, level_request};
pub use stream::{StreamEnd, StreamLeveller};

use super::Asked;
#[cfg(test)]
use super::Endpoint;
use crate::{clock, ids::RequestId};

/// `system_fingerprint` where an engine gives none.
pub const FINGERPRINT: &str = "sealgate";

/// An engine's reply that cannot be levelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// Not the JSON of what was asked for.
    #[error("the engine's reply is not what was asked for")]
    Malformed,
    /// The engine says in the reply that it failed.
    #[error("the engine reported an error")]
    Engine,
    /// More choices than one reply can have.
    #[error("the engine's reply has too many choices")]
    TooManyChoices,
    /// The engine took no notice of a member that it would have had to honour.
    #[error("the engine ignored a member of the request")]
    Ignored(&'static str),
    /// The engine's stream ended without proof that it was whole.
    #[error("the engine's stream ended early")]
    Incomplete,
}

/// What levelling a reply needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyContext {
    /// What was asked.
    pub asked: Asked,
    /// For an `id` where the engine gives none.
    pub request_id: RequestId,
    /// For a `created` where the engine gives none.
    pub now: SystemTime,
}

impl ReplyContext {
    fn created(&self) -> u64 {
        clock::unix_seconds(self.now)
    }
}

#[cfg(test)]
pub(in crate::openai) fn test_context() -> ReplyContext {
    ReplyContext {
        asked: Asked {
            endpoint: Endpoint::Completions,
            model: "caller/model".to_owned(),
            stream: false,
            include_usage: false,
            include_obfuscation: None,
            max_tokens: Some(16),
            dimensions: None,
            encoding: None,
            n: 1,
            candidates: 1,
            other_bytes: 0,
            inputs: 1,
        },
        request_id: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
        now: clock::from_unix_seconds(1_763_000_000).unwrap(),
    }
}
