//! The gateway's metrics, each read at its home when somebody asks.

use std::{collections::HashSet, fmt, sync::Arc};

use tokio::sync::watch;

use super::{ENDPOINTS, ModelCounts, OTHER, RECORDED, Recorded, Reloaded, as_u64};
use crate::{
    gateway::{
        Shared, archive::Watch, authenticate::Callers, health::Standing, node::Node,
        receipts::MAX_CHECKS,
    },
    listener::ConnectionCounts,
    store::LedgerWatch,
    telemetry::metrics::{Family, Histogram, Page, Source},
};

const BUILD: Family<1> = Family::gauge("build_info", ["version"], "1, with the program's version.");
const REQUESTS: Family<5> = Family::counter(
    "requests",
    ["endpoint", "model", "outcome", "code", "status"],
    "Requests that have ended.",
);
const TOOK: Family<1> = Family::histogram(
    "request_duration_seconds",
    ["endpoint"],
    "Time from a request's head to the last byte of its reply.",
);
const FIRST_BYTE: Family<1> = Family::histogram(
    "time_to_first_byte_seconds",
    ["endpoint"],
    "Time from a request's head to the beginning of a node's reply.",
);
const RECEIVED: Family<1> = Family::counter(
    "request_body_bytes",
    ["endpoint"],
    "Bytes of requests' bodies.",
);
const SENT: Family<1> = Family::counter(
    "reply_body_bytes",
    ["endpoint"],
    "Bytes of replies' bodies.",
);
const PROMPT_TOKENS: Family<1> = Family::counter(
    "prompt_tokens",
    ["model"],
    "Tokens of prompts, as engines count them.",
);
const COMPLETION_TOKENS: Family<1> = Family::counter(
    "completion_tokens",
    ["model"],
    "Tokens of completions, as engines count them.",
);
const CLAIMS_CUT: Family<1> = Family::counter(
    "usage_claims_cut",
    ["kind"],
    "Claims of nodes of more tokens than there can be, which were cut.",
);
const IN_FLIGHT: Family<0> = Family::gauge(
    "requests_in_flight",
    [],
    "Requests that hold a place until their last byte.",
);
const IN_FLIGHT_LIMIT: Family<0> =
    Family::gauge("requests_in_flight_limit", [], "Places for requests.");
const BODIES: Family<0> = Family::gauge(
    "bodies_held_bytes",
    [],
    "Room that requests' bodies hold, in steps of 1 KiB.",
);
const BODIES_LIMIT: Family<0> =
    Family::gauge("bodies_held_limit_bytes", [], "Room for requests' bodies.");
const SHED: Family<1> = Family::counter(
    "requests_shed",
    ["reason"],
    "Requests and connections that were shed at once.",
);
const CONNECTIONS: Family<0> = Family::gauge(
    "connections_open",
    [],
    "Connections of callers that are open.",
);
const CONNECTIONS_LIMIT: Family<0> = Family::gauge(
    "connections_limit",
    [],
    "Connections of callers that may be open.",
);
const ACCEPTED: Family<0> = Family::counter(
    "connections_accepted",
    [],
    "Connections of callers that were served.",
);
const REFUSED: Family<0> = Family::counter(
    "connections_refused",
    [],
    "Connections that were closed at the limit.",
);
const RECEIPTS: Family<1> = Family::counter(
    "receipts",
    ["outcome"],
    "Receipts that were asked for, by what came of them: kept, or why not.",
);
const RECEIPTS_CHECKING: Family<0> = Family::gauge(
    "receipts_checking",
    [],
    "Receipts that are being checked beside their requests.",
);
const RECEIPTS_CHECKING_LIMIT: Family<0> = Family::gauge(
    "receipts_checking_limit",
    [],
    "Receipts that may be checked at once; those of more replies are not kept.",
);
const SEALED: Family<1> = Family::counter(
    "requests_sealed",
    ["suite"],
    "Requests that were sealed to a node, by what they were sealed with last.",
);
const PADDED: Family<1> = Family::counter(
    "requests_padded",
    ["padding"],
    "Requests that the gateway sealed, by how they and their replies were padded last.",
);
const TRIES: Family<0> = Family::counter("tries", [], "Exchanges with nodes that requests began.");
const RETRIES: Family<0> = Family::counter(
    "retries",
    [],
    "Exchanges with another node after one failed.",
);
const RETRIES_REFUSED: Family<0> = Family::counter(
    "retries_refused",
    [],
    "Exchanges that the retry budget did not allow.",
);
const RETRYING: Family<0> = Family::gauge(
    "retries_in_flight",
    [],
    "Retries whose requests have not ended.",
);
const RESEALS: Family<0> = Family::counter(
    "reseals",
    [],
    "Exchanges that were sealed again to the same node, attested again.",
);
const FAILURES: Family<1> = Family::counter(
    "exchange_failures",
    ["class"],
    "Exchanges with nodes that failed.",
);
const NODES: Family<0> = Family::gauge("nodes", [], "Nodes that are known, verified or not.");
const NODE_IN_FLIGHT: Family<2> = Family::gauge(
    "node_requests_in_flight",
    NODE,
    "Requests that the node works for.",
);
const NODE_VERIFIED: Family<2> = Family::gauge(
    "node_verified",
    NODE,
    "1 while the node has an appraisal that holds.",
);
const NODE_STANDING: Family<3> = Family::gauge(
    "node_standing",
    ["node", "url", "standing"],
    "1 for how the node stands with requests.",
);
const NODE_REMAINING: Family<2> = Family::gauge(
    "node_appraisal_remaining_seconds",
    NODE,
    "Time until the node's appraisal ends; 0 without one.",
);
const NODE_ANSWERS: Family<2> =
    Family::counter("node_answers", NODE, "Exchanges whose reply has begun.");
