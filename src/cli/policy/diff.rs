//! `sealgate policy diff`: what a new policy would change.

use std::{path::Path, process::ExitCode};

use attestation::{Appraisal, Bundle, Policy, Refusal, appraise};

use super::{Evidence, REFUSED, archive, count};
use crate::cli::{
    terminal,
    verify::{
        input::{self, Unusable},
        output::{Style, root},
    },
};

/// What becomes of one piece of evidence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Kept,
    Dropped,
    Admitted,
    StillRefused,
}

impl Change {
    fn between(old: &Appraisal, new: &Appraisal) -> Self {
        match (old.accepted(), new.accepted()) {
            (true, true) => Self::Kept,
            (true, false) => Self::Dropped,
            (false, true) => Self::Admitted,
            (false, false) => Self::StillRefused,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Admitted => "admitted",
            Self::StillRefused => "refused by both",
        }
    }
}

pub(super) fn run(
    old: &Path,
    new: &Path,
    evidence: &Evidence,
    bundle: Option<&Path>,
) -> Result<ExitCode, Unusable> {
    let (old, new) = (input::policy(old)?, input::policy(new)?);
    let bundles = [believed(bundle, &old)?, believed(bundle, &new)?];
    let now = evidence.now();
    let mut changes = Vec::new();
    for (path, answer) in input::answers(&archive::newest(&evidence.files)?, &evidence.collateral)?
    {
        let [of_old, of_new] = &bundles;
        let [before, after] = [(&old, of_old), (&new, of_new)].map(|(policy, bundle)| {
            let nonce = evidence.nonce.as_ref();
            appraise(&answer, policy, bundle, nonce, now)
        });
        let change = Change::between(&before, &after);
        let why = match change {
            Change::Kept => String::new(),
            Change::Admitted => because("the old policy refused it", before.refusal()),
            Change::Dropped | Change::StillRefused => because("", after.refusal()),
        };
        let name = input::name_of(&path, &answer);
        // Under either policy: what rests on a software root says so.
        let root = match root(&after, Style::Plain) {
            none if none.is_empty() => root(&before, Style::Plain),
            of_new => of_new,
        };
        terminal::say(format_args!("{:15} {name}{root}{why}", change.as_str()));
        changes.push(change);
    }
    let number = |of: Change| changes.iter().filter(|change| **change == of).count();
    let (dropped, admitted) = (number(Change::Dropped), number(Change::Admitted));
    terminal::say(format_args!(
        "{dropped} dropped, {admitted} admitted of {} of evidence",
        count(changes.len(), "piece")
    ));
    Ok(if (dropped, admitted) == (0, 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// What a policy makes of the bundle; one that names no signer has none.
fn believed(bundle: Option<&Path>, policy: &Policy) -> Result<Bundle, Unusable> {
    if policy.bundle_signers().is_empty() {
        return Ok(Bundle::empty());
    }
    input::bundle(bundle, Some(policy))
}

fn because(who: &str, refusal: Option<&Refusal>) -> String {
    let Some(refusal) = refusal else {
        return String::new();
    };
    let who = if who.is_empty() {
        String::new()
    } else {
        format!("{who}: ")
    };
    format!(": {who}{refusal}")
}
