//! Refusals in clear of requests in a dialect, in OpenAI's shape, which is what their clients read.
//!
//! A message is fixed, but for the name of a member of the format itself.

use std::borrow::Cow;

use attestation::Dialect;
use bytes::Bytes;
use http::Response;

use crate::{
    node::{
        problem::{Outside, PROBLEM_JSON, RETRY_AFTER_DRAINING_S, RETRY_AFTER_S, problem},
        reply::ReplyBody,
        said::Message,
    },
    openai::{Code, ErrorObject},
    seal::{EhbpError, KEY_CONFIG_PROBLEM, OpenErrorKind, SeedError},
};

/// Why a request is refused before it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Clear {
    #[error(
        "This node takes no plaintext. Seal the body to its attested key, or ask through a gateway."
    )]
    NotSealed,
    #[error("Ehbp-Encapsulated-Key is 64 lower-case hex digits, given once.")]
    EncapsulatedKey,
    #[error("The encrypted body is malformed or cut short: {0}.")]
    Ehbp(EhbpError),
    #[error("The key is unknown or has ended, or the body was not sealed to it.")]
    KeyConfig,
    #[error("The confidential request is refused: {0}.")]
    Seed(SeedError),
    #[error("The node's credential is missing or wrong.")]
    Credential,
    #[error("The body must be `application/json`, without a content coding.")]
    MediaType,
    #[error("The body is longer than this node takes.")]
    TooLarge,
    #[error("The body did not arrive in time.")]
    Timeout,
    #[error("The body did not arrive.")]
    Broken,
    #[error("Too many requests are in flight. Retry after the time given.")]
    TooMany,
    #[error("The node is about to stop. Nothing was executed.")]
    Draining,
    #[error("The node cannot answer.")]
    Internal,
}

impl Clear {
    /// The refusal of what a key opened that has ended meanwhile.
    pub(super) const fn key_ended(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Ehbp => Self::KeyConfig,
            Dialect::Seed => Self::Seed(SeedError::UnknownKey),
        }
    }

    pub(super) const fn status(self) -> u16 {
        match self {
            Self::NotSealed
            | Self::EncapsulatedKey
            | Self::Ehbp(_)
            | Self::Seed(_)
            | Self::Broken => 400,
            Self::Credential => 401,
            Self::Timeout => 408,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::KeyConfig => 422,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Draining => 503,
        }
    }

    /// The `code` member.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::NotSealed => "not_sealed",
            Self::EncapsulatedKey | Self::Ehbp(_) => "invalid_encapsulation",
            Self::KeyConfig | Self::Seed(SeedError::UnknownKey) => "unknown_key",
            Self::Seed(_) | Self::Broken => Code::InvalidRequest.code(),
            Self::Credential => Code::InvalidApiKey.code(),
            Self::Timeout => Code::RequestTimeout.code(),
            Self::TooLarge => Code::RequestTooLarge.code(),
            Self::MediaType => Code::UnsupportedMediaType.code(),
            Self::TooMany => Code::Overloaded.code(),
            Self::Internal => Code::Internal.code(),
            Self::Draining => Code::Draining.code(),
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Credential => Code::InvalidApiKey.kind(),
            Self::TooMany => Code::Overloaded.kind(),
            Self::Internal | Self::Draining => Code::Internal.kind(),
            Self::NotSealed
            | Self::EncapsulatedKey
            | Self::Ehbp(_)
            | Self::KeyConfig
            | Self::Seed(_)
            | Self::MediaType
            | Self::TooLarge
            | Self::Timeout
            | Self::Broken => Code::InvalidRequest.kind(),
        }
    }

    const fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::TooMany => Some(RETRY_AFTER_S),
            Self::Draining => Some(RETRY_AFTER_DRAINING_S),
            _ => None,
        }
    }

    pub(super) fn response(self) -> Response<ReplyBody> {
        let (content_type, content): (_, Bytes) = match self {
            Self::KeyConfig => {
                let status = self.status();
                (
                    PROBLEM_JSON,
                    problem(KEY_CONFIG_PROBLEM, status, &self.to_string()),
                )
            }
            _ => ("application/json", self.object().to_json()),
        };
        let retry_after = self.retry_after_s();
        let mut fields: Vec<_> = retry_after
            .map(|seconds| ("retry-after", seconds.to_string()))
            .into_iter()
            .collect();
        if matches!(self, Self::Timeout | Self::TooLarge) {
            fields.push(("connection", "close".to_owned()));
        }
        let message = Message {
            status: self.status(),
            content_type,
            fields,
            content,
        };
        message.into_response().map(ReplyBody::whole)
    }

    fn object(self) -> ErrorObject<'static> {
        ErrorObject {
            message: Cow::Owned(self.to_string()),
            kind: self.kind(),
            param: None,
            code: Some(self.code()),
        }
    }

    /// Whether a sender that has not finished may do so before it is refused.
    pub(super) fn lets_the_body_come(self) -> bool {
        self != Self::Timeout
    }
}

impl From<Outside> for Clear {
    /// What can go wrong in reading any body.
    fn from(outside: Outside) -> Self {
        match outside {
            Outside::Timeout => Self::Timeout,
            Outside::TooLarge => Self::TooLarge,
            Outside::TooMany => Self::TooMany,
            Outside::Malformed => Self::Broken,
            Outside::Unavailable => Self::Draining,
            Outside::OhttpKey
            | Outside::Nonce
            | Outside::MediaType
            | Outside::Expectation
            | Outside::NotFound
            | Outside::Method(_)
            | Outside::Internal => Self::Internal,
        }
    }
}

impl From<EhbpError> for Clear {
    fn from(error: EhbpError) -> Self {
        match error.kind() {
            OpenErrorKind::Key => Self::KeyConfig,
            OpenErrorKind::TooLarge => Self::TooLarge,
            OpenErrorKind::Malformed => Self::Ehbp(error),
        }
    }
}

impl From<SeedError> for Clear {
    fn from(error: SeedError) -> Self {
        match error {
            SeedError::TooLarge { .. } => Self::TooLarge,
            error => Self::Seed(error),
        }
    }
}