const NODE_FAILURES: Family<3> = Family::counter(
    "node_failures",
    ["node", "url", "class"],
    "Exchanges with the node that failed.",
);
const APPRAISALS: Family<4> = Family::counter(
    "node_appraisals",
    ["node", "url", "verdict", "reason"],
    "Appraisals of the node.",
);
const RELOADS: Family<2> = Family::counter(
    "reloads",
    ["file", "outcome"],
    "Files that were read again while the gateway serves.",
);
const RELOADED: Family<1> = Family::gauge(
    "last_good_reload_timestamp_seconds",
    ["file"],
    "Unix time when the file was last read again and found good; 0 for never.",
);
const ARCHIVE_QUEUE: Family<0> =
    Family::gauge("archive_queue", [], "Verdicts that wait to be written.");
const STORE_UP: Family<0> = Family::gauge(
    "store_up",
    [],
    "0 once the store did not answer when it was asked for keys, 1 otherwise.",
);
const STORE_KEYS: Family<0> = Family::gauge("store_keys", [], "Keys of the store in memory.");
const STORE_LOOKS: Family<1> = Family::counter(
    "store_key_lookups",
    ["outcome"],
    "Questions to the store for keys that changed.",
);
const JOURNAL: Family<0> = Family::gauge(
    "journal_places_taken",
    [],
    "Requests in flight, and those whose usage waits for the store.",
);
const JOURNAL_LIMIT: Family<0> = Family::gauge(
    "journal_places",
    [],
    "Places of the journal; 0 without a store.",
);
const USAGE: Family<1> = Family::counter(
    "usage_rows",
    ["outcome"],
    "Requests whose usage was written, and those that the store does not take.",
);
const USAGE_FAILED: Family<0> = Family::counter(
    "usage_write_failures",
    [],
    "Batches of usage that the store did not take when they were tried; they are tried again.",
);
const AUDIT_QUEUE: Family<0> = Family::gauge(
    "audit_queue",
    [],
    "Entries of the audit log that wait for the store.",
);
const AUDITED: Family<1> = Family::counter(
    "audit_entries",
    ["outcome"],
    "Entries of the audit log that were written, and those that found no room.",
);
const AUDIT_FAILED: Family<0> = Family::counter(
    "audit_write_failures",
    [],
    "Batches of entries that the store did not take when they were tried; they are tried again.",
);
const AUDIT_HEADS: Family<2> = Family::counter(
    "audit_heads",
    ["to", "outcome"],
    "Times that the head of the audit log was told, to the file or the URL that keeps it.",
);
const ARCHIVE_LIMIT: Family<0> = Family::gauge(
    "archive_queue_limit",
    [],
    "Places in that queue; 0 without an archive.",
);
const ARCHIVED: Family<1> = Family::counter(
    "archived_verdicts",
    ["outcome"],
    "Verdicts handed to the archive.",
);
const DRAINING: Family<0> = Family::gauge("draining", [], "1 once the gateway is told to stop.");

/// The labels of all that is said of one node.
const NODE: [&str; 2] = ["node", "url"];

