//! `sealgate policy explain`: what fails, and what would satisfy it.

use std::{path::Path, process::ExitCode};

use attestation::{Answer, Appraisal, EvidenceKind, appraise, text::printable};

use super::{
    Evidence, REFUSED, count,
    remedy::{self, Doubts},
};
use crate::cli::{
    terminal,
    verify::{
        input::{self, Unusable},
        output::{Style, of_device, root, unfresh},
    },
};

pub(super) fn run(
    policy: &Path,
    evidence: &Evidence,
    bundle: Option<&Path>,
) -> Result<ExitCode, Unusable> {
    let policy = input::policy(policy)?;
    let bundle = input::bundle(bundle, Some(&policy))?;
    let now = evidence.now();
    let answers = input::answers(&evidence.files, &evidence.collateral)?;
    let mut all_accepted = true;
    for (path, answer) in answers {
        let nonce = evidence.nonce.as_ref();
        let appraisal = appraise(&answer, &policy, &bundle, nonce, now);
        all_accepted &= appraisal.accepted();
        terminal::say(explanation(&path, &answer, &appraisal));
    }
    Ok(if all_accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

fn explanation(path: &Path, answer: &Answer, appraisal: &Appraisal) -> String {
    let root = root(appraisal, Style::Plain);
    let failed: Vec<_> = appraisal
        .checks()
        .iter()
        .filter(|check| !check.passed())
        .collect();
    if failed.is_empty() {
        let made = count(appraisal.checks().len(), "check");
        let fresh = unfresh(appraisal);
        return format!("{}: accepted{root}, {made} passed{fresh}", path.display());
    }
    let mut lines = vec![format!(
        "{}: refused by {}{root}",
        path.display(),
        count(failed.len(), "check")
    )];
    let doubts = Doubts::of(appraisal);
    for check in failed {
        lines.push(format!(
            "  {}{}\n    expected {}\n    seen {}\n    {}",
            of_device(check.device),
            check.name,
            printable(&check.expected),
            printable(&check.seen),
            remedy::of(check, kind_of(answer, check.device), &doubts),
        ));
    }
    lines.join("\n")
}

/// What kind of evidence a check is about: the CPU's, or that of a device, counted from 1.
fn kind_of(answer: &Answer, device: Option<usize>) -> Option<EvidenceKind> {
    let item = answer.evidence.get(device.unwrap_or(0))?;
    Some(item.kind)
}
