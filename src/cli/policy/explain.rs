//! `sealgate policy explain`: what fails, and what would satisfy it.

use std::{path::Path, process::ExitCode};

use attestation::{Appraisal, appraise, text::printable};

use super::{Evidence, REFUSED, count, remedy};
use crate::cli::{
    terminal,
    verify::{
        input::{self, Unusable},
        output::of_device,
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
        terminal::say(explanation(&path, &appraisal));
    }
    Ok(if all_accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

fn explanation(path: &Path, appraisal: &Appraisal) -> String {
    let failed: Vec<_> = appraisal
        .checks()
        .iter()
        .filter(|check| !check.passed())
        .collect();
    if failed.is_empty() {
        let made = count(appraisal.checks().len(), "check");
        return format!("{}: accepted, {made} passed", path.display());
    }
    let mut lines = vec![format!(
        "{}: refused by {}",
        path.display(),
        count(failed.len(), "check")
    )];
    for check in failed {
        lines.push(format!(
            "  {}{}\n    expected {}\n    seen {}\n    {}",
            of_device(check.device),
            check.name,
            printable(&check.expected),
            printable(&check.seen),
            remedy::of(check.name, &printable(&check.seen)),
        ));
    }
    lines.join("\n")
}