/// Every metric that is written, in that order.
#[cfg(test)]
pub(in crate::gateway) const FAMILIES: [crate::telemetry::metrics::Row; 54] = [
    BUILD.row(),
    DRAINING.row(),
    REQUESTS.row(),
    PROMPT_TOKENS.row(),
    COMPLETION_TOKENS.row(),
    CLAIMS_CUT.row(),
    TOOK.row(),
    FIRST_BYTE.row(),
    RECEIVED.row(),
    SENT.row(),
    IN_FLIGHT.row(),
    IN_FLIGHT_LIMIT.row(),
    BODIES.row(),
    BODIES_LIMIT.row(),
    SHED.row(),
    CONNECTIONS.row(),
    CONNECTIONS_LIMIT.row(),
    ACCEPTED.row(),
    REFUSED.row(),
    SEALED.row(),
    PADDED.row(),
    TRIES.row(),
    RETRIES.row(),
    RETRIES_REFUSED.row(),
    RETRYING.row(),
    RESEALS.row(),
    FAILURES.row(),
    NODES.row(),
    NODE_IN_FLIGHT.row(),
    NODE_VERIFIED.row(),
    NODE_STANDING.row(),
    NODE_REMAINING.row(),
    NODE_ANSWERS.row(),
    NODE_FAILURES.row(),
    APPRAISALS.row(),
    RELOADS.row(),
    RELOADED.row(),
    ARCHIVE_QUEUE.row(),
    ARCHIVE_LIMIT.row(),
    ARCHIVED.row(),
    STORE_UP.row(),
    STORE_KEYS.row(),
    STORE_LOOKS.row(),
    JOURNAL.row(),
    JOURNAL_LIMIT.row(),
    USAGE.row(),
    USAGE_FAILED.row(),
    AUDIT_QUEUE.row(),
    AUDITED.row(),
    AUDIT_FAILED.row(),
    AUDIT_HEADS.row(),
    RECEIPTS.row(),
    RECEIPTS_CHECKING.row(),
    RECEIPTS_CHECKING_LIMIT.row(),
];

/// Reads the numbers of one gateway.
pub(in crate::gateway) struct Scrape {
    /// What is in force: its limits are those that requests meet.
    pub(in crate::gateway) current: watch::Receiver<Arc<Shared>>,
    pub(in crate::gateway) connections: Arc<ConnectionCounts>,
    pub(in crate::gateway) connection_limit: usize,
    pub(in crate::gateway) archive: Option<Watch>,
}

impl Source for Scrape {
    fn collect(&self, page: &mut Page<'_>) -> fmt::Result {
        let shared = &*Arc::clone(&self.current.borrow());
        let version = env!("CARGO_PKG_VERSION");
        page.family(&BUILD, |series| series.number([version], 1))?;
        page.number(&DRAINING, shared.phase.is_draining().into())?;
        requests(shared, page)?;
        endpoints(shared, page)?;
        self.limits(shared, page)?;
        exchanges(shared, page)?;
        nodes(shared, page)?;
        reloads(shared, page)?;
        self.archive(page)?;
        store(shared, page)?;
        audit(shared, page)?;
        receipts(shared, page)
    }
}

impl Scrape {
    fn limits(&self, shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
        let admission = &shared.admission;
        page.number(&IN_FLIGHT, as_u64(admission.in_flight()))?;
        page.number(&IN_FLIGHT_LIMIT, as_u64(admission.places()))?;
        page.number(&BODIES, as_u64(admission.bodies_bytes()))?;
        page.number(&BODIES_LIMIT, as_u64(admission.most_bodies_bytes()))?;
        page.family(&SHED, |series| {
            for (reason, count) in admission.shed() {
                series.number([reason], count)?;
            }
            series.number(["connections"], self.connections.refused())?;
            let elsewhere = shared.metrics.shed.counts();
            elsewhere
                .into_iter()
                .try_for_each(|(reason, count)| series.number(reason, count))
        })?;
        page.number(&CONNECTIONS, self.connections.open())?;
        page.number(&CONNECTIONS_LIMIT, as_u64(self.connection_limit))?;
        page.number(&ACCEPTED, self.connections.accepted())?;
        page.number(&REFUSED, self.connections.refused())
    }

    fn archive(&self, page: &mut Page<'_>) -> fmt::Result {
        let archive = self.archive.as_ref();
        page.number(&ARCHIVE_QUEUE, as_u64(archive.map_or(0, Watch::waiting)))?;
        page.number(&ARCHIVE_LIMIT, as_u64(archive.map_or(0, Watch::capacity)))?;
        page.family(&ARCHIVED, |series| {
            let Some(archive) = archive else {
                return Ok(());
            };
            series.number(["written"], archive.written())?;
            series.number(["failed"], archive.failed())
        })
    }
}

