//! How a sealed request is refused: in clear before a request is opened, under the seal from then on.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::replay::ClaimError;
use crate::openai::{Code, ErrorObject};

/// Media type of every refusal (RFC 9457).
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
const OHTTP_KEY: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
const DATE: &str = "https://iana.org/assignments/http-problem-types#date";
/// Seconds after which a full node is worth another try.
pub(crate) const RETRY_AFTER_S: u16 = 1;
/// Seconds after which a draining node's successor may be there.
pub(crate) const RETRY_AFTER_DRAINING_S: u16 = 5;

/// A refusal in clear: anybody on the way may have written it, so it says little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Outside {
    #[error("the key is unknown or has ended, or the request was not sealed to it")]
    OhttpKey,
    #[error("the encapsulated request is malformed or cut short")]
    Malformed,
    #[error("the nonce is 64 lower-case hex digits, given once")]
    Nonce,
    #[error("the request's body did not arrive in time")]
    Timeout,
    #[error("the request is too large")]
    TooLarge,
    #[error("the media type is message/ohttp-chunked-req, without content coding")]
    MediaType,
    #[error("no expectation is met")]
    Expectation,
    #[error("there is no such resource")]
    NotFound,
    #[error("the resource has no such method")]
    Method(&'static str),
    #[error("too many requests at once")]
    TooMany,
    #[error("no requests are taken now")]
    Unavailable,
    #[error("there can be no answer now")]
    Internal,
}

impl Outside {
    /// What metrics call it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::OhttpKey => "ohttp-key",
            Self::Malformed => "malformed",
            Self::Nonce => "nonce",
            Self::Timeout => "timeout",
            Self::TooLarge => "too-large",
            Self::MediaType => "media-type",
            Self::Expectation => "expectation",
            Self::NotFound => "not-found",
            Self::Method(_) => "method",
            Self::TooMany => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::OhttpKey | Self::Malformed | Self::Nonce => StatusCode::BAD_REQUEST,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::TooMany => Some(RETRY_AFTER_S),
            Self::Unavailable => Some(RETRY_AFTER_DRAINING_S),
            _ => None,
        }
    }

    /// The response, in whatever body whoever answers has.
    pub(crate) fn response<B: From<Bytes>>(self) -> Response<B> {
        let kind = if self == Self::OhttpKey {
            OHTTP_KEY
        } else {
            "about:blank"
        };
        let status = self.status();
        let body = problem(kind, status.as_u16(), &self.to_string());
        let mut response = Response::new(B::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Self::Method(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if matches!(self, Self::Expectation | Self::Timeout | Self::TooLarge) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whether a sender that has not finished may do so before it is refused. Not one that waits
    /// for leave to begin, and not one that was too slow.
    pub(crate) fn lets_the_body_come(self) -> bool {
        !matches!(self, Self::Expectation | Self::Timeout)
    }
}

/// A refusal under the seal (docs/wire.md, "Response").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the credential is missing or wrong")]
    Credential,
    #[error("no such path is taken")]
    Path,
    #[error("the request's date is too far from the clock here")]
    Date,
    #[error("the statement is not one that was given out here, or it counts no more")]
    Statement,
    #[error("the request was accepted before")]
    Replayed,
    #[error("no more requests are taken now")]
    Overloaded {
        /// What the engine said, or a guess.
        retry_after_s: u16,
    },
    #[error("whoever was asked is about to stop")]
    Draining,
    #[error("the engine cannot be reached")]
    EngineUnreachable,
    #[error("the engine failed while it worked on the request")]
    EngineFailed,
}

impl Refusal {
    /// The last part of the problem's type; also what the log calls it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Credential => "credential",
            Self::Path => "path",
            Self::Date => "date",
            Self::Statement => "statement",
            Self::Replayed => "replayed",
            Self::Overloaded { .. } => "overloaded",
            Self::Draining => "draining",
            Self::EngineUnreachable => "engine-unreachable",
            Self::EngineFailed => "engine-failed",
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Date => 400,
            Self::Credential => 401,
            Self::Path => 404,
            Self::Statement | Self::Replayed => 409,
            Self::EngineFailed => 502,
            Self::Overloaded { .. } | Self::Draining | Self::EngineUnreachable => 503,
        }
    }

    pub(crate) fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::Overloaded { retry_after_s } => Some(retry_after_s),
            Self::Draining => Some(RETRY_AFTER_DRAINING_S),
            Self::EngineUnreachable => Some(RETRY_AFTER_S),
            _ => None,
        }
    }

    /// Whether a client may send the request again without asking anybody: not where it may have
    /// run, although its status says so to many clients.
    pub(crate) fn allows_another_try(self) -> bool {
        !matches!(self, Self::EngineFailed | Self::Replayed)
    }

    /// The refusal as an OpenAI client reads it.
    pub(crate) fn object(self) -> ErrorObject<'static> {
        let (code, kind) = match self {
            Self::Malformed(_) | Self::Date | Self::Statement => {
                (Code::InvalidRequest.code(), Code::InvalidRequest.kind())
            }
            Self::Credential => (Code::InvalidApiKey.code(), Code::InvalidApiKey.kind()),
            Self::Path => (Code::NotFound.code(), Code::NotFound.kind()),
            Self::Replayed => ("replayed", Code::InvalidRequest.kind()),
            Self::Overloaded { .. } => (Code::Overloaded.code(), Code::Overloaded.kind()),
            Self::Draining => (Code::Draining.code(), Code::Draining.kind()),
            Self::EngineUnreachable => ("engine_unreachable", Code::EngineError.kind()),
            Self::EngineFailed => (Code::EngineError.code(), Code::EngineError.kind()),
        };
        ErrorObject {
            message: Cow::Owned(self.to_string()),
            kind,
            param: None,
            code: Some(code),
        }
    }

    /// The problem document.
    pub(crate) fn to_json(self) -> Bytes {
        let kind = match self {
            Self::Date => DATE.to_owned(),
            other => format!("urn:sealgate:problem:{}", other.code()),
        };
        problem(&kind, self.status(), &self.to_string())
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Replayed => Self::Replayed,
            ClaimError::Ended => Self::Date,
            ClaimError::Full => Self::Overloaded {
                retry_after_s: RETRY_AFTER_S,
            },
        }
    }
}

