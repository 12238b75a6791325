//! Levelling: what engines really say, turned into the contract.
//!
//! Engines agree on the name `/v1/completions` and on little else. The node levels both ways behind
//! the seal: a request is changed only where an engine would misread it, and a reply is written anew
//! from what the contract names, so that no vendor's extra or slip reaches a caller. Whatever is
//! not recognisably a completion is an error, never an answer.

mod failure;
mod logprobs;
mod reply;
mod request;
mod shapes;
mod stream;

use std::time::SystemTime;

pub use failure::level_error;
pub use reply::{LevelledReply, level_reply};
pub use request::{LevelledRequest, RequestOptions, level_request};
pub use stream::{StreamEnd, StreamLeveller};

use crate::{clock, ids::RequestId};

/// `system_fingerprint` where an engine gives none.
pub const FINGERPRINT: &str = "sealgate";

/// An engine's reply that cannot be levelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// Not the JSON of a completion.
    #[error("the engine's reply is not a completion")]
    Malformed,
    /// The engine says in the reply that it failed.
    #[error("the engine reported an error")]
    Engine,
    /// More choices than one reply can have.
    #[error("the engine's reply has too many choices")]
    TooManyChoices,
    /// The engine's stream ended without proof that it was whole.
    #[error("the engine's stream ended early")]
    Incomplete,
}

/// What levelling a reply needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyContext {
    /// The caller's name for the model.
    pub model: String,
    /// For an `id` where the engine gives none.
    pub request_id: RequestId,
    /// For a `created` where the engine gives none.
    pub now: SystemTime,
    /// Whether the caller asked for a usage chunk.
    pub include_usage: bool,
    /// How many choices were asked for each prompt.
    pub n: u32,
    /// How many choices were asked in all.
    pub choices: u64,
}

impl ReplyContext {
    fn created(&self) -> u64 {
        clock::unix_seconds(self.now)
    }
}

#[cfg(test)]
pub(in crate::openai) fn test_context() -> ReplyContext {
    ReplyContext {
        model: "caller/model".to_owned(),
        request_id: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
        now: clock::from_unix_seconds(1_763_000_000).unwrap(),
        include_usage: false,
        n: 1,
        choices: 1,
    }
}