/// Where keys and usage are kept.
fn store(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let book = match &*shared.callers {
        Callers::Stored(book) => Some(book),
        Callers::Anybody(_) | Callers::Keys(_) => None,
    };
    page.number(&STORE_UP, book.is_none_or(|book| book.is_reached()).into())?;
    page.number(&STORE_KEYS, as_u64(book.map_or(0, |book| book.len())))?;
    page.family(&STORE_LOOKS, |series| {
        let Some((looks, failed)) = book.map(|book| book.questions()) else {
            return Ok(());
        };
        series.number(["answered"], looks.saturating_sub(failed))?;
        series.number(["failed"], failed)
    })?;
    let ledger = shared.ledger.as_ref().map(|ledger| ledger.watch());
    let number = |of: fn(&LedgerWatch) -> usize| as_u64(ledger.as_ref().map_or(0, of));
    page.number(&JOURNAL, number(LedgerWatch::taken))?;
    page.number(&JOURNAL_LIMIT, number(LedgerWatch::places))?;
    page.family(&USAGE, |series| {
        let Some(ledger) = &ledger else {
            return Ok(());
        };
        series.number(["written"], ledger.written())?;
        series.number(["set_aside"], ledger.set_aside())
    })?;
    page.number(
        &USAGE_FAILED,
        ledger.as_ref().map_or(0, LedgerWatch::failed),
    )
}

fn audit(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let counts = shared.audit.counts();
    page.number(&AUDIT_QUEUE, as_u64(shared.audit.waiting()))?;
    page.family(&AUDITED, |series| {
        let Some([written, _, lost]) = counts else {
            return Ok(());
        };
        series.number(["written"], written)?;
        series.number(["lost"], lost)
    })?;
    page.number(&AUDIT_FAILED, counts.map_or(0, |[_, failed, _]| failed))?;
    page.family(&AUDIT_HEADS, |series| {
        let heads = shared.audit.heads().map(|heads| heads.counts());
        for (words, count) in heads.unwrap_or_default() {
            series.number(words, count)?;
        }
        Ok(())
    })
}

fn requests(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let snapshot = shared.nodes.snapshot();
    let other = [&shared.metrics.other, snapshot.other_counts()];
    let own = || snapshot.counted_models();
    page.family(&REQUESTS, |series| {
        for ([endpoint, outcome, code, class], count) in summed(other) {
            series.number([endpoint, OTHER, outcome, code, class], count)?;
        }
        for (name, counts) in own() {
            for ([endpoint, outcome, code, class], count) in counts.requests() {
                series.number([endpoint, name, outcome, code, class], count)?;
            }
        }
        Ok(())
    })?;
    let tokens = |page: &mut Page<'_>, family, of: fn(&ModelCounts) -> u64| {
        page.family(family, |series| {
            series.number([OTHER], other.map(of).iter().sum())?;
            own().try_for_each(|(name, counts)| series.number([name], of(counts)))
        })
    };
    tokens(page, &PROMPT_TOKENS, |counts| counts.prompt_tokens.get())?;
    tokens(page, &COMPLETION_TOKENS, |counts| {
        counts.completion_tokens.get()
    })?;
    page.family(&CLAIMS_CUT, |series| {
        let counts = shared.metrics.claims_cut.counts();
        counts
            .into_iter()
            .try_for_each(|(kind, count)| series.number(kind, count))
    })
}

fn endpoints(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let recorded = || {
        ENDPOINTS
            .iter()
            .take(RECORDED)
            .zip(&shared.metrics.recorded)
    };
    let times = |page: &mut Page<'_>, family, of: fn(&Recorded) -> &Histogram| {
        page.family(family, |series| {
            recorded().try_for_each(|(path, it)| series.times([path], of(it)))
        })
    };
    times(page, &TOOK, |it| &it.took)?;
    times(page, &FIRST_BYTE, |it| &it.first_byte)?;
    let bytes = |page: &mut Page<'_>, family, of: fn(&Recorded) -> u64| {
        page.family(family, |series| {
            recorded().try_for_each(|(path, it)| series.number([path], of(it)))
        })
    };
    bytes(page, &RECEIVED, |it| it.bytes_in.get())?;
    bytes(page, &SENT, |it| it.bytes_out.get())
}

fn exchanges(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let (metrics, admission) = (&shared.metrics, &shared.admission);
    page.family(&SEALED, |series| {
        let mut counts = metrics.sealed.counts().into_iter();
        counts.try_for_each(|(suite, count)| series.number(suite, count))
    })?;
    page.family(&PADDED, |series| {
        let mut counts = metrics.padded.counts().into_iter();
        counts.try_for_each(|(padding, count)| series.number(padding, count))
    })?;
    page.number(&TRIES, metrics.tries.get())?;
    page.number(&RETRIES, metrics.retries.get())?;
    page.number(&RETRIES_REFUSED, admission.refused_retries())?;
    page.number(&RETRYING, as_u64(admission.retries_in_flight()))?;
    page.number(&RESEALS, metrics.reseals.get())?;
    page.family(&FAILURES, |series| {
        let mut counts = metrics.failures.counts().into_iter();
        counts.try_for_each(|(class, count)| series.number(class, count))
    })
}

