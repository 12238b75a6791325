//! `sealgate policy from-evidence`: a policy whose every line waits to be confirmed.

use std::process::ExitCode;

use attestation::{Answer, Bundle, Policy, PolicyError, appraise, propose, text::printable};

use super::{Evidence, REFUSED};
use crate::cli::{
    terminal,
    verify::input::{self, Unusable},
};

const HEAD: &str = "\
# A proposal, read off evidence that was not verified. Confirm each line from a second source, then
# remove the \"#? \" before it. Until then this is no whole policy, and no command takes it.";

pub(super) fn run(evidence: &Evidence) -> Result<ExitCode, Unusable> {
    let answers = input::answers(&evidence.files, &evidence.collateral)?;
    let [(path, answer)] = answers.as_slice() else {
        return Err(Unusable::NotOneAnswer(answers.len()));
    };
    let proposal = propose(answer).map_err(|reason| Unusable::NoProposal {
        path: path.clone(),
        reason: printable(&reason).into_owned(),
    })?;
    terminal::say(HEAD);
    terminal::say(proposal.to_unconfirmed_toml().trim_end());
    // What remains when a person said yes to everything.
    match refusal(&proposal.to_confirmed_toml(), answer, evidence) {
        Ok(None) => Ok(ExitCode::SUCCESS),
        Err(PolicyError::Read { path, .. }) => {
            terminal::note(format_args!(
                "`{path}` is a guess: evidence does not name the file of its root. Put the right \
                 name in; the proposal was not tried"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(reason)) => refused(&reason),
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(reason: &str) -> Result<ExitCode, Unusable> {
    terminal::note(format_args!(
        "even with every line confirmed the evidence would be refused: {reason}"
    ));
    Ok(ExitCode::from(REFUSED))
}

/// What refuses the evidence under a policy.
fn refusal(
    policy: &str,
    answer: &Answer,
    evidence: &Evidence,
) -> Result<Option<String>, PolicyError> {
    let mut read = |name: &str| std::fs::read(name);
    let policy = Policy::from_toml(policy, &mut read)?;
    let nonce = evidence.nonce.as_ref();
    let appraisal = appraise(answer, &policy, &Bundle::empty(), nonce, evidence.now());
    Ok(appraisal.refusal().map(ToString::to_string))
}
