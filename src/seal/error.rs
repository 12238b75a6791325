//! What can go wrong when sealing and when opening.

use super::bhttp::FormError;

/// The system gave no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct RandomError;

/// Why a message could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The appraisal behind the node's key has ended.
    #[error("the node's key is past its end")]
    KeyExpired,
    /// The node's key gives an all-zero shared secret (RFC 9180 section 7.1.4).
    #[error("the node's key is not usable")]
    UnusableKey,
    /// The system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A path or field that no reader would accept.
    #[error("a {0} is not well-formed")]
    Malformed(&'static str),
    /// The trailers are longer than a reader accepts.
    #[error("trailers exceed {max} bytes")]
    TrailersTooLong {
        /// Most bytes of trailers.
        max: usize,
    },
    /// A length that the encoding cannot express, or content that its announced length belies.
    #[error("the message has an impossible length")]
    Length,
    /// Padding by comment lines fits event streams only.
    #[error("a padded stream must be text/event-stream")]
    NotAnEventStream,
    /// A paced stream goes out at ticks, and is sealed so.
    #[error("a paced stream goes out at ticks")]
    NeedsTicks,
    /// A piece of a padded event stream did not end with a line.
    #[error("a piece of an event stream ends inside a line")]
    PartialLine,
    /// The chunk counter is used up, or the cipher refused.
    #[error("the key is used up")]
    Exhausted,
    /// An earlier call failed.
    #[error("sealing already failed")]
    Failed,
}

/// Why a message could not be opened. No variant holds a byte of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No such key, or it has ended.
    #[error("unknown key id {0}")]
    UnknownKey(u8),
    /// None of docs/wire.md, "Suites", or not the one of the key that is named.
    #[error("unsupported suite")]
    UnsupportedSuite,
    /// The encapsulated key or the first chunk does not fit this node's key; which of the two is
    /// not told.
    #[error("the first chunk does not open")]
    FirstChunk,
    /// A chunk was not authentic in its place.
    #[error("authentication failed")]
    Decrypt,
    /// A chunk's length prefix is outside what is allowed.
    #[error("chunk of {len} bytes is outside {min} to {max}")]
    ChunkLength {
        /// The announced length.
        len: u64,
        /// Shortest chunk that holds a byte.
        min: usize,
        /// Longest chunk.
        max: usize,
    },
    /// The final chunk runs on beyond what is allowed.
    #[error("final chunk exceeds {max} bytes")]
    FinalChunkTooLong {
        /// Longest chunk.
        max: usize,
    },
    /// The body ended before its final chunk was whole.
    #[error("message ended before its final chunk")]
    Truncated,
    /// The Binary HTTP message inside is wrong.
    #[error("{0}")]
    Form(#[from] FormError),
    /// The content, or the message with its padding, is larger than allowed.
    #[error("message exceeds {max} bytes")]
    TooLarge {
        /// The limit that was passed.
        max: usize,
    },
    /// More bytes were pushed before the opened parts were taken.
    #[error("over {max} bytes wait to be read")]
    Unread {
        /// Most bytes that may wait.
        max: usize,
    },
    /// The chunk counter is used up.
    #[error("the key is used up")]
    Exhausted,
    /// The system gave no randomness for the reply.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// An earlier call failed.
    #[error("opening already failed")]
    Failed,
}

/// What an [`OpenError`] means to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenErrorKind {
    /// The sender has another key than this node: the `ohttp-key` problem.
    Key,
    /// The message is larger than allowed.
    TooLarge,
    /// Anything else.
    Malformed,
}

impl OpenError {
    /// What this means to the sender.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        match self {
            Self::UnknownKey(_) | Self::UnsupportedSuite | Self::FirstChunk => OpenErrorKind::Key,
            Self::TooLarge { .. } => OpenErrorKind::TooLarge,
            Self::Decrypt
            | Self::ChunkLength { .. }
            | Self::FinalChunkTooLong { .. }
            | Self::Truncated
            | Self::Form(_)
            | Self::Unread { .. }
            | Self::Exhausted
            | Self::Random(_)
            | Self::Failed => OpenErrorKind::Malformed,
        }
    }
}
