//! One log line per request: ids, names, numbers and codes, never content. What is counted of it is
//! counted with the line.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::Padding;
use http::StatusCode;
use tokio::time::Instant;

use super::{
    Shared,
    authenticate::Caller,
    claims::Bounds,
    error::{Error, NodeFailure},
    limits::{self, Amount, Hold, Metered, rates::Rates},
    metrics::{At, End, Ended, Metrics, ModelCounts},
    node::Node,
    nodes::Served,
};
use crate::{
    clock::Clock,
    config::prices::Price,
    ids::RequestId,
    openai::{Asked, Code, Usage},
    store::{Open, Tokens, UsageRow, unix_millis},
};

/// What is known of a request so far; written when it is dropped, however the request ended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: RequestId,
    /// What its row is unique by: nobody outside chooses it.
    row_id: RequestId,
    path: &'static str,
    at: At,
    started: Instant,
    metrics: Arc<Metrics>,
    /// Where its model's requests are counted, once it is known.
    counts: Option<Arc<ModelCounts>>,
    /// Whose reply has begun.
    answering: Option<Arc<Node>>,
    key: Option<Arc<str>>,
    key_id: Option<Arc<str>>,
    /// Its place in the ledger and the time of day when it began, once it is let in.
    open: Option<(Open, SystemTime)>,
    pub(super) model: Option<Arc<str>>,
    pub(super) node: Option<Arc<str>>,
    pub(super) stream: bool,
    /// Whether it came sealed to the gateway itself.
    sealed_to_gateway: bool,
    /// What it was sealed with last, here or by the caller.
    pub(super) suite: Option<&'static str>,
    /// How it was padded last; of what is carried, nobody here knows.
    pub(super) padding: Option<Padding>,
    pub(super) tries: u32,
    /// Those of them that were sealed again to the same node.
    pub(super) reseals: u32,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    /// Bytes of the reply's content as the node gave it.
    pub(super) came: usize,
    usage: Option<Usage>,
    /// What of usage can be true.
    bounds: Bounds,
    /// What the model costs, if it is known.
    price: Option<Price>,
    /// The prompt's tokens by its bytes; nothing where it is sealed.
    prompt: Option<u64>,
    /// Texts or events of the reply that were seen, as tokens.
    pub(super) seen: u64,
    /// What it holds of its key's limits, if there are some.
    hold: Option<Hold>,
    /// How those stood then.
    rates: Rates,
    first_byte: Option<Duration>,
    status: Option<StatusCode>,
    /// The error's code, once there is one.
    code: Option<Code>,
    outcome: Outcome,
}

/// What was used, by what was seen of it.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    tokens: u64,
    cost: Option<i64>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The caller left, or the gateway was stopped: nothing else leaves a record unfinished.
    Cancelled,
    Complete,
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

impl Record {
    pub(super) fn new(id: RequestId, path: &'static str, metrics: &Arc<Metrics>) -> Self {
        Self {
            id,
            row_id: id,
            path,
            at: At::of(path),
            started: Instant::now(),
            metrics: Arc::clone(metrics),
            counts: None,
            answering: None,
            key: None,
            key_id: None,
            open: None,
            model: None,
            node: None,
            stream: false,
            sealed_to_gateway: false,
            suite: None,
            padding: None,
            tries: 0,
            reseals: 0,
            bytes_in: 0,
            bytes_out: 0,
            came: 0,
            usage: None,
            bounds: Bounds::default(),
            price: None,
            prompt: None,
            seen: 0,
            hold: None,
            rates: Rates::default(),
            first_byte: None,
            status: None,
            code: None,
            outcome: Outcome::Cancelled,
        }
    }

    /// It came sealed to the gateway itself. Who seals chooses the id, and can take one twice: what it
    /// used counts under another.
    pub(super) fn came_sealed(&mut self) {
        self.sealed_to_gateway = true;
        self.row_id = RequestId::generate();
    }

