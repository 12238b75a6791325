//! Shows appraisals: lines for people, JSON for programs.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use attestation::{Appraisal, Outcome, Root, text::printable, time::to_rfc3339};
use serde::Serialize;

use super::Judged;

/// The program that appraises.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";
/// What gives open checks something to compare with: how they name it, and its option.
const OPTIONS: [(&str, &str); 5] = [
    ("policy", "--policy"),
    ("report data", "--report-data"),
    ("a nonce", "--nonce"),
    ("an OCSP response", "--collateral"),
    ("golden measurements", "--bundle"),
];
/// As wide as the longest outcome.
const OUTCOME_WIDTH: usize = 11;

/// Whether words are coloured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cli) enum Style {
    Plain,
    Colour,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    pub(in crate::cli) fn of_stdout() -> Self {
        if io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    /// A word in the colour of an outcome.
    pub(in crate::cli) fn outcome(self, outcome: Outcome, word: &str) -> String {
        let colour = match outcome {
            Outcome::Passed => GREEN,
            Outcome::Failed => RED,
            Outcome::NotChecked => YELLOW,
        };
        self.paint(colour, word)
    }

    fn paint(self, colour: &str, word: &str) -> String {
        match self {
            Self::Plain => word.to_owned(),
            Self::Colour => format!("{colour}{word}{RESET}"),
        }
    }
}

/// A line for each check, one on what was judged when, and the verdict.
pub(super) fn text(judged: &Judged, style: Style) -> String {
    let appraisal = &judged.appraisal;
    let mut out = format!("{}\n", judged.name.display());
    for check in appraisal.checks() {
        let outcome = format!("{:OUTCOME_WIDTH$}", check.outcome.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  {} {}{}: expected {}; seen {}",
            style.outcome(check.outcome, &outcome),
            of_device(check.device),
            check.name,
            printable(&check.expected),
            printable(&check.seen),
        );
    }
    let policy = appraisal.policy_digest().map(hex::encode);
    let end = appraisal.not_after().map(to_rfc3339);
    let _ = writeln!(
        out,
        "  appraised at {} by sealgate {VERSION}: evidence sha256 {}, policy {}{}",
        to_rfc3339(appraisal.appraised_at()),
        hex::encode(judged.sha256),
        policy.as_deref().unwrap_or("none"),
        end.map_or_else(String::new, |end| format!(", holds until {end}")),
    );
    out.push_str(&verdict(appraisal, style));
    out
}

/// Goes before the name of a check: which device it is about, if it is about one.
pub(in crate::cli) fn of_device(device: Option<usize>) -> String {
    device.map_or_else(String::new, |number| format!("device {number}: "))
}

fn verdict(appraisal: &Appraisal, style: Style) -> String {
    let root = root(appraisal, style);
    let Some(refusal) = appraisal.refusal() else {
        let fresh = unfresh(appraisal);
        return format!("{}{root}{fresh}", style.paint(GREEN, "accepted"));
    };
    match refusal.outcome {
        Outcome::NotChecked => {
            let open = style.paint(YELLOW, "not judged");
            format!("{open}{root}: no check failed, but {}", needed(appraisal))
        }
        Outcome::Failed | Outcome::Passed => {
            let device = of_device(refusal.device);
            let refused = style.paint(RED, "refused");
            format!("{refused}{root}: {device}{}", refusal.check)
        }
    }
}

/// What certificates chain to, in brackets; a software root is said in full.
pub(in crate::cli) fn root(appraisal: &Appraisal, style: Style) -> String {
    match appraisal.root() {
        Some(Root::Software) => {
            let words = style.paint(YELLOW, Root::Software.as_str());
            format!(" ({words}: no hardware stands behind it)")
        }
        Some(root) => format!(" (root {root})"),
        None => String::new(),
    }
}

/// Goes behind `accepted` where nothing shows that the evidence is fresh.
pub(in crate::cli) fn unfresh(appraisal: &Appraisal) -> &'static str {
    match appraisal.shows_freshness() {
        Some(false) => "; that it is fresh is not shown",
        Some(true) | None => "",
    }
}

/// What open checks need: options, or what no report by itself has.
fn needed(appraisal: &Appraisal) -> String {
    let open = || appraisal.checks().iter().filter(|check| !check.passed());
    let needs = |word: &str| open().any(|check| check.expected.contains(word));
    let options = OPTIONS.iter().filter(|(word, _)| needs(word));
    let options: Vec<_> = options.map(|(_, option)| *option).collect();
    if !options.is_empty() {
        return format!("some could not be made: give {}", options.join(", "));
    }
    let mut needs: Vec<_> = open().map(|check| check.expected.as_str()).collect();
    needs.dedup();
    format!("some need {}", needs.join(" and "))
}

/// Whether evidence is believed.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Accepted,
    Refused,
    /// No check failed, and some could not be made.
    NotJudged,
}

impl Verdict {
    fn of(appraisal: &Appraisal) -> Self {
        match appraisal.refusal().map(|refusal| refusal.outcome) {
            None => Self::Accepted,
            Some(Outcome::NotChecked) => Self::NotJudged,
            Some(Outcome::Failed | Outcome::Passed) => Self::Refused,
        }
    }
}

#[derive(Serialize)]
struct File<'a> {
    file: String,
    evidence_sha256: String,
    sealgate: &'static str,
    appraised_at: String,
    policy: Option<String>,
    bundle: Option<String>,
    verdict: Verdict,
    accepted: bool,
    root: Option<&'static str>,
    /// `None` where the evidence has no nonce of its own.
    fresh: Option<bool>,
    not_after: Option<String>,
    refused_by: Option<&'a str>,
    checks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'static str,
    /// Which device it is about, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<usize>,
    outcome: String,
    expected: &'a str,
    seen: &'a str,
}

/// An array with an object for each piece of evidence.
pub(super) fn json(judged: &[Judged]) -> String {
    let files: Vec<_> = judged.iter().map(File::of).collect();
    // Strings and booleans always have a JSON form.
    serde_json::to_string_pretty(&files).unwrap_or_default()
}

impl<'a> File<'a> {
    fn of(judged: &'a Judged) -> Self {
        let appraisal = &judged.appraisal;
        let lines = appraisal.checks().iter().map(|check| Line {
            name: check.name,
            device: check.device,
            outcome: check.outcome.to_string(),
            expected: &check.expected,
            seen: &check.seen,
        });
        Self {
            file: judged.name.display().to_string(),
            evidence_sha256: hex::encode(judged.sha256),
            sealgate: VERSION,
            appraised_at: to_rfc3339(appraisal.appraised_at()),
            policy: appraisal.policy_digest().map(hex::encode),
            bundle: appraisal.bundle_digest().map(hex::encode),
            verdict: Verdict::of(appraisal),
            accepted: appraisal.accepted(),
            root: appraisal.root().map(Root::as_str),
            fresh: appraisal.shows_freshness(),
            not_after: appraisal.not_after().map(to_rfc3339),
            refused_by: appraisal.refusal().map(|refusal| refusal.check),
            checks: lines.collect(),
        }
    }
}
