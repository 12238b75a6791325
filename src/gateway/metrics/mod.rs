//! What the gateway counts, for the operator's `/metrics`.
//!
//! A request is counted once, when its record ends, with a few atomic additions: what its labels are
//! is resolved before, with its path, its model and its node. A label's value is one of this
//! program's words, a model's name out of a verified node's statement, or a node's id and address;
//! there are bounds on how many of each. What has a home elsewhere is read there: places in
//! `admit`, connections in the listener, nodes in `nodes`.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use attestation::Padding;
use http::StatusCode;

use super::receipts::RECEIPTS;
use crate::{
    attester::answer::ATTESTATION,
    clock::{Clock, unix_seconds},
    openai::{Code, Endpoint, Usage},
    sealer::OHTTP,
    telemetry::metrics::{Counter, Histogram, Tally},
};

mod scrape;

#[cfg(test)]
pub(super) use self::scrape::FAMILIES;
pub(super) use self::scrape::Scrape;

/// Most models that have counts of their own; those of all others are one.
pub(super) const MAX_MODELS: usize = 1000;
/// What the others are called.
pub(super) const OTHER: &str = "other";

/// What can be asked and ends as a record: its times and bytes are counted.
const RECORDED: usize = 9;
/// Everything that can be asked, as the `endpoint` label has it, those that are recorded first.
pub(super) const ENDPOINTS: [&str; 24] = [
    Endpoint::Completions.path(),
    Endpoint::ChatCompletions.path(),
    Endpoint::Embeddings.path(),
    Endpoint::Images.path(),
    Endpoint::Completions.confidential_path(),
    Endpoint::ChatCompletions.confidential_path(),
    Endpoint::Embeddings.confidential_path(),
    Endpoint::Images.confidential_path(),
    "/v1/nodes/{id}/ohttp",
    "/v1/nodes/{id}/ohttp-keys",
    "/v1/models",
    "/v1/models/{id}",
    RECEIPTS,
    "/v1/nodes",
    "/v1/nodes/lock",
    "/v1/nodes/{id}/attestation",
    ATTESTATION,
    OHTTP,
    "/health",
    "/readyz",
    "/openapi.json",
    "/docs",
    PREFLIGHT,
    UNKNOWN,
];
/// `OPTIONS` at any path.
pub(super) const PREFLIGHT: &str = "preflight";
/// A path that there is not, or a request that is refused before its path counts.
pub(super) const UNKNOWN: &str = "unknown";

/// How a request ended: well, without its caller, or with one of [`Code::ALL`].
const ENDS: usize = 2 + Code::ALL.len();
/// The first digit of a status, or that none went out.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted here.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Requests of no model, or of one without counts of its own.
    other: ModelCounts,
    recorded: [Recorded; RECORDED],
    pub(super) tries: Counter,
    retries: Counter,
    reseals: Counter,
    /// Requests by what they were sealed with.
    sealed: Tally<1>,
    /// Requests by how they were padded.
    padded: Tally<1>,
    /// Exchanges with nodes that failed, by class.
    failures: Tally<1>,
    /// Requests that were shed where no place of their own counts it, by reason.
    shed: Tally<1>,
    /// Claims of tokens that were cut, by kind of token.
    claims_cut: Tally<1>,
    pub(super) reloads: Arc<Reloads>,
}

/// What is counted of each endpoint.
#[derive(Debug, Default)]
struct Recorded {
    took: Histogram,
    first_byte: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// What is counted of a model. It goes from one snapshot of the nodes to the next.
#[derive(Debug, Default)]
pub(super) struct ModelCounts {
    /// By endpoint; made when the first request comes.
    requests: [OnceLock<Box<Ends>>; ENDPOINTS.len()],
    prompt_tokens: Counter,
    completion_tokens: Counter,
}

/// Requests by how they ended and the class of their status.
#[derive(Debug)]
struct Ends([[AtomicU64; CLASSES.len()]; ENDS]);

/// What is counted of a node. It goes with the node.
#[derive(Debug, Default)]
pub(super) struct NodeCounts {
    /// Exchanges whose reply began.
    pub(super) answers: Counter,
    /// Exchanges that failed, by class.
    failures: Tally<1>,
    /// Appraisals by verdict, and why where it did not pass.
    appraisals: Tally<2>,
}

/// How a request ended, as [`ModelCounts`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    /// The caller left, or the gateway was stopped.
    Cancelled,
    Failed(Code),
}

