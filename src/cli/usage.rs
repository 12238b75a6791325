//! `sealgate usage`: what keys used, out of the store.

use std::process::ExitCode;

use super::{
    keys::{File, When, parse_when},
    store::with_store,
    terminal,
};
use crate::{
    clock::Clock,
    config::ConfigError,
    store::{By, Query, StoreError, Sum, report},
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
    /// Only those of one key: its id, or its name, which means the key that has it now, or else the last one that had.
    #[arg(long, value_name = "KEY")]
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
        terminal::say(report::usage(&query, &sums));
    } else if args.csv {
        report::usage_csv(&query, &sums)
            .iter()
            .for_each(terminal::say);
    } else {
        table(&query, &sums);
    }
    Ok(())
}

fn table(query: &Query, sums: &[Sum]) {
    let head: Vec<_> = report::columns(query)
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
        .map(|sum| report::cells(sum).into_iter().map(dash).collect());
    terminal::table(&head, rows.collect());
}
