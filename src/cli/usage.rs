//! `sealgate usage`: what keys used, out of the store.

use std::{process::ExitCode, time::SystemTime};

use attestation::time::to_rfc3339;
use serde_json::{Map, Value, json};

use super::{
    keys::{File, When, parse_when},
    store::with_store,
    terminal,
};
use crate::{
    clock::Clock,
    config::ConfigError,
    store::{By, Query, StoreError, Sum, in_currency},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: File,
    /// What is summed: key, model, node or day, several with commas.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "key,model"
    )]
    by: Vec<By>,
    /// Only requests that began then or later: a time (RFC 3339), or how long ago, as 30d or 12h.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    since: Option<When>,
    /// Only requests that began before.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<When>,
    /// Only those of the key of this name.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values instead of a table.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("--by {0} is there twice")]
    Twice(By),
}

pub(super) fn run(args: &Args) -> ExitCode {
    match report(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal::fail(error),
    }
}

fn report(args: &Args) -> Result<(), UsageError> {
    let mut left = args.by.as_slice();
    while let Some((by, rest)) = left.split_first() {
        if rest.contains(by) {
            return Err(UsageError::Twice(*by));
        }
        left = rest;
    }
    let now = Clock::system().now();
    let query = Query {
        by: args.by.clone(),
        since: args.since.map(|when| when.before(now)),
        until: args.until.map(|when| when.before(now)),
        key: args.key.clone(),
    };
    let config = args.file.load()?;
    let sums = with_store(&config, async |store| {
        Ok::<_, UsageError>(store.usage(&query).await?)
    })?;
    if args.json {
        terminal::say(in_json(&query, &sums));
    } else if args.csv {
        csv(&query, &sums);
    } else {
        table(&query, &sums);
    }
    Ok(())
}

/// What is told of each sum, besides what it is of.
const COLUMNS: [&str; 9] = [
    "requests",
    "uncounted",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "bytes_in",
    "bytes_out",
];

fn values(sum: &Sum) -> [Value; 9] {
    [
        sum.requests.into(),
        sum.uncounted.into(),
        sum.tokens.prompt.into(),
        sum.tokens.cached.into(),
        sum.tokens.completion.into(),
        sum.tokens.reasoning.into(),
        sum.cost
            .map_or(Value::Null, |cost| in_currency(cost).into()),
        sum.bytes_in.into(),
        sum.bytes_out.into(),
    ]
}

fn in_json(query: &Query, sums: &[Sum]) -> Value {
    let rows: Vec<Value> = sums
        .iter()
        .map(|sum| {
            let names = query.by.iter().map(|by| by.as_str()).chain(COLUMNS);
            let of = sum.of.iter().map(|of| json!(of));
            let row = names.map(str::to_owned).zip(of.chain(values(sum)));
            Value::Object(Map::from_iter(row))
        })
        .collect();
    let time = |time: Option<SystemTime>| time.map(to_rfc3339);
    json!({
        "by": query.by.iter().map(|by| by.as_str()).collect::<Vec<_>>(),
        "since": time(query.since),
        "until": time(query.until),
        "usage": rows,
    })
}

fn cells(sum: &Sum) -> Vec<String> {
    let of = sum.of.iter().map(|of| of.clone().unwrap_or_default());
    let values = values(sum).into_iter().map(|value| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        value => value.to_string(),
    });
    of.chain(values).collect()
}

fn csv(query: &Query, sums: &[Sum]) {
    let head: Vec<_> = query
        .by
        .iter()
        .map(|by| by.as_str())
        .chain(COLUMNS)
        .collect();
    terminal::say(head.join(","));
    for sum in sums {
        let cells: Vec<_> = cells(sum).iter().map(|cell| quoted(cell)).collect();
        terminal::say(cells.join(","));
    }
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

fn table(query: &Query, sums: &[Sum]) {
    let head: Vec<_> = query
        .by
        .iter()
        .map(|by| by.as_str())
        .chain(COLUMNS)
        .collect();
    let head: Vec<_> = head
        .iter()
        .map(|name| name.to_uppercase().replace('_', " "))
        .collect();
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    let dash = |cell: String| {
        if cell.is_empty() {
            "-".to_owned()
        } else {
            cell
        }
    };
    let rows = sums
        .iter()
        .map(|sum| cells(sum).into_iter().map(dash).collect());
    terminal::table(&head, rows.collect());
}