/// Which of [`ENDPOINTS`] is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(usize);

/// All that counts of a request that had a record.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) at: At,
    pub(super) model: Option<&'a ModelCounts>,
    pub(super) end: End,
    pub(super) status: Option<StatusCode>,
    pub(super) took: Duration,
    pub(super) first_byte: Option<Duration>,
    pub(super) bytes_in: usize,
    pub(super) bytes_out: usize,
    pub(super) usage: Option<&'a Usage>,
    pub(super) suite: Option<&'static str>,
    pub(super) padding: Option<Padding>,
    pub(super) tries: u32,
    pub(super) reseals: u32,
}

impl At {
    /// The endpoint of this path, as routes name it.
    pub(super) fn of(path: &str) -> Self {
        let place = ENDPOINTS.iter().position(|endpoint| *endpoint == path);
        Self(place.unwrap_or(ENDPOINTS.len() - 1))
    }
}

impl Metrics {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            other: ModelCounts::default(),
            recorded: Default::default(),
            tries: Counter::default(),
            retries: Counter::default(),
            reseals: Counter::default(),
            sealed: Tally::default(),
            padded: Tally::default(),
            failures: Tally::default(),
            shed: Tally::default(),
            claims_cut: Tally::default(),
            reloads: Arc::new(Reloads::new(clock)),
        }
    }

    /// Counts a request whose record ends.
    pub(super) fn ended(&self, ended: &Ended<'_>) {
        let model = ended.model.unwrap_or(&self.other);
        model.count(ended.at, ended.end, ended.status);
        if let Some(usage) = ended.usage {
            model.prompt_tokens.add(usage.prompt_tokens);
            model.completion_tokens.add(usage.completion_tokens);
        }
        if let Some(recorded) = self.recorded.get(ended.at.0) {
            recorded.took.observe(ended.took);
            if let Some(first_byte) = ended.first_byte {
                recorded.first_byte.observe(first_byte);
            }
            recorded.bytes_in.add(as_u64(ended.bytes_in));
            recorded.bytes_out.add(as_u64(ended.bytes_out));
        }
        if let Some(suite) = ended.suite {
            self.sealed.inc([suite]);
        }
        if let Some(padding) = ended.padding {
            self.padded.inc([padding.as_str()]);
        }
        self.tries.add(ended.tries.into());
        self.reseals.add(ended.reseals.into());
        let further = ended.tries.saturating_sub(1);
        self.retries
            .add(further.saturating_sub(ended.reseals).into());
        match ended.end {
            End::Failed(Code::Draining) => self.shed(Shed::Draining),
            End::Failed(Code::RateLimited) => self.shed(Shed::Rate),
            _ => {}
        }
    }

    /// Counts a request that has no record.
    pub(super) fn answered(&self, path: &'static str, status: StatusCode, error: Option<Code>) {
        let end = error.map_or(End::Complete, End::Failed);
        self.other.count(At::of(path), end, Some(status));
        match error {
            Some(Code::TooManyLocks) => self.shed(Shed::Locks),
            Some(Code::RateLimited) => self.shed(Shed::Rate),
            _ => {}
        }
    }

    /// Counts a request that was shed.
    pub(super) fn shed(&self, why: Shed) {
        self.shed.inc([why.as_str()]);
    }

    /// Counts a node's claim of tokens that was cut.
    pub(super) fn claim_cut(&self, kind: &'static str) {
        self.claims_cut.inc([kind]);
    }

    /// Counts an exchange with a node that failed.
    pub(super) fn failed(&self, node: &NodeCounts, class: &'static str) {
        self.failures.inc([class]);
        node.failures.inc([class]);
    }
}

/// Why a request is shed, where `admit` does not count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shed {
    Draining,
    /// As many locks as may be.
    Locks,
    /// Too often.
    Rate,
    /// As many questions to nodes for evidence as may be.
    Questions,
    /// As many announcements as may be looked into.
    Announcements,
}

