//! Why a body is refused.

use std::borrow::Cow;

use crate::openai::{Code, ErrorObject};

/// A body that is no completion request.
///
/// Nothing of it repeats a value of the body. [`Self::param`] names members, among them names that
/// the caller chose, if they are short and plain: it is for the caller, not for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not JSON: bad UTF-8, bad grammar, half a surrogate pair, over 127 levels.
    #[error("the body is not JSON")]
    InvalidJson,
    /// Two members of one name; the path to it.
    #[error("an object has two members of one name")]
    DuplicateMember(String),
    /// A member that is missing, of the wrong type or out of range.
    #[error("a member must be {expected}")]
    Invalid {
        /// The member, or `None` for the body as a whole.
        param: Option<Cow<'static, str>>,
        /// What it must be.
        expected: &'static str,
    },
    /// A member that this model's engine would ignore without a word.
    #[error("a member is not supported by the engine")]
    Unsupported(String),
}

impl RequestError {
    pub(in crate::openai) fn invalid(
        param: impl Into<Cow<'static, str>>,
        expected: &'static str,
    ) -> Self {
        Self::Invalid {
            param: Some(param.into()),
            expected,
        }
    }

    /// The row of the table of errors.
    #[must_use]
    pub const fn as_code(&self) -> Code {
        match self {
            Self::InvalidJson => Code::InvalidJson,
            Self::DuplicateMember(_) => Code::DuplicateMember,
            Self::Invalid { .. } | Self::Unsupported(_) => Code::InvalidRequest,
        }
    }

    /// The `code` member.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.as_code().code()
    }

    /// The member that is at fault.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidJson => None,
            Self::DuplicateMember(path) | Self::Unsupported(path) => Some(path),
            Self::Invalid { param, .. } => param.as_deref(),
        }
    }

    /// The `message` member.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::InvalidJson => Cow::Borrowed(Code::InvalidJson.message()),
            Self::DuplicateMember(path) => format!("`{path}` stands twice in one object.").into(),
            Self::Invalid {
                param: Some(param),
                expected,
            } => format!("`{param}` must be {expected}.").into(),
            Self::Invalid {
                param: None,
                expected,
            } => format!("The body must be {expected}.").into(),
            Self::Unsupported(member) => {
                format!("`{member}` is not supported by this model's engine.").into()
            }
        }
    }

    /// The error object that tells the caller.
    #[must_use]
    pub fn object(&self) -> ErrorObject<'_> {
        let code = self.as_code();
        ErrorObject {
            message: self.message(),
            kind: code.kind(),
            param: self.param(),
            code: Some(code.code()),
        }
    }
}
