//! What the node counts, for the operator's `/metrics`.
//!
//! A label's value is one of this program's words, or names an engine by its place and address in the
//! configuration. Nothing tells one request from another: what is counted is no more than what
//! whoever carries the sealed bytes can see.

use std::{fmt, sync::Arc};

use attestation::{Dialect, statement::ClaimedKey};

use super::{State, buffered::Buffered, engine::Engine, engine_metrics::Load, places};
use crate::telemetry::metrics::{Family, Page, Source, Tally};

/// This project's own format, where a dialect is named.
const OWN_FORMAT: &str = "sealgate";
/// The path of a request that did not open.
const UNKNOWN: &str = "unknown";

/// What is counted here.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Sealed requests by endpoint, dialect and outcome.
    requests: Tally<3>,
    /// Refusals by form and problem.
    refusals: Tally<2>,
    attestations: Tally<1>,
}

/// How a refusal goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Clear,
    Sealed,
}

impl Metrics {
    /// Counts a sealed request that ended.
    pub(super) fn ended(
        &self,
        path: Option<&'static str>,
        dialect: Option<&'static str>,
        outcome: &'static str,
    ) {
        let (path, dialect) = (path.unwrap_or(UNKNOWN), dialect.unwrap_or(OWN_FORMAT));
        self.requests.inc([path, dialect, outcome]);
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, form: Form, problem: &'static str) {
        let form = match form {
            Form::Clear => "clear",
            Form::Sealed => "sealed",
        };
        self.refusals.inc([form, problem]);
    }

    /// Counts what came of a question for evidence.
    pub(super) fn attested(&self, outcome: &'static str) {
        self.attestations.inc([outcome]);
    }
}

const BUILD: Family<1> = Family::gauge("build_info", ["version"], "1, with the program's version.");
const DRAINING: Family<0> = Family::gauge("draining", [], "1 once the node is told to stop.");
const REQUESTS: Family<3> = Family::counter(
    "requests",
    ["endpoint", "dialect", "outcome"],
    "Sealed requests that have ended.",
);
const REFUSALS: Family<2> = Family::counter(
    "refusals",
    ["form", "problem"],
    "Sealed requests that the node refused.",
);
const IN_FLIGHT: Family<0> = Family::gauge(
    "requests_in_flight",
    [],
    "Requests that hold a place until their last byte.",
);
const IN_FLIGHT_LIMIT: Family<0> =
    Family::gauge("requests_in_flight_limit", [], "Places for requests.");
const BUFFERED: Family<0> = Family::gauge(
    "buffered_bytes",
    [],
    "Room that requests hold before an engine has them, in steps of 1 KiB.",
);
const BUFFERED_LIMIT: Family<0> = Family::gauge(
    "buffered_limit_bytes",
    [],
    "Room for requests before an engine has them.",
);
const CONNECTIONS: Family<0> = Family::gauge("connections_open", [], "Connections that are open.");
const CONNECTIONS_LIMIT: Family<0> =
    Family::gauge("connections_limit", [], "Connections that may be open.");
const ACCEPTED: Family<0> =
    Family::counter("connections_accepted", [], "Connections that were served.");
const REFUSED: Family<0> = Family::counter(
    "connections_refused",
    [],
    "Connections that were closed at the limit.",
);
const ENGINE_IN_FLIGHT: Family<2> = Family::gauge(
    "engine_requests_in_flight",
    ENGINE,
    "Requests that the engine works for.",
);
const ENGINE_LIMIT: Family<2> = Family::gauge(
    "engine_requests_in_flight_limit",
    ENGINE,
    "Places with the engine.",
);
const ENGINE_QUEUE: Family<2> = Family::gauge(
    "engine_queue",
    ENGINE,
    "Requests that wait for a place with the engine.",
);
const ENGINE_QUEUE_LIMIT: Family<2> =
    Family::gauge("engine_queue_limit", ENGINE, "Requests that may wait so.");
