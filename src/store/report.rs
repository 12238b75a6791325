//! How keys, usage and the audit log are told, the same by commands and over HTTP.

use std::time::SystemTime;

use attestation::time::to_rfc3339;
use serde_json::{Map, Value, json};

use super::{AuditEntry, Audited, Head, Key, Query, Sum, in_currency};

/// The state of a key that opens something.
pub(crate) const ACTIVE: &str = "active";

/// What has become of a key.
pub(crate) fn state(key: &Key, now: SystemTime) -> &'static str {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        (None, _) => ACTIVE,
    }
}

/// Keys; of what opens them, how many there are.
pub(crate) fn keys(keys: &[Key], now: SystemTime) -> Value {
    let keys: Vec<_> = keys.iter().map(|it| key(it, now)).collect();
    json!({ "keys": keys })
}

fn key(key: &Key, now: SystemTime) -> Value {
    let secrets = key.secrets.iter();
    let secrets = secrets.filter(|(_, ends)| ends.is_none_or(|at| at > now));
    json!({
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "state": state(key, now),
        "created_at": to_rfc3339(key.created_at),
        "expires_at": key.expires_at.map(to_rfc3339),
        "revoked_at": key.revoked_at.map(to_rfc3339),
        "secrets": secrets.count(),
        "terms": key.terms,
    })
}

/// What is told of each sum of usage, besides what it is of.
const COLUMNS: [&str; 11] = [
    "requests",
    "uncounted",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "charged_tokens",
    "charged_cost",
    "bytes_in",
    "bytes_out",
];

/// The names of what is told of each sum.
pub(crate) fn columns(query: &Query) -> Vec<&'static str> {
    query.of().map(|(name, _)| name).chain(COLUMNS).collect()
}

fn values(sum: &Sum) -> [Value; 11] {
    let money = |cost: Option<i64>| cost.map_or(Value::Null, |cost| in_currency(cost).into());
    [
        sum.requests.into(),
        sum.uncounted.into(),
        sum.tokens.prompt.into(),
        sum.tokens.cached.into(),
        sum.tokens.completion.into(),
        sum.tokens.reasoning.into(),
        money(sum.cost),
        sum.charged_tokens.into(),
        money(sum.charged_cost),
        sum.bytes_in.into(),
        sum.bytes_out.into(),
    ]
}

/// Sums of usage.
pub(crate) fn usage(query: &Query, sums: &[Sum]) -> Value {
    let rows = sums.iter().map(|sum| {
        let of = sum.of.iter().map(|of| json!(of)).chain(values(sum));
        let names = columns(query).into_iter().map(str::to_owned);
        Value::Object(Map::from_iter(names.zip(of)))
    });
    let rows: Vec<Value> = rows.collect();
    let time = |time: Option<SystemTime>| time.map(to_rfc3339);
    json!({
        "by": query.by.iter().map(|by| by.as_str()).collect::<Vec<_>>(),
        "since": time(query.since),
        "until": time(query.until),
        "usage": rows,
    })
}

/// What is told of a sum, in the order of the columns; empty where nothing is known.
pub(crate) fn cells(sum: &Sum) -> Vec<String> {
    let of = sum.of.iter().map(|of| of.clone().unwrap_or_default());
    let values = values(sum).into_iter().map(|value| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        value => value.to_string(),
    });
    of.chain(values).collect()
}

/// Sums of usage as comma-separated values, a line each.
pub(crate) fn usage_csv(query: &Query, sums: &[Sum]) -> Vec<String> {
    let head = columns(query).join(",");
    let rows = sums.iter().map(|sum| {
        let cells: Vec<_> = cells(sum).iter().map(|cell| quoted(cell)).collect();
        cells.join(",")
    });
    std::iter::once(head).chain(rows).collect()
}

/// One field (RFC 4180), and nothing that a spreadsheet would take for a formula.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@']);
    let cell = if is_formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell
}

/// An entry of the audit log.
pub(crate) fn audit_entry(entry: &AuditEntry) -> Value {
    // What is no JSON is told as it is: somebody changed it, and that is to be seen.
    let detail = serde_json::from_str(&entry.detail);
    json!({
        "seq": entry.seq,
        "at": to_rfc3339(entry.at()),
        "actor": entry.actor,
        "event": entry.event,
        "subject": entry.subject,
        "detail": detail.unwrap_or_else(|_| Value::String(entry.detail.clone())),
        "prev": entry.prev,
        "hash": entry.hash,
    })
}

/// What the audit log was found to be.
pub(crate) fn audited(audited: &Audited) -> Value {
    let Audited { anchor, head, flaw } = audited;
    let flaw = flaw.map(|(seq, wrong)| json!({ "seq": seq, "message": wrong.to_string() }));
    json!({
        "whole": flaw.is_none(),
        "first": anchor.seq.saturating_add(1),
        "entries": head.seq,
        "head": head,
        "flaw": flaw,
    })
}

/// A head as it is kept elsewhere, with the names of its log and of who tells it.
pub(crate) fn head(head: &Head, at: SystemTime, log: &str, gateway: &str) -> Value {
    json!({
        "seq": head.seq,
        "hash": head.hash,
        "at": to_rfc3339(at),
        "log": log,
        "gateway": gateway,
    })
}
