//! Why a request of this dialect was not opened.

use crate::seal::OpenErrorKind;

/// Why a body could not be opened. No variant holds a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EhbpError {
    /// The encapsulated key gives an all-zero shared secret (RFC 9180 section 7.1.4).
    #[error("the encapsulated key is not usable")]
    UnusableKey,
    /// None of the node's keys opens the first frame.
    #[error("no key opens the first frame")]
    NoKey,
    /// A later frame was not authentic in its place.
    #[error("authentication failed")]
    Decrypt,
    /// A frame's length leaves no room for its tag.
    #[error("frame of {len} bytes is shorter than {min}")]
    FrameTooShort {
        /// The announced length.
        len: usize,
        /// Length of a tag.
        min: usize,
    },
    /// A frame's announced length, or the body, is more than the content may be.
    #[error("content exceeds {max} bytes")]
    TooLarge {
        /// The limit that was passed.
        max: usize,
    },
    /// The body ended inside a length or a frame.
    #[error("body ended inside a frame")]
    Truncated,
    /// The body holds no frame.
    #[error("body without a frame")]
    Empty,
    /// The keys of the reply cannot be derived.
    #[error("the key is used up")]
    Exhausted,
    /// An earlier call failed.
    #[error("opening already failed")]
    Failed,
}

impl EhbpError {
    /// What this means to the sender.
    #[must_use]
    pub fn kind(&self) -> OpenErrorKind {
        match self {
            Self::NoKey => OpenErrorKind::Key,
            Self::TooLarge { .. } => OpenErrorKind::TooLarge,
            Self::UnusableKey
            | Self::Decrypt
            | Self::FrameTooShort { .. }
            | Self::Truncated
            | Self::Empty
            | Self::Exhausted
            | Self::Failed => OpenErrorKind::Malformed,
        }
    }
}