const ENGINE_HEALTHY: Family<2> = Family::gauge(
    "engine_healthy",
    ENGINE,
    "1 while the engine answers questions about its health; not there with `watch = false`.",
);
const ENGINE_RUNNING: Family<2> = Family::gauge(
    "engine_told_requests_running",
    ENGINE,
    "Requests that the engine says it works on, of all who ask it.",
);
const ENGINE_WAITING: Family<2> = Family::gauge(
    "engine_told_requests_waiting",
    ENGINE,
    "Requests that the engine says wait in it.",
);
const ENGINE_KV_CACHE: Family<2> = Family::gauge(
    "engine_told_kv_cache_ratio",
    ENGINE,
    "The used part of the engine's cache of keys and values, as it says.",
);
const ENGINE_FAILURES: Family<3> = Family::counter(
    "engine_failures",
    ["engine", "address", "class"],
    "Questions to the engine that failed.",
);
const ENGINE_FIRST_BYTE: Family<2> = Family::histogram(
    "engine_time_to_first_byte_seconds",
    ENGINE,
    "Time from a question to the engine to the beginning of what it says.",
);
const REPLAY: Family<1> = Family::gauge(
    "replay_table_entries",
    ["dialect"],
    "Requests that are remembered.",
);
const REPLAY_LIMIT: Family<1> = Family::gauge(
    "replay_table_capacity",
    ["dialect"],
    "Requests that can be remembered.",
);
const ATTESTATIONS: Family<1> =
    Family::counter("attestations", ["outcome"], "Questions for evidence.");
const KEY_BEGIN: Family<1> = Family::gauge(
    "key_not_before_timestamp_seconds",
    ["suite"],
    "Unix time from which the newest key of the suite counts.",
);
const KEY_END: Family<1> = Family::gauge(
    "key_not_after_timestamp_seconds",
    ["suite"],
    "Unix time at which the newest key of the suite ends.",
);

/// The labels of all that is said of one engine.
const ENGINE: [&str; 2] = ["engine", "address"];

/// Every metric that is written, in that order.
#[cfg(test)]
pub(super) const FAMILIES: [crate::telemetry::metrics::Row; 27] = [
    BUILD.row(),
    DRAINING.row(),
    REQUESTS.row(),
    REFUSALS.row(),
    IN_FLIGHT.row(),
    IN_FLIGHT_LIMIT.row(),
    BUFFERED.row(),
    BUFFERED_LIMIT.row(),
    CONNECTIONS.row(),
    CONNECTIONS_LIMIT.row(),
    ACCEPTED.row(),
    REFUSED.row(),
    ENGINE_IN_FLIGHT.row(),
    ENGINE_LIMIT.row(),
    ENGINE_QUEUE.row(),
    ENGINE_QUEUE_LIMIT.row(),
    ENGINE_HEALTHY.row(),
    ENGINE_RUNNING.row(),
    ENGINE_WAITING.row(),
    ENGINE_KV_CACHE.row(),
    ENGINE_FAILURES.row(),
    ENGINE_FIRST_BYTE.row(),
    REPLAY.row(),
    REPLAY_LIMIT.row(),
    ATTESTATIONS.row(),
    KEY_BEGIN.row(),
    KEY_END.row(),
];

/// Reads the numbers of one node.
pub(super) struct Scrape(pub(super) Arc<State>);

impl Source for Scrape {
    fn collect(&self, page: &mut Page<'_>) -> fmt::Result {
        let (state, metrics) = (&self.0, &self.0.metrics);
        let version = env!("CARGO_PKG_VERSION");
        page.family(&BUILD, |series| series.number([version], 1))?;
        page.number(&DRAINING, state.draining.is_cancelled().into())?;
        tallied(page, &REQUESTS, &metrics.requests)?;
        tallied(page, &REFUSALS, &metrics.refusals)?;
        limits(state, page)?;
        engines(state, page)?;
        let tables = [
            (OWN_FORMAT, &state.replay),
            (Dialect::Ehbp.as_str(), state.replay_of.of(Dialect::Ehbp)),
            (Dialect::Seed.as_str(), state.replay_of.of(Dialect::Seed)),
        ];
        page.family(&REPLAY, |series| {
            let mut tables = tables.iter();
            tables.try_for_each(|(name, table)| series.number([name], as_u64(table.len())))
        })?;
        page.family(&REPLAY_LIMIT, |series| {
            let mut tables = tables.iter();
            tables.try_for_each(|(name, table)| series.number([name], as_u64(table.capacity())))
        })?;
        tallied(page, &ATTESTATIONS, &metrics.attestations)?;
        keys(state, page)
    }
}

fn tallied<const N: usize>(
    page: &mut Page<'_>,
    family: &Family<N>,
    tally: &Tally<N>,
) -> fmt::Result {
    page.family(family, |series| {
        let mut counts = tally.counts().into_iter();
        counts.try_for_each(|(words, count)| series.number(words, count))
    })
}

