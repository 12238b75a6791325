//! What can go wrong between a caller and the engine, and what the caller is told of it.
//!
//! Each error maps to one [`Code`], whose message is fixed; the cause is for the log, and no
//! variant holds a byte of a prompt or a reply.

use attestation::Ineligible;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{attest::AttestError, body::ReplyBody, problem::Problem, upstream::SendError};
use crate::{
    openai::{Code, ErrorObject, RequestError, sse::SseError},
    seal::{OpenError, REQUEST_MEDIA_TYPE, SealError},
};

/// Longest `Retry-After` that is given on: above it clients do not retry at all.
const MAX_RETRY_AFTER_S: u32 = 120;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("unknown path")]
    NotFound,
    #[error("wrong method")]
    MethodNotAllowed { allow: &'static str },
    #[error("the host is not this machine")]
    ForeignHost,
    #[error("the request target is too long")]
    UriTooLong,
    #[error("the header fields are too long")]
    HeadersTooLarge,
    #[error("no known key")]
    Unauthenticated,
    #[error("the gateway or the key is at its limit")]
    Overloaded,
    #[error("the gateway is shutting down")]
    Draining,
    #[error("the body is not plain application/json")]
    MediaType,
    #[error("the body is not plain {REQUEST_MEDIA_TYPE}")]
    SealedMediaType,
    #[error("the body exceeds {max} bytes")]
    TooLarge { max: usize },
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body broke off: {0}")]
    BodyBroken(hyper::Error),
    #[error("the body: {0}")]
    Request(#[from] RequestError),
    #[error("the key may not use the model")]
    ModelNotAllowed,
    #[error("no node ever served the model")]
    ModelNotFound,
    #[error("no node for the model is verified")]
    NoAttestedNode,
    #[error("no verified node for the model may be asked now")]
    NoNodeAvailable,
    #[error("no verified node has the id")]
    NodeNotFound,
    #[error("the key may not use every model of the node")]
    RelayNotAllowed,
    #[error("the policy forbids the dialect")]
    DialectForbidden,
    #[error("no such lock of this caller for this request")]
    LockNotFound,
    #[error("the caller, or all, hold as many locks as they may")]
    TooManyLocks,
    #[error("the caller does it too often; again in {retry_after_s} s")]
    RateLimited { retry_after_s: u32 },
    #[error("announcement: {0}")]
    Announcement(#[from] NotAnnounced),
    #[error(transparent)]
    Node(#[from] NodeFailure),
}

/// Why a node that announced itself is not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAnnounced {
    #[error("the configuration allows none")]
    Off,
    #[error("an address that the configuration does not allow")]
    Place,
    #[error("its name cannot be resolved")]
    Unresolved,
    #[error("an address of a range that is refused")]
    Range,
    #[error("the evidence: {0}")]
    Evidence(#[from] AttestError),
    #[error("it was asked again, and did not pass")]
    NotRefreshed,
    #[error("its id is another node's")]
    IdTaken,
    #[error("as many as may be have announced themselves")]
    Full,
}

impl NotAnnounced {
    fn code(&self) -> Code {
        match self {
            // One answer for all: what a name means in the gateway's own network is not told.
            Self::Off | Self::Place | Self::Unresolved | Self::Range => {
                Code::AnnouncementNotAllowed
            }
            Self::Evidence(
                AttestError::Archive(_) | AttestError::Panicked | AttestError::Random,
            ) => Code::Internal,
            Self::Evidence(_) | Self::NotRefreshed => Code::EvidenceRefused,
            Self::IdTaken => Code::NodeIdTaken,
            Self::Full => Code::TooManyNodes,
        }
    }

    /// The class of check that refused, in words of this program alone.
    fn class(&self) -> Option<&'static str> {
        match self {
            Self::Evidence(AttestError::Refused(refusal)) => Some(refusal.check),
            Self::Evidence(AttestError::Answer(_)) => Some("the form of the answer"),
            Self::Evidence(_) if self.code() == Code::EvidenceRefused => {
                Some("an answer of status 200 in time")
            }
            _ => None,
        }
    }
}

impl Error {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::NotFound | Self::ForeignHost => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::UriTooLong => Code::UriTooLong,
            Self::HeadersTooLarge => Code::HeadersTooLarge,
            Self::Unauthenticated => Code::InvalidApiKey,
            Self::Overloaded => Code::Overloaded,
            Self::Draining => Code::Draining,
            Self::MediaType | Self::SealedMediaType => Code::UnsupportedMediaType,
            Self::TooLarge { .. } => Code::RequestTooLarge,
            Self::BodyTimeout => Code::RequestTimeout,
            Self::BodyBroken(_) => Code::InvalidRequest,
            Self::Request(error) => error.as_code(),
            Self::ModelNotAllowed => Code::ModelNotAllowed,
            Self::ModelNotFound => Code::ModelNotFound,
            Self::NoAttestedNode => Code::NoAttestedNode,
            Self::NoNodeAvailable => Code::NoNodeAvailable,
            Self::NodeNotFound => Code::NodeNotFound,
            Self::RelayNotAllowed => Code::RelayNotAllowed,
            Self::DialectForbidden => Code::DialectForbidden,
            Self::LockNotFound => Code::LockNotFound,
            Self::TooManyLocks => Code::TooManyLocks,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::Announcement(error) => error.code(),
            Self::Node(failure) => failure.code(),
        }
    }

    /// What the caller is told.
    fn object(&self) -> ErrorObject<'_> {
        let mut object = self.code().object();
        match self {
            Self::Request(error) => return error.object(),
            Self::SealedMediaType => {
                object.message =
                    format!("The body must be `{REQUEST_MEDIA_TYPE}`, without a content coding.")
                        .into();
            }
            Self::Announcement(error) => {
                if let Some(class) = error.class() {
                    object.message = format!("{} It fails at: {class}.", object.message).into();
                }
            }
            _ => {}
        }
        object
    }

    /// The reply; `x-request-id` is set where all replies get it.
    pub(super) fn into_response(self) -> Response<ReplyBody> {
        let code = self.code();
        let body = self.object().to_json();
        let mut response = Response::new(ReplyBody::from(body));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(should) = code.should_retry() {
            let should = if should { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(should));
        }
        if code.wants_retry_after() {
            headers.insert(
                RETRY_AFTER,
                self.retry_after_s().min(MAX_RETRY_AFTER_S).into(),
            );
        }
        match &self {
            Self::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    fn retry_after_s(&self) -> u32 {
        match self {
            Self::Draining | Self::NoAttestedNode => 5,
            Self::Node(failure) => failure.retry_after_s().unwrap_or(1),
            Self::RateLimited { retry_after_s } => *retry_after_s,
            _ => 1,
        }
    }
}

/// Why an exchange with a node gave no complete reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeFailure {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the node's appraisal has ended")]
    NotVerified,
    #[error("no key to seal to: {0}")]
    Ineligible(#[from] Ineligible),
    #[error("seal: {0}")]
    Seal(#[from] SealError),
    #[error("the request makes no HTTP message: {0}")]
    Request(#[from] http::Error),
    #[error("no part of the reply in time")]
    FirstByteTimeout,
    #[error("silence in the middle of the reply")]
    IdleTimeout,
    #[error("the node does not open what is sealed to this key")]
    OhttpKey {
        /// Whether it counts as proof that nothing was executed.
        not_executed: bool,
    },
    #[error("status {status} outside the seal")]
    Outside {
        status: StatusCode,
        retry_after_s: Option<u32>,
        /// Whether it counts as proof that nothing was executed.
        not_executed: bool,
    },
    #[error("a reply outside the seal, status {status}")]
    NotSealed { status: StatusCode },
    #[error("the connection broke off in the reply: {0}")]
    Broken(hyper::Error),
    #[error("open: {0}")]
    Open(#[from] OpenError),
    #[error("the reply is not what was asked for: {0}")]
    Unexpected(&'static str),
    #[error("the event stream: {0}")]
    Events(#[from] SseError),
    #[error("the node ended the reply early: {0:?}")]
    Incomplete(Incomplete),
    #[error("the reply exceeds {max} bytes")]
    TooLong { max: usize },
    #[error("the node refused: {problem:?}")]
    Problem {
        problem: Problem,
        retry_after_s: Option<u32>,
    },
    #[error("the engine answered {status}")]
    Engine { status: u16 },
    #[error("the gateway is shutting down")]
    Cut,
    #[error("the node is no longer verified")]
    NoLongerVerified,
}

/// What a node says in `sealgate-incomplete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incomplete {
    EngineFailed,
    Idle,
    Cancelled,
    Other,
}

impl Incomplete {
    pub(super) fn from_trailer(value: &str) -> Self {
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
pub(super) enum Next {
    /// Attest the same node again and seal once more.
    Reseal,
    /// Nothing was executed: another node may be asked.
    Another,
    /// It may have been executed, or no node would do better.
    Fail,
}

impl NodeFailure {
    pub(super) fn next(&self) -> Next {
        match self {
            Self::OhttpKey { not_executed: true } => Next::Reseal,
            Self::Send(
                SendError::Connect(_) | SendError::ConnectTimeout | SendError::NotSent(_),
            )
            | Self::NotVerified
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
            | Self::Engine { .. }
            | Self::Cut
            | Self::NoLongerVerified => Next::Fail,
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

    pub(super) fn code(&self) -> Code {
        match self {
            Self::Send(
                SendError::Connect(_) | SendError::ConnectTimeout | SendError::NotSent(_),
            )
            | Self::NotVerified
            | Self::Ineligible(_)
            | Self::Seal(SealError::KeyExpired)
            | Self::OhttpKey { not_executed: true }
            | Self::Outside {
                not_executed: true, ..
            } => Code::NoNodeAvailable,
            Self::Problem { problem, .. } => problem.code(),
            Self::Send(SendError::Broken { .. })
            | Self::Broken(_)
            | Self::Open(OpenError::Truncated)
            | Self::Incomplete(Incomplete::Cancelled | Incomplete::Other)
            | Self::Cut
            | Self::NoLongerVerified => Code::UpstreamTruncated,
            Self::Seal(_) | Self::Request(_) => Code::Internal,
            Self::FirstByteTimeout => Code::FirstByteTimeout,
            Self::IdleTimeout | Self::Incomplete(Incomplete::Idle) => Code::IdleTimeout,
            Self::OhttpKey {
                not_executed: false,
            }
            | Self::Outside {
                not_executed: false,
                ..
            }
            | Self::NotSealed { .. }
            | Self::Open(_)
            | Self::Unexpected(_)
            | Self::Events(_)
            | Self::TooLong { .. } => Code::NodeReplyInvalid,
            Self::Incomplete(Incomplete::EngineFailed) | Self::Engine { .. } => Code::EngineError,
        }
    }

    /// When the node says that it could take the request.
    pub(super) fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Outside { retry_after_s, .. } | Self::Problem { retry_after_s, .. } => {
                *retry_after_s
            }
            _ => None,
        }
    }
}