    /// Who asks.
    pub(super) fn asked_by(&mut self, caller: &Caller) {
        self.key = Some(Arc::clone(&caller.name));
        self.key_id = Some(Arc::clone(&caller.id));
    }

    /// It is going to be asked: what it uses will be written down, whatever becomes of it.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] where that cannot be: then it must not be asked.
    pub(super) fn let_in(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(ledger) = &shared.ledger else {
            return Ok(());
        };
        let now = shared.clock.now();
        let began = now.checked_sub(self.started.elapsed()).unwrap_or(now);
        let mut row = self.row(began);
        // If nothing more is ever known of it, it asked all the same.
        let asked = self.prompt.map(|prompt| self.estimate(prompt, 0));
        row.charged_tokens = asked.map(|asked| asked.tokens);
        row.charged_cost = asked.and_then(|asked| asked.cost);
        let open = ledger.begin(&row).map_err(|error| {
            tracing::error!(request_id = %self.id, %error, "not let in: its usage could be lost");
            Error::StoreUnavailable
        })?;
        self.open = Some((open, began));
        Ok(())
    }

    /// What is asked in so many bytes, and what its tokens cost.
    pub(super) fn wants(&mut self, asked: &Asked, body: usize, price: Option<Price>) {
        self.bounds = Bounds::of(asked, body);
        self.price = price;
        self.prompt = Some(limits::prompt_of(asked, body));
    }

    /// It holds so much of its key's limits from now on.
    ///
    /// # Errors
    /// [`Error::RateLimited`], [`Error::BudgetExceeded`].
    pub(super) fn hold(
        &mut self,
        metered: &Metered,
        clock: Clock,
        most: Amount,
    ) -> Result<(), Error> {
        let taken = metered.take(clock, most);
        self.rates = metered.rates(clock);
        self.hold = Some(taken?);
        Ok(())
    }

    /// How its key's limits stood when it was let in, or was not; nothing before that.
    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// The node's count of the tokens, as far as it is known and can be true.
    pub(super) fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// The node says what was used; called once what it said of the content has come.
    pub(super) fn claimed(&mut self, usage: Option<Usage>) {
        let Some(claimed) = usage else {
            return;
        };
        let (held, cut) = self.bounds.hold(claimed, self.came);
        for (kind, cut) in [("prompt", cut.prompt), ("completion", cut.completion)] {
            let Some((claimed, most)) = cut else {
                continue;
            };
            self.metrics.claim_cut(kind);
            tracing::warn!(
                request_id = %self.id, node = self.node.as_deref(), kind, claimed, most,
                "the node claims more tokens than there can be: cut"
            );
        }
        self.usage = Some(held);
    }

    /// The model that is asked, under the caller's name for it.
    pub(super) fn asks(&mut self, model: &Served) {
        self.model = Some(Arc::clone(&model.name));
        self.counts = Some(Arc::clone(&model.counts));
    }

    /// An exchange with a node failed before its reply began.
    pub(super) fn try_failed(&self, node: &Node, failure: &NodeFailure) {
        if failure.is_of_node() {
            self.metrics.failed(&node.counts, failure.class());
        }
    }

    /// An exchange with a node gave a reply.
    pub(super) fn answered_by(&mut self, node: &Arc<Node>) {
        node.counts.answers.inc();
        self.answering = Some(Arc::clone(node));
    }

    /// A node's reply has begun.
    pub(super) fn replied(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }

    /// All of the reply is there; the last of it is handed to the connection now. That is written down
    /// first, so that nobody has a whole answer that was never counted.
    pub(super) fn complete(&mut self) {
        self.outcome = Outcome::Complete;
        if let Some((open, began)) = &self.open {
            open.note(&self.row(*began));
        }
    }

    /// The request got an error in place of a reply.
    pub(super) fn refused(&mut self, error: &Error) {
        self.status = Some(error.code().status());
        self.answering = None;
        self.failed(error);
    }

