//! What can go wrong between a caller and the engine, and what the caller is told of it.
//!
//! Each error maps to one [`Code`], whose message is fixed; the cause is for the log, and no
//! variant holds a byte of a prompt or a reply.

use http::{
    HeaderValue, Response,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{attest::AttestError, body::ReplyBody, receipts::ReceiptFault};
use crate::{
    openai::{Code, ErrorObject, RequestError},
    seal::{OpenError, REQUEST_MEDIA_TYPE, SealError},
    sealer::{ExchangeError, Incomplete, Next, Problem, SendError},
};

/// Longest `Retry-After` that is given on: above it clients do not retry at all.
const MAX_RETRY_AFTER_S: u32 = 120;

const NO_POST_QUANTUM_NODE: &str = "This API key requires a post-quantum seal, and no attested node for \
    this model has a key of the suite `x-wing`. Nothing was sent.";
const DIALECT_NOT_POST_QUANTUM: &str = "This API key requires a post-quantum seal, and the format of this \
    path has none.";
const SEAL_NOT_POST_QUANTUM: &str = "A post-quantum seal is required here, and this request is not sealed \
    with the suite `x-wing`.";

const NO_FITTING_HARDWARE: &str = "This API key demands hardware (`tees`, `require_gpu`) that the verified \
    evidence of no attested node for this model shows. Nothing was sent.";
const HARDWARE_NOT_ALLOWED: &str = "This API key demands hardware (`tees`, `require_gpu`), and this is not sealed \
    to a key of a node whose verified evidence shows it. Ask for the node's keys again.";

const NO_PRICE: &str = "This API key has a budget of money, and this model has no price here.";
const NOT_COUNTED: &str = "The tokens of this API key are limited, and those of a request that is sealed past \
    the gateway cannot be counted here.";

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
    #[error("the body came too slowly")]
    BodyTooSlow,
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
    #[error("no verified node for the model has a post-quantum key, which the key requires")]
    NoPostQuantumNode,
    #[error("no verified node for the model is on the hardware that the key demands")]
    NoFittingHardware,
    #[error("it is sealed to no key of a node on the hardware that the key demands")]
    HardwareNotAllowed,
    #[error("no verified node for the model may be asked now")]
    NoNodeAvailable,
    #[error("no verified node has the id")]
    NodeNotFound,
    #[error("the key may not use every model of the node")]
    RelayNotAllowed,
    #[error("the policy forbids the dialect")]
    DialectForbidden,
    #[error("the key requires a post-quantum seal, which the dialect has not")]
    DialectNotPostQuantum,
    #[error("the key or the policy requires a post-quantum seal, and the request has another")]
    SealNotPostQuantum,
    #[error("the store does not answer, and the key is not known without it")]
    StoreUnavailable,
    #[error("no receipt of this caller for this request")]
    ReceiptNotFound,
    #[error("what the receipt rests on is not archived: {0}")]
    EvidenceNotArchived(&'static str),
    #[error("no such lock of this caller for this request")]
    LockNotFound,
    #[error("the caller, or all, hold as many locks as they may")]
    TooManyLocks,
    #[error("the caller does it too often; again in {retry_after_s} s")]
    RateLimited { retry_after_s: u32 },
    #[error("a budget of the key is used up, or held by its other requests")]
    BudgetExceeded,
    #[error("the key has a budget of money, and the model has no price")]
    NoPrice,
    #[error("what the key uses must be counted, and what is sealed past the gateway is not")]
    NotCounted,
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
            Self::BodyTimeout | Self::BodyTooSlow => Code::RequestTimeout,
            Self::BodyBroken(_) => Code::InvalidRequest,
            Self::Request(error) => error.as_code(),
            Self::ModelNotAllowed | Self::NoPrice => Code::ModelNotAllowed,
            Self::ModelNotFound => Code::ModelNotFound,
            Self::NoAttestedNode | Self::NoPostQuantumNode | Self::NoFittingHardware => {
                Code::NoAttestedNode
            }
            Self::NoNodeAvailable => Code::NoNodeAvailable,
            Self::NodeNotFound => Code::NodeNotFound,
            Self::RelayNotAllowed
            | Self::SealNotPostQuantum
            | Self::HardwareNotAllowed
            | Self::NotCounted => Code::RelayNotAllowed,
            Self::DialectForbidden | Self::DialectNotPostQuantum => Code::DialectForbidden,
            Self::StoreUnavailable => Code::StoreUnavailable,
            Self::ReceiptNotFound => Code::ReceiptNotFound,
            Self::EvidenceNotArchived(_) => Code::EvidenceNotArchived,
            Self::LockNotFound => Code::LockNotFound,
            Self::TooManyLocks => Code::TooManyLocks,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::BudgetExceeded => Code::BudgetExceeded,
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
            Self::NoFittingHardware => object.message = NO_FITTING_HARDWARE.into(),
            Self::HardwareNotAllowed => object.message = HARDWARE_NOT_ALLOWED.into(),
            Self::NoPostQuantumNode => object.message = NO_POST_QUANTUM_NODE.into(),
            Self::DialectNotPostQuantum => object.message = DIALECT_NOT_POST_QUANTUM.into(),
            Self::SealNotPostQuantum => object.message = SEAL_NOT_POST_QUANTUM.into(),
            Self::NoPrice => object.message = NO_PRICE.into(),
            Self::NotCounted => object.message = NOT_COUNTED.into(),
            _ => {}
        }
        object
    }

    /// Whether the rest of the body may come before the refusal goes out. Not one that was too slow.
    pub(super) fn lets_the_body_come(&self) -> bool {
        !matches!(self, Self::BodyTimeout | Self::BodyTooSlow)
    }

    /// The reply; `x-request-id` is set where all replies get it.
    pub(super) fn into_response(self) -> Response<ReplyBody> {
        let code = self.code();
        let closes = !self.lets_the_body_come();
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
        if closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
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
            Self::Draining
            | Self::NoAttestedNode
            | Self::NoPostQuantumNode
            | Self::NoFittingHardware => 5,
            Self::Node(failure) => failure.retry_after_s().unwrap_or(1),
            Self::RateLimited { retry_after_s } => *retry_after_s,
            _ => 1,
        }
    }
}

