//! What a node refuses inside the seal (docs/wire.md, "Response").

use std::borrow::Cow;

use serde::Deserialize;

use super::error::Next;

/// Media type of a refusal (RFC 9457).
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
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
pub enum Problem {
    /// The message under the seal has no sound form.
    Malformed,
    /// The node wants another credential.
    Credential,
    /// The node serves nothing at the path.
    Path,
    /// The clocks of sealer and node are too far apart.
    Date,
    /// The statement is not the node's any more.
    Statement,
    /// The node has seen the request: a copy of it may have run.
    Replayed,
    /// The node, or its engine, is full.
    Overloaded,
    /// The node is shutting down.
    Draining,
    /// The node cannot reach its engine.
    EngineUnreachable,
    /// The engine failed after it had the request.
    EngineFailed,
    /// One that this version does not know.
    Unknown,
}

impl Problem {
    /// The refusal in a body of type [`MEDIA_TYPE`].
    pub(crate) fn from_json(body: &[u8]) -> Self {
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

    pub(crate) fn next(self) -> Next {
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

    /// A word for it, for metrics.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Malformed => "refused_malformed",
            Self::Credential => "refused_credential",
            Self::Path => "refused_path",
            Self::Date => "refused_date",
            Self::Statement => "refused_statement",
            Self::Replayed => "refused_replayed",
            Self::Overloaded => "refused_overloaded",
            Self::Draining => "refused_draining",
            Self::EngineUnreachable => "refused_engine_unreachable",
            Self::EngineFailed => "refused_engine_failed",
            Self::Unknown => "refused_unknown",
        }
    }

    /// Whether a node that says it of one copy of a request says it of all: the same bytes are as
    /// malformed, and what comes after the replay table knows of the others.
    pub(crate) fn speaks_of_every_copy(self) -> bool {
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
}

/// Whether a body outside the seal is the `ohttp-key` problem.
pub(crate) fn is_ohttp_key(body: &[u8]) -> bool {
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
    fn the_key_problem_is_told_from_others() {
        let body = br#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key"}"#;
        assert!(is_ohttp_key(body));
        assert!(!is_ohttp_key(br#"{"type":"about:blank"}"#));
        assert!(!is_ohttp_key(b""));
    }
}
