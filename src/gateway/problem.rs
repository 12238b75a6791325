//! What a node refuses inside the seal (docs/wire.md, "Response").

use std::borrow::Cow;

use serde::Deserialize;

use super::error::Next;
use crate::openai::Code;

/// Media type of a refusal (RFC 9457).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// Problem type outside the seal: the node does not open what was sealed.
const OHTTP_KEY: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
/// Problem type inside the seal: the date is too far from the node's clock.
const DATE: &str = "https://iana.org/assignments/http-problem-types#date";
/// What this project's own problem types begin with.
const OWN: &str = "urn:sealgate:problem:";

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// A node's refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Malformed,
    Credential,
    Path,
    Date,
    Statement,
    Replayed,
    Overloaded,
    Draining,
    EngineUnreachable,
    EngineFailed,
    /// One that this gateway does not know.
    Unknown,
}

impl Problem {
    /// The refusal in a body of type [`MEDIA_TYPE`].
    pub(super) fn from_json(body: &[u8]) -> Self {
        let Ok(object) = serde_json::from_slice::<Object<'_>>(body) else {
            return Self::Unknown;
        };
        if object.kind == DATE {
            return Self::Date;
        }
        match object.kind.strip_prefix(OWN) {
            Some("malformed") => Self::Malformed,
            Some("credential") => Self::Credential,
            Some("path") => Self::Path,
            Some("date") => Self::Date,
            Some("statement") => Self::Statement,
            Some("replayed") => Self::Replayed,
            Some("overloaded") => Self::Overloaded,
            Some("draining") => Self::Draining,
            Some("engine-unreachable") => Self::EngineUnreachable,
            Some("engine-failed") => Self::EngineFailed,
            _ => Self::Unknown,
        }
    }

    pub(super) fn next(self) -> Next {
        match self {
            Self::Statement => Next::Reseal,
            Self::Credential
            | Self::Path
            | Self::Date
            | Self::Overloaded
            | Self::Draining
            | Self::EngineUnreachable => Next::Another,
            // Another node would find the same form malformed.
            Self::Malformed | Self::Replayed | Self::EngineFailed | Self::Unknown => Next::Fail,
        }
    }

    /// Whether a node that says it of one copy of a request says it of all: the same bytes are as
    /// malformed, and what comes after the replay table knows of the others.
    pub(super) fn speaks_of_every_copy(self) -> bool {
        match self {
            Self::Credential | Self::Date => false,
            Self::Malformed
            | Self::Path
            | Self::Statement
            | Self::Replayed
            | Self::Overloaded
            | Self::Draining
            | Self::EngineUnreachable
            | Self::EngineFailed
            | Self::Unknown => true,
        }
    }

    pub(super) fn code(self) -> Code {
        match self {
            Self::Credential
            | Self::Path
            | Self::Date
            | Self::Statement
            | Self::Overloaded
            | Self::Draining
            | Self::EngineUnreachable => Code::NoNodeAvailable,
            Self::Malformed => Code::Internal,
            Self::Replayed => Code::UpstreamTruncated,
            Self::EngineFailed | Self::Unknown => Code::EngineError,
        }
    }
}

/// Whether a body outside the seal is the `ohttp-key` problem.
pub(super) fn is_ohttp_key(body: &[u8]) -> bool {
    serde_json::from_slice::<Object<'_>>(body).is_ok_and(|object| object.kind == OHTTP_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_known_by_its_type() {
        let cases: [(&str, Problem, Next); 8] = [
            (
                r#"{"type":"urn:sealgate:problem:overloaded"}"#,
                Problem::Overloaded,
                Next::Another,
            ),
            (
                r#"{"title":"t","type":"urn:sealgate:problem:path"}"#,
                Problem::Path,
                Next::Another,
            ),
            (
                r#"{"type":"https://iana.org/assignments/http-problem-types#date"}"#,
                Problem::Date,
                Next::Another,
            ),
            (
                r#"{"type":"urn:sealgate:problem:statement"}"#,
                Problem::Statement,
                Next::Reseal,
            ),
            (
                r#"{"type":"urn:sealgate:problem:replayed"}"#,
                Problem::Replayed,
                Next::Fail,
            ),
            (
                r#"{"type":"urn:sealgate:problem:new"}"#,
                Problem::Unknown,
                Next::Fail,
            ),
            (r#"{"type":"overloaded"}"#, Problem::Unknown, Next::Fail),
            ("no json", Problem::Unknown, Next::Fail),
        ];
        for (body, problem, next) in cases {
            let seen = Problem::from_json(body.as_bytes());
            assert_eq!((seen, seen.next()), (problem, next), "{body}");
        }
    }

    #[test]
    fn what_may_have_run_is_never_tried_again() {
        for problem in [Problem::Replayed, Problem::EngineFailed, Problem::Unknown] {
            assert_eq!(problem.next(), Next::Fail, "{problem:?}");
            assert_eq!(problem.code().should_retry(), Some(false), "{problem:?}");
        }
    }

    #[test]
    fn the_key_problem_is_told_from_others() {
        let body = br#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key"}"#;
        assert!(is_ohttp_key(body));
        assert!(!is_ohttp_key(br#"{"type":"about:blank"}"#));
        assert!(!is_ohttp_key(b""));
    }
}