impl Shed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Locks => "locks",
            Self::Rate => "rate",
            Self::Questions => "questions",
            Self::Announcements => "announcements",
        }
    }
}

impl ModelCounts {
    fn count(&self, At(at): At, end: End, status: Option<StatusCode>) {
        let Some(ends) = self.requests.get(at) else {
            return;
        };
        let ends = ends.get_or_init(Box::default);
        let of_end = match end {
            End::Complete => 0,
            End::Cancelled => 1,
            End::Failed(code) => {
                let place = Code::ALL.iter().position(|known| *known == code);
                place.map_or(ENDS, |place| place + 2)
            }
        };
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let classes = ends.0.get(of_end);
        if let Some(count) = classes.and_then(|it| it.get(class.min(CLASSES.len() - 1))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted of requests: endpoint, outcome, code, status and number.
    fn requests(&self) -> impl Iterator<Item = ([&'static str; 4], u64)> {
        let made = ENDPOINTS.iter().zip(&self.requests);
        made.filter_map(|(endpoint, ends)| Some((*endpoint, ends.get()?)))
            .flat_map(|(endpoint, ends)| {
                let ends = ends.0.iter().enumerate();
                ends.flat_map(move |(end, classes)| {
                    let (outcome, code) = names(end);
                    CLASSES.iter().zip(classes).map(move |(class, count)| {
                        let count = count.load(Ordering::Relaxed);
                        ([endpoint, outcome, code, *class], count)
                    })
                })
            })
            .filter(|(_, count)| *count > 0)
    }
}

/// Outcome and code of a place in [`Ends`].
fn names(end: usize) -> (&'static str, &'static str) {
    match end {
        0 => ("complete", "none"),
        1 => ("cancelled", "none"),
        failed => {
            let code = failed.checked_sub(2).and_then(|at| Code::ALL.get(at));
            ("failed", code.map_or("none", |code| code.code()))
        }
    }
}

impl Default for Ends {
    fn default() -> Self {
        let none = |_| std::array::from_fn(|_| AtomicU64::new(0));
        Self(std::array::from_fn(none))
    }
}

impl NodeCounts {
    /// Counts an appraisal that passed.
    pub(super) fn accepted(&self) {
        self.appraisals.inc(["accepted", "none"]);
    }

    /// Counts one that a check refused.
    pub(super) fn refused(&self, check: &'static str) {
        self.appraisals.inc(["refused", check]);
    }

    /// Counts one that came to no verdict.
    pub(super) fn not_appraised(&self, class: &'static str) {
        self.appraisals.inc(["failed", class]);
    }
}

/// Files that were read again while the gateway serves.
#[derive(Debug)]
pub(super) struct Reloads {
    clock: Clock,
    /// By what was read, and what came of it.
    counts: Tally<2>,
    /// When each was last found good, in Unix seconds.
    last_good: [AtomicU64; Reloaded::ALL.len()],
}

/// What is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    Config,
    Policy,
    Bundle,
}

impl Reloaded {
    const ALL: [Self; 3] = [Self::Config, Self::Policy, Self::Bundle];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Policy => "policy",
            Self::Bundle => "bundle",
        }
    }
}

impl Reloads {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            counts: Tally::default(),
            last_good: Default::default(),
        }
    }

    /// What was read is in force now.
    pub(super) fn applied(&self, what: Reloaded) {
        self.good(what, "applied");
    }

    /// What was read is in force already.
    pub(super) fn unchanged(&self, what: Reloaded) {
        self.good(what, "unchanged");
    }

    /// What was read cannot be used.
    pub(super) fn refused(&self, what: Reloaded) {
        self.counts.inc([what.as_str(), "refused"]);
    }

    fn good(&self, what: Reloaded, outcome: &'static str) {
        self.counts.inc([what.as_str(), outcome]);
        let place = Reloaded::ALL.iter().position(|it| *it == what);
        if let Some(last) = place.and_then(|place| self.last_good.get(place)) {
            last.store(unix_seconds(self.clock.now()), Ordering::Relaxed);
        }
    }
}

fn as_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
