//! Shows what came of a receipt: lines for people, JSON for programs.

use std::{fmt::Write as _, path::Path};

use attestation::{Appraisal, Outcome, Root, text::printable, time::to_rfc3339};
use serde::Serialize;
use serde_json::Value;

use super::judge::{Judged, Line};
use crate::{
    cli::verify::output::{Style, root},
    clock::from_unix_seconds,
    seal::Receipt,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// As wide as the longest outcome.
const OUTCOME_WIDTH: usize = 11;

/// A line for each check, what the receipt says, what it was judged by, and the verdict.
pub(super) fn text(file: &Path, judged: &Judged, style: Style) -> String {
    let mut out = format!("{}\n", file.display());
    for line in &judged.lines {
        let outcome = format!("{:OUTCOME_WIDTH$}", line.outcome.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  {} {}: expected {}; seen {}",
            style.outcome(line.outcome, &outcome),
            line.name,
            printable(&line.expected),
            printable(&line.seen),
        );
    }
    if let Some(receipt) = &judged.receipt {
        let _ = writeln!(
            out,
            "  the receipt says: request {}, {} at {}, status {}, usage {}, signed at {}",
            hex::encode(receipt.request_id),
            receipt.model,
            receipt.path,
            receipt.status,
            receipt.usage.as_deref().unwrap_or("none"),
            signed_at(receipt),
        );
    }
    if let Some(appraisal) = &judged.appraisal {
        let _ = writeln!(
            out,
            "  appraised at {} by sealgate {VERSION}, under policy {}, {}",
            to_rfc3339(appraisal.appraised_at()),
            judged.policy_sha256,
            whose(judged),
        );
    }
    out.push_str(&verdict(judged, style));
    out
}

fn whose(judged: &Judged) -> &'static str {
    if judged.policy_is_given {
        "which you gave; the time is the gateway's word"
    } else {
        "which came in the file: policy and time are the gateway's word (give your own with --policy)"
    }
}

fn verdict(judged: &Judged, style: Style) -> String {
    let root = judged.appraisal.as_ref().map(|it| root(it, style));
    let root = root.unwrap_or_default();
    match judged.refused_by() {
        None if judged.is_accepted() => {
            format!("{}{root}", style.outcome(Outcome::Passed, "accepted"))
        }
        refused => {
            let by = refused.map_or("evidence", |line| line.name.as_str());
            format!("{}{root}: {by}", style.outcome(Outcome::Failed, "refused"))
        }
    }
}

fn signed_at(receipt: &Receipt) -> String {
    from_unix_seconds(receipt.iat).map_or_else(|| receipt.iat.to_string(), to_rfc3339)
}

#[derive(Serialize)]
struct File<'a> {
    file: String,
    sealgate: &'static str,
    accepted: bool,
    refused_by: Option<&'a str>,
    /// What certificates chain to; of a software root, that no hardware stands behind it.
    root: Option<&'static str>,
    node: &'a str,
    request_id: &'a str,
    appraised_at: Option<String>,
    policy: &'a str,
    /// Whether the policy came with the file, and so is the gateway's word.
    policy_in_file: bool,
    receipt: Option<Said<'a>>,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Said<'a> {
    model: &'a str,
    path: &'a str,
    status: u16,
    usage: Value,
    signed_at: String,
    proves_contents: bool,
}

#[derive(Serialize)]
struct Check<'a> {
    name: &'a str,
    outcome: String,
    expected: &'a str,
    seen: &'a str,
}

/// The same as one object.
pub(super) fn json(file: &Path, judged: &Judged) -> String {
    let object = File {
        file: file.display().to_string(),
        sealgate: VERSION,
        accepted: judged.is_accepted(),
        refused_by: judged.refused_by().map(|line| line.name.as_str()),
        root: judged
            .appraisal
            .as_ref()
            .and_then(Appraisal::root)
            .map(Root::as_str),
        node: &judged.node,
        request_id: &judged.request_id,
        appraised_at: judged
            .appraisal
            .as_ref()
            .map(|it| to_rfc3339(it.appraised_at())),
        policy: &judged.policy_sha256,
        policy_in_file: !judged.policy_is_given,
        receipt: judged.receipt.as_ref().map(|receipt| Said {
            model: &receipt.model,
            path: &receipt.path,
            status: receipt.status,
            usage: receipt
                .usage
                .as_deref()
                .and_then(|usage| serde_json::from_str(usage).ok())
                .unwrap_or_default(),
            signed_at: signed_at(receipt),
            proves_contents: receipt.content.is_some(),
        }),
        checks: judged.lines.iter().map(Check::of).collect(),
    };
    // Strings, numbers and booleans always have a JSON form.
    serde_json::to_string_pretty(&object).unwrap_or_default()
}

impl<'a> Check<'a> {
    fn of(line: &'a Line) -> Self {
        Self {
            name: &line.name,
            outcome: line.outcome.to_string(),
            expected: &line.expected,
            seen: &line.seen,
        }
    }
}
