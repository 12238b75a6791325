//! What is told to an administrator whose request is not done.

use http::StatusCode;

use crate::{
    admin::{Answer, told},
    store::{By, KeyError, StoreError},
};

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("there is no such path: GET /openapi.json describes those that there are")]
    NoPath,
    #[error("this path takes {0}")]
    Method(&'static str),
    #[error("this gateway has no store: add the table [store] to its configuration")]
    NoStore,
    #[error("auth is open: no key is asked for; take `auth` out of this gateway's configuration")]
    NoKeys,
    #[error("the body: {0}")]
    Body(serde_json::Error),
    #[error("{0}")]
    Value(&'static str),
    #[error(
        "the query has a parameter that is not known here, or one twice, or one that is no text"
    )]
    Query,
    #[error("usage is summed by {0} once")]
    Twice(By),
    #[error("another walk through the audit log goes on: wait for its end")]
    Walking,
    #[error("another report is made: wait for its end")]
    Reporting,
    #[error(
        "the store took too long; what was asked may be done all the same: look, and ask again"
    )]
    Slow,
    #[error("the store does not answer")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Key(KeyError),
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => Self::Store(error),
            error => Self::Key(error),
        }
    }
}

impl Problem {
    const fn status_and_code(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::NoPath => (S::NOT_FOUND, "not_found"),
            Self::Method(_) => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NoStore => (S::CONFLICT, "no_store"),
            Self::NoKeys => (S::CONFLICT, "keys_not_in_store"),
            Self::Body(_) => (S::BAD_REQUEST, "invalid_json"),
            Self::Value(_) | Self::Query | Self::Twice(_) => (S::BAD_REQUEST, "invalid_request"),
            Self::Walking | Self::Reporting => (S::TOO_MANY_REQUESTS, "overloaded"),
            Self::Slow | Self::Store(_) => (S::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::Key(error) => match error {
                KeyError::BadName | KeyError::BadOwner => (S::BAD_REQUEST, "invalid_request"),
                KeyError::Taken(_) => (S::CONFLICT, "key_exists"),
                KeyError::Expired(_) => (S::CONFLICT, "key_expired"),
                KeyError::Unknown(_) => (S::NOT_FOUND, "key_not_found"),
                KeyError::Store(_) => (S::SERVICE_UNAVAILABLE, "store_unavailable"),
            },
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        if let Self::Store(error) = &self {
            tracing::error!(%error, "the store did not do what the admin API was asked");
        }
        let (status, code) = self.status_and_code();
        told(status, code, &self.to_string())
    }
}
