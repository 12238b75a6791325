//! `sealgate audit`: the audit log, listed, and verified against a head that was kept.
//!
//! Exit code 0 of `verify` means that the log is whole, 1 that something was done to it or that it does not
//! prove the head that was kept, 2 that it could not be read.

use std::{path::PathBuf, process::ExitCode};

use attestation::time::to_rfc3339;
use clap::Subcommand;

use super::{
    keys::{File, When, parse_when},
    store::with_store,
    terminal,
};
use crate::{
    clock::Clock,
    config::{self, ConfigError},
    store::{AuditEntry, Audited, Head, Kept, StoreError, Wrong, report},
};

/// Exit code for a log that something was done to, or that does not prove the head that was kept.
const FLAWED: u8 = 1;
/// Entries that are read at once.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Walk the whole log: find every gap, edit and change of order, and by a kept head also a cut end.
    Verify {
        #[command(flatten)]
        file: File,
        /// The hash of an entry that was kept elsewhere: the log must hold it.
        #[arg(long, value_name = "HASH", value_parser = kept, conflicts_with = "head_file")]
        head: Option<Kept>,
        /// The file of a head that was kept elsewhere (`store.audit.head_file`): the log must hold it.
        #[arg(long, value_name = "FILE")]
        head_file: Option<PathBuf>,
        /// Print JSON instead of words.
        #[arg(long)]
        json: bool,
    },
    /// List the entries, the oldest first.
    List {
        #[command(flatten)]
        file: File,
        /// Only entries of then or later: a time (RFC 3339), or how long ago, as 30d or 12h.
        #[arg(long, value_name = "WHEN", value_parser = parse_when)]
        since: Option<When>,
        /// Print a JSON object for each, one a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("{}: no head of an audit log: {source}", path.display())]
    Head {
        path: PathBuf,
        source: serde_json::Error,
    },
}

pub(super) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Verify {
            file,
            head,
            head_file,
            json,
        } => verify(&file, head, head_file, json),
        Command::List { file, since, json } => list(&file, since, json),
    };
    done.unwrap_or_else(terminal::fail)
}

fn kept(text: &str) -> Result<Kept, &'static str> {
    Kept::hash(text).ok_or("64 hex digits")
}

fn read_head(path: PathBuf) -> Result<Kept, AuditError> {
    let text = config::read_text(&path)?;
    let head = serde_json::from_str::<Head>(&text);
    let head = head.map_err(|source| AuditError::Head { path, source })?;
    Ok(head.into())
}

fn verify(
    file: &File,
    head: Option<Kept>,
    head_file: Option<PathBuf>,
    json: bool,
) -> Result<ExitCode, AuditError> {
    let kept = match head_file {
        Some(path) => Some(read_head(path)?),
        None => head,
    };
    let config = file.load()?;
    let audited = with_store(&config, async |store| {
        Ok::<_, AuditError>(store.verify_audit(kept.as_ref()).await?)
    })?;
    if json {
        terminal::say(report::audited(&audited));
    } else {
        say(&audited, kept.is_some());
    }
    Ok(match audited.flaw {
        Some(_) => ExitCode::from(FLAWED),
        None => ExitCode::SUCCESS,
    })
}

fn say(audited: &Audited, was_kept: bool) {
    let Audited { anchor, head, .. } = audited;
    if anchor.seq > 0 {
        let first = anchor.seq.saturating_add(1);
        terminal::say(format_args!(
            "begins with entry {first}: those before are kept no longer, and only heads from entry {} on can be proved",
            anchor.seq
        ));
    }
    match audited.flaw {
        Some((seq, wrong @ Wrong::Pruned)) => terminal::say(format_args!(
            "NOT PROVED: entry {seq}: {wrong}\nwhole: entry {head}"
        )),
        Some((seq, wrong)) if seq < head.seq => terminal::say(format_args!(
            "NOT WHOLE: entry {seq}: {wrong}\nthe chain goes on behind it, up to entry {head}"
        )),
        Some((seq, wrong)) => terminal::say(format_args!(
            "NOT WHOLE: entry {seq}: {wrong}\nwhole up to entry {head}"
        )),
        None if was_kept => terminal::say(format_args!("whole, with the kept head: entry {head}")),
        None => terminal::say(format_args!(
            "whole: entry {head}\nwithout a kept head (--head-file) a cut end is not told"
        )),
    }
}

fn list(file: &File, since: Option<When>, json: bool) -> Result<ExitCode, AuditError> {
    let since = since.map(|when| when.before(Clock::system().now()));
    let config = file.load()?;
    with_store(&config, async |store| {
        let mut after = 0;
        loop {
            let page = store.audit(after, since, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok::<_, AuditError>(());
            };
            after = last.seq;
            for entry in &page {
                match json {
                    true => terminal::say(report::audit_entry(entry)),
                    false => terminal::say(in_words(entry)),
                }
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// One line, and nothing in it that a terminal obeys, whoever wrote into the database.
fn in_words(entry: &AuditEntry) -> String {
    let line = format!(
        "{:>6}  {}  {:<18}  {}  by {}  {}",
        entry.seq,
        to_rfc3339(entry.at()),
        entry.event,
        entry.subject,
        entry.actor,
        entry.detail,
    );
    line.replace(char::is_control, "\u{fffd}")
}
