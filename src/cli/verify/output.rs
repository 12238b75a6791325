//! Shows appraisals: lines for people, JSON for programs.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use attestation::{Appraisal, Outcome, Root, text::printable};
use serde::Serialize;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";
/// What gives open checks something to compare with: how they name it, and its option.
const OPTIONS: [(&str, &str); 3] = [
    ("policy", "--policy"),
    ("report data", "--report-data"),
    ("nonce", "--nonce"),
];
/// As wide as the longest outcome.
const OUTCOME_WIDTH: usize = 11;

/// Whether words are coloured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    Plain,
    Colour,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        if io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    fn paint(self, colour: &str, word: &str) -> String {
        match self {
            Self::Plain => word.to_owned(),
            Self::Colour => format!("{colour}{word}{RESET}"),
        }
    }
}

/// A line for each check, and the verdict.
pub(super) fn text(path: &Path, appraisal: &Appraisal, style: Style) -> String {
    let mut out = format!("{}\n", path.display());
    for check in appraisal.checks() {
        let colour = match check.outcome {
            Outcome::Passed => GREEN,
            Outcome::Failed => RED,
            Outcome::NotChecked => YELLOW,
        };
        let outcome = format!("{:OUTCOME_WIDTH$}", check.outcome.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  {} {}{}: expected {}; seen {}",
            style.paint(colour, &outcome),
            of_device(check.device),
            check.name,
            printable(&check.expected),
            printable(&check.seen),
        );
    }
    out.push_str(&verdict(appraisal, style));
    out
}

/// Goes before the name of a check: which device it is about, if it is about one.
pub(in crate::cli) fn of_device(device: Option<usize>) -> String {
    device.map_or_else(String::new, |number| format!("device {number}: "))
}

fn verdict(appraisal: &Appraisal, style: Style) -> String {
    let root = match appraisal.root() {
        Some(Root::Software) => {
            let words = style.paint(YELLOW, "software root");
            format!(" ({words}: no hardware stands behind it)")
        }
        Some(root) => format!(" (root {root})"),
        None => String::new(),
    };
    let Some(refusal) = appraisal.refusal() else {
        let fresh = match appraisal.shows_freshness() {
            true => "",
            false => "; that it is fresh is not shown",
        };
        return format!("{}{root}{fresh}", style.paint(GREEN, "accepted"));
    };
    let refused = style.paint(RED, "refused");
    match refusal.outcome {
        Outcome::NotChecked => {
            let open = appraisal.checks().iter().filter(|check| !check.passed());
            let needs = needed(open.map(|check| check.expected.as_str()));
            let needs = needs.join(" and ");
            let options = OPTIONS.iter().filter(|(name, _)| needs.contains(name));
            let options: Vec<_> = options.map(|(_, option)| *option).collect();
            let options = options.join(", ");
            format!("{refused}{root}: no check failed, but some need {needs} ({options})")
        }
        Outcome::Failed | Outcome::Passed => {
            let device = of_device(refusal.device);
            format!("{refused}{root}: {device}{}", refusal.check)
        }
    }
}

/// What open checks need, each once.
fn needed<'a>(expected: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut needs: Vec<_> = expected.collect();
    needs.dedup();
    needs
}

#[derive(Serialize)]
struct File<'a> {
    file: String,
    accepted: bool,
    root: Option<&'static str>,
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

/// An array with an object for each file.
pub(super) fn json(appraised: &[(PathBuf, Appraisal)]) -> String {
    let files: Vec<_> = appraised
        .iter()
        .map(|(path, appraisal)| File::of(path, appraisal))
        .collect();
    // Strings and booleans always have a JSON form.
    serde_json::to_string_pretty(&files).unwrap_or_default()
}

impl<'a> File<'a> {
    fn of(path: &Path, appraisal: &'a Appraisal) -> Self {
        let lines = appraisal.checks().iter().map(|check| Line {
            name: check.name,
            device: check.device,
            outcome: check.outcome.to_string(),
            expected: &check.expected,
            seen: &check.seen,
        });
        Self {
            file: path.display().to_string(),
            accepted: appraisal.accepted(),
            root: appraisal.root().map(Root::as_str),
            refused_by: appraisal.refusal().map(|refusal| refusal.check),
            checks: lines.collect(),
        }
    }
}
