//! The one log line of each sealed request: ids, names, numbers and codes, nothing of its content.
//! What is counted of it is counted with the line.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    engine::EngineCounts,
    metrics::{Form, Metrics},
    problem::Outside,
    said::Said,
};
use crate::ids::RequestId;

/// What is known of a request; written when it is dropped, whatever ended it.
#[derive(Debug)]
pub(super) struct Record {
    metrics: Arc<Metrics>,
    /// The engine that is asked.
    pub(super) engine: Option<Arc<EngineCounts>>,
    started: Instant,
    pub(super) id: Option<RequestId>,
    /// One of the node's own paths.
    pub(super) path: Option<&'static str>,
    /// The dialect that it came in, if it is not this project's own format.
    pub(super) dialect: Option<&'static str>,
    /// A model that the node serves.
    pub(super) model: Option<String>,
    pub(super) status: u16,
    /// What happened; stays so if nobody waited for the end.
    pub(super) outcome: &'static str,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    first_byte: Option<Duration>,
}

/// The outcome of a request whose asker went away.
const CANCELLED: &str = "cancelled";

impl Record {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            engine: None,
            started: Instant::now(),
            id: None,
            path: None,
            dialect: None,
            model: None,
            status: 0,
            outcome: CANCELLED,
            bytes_in: 0,
            bytes_out: 0,
            first_byte: None,
        }
    }

    /// Ends as a refusal in clear.
    pub(super) fn refused(&mut self, outside: Outside) {
        self.refused_with(outside.status().as_u16(), outside.code());
    }

    /// The same, with this status and the word for why.
    pub(super) fn refused_with(&mut self, status: u16, code: &'static str) {
        self.metrics.refused(Form::Clear, code);
        self.status = status;
        self.outcome = "refused-outside";
    }

    /// Ends with an answer that is known whole.
    pub(super) fn says(&mut self, said: &Said<'_>) {
        self.status = said.status();
        if let Said::Refusal { refusal, .. } = said {
            self.metrics.refused(Form::Sealed, refusal.code());
        }
    }

    /// The engine failed after its reply had begun.
    pub(super) fn engine_broke(&self, class: &'static str) {
        if let Some(engine) = &self.engine {
            engine.failed(class);
        }
    }

    /// Counts sealed bytes of the request.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes_in = self
            .bytes_in
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Counts sealed bytes of the reply.
    pub(super) fn went(&mut self, bytes: usize) {
        self.bytes_out = self
            .bytes_out
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.first_byte
            .get_or_insert_with(|| self.started.elapsed());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.ended(self.path, self.dialect, self.outcome);
        tracing::info!(
            request_id = self.id.map(tracing::field::display),
            path = self.path,
            dialect = self.dialect,
            model = self.model.as_deref(),
            status = self.status,
            outcome = self.outcome,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            first_byte_ms = self.first_byte.map(millis),
            ms = millis(self.started.elapsed()),
            "sealed request"
        );
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
