//! One log line per request: ids, names, numbers and codes, never content.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::error::Error;
use crate::{
    ids::RequestId,
    openai::{Code, Usage},
};

/// What is known of a request so far; written when it is dropped, however the request ended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RequestId,
    path: &'static str,
    started: Instant,
    pub(super) key: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
    pub(super) node: Option<Arc<str>>,
    pub(super) stream: bool,
    pub(super) tries: u32,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    pub(super) usage: Option<Usage>,
    first_byte: Option<Duration>,
    status: Option<StatusCode>,
    /// The error's code, once there is one.
    code: Option<Code>,
    outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The caller left, or the gateway was stopped: nothing else leaves a record unfinished.
    Cancelled,
    Complete,
    Failed,
}

impl Record {
    pub(super) fn new(id: RequestId, path: &'static str) -> Self {
        Self {
            id,
            path,
            started: Instant::now(),
            key: None,
            model: None,
            node: None,
            stream: false,
            tries: 0,
            bytes_in: 0,
            bytes_out: 0,
            usage: None,
            first_byte: None,
            status: None,
            code: None,
            outcome: Outcome::Cancelled,
        }
    }

    /// A node's reply has begun.
    pub(super) fn replied(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }

    /// All of the reply was handed to the connection.
    pub(super) fn complete(&mut self) {
        self.outcome = Outcome::Complete;
    }

    /// The request got an error in place of a reply.
    pub(super) fn refused(&mut self, error: &Error) {
        self.status = Some(error.code().status());
        self.failed(error);
    }

    /// The request got an error, perhaps after the status went out.
    pub(super) fn failed(&mut self, error: &Error) {
        self.code = Some(error.code());
        self.outcome = Outcome::Failed;
        tracing::debug!(request_id = %self.id, cause = %error, "request failed");
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            request_id = %self.id,
            path = self.path,
            key = self.key.as_deref(),
            model = self.model.as_deref(),
            node = self.node.as_deref(),
            stream = self.stream,
            outcome = match self.outcome {
                Outcome::Cancelled => "cancelled",
                Outcome::Complete => "complete",
                Outcome::Failed => "failed",
            },
            status = self.status.map(|status| status.as_u16()),
            code = self.code.map(Code::code),
            ms = ms(self.started.elapsed()),
            first_byte_ms = self.first_byte.map(ms),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            tries = self.tries,
            prompt_tokens = self.usage.as_ref().map(|usage| usage.prompt_tokens),
            completion_tokens = self.usage.as_ref().map(|usage| usage.completion_tokens),
            "request",
        );
    }
}
