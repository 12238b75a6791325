//! Requests to a node that was verified.

use std::{sync::Arc, time::SystemTime};

use attestation::{Ineligible, VerifiedNode};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    evidence::Settings,
    reply::{Events, Reply, Whole},
};
use crate::{
    ids::RequestId,
    openai::{Endpoint, Request, RequestError},
    seal::{MAX_REQUEST_CONTENT, ReceiptScope, SealError},
    sealer::{
        self, Ask, Bounds, Channel as Upstream, Credential, ExchangeError, Next, Problem,
        SendError, Way,
    },
};

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// What was to be sent makes no JSON.
    #[error("the request makes no JSON")]
    NotJson,
    /// The body is longer than a node takes.
    #[error("the request exceeds {max} bytes")]
    TooLong {
        /// Most bytes that it may have.
        max: usize,
    },
    /// The body is no request of the contract.
    #[error("the request: {0}")]
    Request(#[from] RequestError),
    /// The body names a model that the node does not serve.
    #[error("the node does not serve the model")]
    ModelNotServed,
    /// The exchange with the node failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl AskError {
    /// Whether the request may have been executed, so that a repeat could run twice. It is so
    /// wherever the contrary is not proved.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::NotJson | Self::TooLong { .. } | Self::Request(_) | Self::ModelNotServed => false,
            Self::Exchange(ExchangeError::Seal(_) | ExchangeError::Request(_)) => false,
            Self::Exchange(ExchangeError::Problem { problem, .. }) => {
                *problem != Problem::Malformed && problem.next() == Next::Fail
            }
            Self::Exchange(error) => error.next() == Next::Fail,
        }
    }

    /// Whether the channel is of no use any more: [`Client::verify`](super::Client::verify) comes
    /// before another request.
    #[must_use]
    pub fn wants_verification(&self) -> bool {
        matches!(
            self,
            Self::Exchange(
                ExchangeError::Ineligible(_)
                    | ExchangeError::Send(SendError::OtherCertificate)
                    | ExchangeError::Seal(SealError::KeyExpired)
                    | ExchangeError::OhttpKey { .. }
                    | ExchangeError::Problem {
                        problem: Problem::Statement,
                        ..
                    }
            )
        )
    }
}

/// The way to a verified node: what is asked over it is sealed to the key that evidence vouches for.
///
/// It serves until the appraisal ends, at [`Channel::ends_at`]; after that it refuses to seal.
#[must_use]
#[derive(Debug)]
pub struct Channel {
    node: VerifiedNode,
    /// The statement's digest in hex.
    statement: String,
    /// The end, whatever becomes of the time of day.
    last: Instant,
    line: Line,
}

/// What carries requests, and how.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) end: End,
    pub(super) credential: Option<Arc<Credential>>,
    pub(super) settings: Settings,
}

/// Where requests go.
#[derive(Debug)]
pub(super) struct End {
    pub(super) channel: Arc<Upstream>,
    pub(super) path: String,
    pub(super) authorization: Option<Arc<Credential>>,
    /// Whether the evidence vouches for the connection itself.
    pub(super) is_authenticated: bool,
}

impl Channel {
    pub(super) fn new(node: VerifiedNode, last: Instant, line: Line) -> Self {
        Self {
            statement: node.statement_digest().to_string(),
            node,
            last,
            line,
        }
    }

    /// What was verified: who vouches, what for, under which policy.
    pub fn node(&self) -> &VerifiedNode {
        &self.node
    }

    /// When the appraisal ends.
    #[must_use]
    pub fn ends_at(&self) -> SystemTime {
        self.node.expires_at()
    }

