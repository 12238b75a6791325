//! Server-sent events, both ways round.
//!
//! [`ReplyEvents`] is the gateway's: it proves that what a node sealed is a stream of the contract,
//! and gives it on byte for byte. [`EngineEvents`] is the node's: it understands whatever form of
//! the WHATWG format an engine chooses. Both work on bytes, so that nothing depends on where a
//! network cut them.

mod engine;
mod obfuscation;
mod reply;

pub use engine::EngineEvents;
pub use obfuscation::Obfuscation;
pub use reply::ReplyEvents;

/// Most bytes in the data of one event (WIRE section 4).
pub const MAX_EVENT: usize = 4 * 1024 * 1024;

/// What ends a complete stream.
pub const END: &[u8] = b"data: [DONE]\n\n";

/// A stream that is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line that is none of data, comment or empty; or one that a CR ends.
    #[error("a line that the format does not have")]
    Line,
    /// A data line that holds no JSON object.
    #[error("data that is not a JSON object")]
    Data,
    /// Two data lines without an empty line between, which clients read as one event.
    #[error("two data lines in one event")]
    Joined,
    /// An event over [`MAX_EVENT`].
    #[error("an event of over {MAX_EVENT} bytes")]
    TooLong,
    /// An end event outside the final content.
    #[error("an end event before the final content")]
    EarlyEnd,
    /// Something after the end event.
    #[error("an event after the end event")]
    AfterEnd,
    /// No end event, or a line or event that was not ended.
    #[error("the stream ended without its end event")]
    Truncated,
}