fn nodes(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let all = shared.nodes.all();
    let mut urls = HashSet::new();
    let nodes: Vec<_> = all
        .iter()
        .map(|node| Named::of(node, shared))
        .filter(|named| urls.insert(named.url.clone()))
        .collect();
    page.number(&NODES, as_u64(all.len()))?;
    let each = |page: &mut Page<'_>, family, of: fn(&Named<'_>) -> u64| {
        page.family(family, |series| {
            nodes
                .iter()
                .try_for_each(|it| series.number(it.labels(), of(it)))
        })
    };
    each(page, &NODE_IN_FLIGHT, |it| it.node.in_flight().into())?;
    each(page, &NODE_VERIFIED, |it| it.remaining.is_some().into())?;
    page.family(&NODE_STANDING, |series| {
        nodes.iter().try_for_each(|it| {
            let standing = match it.node.standing() {
                Standing::Good => "good",
                Standing::OnTrial => "on_trial",
                Standing::Avoided => "avoided",
                Standing::Out => "out",
                Standing::Barred => "barred",
            };
            series.number([&it.id, &it.url, standing], 1)
        })
    })?;
    page.family(&NODE_REMAINING, |series| {
        let remaining = |it: &Named<'_>| it.remaining.unwrap_or_default();
        nodes
            .iter()
            .try_for_each(|it| series.fraction(it.labels(), remaining(it)))
    })?;
    each(page, &NODE_ANSWERS, |it| it.node.counts.answers.get())?;
    page.family(&NODE_FAILURES, |series| {
        nodes.iter().try_for_each(|it| {
            let mut counts = it.node.counts.failures.counts().into_iter();
            counts.try_for_each(|([class], n)| series.number([&it.id, &it.url, class], n))
        })
    })?;
    page.family(&APPRAISALS, |series| {
        nodes.iter().try_for_each(|it| {
            let mut counts = it.node.counts.appraisals.counts().into_iter();
            counts.try_for_each(|([verdict, reason], count)| {
                series.number([&it.id, &it.url, verdict, reason], count)
            })
        })
    })
}

fn receipts(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let desk = &shared.receipts;
    page.family(&RECEIPTS, |series| {
        let mut counts = desk.counts().into_iter();
        counts.try_for_each(|(outcome, count)| series.number(outcome, count))
    })?;
    page.number(&RECEIPTS_CHECKING, as_u64(desk.checking()))?;
    page.number(&RECEIPTS_CHECKING_LIMIT, as_u64(MAX_CHECKS))
}

fn reloads(shared: &Shared, page: &mut Page<'_>) -> fmt::Result {
    let reloads = &shared.metrics.reloads;
    page.family(&RELOADS, |series| {
        let mut counts = reloads.counts.counts().into_iter();
        counts.try_for_each(|(words, count)| series.number(words, count))
    })?;
    page.family(&RELOADED, |series| {
        let mut each = Reloaded::ALL.iter().zip(&reloads.last_good);
        each.try_for_each(|(what, last)| {
            let last = last.load(std::sync::atomic::Ordering::Relaxed);
            series.number([what.as_str()], last)
        })
    })
}

/// The counts of several as those of one.
fn summed(all: [&ModelCounts; 2]) -> Vec<([&'static str; 4], u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for (labels, count) in all.into_iter().flat_map(ModelCounts::requests) {
        let sum: &mut u64 = sums.entry(labels).or_default();
        *sum = sum.saturating_add(count);
    }
    sums.into_iter().collect()
}

/// A node under its labels.
struct Named<'a> {
    node: &'a Node,
    /// The id that it had last; empty before it was ever verified.
    id: String,
    url: String,
    /// Seconds until its appraisal ends; `None` if none holds.
    remaining: Option<f64>,
}

impl<'a> Named<'a> {
    fn of(node: &'a Arc<Node>, shared: &Shared) -> Self {
        let now = shared.clock.now();
        let verified = node.verified().filter(|it| !it.has_ended(now));
        let remaining = verified.map(|it| it.left(now).as_secs_f64());
        Self {
            id: node.last_id().map_or_else(String::new, |id| id.to_string()),
            url: node.url.to_string(),
            remaining,
            node,
        }
    }

    fn labels(&self) -> [&str; 2] {
        [&self.id, &self.url]
    }
}