/// Why a node gave no complete reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeFailure {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the node's appraisal has ended")]
    NotVerified,
    #[error("the gateway is shutting down")]
    Cut,
    #[error("the node is no longer verified")]
    NoLongerVerified,
    #[error("the receipt, which is required: {0}")]
    Receipt(#[from] ReceiptFault),
}

impl NodeFailure {
    pub(super) fn next(&self) -> Next {
        match self {
            Self::Exchange(error) => error.next(),
            Self::NotVerified => Next::Another,
            Self::Cut | Self::NoLongerVerified | Self::Receipt(_) => Next::Fail,
        }
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Self::Exchange(error) => code_of(error),
            Self::NotVerified => Code::NoNodeAvailable,
            Self::Cut | Self::NoLongerVerified => Code::UpstreamTruncated,
            Self::Receipt(fault) if fault.is_of_node() => Code::NodeReplyInvalid,
            Self::Receipt(_) => Code::Internal,
        }
    }

    /// Why the reply is not whole, as one who sealed is told (docs/wire.md, "Response"): nothing of
    /// where it broke.
    pub(super) fn as_incomplete(&self) -> &'static str {
        match self {
            Self::Exchange(
                ExchangeError::IdleTimeout | ExchangeError::Incomplete(Incomplete::Idle),
            ) => "idle",
            Self::Exchange(ExchangeError::Incomplete(Incomplete::Cancelled))
            | Self::NotVerified
            | Self::Cut
            | Self::NoLongerVerified => "cancelled",
            Self::Exchange(_) | Self::Receipt(_) => "engine-failed",
        }
    }

    /// What metrics call it.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Exchange(error) => error.class(),
            Self::NotVerified => "not_verified",
            Self::Cut => "cut",
            Self::NoLongerVerified => "no_longer_verified",
            Self::Receipt(_) => "receipt",
        }
    }

    /// Whether it is counted as the node's.
    pub(super) fn is_of_node(&self) -> bool {
        match self {
            Self::Receipt(fault) => fault.is_of_node(),
            Self::Exchange(_) | Self::NotVerified | Self::Cut | Self::NoLongerVerified => true,
        }
    }

    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Exchange(error) => error.retry_after_s(),
            Self::NotVerified | Self::Cut | Self::NoLongerVerified | Self::Receipt(_) => None,
        }
    }
}

fn code_of(error: &ExchangeError) -> Code {
    match error {
        ExchangeError::Send(
            SendError::Connect(_)
            | SendError::ConnectTimeout
            | SendError::Proxy(_)
            | SendError::OtherCertificate
            | SendError::NotSent(_),
        )
        | ExchangeError::Ineligible(_)
        | ExchangeError::Seal(SealError::KeyExpired)
        | ExchangeError::OhttpKey { not_executed: true }
        | ExchangeError::Outside {
            not_executed: true, ..
        } => Code::NoNodeAvailable,
        ExchangeError::Problem { problem, .. } => code_of_problem(*problem),
        ExchangeError::Send(SendError::Broken { .. })
        | ExchangeError::Broken(_)
        | ExchangeError::Open(OpenError::Truncated)
        | ExchangeError::Incomplete(Incomplete::Cancelled | Incomplete::Other) => {
            Code::UpstreamTruncated
        }
        ExchangeError::Seal(_) | ExchangeError::Request(_) => Code::Internal,
        ExchangeError::FirstByteTimeout => Code::FirstByteTimeout,
        ExchangeError::IdleTimeout | ExchangeError::Incomplete(Incomplete::Idle) => {
            Code::IdleTimeout
        }
        ExchangeError::OhttpKey {
            not_executed: false,
        }
        | ExchangeError::Outside {
            not_executed: false,
            ..
        }
        | ExchangeError::NotSealed { .. }
        | ExchangeError::Open(_)
        | ExchangeError::Unexpected(_)
        | ExchangeError::Events(_)
        | ExchangeError::TooLong { .. } => Code::NodeReplyInvalid,
        ExchangeError::Incomplete(Incomplete::EngineFailed) | ExchangeError::Engine { .. } => {
            Code::EngineError
        }
    }
}

fn code_of_problem(problem: Problem) -> Code {
    match problem {
        Problem::Credential
        | Problem::Path
        | Problem::Date
        | Problem::Statement
        | Problem::Overloaded
        | Problem::Draining
        | Problem::EngineUnreachable => Code::NoNodeAvailable,
        Problem::Malformed => Code::Internal,
        Problem::Replayed => Code::UpstreamTruncated,
        Problem::EngineFailed | Problem::Unknown => Code::EngineError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_run_is_never_tried_again() {
        for problem in [Problem::Replayed, Problem::EngineFailed, Problem::Unknown] {
            assert_eq!(problem.next(), Next::Fail, "{problem:?}");
            let code = code_of_problem(problem);
            assert_eq!(code.should_retry(), Some(false), "{problem:?}");
        }
    }
}