/// A problem document (RFC 9457).
pub(crate) fn problem(kind: &str, status: u16, detail: &str) -> Bytes {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'a str,
        title: &'a str,
        status: u16,
        detail: &'a str,
    }
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason());
    let problem = Problem {
        r#type: kind,
        title: title.unwrap_or_default(),
        status,
        detail,
    };
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn refusals_are_problem_documents_with_their_status() {
        let cases = [
            (
                Refusal::Malformed("no date"),
                "urn:sealgate:problem:malformed",
                400,
            ),
            (Refusal::Date, DATE, 400),
            (Refusal::Replayed, "urn:sealgate:problem:replayed", 409),
            (
                Refusal::Overloaded { retry_after_s: 3 },
                "urn:sealgate:problem:overloaded",
                503,
            ),
            (
                Refusal::EngineFailed,
                "urn:sealgate:problem:engine-failed",
                502,
            ),
        ];
        for (refusal, kind, status) in cases {
            let json: Value = serde_json::from_slice(&refusal.to_json()).unwrap();
            assert_eq!(
                (&json["type"], &json["status"]),
                (&kind.into(), &status.into())
            );
            assert_eq!(json["detail"], refusal.to_string());
        }
    }

    #[test]
    fn refusals_in_clear_carry_the_fields_that_help() {
        let response = Outside::TooMany.response::<Bytes>();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(
            Outside::Method("GET").response::<Bytes>().headers()[header::ALLOW],
            "GET"
        );
        assert_eq!(
            Outside::TooLarge.response::<Bytes>().headers()[header::CONNECTION],
            "close"
        );
        assert!(
            !Outside::OhttpKey
                .response::<Bytes>()
                .headers()
                .contains_key(header::RETRY_AFTER)
        );
    }
}