fn limits(state: &State, page: &mut Page<'_>) -> fmt::Result {
    let all = places(&state.config);
    let held = all.saturating_sub(state.requests.available_permits());
    page.number(&IN_FLIGHT, as_u64(held))?;
    page.number(&IN_FLIGHT_LIMIT, as_u64(all))?;
    let room = Buffered::room(state.config.limits.buffered_bytes.get());
    let free = Buffered::free(&state.buffered);
    page.number(&BUFFERED, as_u64(room.saturating_sub(free)))?;
    page.number(&BUFFERED_LIMIT, as_u64(room))?;
    let connections = &state.connections;
    page.number(&CONNECTIONS, connections.open())?;
    page.number(
        &CONNECTIONS_LIMIT,
        as_u64(state.config.limits.connections.get()),
    )?;
    page.number(&ACCEPTED, connections.accepted())?;
    page.number(&REFUSED, connections.refused())
}

fn engines(state: &State, page: &mut Page<'_>) -> fmt::Result {
    let engines: Vec<(String, &Engine)> = state
        .models
        .engines()
        .iter()
        .enumerate()
        .map(|(place, engine)| (place.to_string(), &**engine))
        .collect();
    let each = |page: &mut Page<'_>, family, of: fn(&Engine) -> usize| {
        page.family(family, |series| {
            let mut engines = engines.iter();
            engines.try_for_each(|(place, it)| series.number([place, it.address()], as_u64(of(it))))
        })
    };
    each(page, &ENGINE_IN_FLIGHT, |it| it.places.held())?;
    each(page, &ENGINE_LIMIT, |it| it.places.limit())?;
    each(page, &ENGINE_QUEUE, |it| it.places.waiting())?;
    each(page, &ENGINE_QUEUE_LIMIT, |it| it.places.queue())?;
    page.family(&ENGINE_HEALTHY, |series| {
        // Of an engine that nobody asks it is not known.
        let mut watched = engines.iter().filter(|(_, it)| it.watch.is_some());
        watched.try_for_each(|(place, it)| {
            series.number([place, it.address()], it.health.is_well().into())
        })
    })?;
    let told = |page: &mut Page<'_>, family, of: fn(Load) -> Option<u64>| {
        page.family(family, |series| {
            engines.iter().try_for_each(|(place, it)| {
                let told = of(it.health.load());
                told.map_or(Ok(()), |told| series.number([place, it.address()], told))
            })
        })
    };
    told(page, &ENGINE_RUNNING, |load| load.running)?;
    told(page, &ENGINE_WAITING, |load| load.waiting)?;
    page.family(&ENGINE_KV_CACHE, |series| {
        engines.iter().try_for_each(|(place, it)| {
            let told = it.health.load().kv_cache;
            told.map_or(Ok(()), |told| series.fraction([place, it.address()], told))
        })
    })?;
    page.family(&ENGINE_FAILURES, |series| {
        engines.iter().try_for_each(|(place, it)| {
            let mut counts = it.counts.failures.counts().into_iter();
            counts
                .try_for_each(|([class], count)| series.number([place, it.address(), class], count))
        })
    })?;
    page.family(&ENGINE_FIRST_BYTE, |series| {
        let mut engines = engines.iter();
        engines
            .try_for_each(|(place, it)| series.times([place, it.address()], &it.counts.first_byte))
    })
}

fn keys(state: &State, page: &mut Page<'_>) -> fmt::Result {
    let mut newest: Vec<ClaimedKey> = Vec::new();
    // By suite, and the newest of each first.
    for key in state.identity.keys() {
        if newest.iter().all(|known| known.suite != key.suite) {
            newest.push(key);
        }
    }
    let each = |page: &mut Page<'_>, family, of: fn(&ClaimedKey) -> u64| {
        page.family(family, |series| {
            let mut newest = newest.iter();
            newest.try_for_each(|key| series.number([key.suite.as_str()], of(key)))
        })
    };
    each(page, &KEY_BEGIN, |key| key.not_before)?;
    each(page, &KEY_END, |key| key.not_after)
}

fn as_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{PROCESS, documented};

    #[test]
    fn every_metric_is_documented() {
        documented::are(&FAMILIES, "sealgate_node");
        documented::are(&PROCESS, "process");
    }
}