    /// Whether the appraisal has ended: at [`Channel::ends_at`], and at the latest after as long as
    /// it had to go when the evidence came, should the clock be set back.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended_by(self.line.settings.clock.now())
    }

    fn ended_by(&self, now: SystemTime) -> bool {
        self.node.expires_at() <= now || self.last <= Instant::now()
    }

    /// Asks for text that goes on from a prompt: a body of `/v1/completions`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn completions<T: Serialize + ?Sized>(&self, body: &T) -> Result<Reply, AskError> {
        self.ask(Endpoint::Completions, body).await
    }

    /// Asks for the next message of a conversation: a body of `/v1/chat/completions`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn chat<T: Serialize + ?Sized>(&self, body: &T) -> Result<Reply, AskError> {
        self.ask(Endpoint::ChatCompletions, body).await
    }

    /// Asks for vectors of texts: a body of `/v1/embeddings`.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn embeddings<T: Serialize + ?Sized>(&self, body: &T) -> Result<Reply, AskError> {
        self.ask(Endpoint::Embeddings, body).await
    }

    async fn ask<T: Serialize + ?Sized>(
        &self,
        endpoint: Endpoint,
        body: &T,
    ) -> Result<Reply, AskError> {
        let body = serde_json::to_vec(body).map_err(|_| AskError::NotJson)?;
        self.request(endpoint, body).await
    }

    /// Asks with a body as it is. It is checked against the contract here, so that what no node takes
    /// is not sent; `stream` in it says which form the reply has.
    ///
    /// # Errors
    /// [`AskError`] says whether it may have run.
    pub async fn request(
        &self,
        endpoint: Endpoint,
        body: impl Into<Bytes>,
    ) -> Result<Reply, AskError> {
        let body = body.into();
        let max = MAX_REQUEST_CONTENT;
        if body.len() > max {
            return Err(AskError::TooLong { max });
        }
        let request = Request::parse(endpoint, body)?;
        if !self.node.models().iter().any(|it| it == request.model()) {
            return Err(AskError::ModelNotServed);
        }
        let settings = &self.line.settings;
        Ok(match self.exchange(endpoint, &request).await? {
            sealer::Reply::Whole(whole) => Reply::Whole(Whole::new(whole)),
            sealer::Reply::Stream { unread, .. } => {
                Reply::Stream(Events::new(unread, settings.idle))
            }
        })
    }

    async fn exchange(
        &self,
        endpoint: Endpoint,
        request: &Request,
    ) -> Result<sealer::Reply, ExchangeError> {
        let Line {
            end,
            credential,
            settings,
        } = &self.line;
        let now = settings.clock.now();
        if self.ended_by(now) {
            return Err(Ineligible::AppraisalExpired.into());
        }
        let key = if settings.require_pq {
            self.node.post_quantum_key(now)?
        } else {
            self.node.sealing_key(now)?
        };
        let ask = Ask {
            id: RequestId::generate(),
            endpoint,
            stream: request.stream(),
            caller: None,
            content: request.body(),
            statement: &self.statement,
            model: None,
            credential: credential.as_deref(),
            padding: settings.padding.max(self.node.least_padding()),
            receipt: ReceiptScope::None,
        };
        let way = Way {
            channel: &end.channel,
            path: &end.path,
            authorization: end.authorization.as_deref(),
            is_believed: end.is_authenticated,
        };
        let bounds = Bounds {
            first_byte: settings.first_byte,
            idle: settings.idle,
            reply_bytes: settings.reply_bytes,
        };
        sealer::exchange(&ask, &key, now, &way, &bounds).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealer::SendError;

    fn problem(problem: Problem) -> AskError {
        let error = ExchangeError::Problem {
            problem,
            retry_after_s: None,
        };
        error.into()
    }

    #[test]
    fn an_error_says_what_may_follow() {
        let ohttp_key = |not_executed| ExchangeError::OhttpKey { not_executed }.into();
        let cases: [(AskError, bool, bool); 12] = [
            (AskError::ModelNotServed, false, false),
            (AskError::NotJson, false, false),
            (
                ExchangeError::from(SendError::ConnectTimeout).into(),
                false,
                false,
            ),
            (
                ExchangeError::from(Ineligible::AppraisalExpired).into(),
                false,
                true,
            ),
            (ohttp_key(true), false, true),
            (ohttp_key(false), true, true),
            (problem(Problem::Statement), false, true),
            (problem(Problem::Malformed), false, false),
            (problem(Problem::Overloaded), false, false),
            (problem(Problem::Replayed), true, false),
            (problem(Problem::Unknown), true, false),
            (ExchangeError::FirstByteTimeout.into(), true, false),
        ];
        for (error, may_have_run, wants_verification) in cases {
            let seen = (error.may_have_run(), error.wants_verification());
            assert_eq!(seen, (may_have_run, wants_verification), "{error:?}");
        }
    }
}
