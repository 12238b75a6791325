//! Why an exchange gave no complete reply, and what may follow.

use attestation::Ineligible;
use http::StatusCode;

use super::{problem::Problem, upstream::SendError};
use crate::{
    openai::sse::SseError,
    seal::{OpenError, SealError},
};

/// Why an exchange with a node gave no complete reply. No variant holds a byte of prompt or reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// There was no response.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The appraisal has ended, or no key is in its life: nothing was sealed.
    #[error("no key to seal to: {0}")]
    Ineligible(#[from] Ineligible),
    /// The request could not be sealed: nothing was sent.
    #[error("seal: {0}")]
    Seal(#[from] SealError),
    /// The request makes no HTTP message: nothing was sent.
    #[error("the request makes no HTTP message: {0}")]
    Request(#[from] http::Error),
    /// The reply did not begin in time.
    #[error("no part of the reply in time")]
    FirstByteTimeout,
    /// The reply did not go on in time.
    #[error("silence in the middle of the reply")]
    IdleTimeout,
    /// The node does not open what was sealed; or so says somebody on the path.
    #[error("the node does not open what is sealed to this key")]
    OhttpKey {
        /// Whether it counts as proof that nothing was executed.
        not_executed: bool,
    },
    /// An error outside the seal, which can come from anybody on the path.
    #[error("status {status} outside the seal")]
    Outside {
        /// Its status.
        status: StatusCode,
        /// When to try again, in seconds.
        retry_after_s: Option<u32>,
        /// Whether it counts as proof that nothing was executed.
        not_executed: bool,
    },
    /// A success that is not sealed.
    #[error("a reply outside the seal, status {status}")]
    NotSealed {
        /// Its status.
        status: StatusCode,
    },
    /// The connection broke off in the reply.
    #[error("the connection broke off in the reply: {0}")]
    Broken(hyper::Error),
    /// The reply does not open, or was cut.
    #[error("open: {0}")]
    Open(#[from] OpenError),
    /// The reply opened and is not what was asked for.
    #[error("the reply is not what was asked for: {0}")]
    Unexpected(&'static str),
    /// The reply opened and is no event stream of the contract.
    #[error("the event stream: {0}")]
    Events(#[from] SseError),
    /// The node says that the reply ended early.
    #[error("the node ended the reply early: {0:?}")]
    Incomplete(Incomplete),
    /// The reply is longer than it may be.
    #[error("the reply exceeds {max} bytes")]
    TooLong {
        /// Most bytes that a reply may have.
        max: usize,
    },
    /// The node refused, under the seal.
    #[error("the node refused: {problem:?}")]
    Problem {
        /// Why.
        problem: Problem,
        /// When to try again, in seconds.
        retry_after_s: Option<u32>,
    },
    /// The engine behind the node failed.
    #[error("the engine answered {status}")]
    Engine {
        /// Its status.
        status: u16,
    },
}

/// Why a node ended a reply early (docs/wire.md, "Response").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// The engine died.
    EngineFailed,
    /// The engine fell silent.
    Idle,
    /// The work was cancelled.
    Cancelled,
    /// Another reason.
    Other,
}

impl Incomplete {
    pub(crate) fn from_trailer(value: &str) -> Self {
        match value {
            "engine-failed" => Self::EngineFailed,
            "idle" => Self::Idle,
            "cancelled" => Self::Cancelled,
            _ => Self::Other,
        }
    }
}

/// What may follow a failed exchange (docs/wire.md, "Retrying").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Attest the same node again and seal once more.
    Reseal,
    /// Nothing was executed: another node may be asked.
    Another,
    /// It may have been executed, or no node would do better.
    Fail,
}

impl ExchangeError {
    pub(crate) fn next(&self) -> Next {
        match self {
            // A node that restarted, or turned to another certificate, says so in its next evidence.
            Self::OhttpKey { not_executed: true } | Self::Send(SendError::OtherCertificate) => {
                Next::Reseal
            }
            Self::Send(
                SendError::Connect(_)
                | SendError::ConnectTimeout
                | SendError::Proxy(_)
                | SendError::NotSent(_),
            )
            | Self::Ineligible(_)
            | Self::Seal(SealError::KeyExpired)
            | Self::Outside {
                not_executed: true, ..
            } => Next::Another,
            Self::Problem { problem, .. } => problem.next(),
            Self::Send(SendError::Broken { .. })
            | Self::Seal(_)
            | Self::Request(_)
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::OhttpKey {
                not_executed: false,
            }
            | Self::Outside {
                not_executed: false,
                ..
            }
            | Self::NotSealed { .. }
            | Self::Broken(_)
            | Self::Open(_)
            | Self::Unexpected(_)
            | Self::Events(_)
            | Self::Incomplete(_)
            | Self::TooLong { .. }
            | Self::Engine { .. } => Next::Fail,
        }
    }

    /// A word for it, for metrics.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Send(SendError::Connect(_)) => "connect",
            Self::Send(SendError::ConnectTimeout) => "connect_timeout",
            Self::Send(SendError::Proxy(_)) => "proxy",
            Self::Send(SendError::OtherCertificate) => "other_certificate",
            Self::Send(SendError::NotSent(_)) => "not_sent",
            Self::Send(SendError::Broken { .. }) => "broken_before_reply",
            Self::Ineligible(_) => "no_key",
            Self::Seal(_) | Self::Request(_) => "seal",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::OhttpKey { .. } => "ohttp_key",
            Self::Outside { .. } => "outside_the_seal",
            Self::NotSealed { .. } => "not_sealed",
            Self::Broken(_) => "broken_in_reply",
            Self::Open(OpenError::Truncated) => "truncated",
            Self::Open(_) => "open",
            Self::Unexpected(_) => "unexpected",
            Self::Events(_) => "events",
            Self::Incomplete(_) => "incomplete",
            Self::TooLong { .. } => "too_long",
            Self::Problem { problem, .. } => problem.class(),
            Self::Engine { .. } => "engine",
        }
    }

    /// Where the same bytes went to the node twice: whether this is as true of the first copy as of
    /// the second, which it was said of.
    pub(super) fn speaks_of_every_copy(&self) -> bool {
        match self {
            Self::Problem { problem, .. } => problem.speaks_of_every_copy(),
            _ => self.next() == Next::Fail,
        }
    }

    /// When the node says that it could take the request.
    pub(crate) fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Outside { retry_after_s, .. } | Self::Problem { retry_after_s, .. } => {
                *retry_after_s
            }
            _ => None,
        }
    }
}
