//! What the node says to whoever asked, before it is known under which seal that goes.

use bytes::Bytes;

use super::{
    problem::{PROBLEM_JSON, Refusal},
    request::http_date,
    time::SteadyClock,
};
use crate::openai::{Code, ErrorObject, Usage};

const JSON: &str = "application/json";

/// One answer that is known whole.
pub(super) enum Said<'a> {
    /// The reply that was asked for.
    Reply {
        content: &'a [u8],
        usage: Option<Usage>,
    },
    /// What an engine finds wrong with the request, levelled. It may repeat the prompt.
    EngineError { status: u16, content: &'a [u8] },
    /// An error of the contract. It may name members of the request.
    Error {
        status: u16,
        object: ErrorObject<'a>,
    },
    /// The node's own refusal.
    Refusal {
        refusal: Refusal,
        /// The node's time, for a refusal of a date.
        date: String,
    },
}

/// The same before it is said: what an engine's answer came to, that is no stream.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The reply that was asked for.
    Reply {
        content: Vec<u8>,
        usage: Option<Usage>,
    },
    /// What the engine finds wrong with the request, levelled.
    EngineError { status: u16, content: Vec<u8> },
    /// The node's own refusal.
    Refusal(Refusal),
}

impl Outcome {
    /// Said now.
    pub(super) fn said(&self, clock: &SteadyClock) -> Said<'_> {
        match self {
            Self::Reply { content, usage } => Said::Reply {
                content,
                usage: *usage,
            },
            Self::EngineError { status, content } => Said::EngineError {
                status: *status,
                content,
            },
            Self::Refusal(refusal) => Said::refusal(*refusal, clock),
        }
    }
}

/// An answer in HTTP's parts.
pub(super) struct Message {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// Further fields.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) content: Bytes,
}

impl<'a> Said<'a> {
    pub(super) fn refusal(refusal: Refusal, clock: &SteadyClock) -> Self {
        Self::Refusal {
            refusal,
            date: http_date(clock.now()),
        }
    }

    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Reply { .. } => 200,
            Self::EngineError { status, .. } | Self::Error { status, .. } => *status,
            Self::Refusal { refusal, .. } => refusal.status(),
        }
    }

    /// What the log calls it.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Reply { .. } | Self::EngineError { .. } => "complete",
            Self::Error { .. } => "invalid-request",
            Self::Refusal { refusal, .. } => refusal.code(),
        }
    }

    /// The content, if an engine made it.
    pub(super) fn by_engine(&self) -> Option<&[u8]> {
        match self {
            Self::Reply { content, .. } | Self::EngineError { content, .. } => Some(content),
            Self::Error { .. } | Self::Refusal { .. } => None,
        }
    }

    pub(super) fn usage(&self) -> Option<&Usage> {
        match self {
            Self::Reply { usage, .. } => usage.as_ref(),
            Self::EngineError { .. } | Self::Error { .. } | Self::Refusal { .. } => None,
        }
    }

    /// To a sealer of this project, which reads problems.
    pub(super) fn to_sealer(&self) -> Message {
        match self {
            Self::Refusal { refusal, date } => {
                let mut fields = retry_after(*refusal);
                if *refusal == Refusal::Date {
                    fields.push(("date", date.clone()));
                }
                Message {
                    status: refusal.status(),
                    content_type: PROBLEM_JSON,
                    fields,
                    content: refusal.to_json(),
                }
            }
            other => other.to_client(),
        }
    }

    /// To an OpenAI client, which reads error objects.
    pub(super) fn to_client(&self) -> Message {
        let (fields, content) = match self {
            Self::Reply { content, .. } | Self::EngineError { content, .. } => {
                (Vec::new(), Bytes::copy_from_slice(content))
            }
            Self::Error { object, .. } => (Vec::new(), object.to_json()),
            Self::Refusal { refusal, .. } => {
                let mut fields = retry_after(*refusal);
                if !refusal.allows_another_try() {
                    fields.push(("x-should-retry", "false".to_owned()));
                }
                (fields, refusal.object().to_json())
            }
        };
        Message {
            status: self.status(),
            content_type: JSON,
            fields,
            content,
        }
    }

    /// To anybody on the way: nothing that an engine said, and nothing of the request.
    ///
    /// Not for a reply, which is always sealed.
    pub(super) fn to_anybody(&self) -> Message {
        let fixed = match self {
            Self::Refusal { .. } => return self.to_client(),
            Self::Error { object, .. } => Code::ALL
                .into_iter()
                .find(|code| object.code == Some(code.code()))
                .unwrap_or(Code::InvalidRequest),
            Self::Reply { .. } | Self::EngineError { .. } => Code::InvalidRequest,
        };
        Message {
            status: self.status(),
            content_type: JSON,
            fields: Vec::new(),
            content: fixed.object().to_json(),
        }
    }
}

fn retry_after(refusal: Refusal) -> Vec<(&'static str, String)> {
    let seconds = refusal.retry_after_s();
    seconds
        .map(|seconds| ("retry-after", seconds.to_string()))
        .into_iter()
        .collect()
}