    /// The request got an error, perhaps after the status went out.
    pub(super) fn failed(&mut self, error: &Error) {
        self.code = Some(error.code());
        self.outcome = Outcome::Failed;
        if let (Error::Node(failure), Some(node)) = (error, &self.answering) {
            self.try_failed(node, failure);
        }
        tracing::debug!(request_id = %self.id, cause = %error, "request failed");
    }
}

impl Record {
    fn row(&self, began: SystemTime) -> UsageRow {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let charged = self.uncounted();
        UsageRow {
            request_id: self.row_id.to_string(),
            key_id: text(&self.key_id).unwrap_or_default(),
            model: text(&self.model),
            node: text(&self.node),
            path: self.path.to_owned(),
            stream: self.stream,
            outcome: self.outcome.as_str().to_owned(),
            status: self.status.map(|status| status.as_u16()),
            code: self.code.map(|code| code.code().to_owned()),
            tokens: self.usage.as_ref().map(Tokens::from),
            cost: self.cost(),
            charged_tokens: charged.map(|charged| charged.tokens),
            charged_cost: charged.and_then(|charged| charged.cost),
            started_at: unix_millis(began),
            first_byte_ms: self.first_byte.map(ms),
            took_ms: Some(ms(self.started.elapsed())),
            bytes_in: bytes(self.bytes_in),
            bytes_out: bytes(self.bytes_out),
        }
    }

    /// What its key is charged where nobody counted: for leaving early, nothing is free.
    fn uncounted(&self) -> Option<Estimate> {
        if self.usage.is_some() || !self.may_have_run() {
            return None;
        }
        self.prompt.map(|prompt| self.estimate(prompt, self.seen))
    }

    /// Whether an engine may have worked for it, other than to refuse it.
    fn may_have_run(&self) -> bool {
        self.tries > 0
            && match (self.outcome, self.code) {
                (Outcome::Complete, _) => self.status.is_some_and(|it| it.is_success()),
                (Outcome::Cancelled, _) => true,
                (Outcome::Failed, code) => code.and_then(Code::should_retry) == Some(false),
            }
    }

    fn estimate(&self, prompt: u64, completion: u64) -> Estimate {
        Estimate {
            tokens: prompt.saturating_add(completion),
            cost: self.price.map(|price| price.of(prompt, 0, completion)),
        }
    }

    fn cost(&self) -> Option<i64> {
        let (price, usage) = (self.price?, self.usage.as_ref()?);
        let cached = usage.prompt_tokens_details.cached_tokens;
        Some(price.of(usage.prompt_tokens, cached, usage.completion_tokens))
    }

    fn count(&self) {
        self.metrics.ended(&Ended {
            at: self.at,
            model: self.counts.as_deref(),
            end: match (self.outcome, self.code) {
                (Outcome::Complete, _) => End::Complete,
                (Outcome::Failed, Some(code)) => End::Failed(code),
                (Outcome::Cancelled, _) | (Outcome::Failed, None) => End::Cancelled,
            },
            status: self.status,
            took: self.started.elapsed(),
            first_byte: self.first_byte,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            usage: self.usage.as_ref(),
            suite: self.suite,
            padding: self.padding,
            tries: self.tries,
            reseals: self.reseals,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
        if let Some((open, began)) = self.open.take() {
            let row = self.row(began);
            let (tokens, cost) = row.charge();
            let hold = self.hold.take();
            let used = hold.map(|hold| hold.used(Amount { tokens, cost }));
            open.end(row, used);
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            request_id = %self.id,
            path = self.path,
            key = self.key.as_deref(),
            model = self.model.as_deref(),
            node = self.node.as_deref(),
            stream = self.stream,
            sealed = self.sealed_to_gateway,
            suite = self.suite,
            padding = self.padding.map(Padding::as_str),
            outcome = self.outcome.as_str(),
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
