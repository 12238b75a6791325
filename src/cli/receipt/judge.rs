//! Every check of a receipt's file: the evidence by the real verifier, at the time that it was judged
//! at, then what rests on it, link by link.

use std::time::{Duration, SystemTime};

use attestation::{
    Answer, Appraisal, Bundle, Outcome, Policy, Statement, appraise_asked,
    statement::ClaimedKey,
    time::{from_rfc3339, to_rfc3339},
};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::{from_unix_seconds, unix_seconds},
    openai::{Endpoint, Usage},
    receipts::ReceiptFile,
    seal::{Commitment, Committer, Receipt, Salt, Salts},
};

/// How far two clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);
/// How long after a key's end a reply to what was sealed to it may still be signed: a node opens with it
/// for ten minutes more, and a stream may go on.
const AFTER_KEY: Duration = Duration::from_secs(24 * 60 * 60);
/// What a gateway puts between events while it waits; it is no content of the node's.
const SIGN_OF_LIFE: &[u8] = b": waiting\n\n";

/// What a file is held against.
pub(super) struct Inputs {
    pub(super) policy: Policy,
    /// Whether the policy is the command line's, and not the file's.
    pub(super) is_given: bool,
    /// When to judge the evidence, where that is not to be as the file says.
    pub(super) at: Option<SystemTime>,
    pub(super) request: Option<Vec<u8>>,
    pub(super) response: Option<Vec<u8>>,
}

/// One check.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) expected: String,
    pub(super) seen: String,
}

/// What came of a file.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) lines: Vec<Line>,
    pub(super) appraisal: Option<Appraisal>,
    /// What the receipt says, once its signature was verified.
    pub(super) receipt: Option<Receipt>,
    pub(super) policy_sha256: String,
    pub(super) policy_is_given: bool,
    pub(super) node: String,
    pub(super) request_id: String,
}

impl Judged {
    /// Whether every check passed.
    pub(super) fn is_accepted(&self) -> bool {
        let evidence = self.appraisal.as_ref().is_some_and(Appraisal::accepted);
        evidence && self.receipt.is_some() && self.refused_by().is_none()
    }

    /// The first check that did not pass.
    pub(super) fn refused_by(&self) -> Option<&Line> {
        let mut lines = self.lines.iter();
        lines.find(|line| line.outcome != Outcome::Passed)
    }

    fn check(
        &mut self,
        name: &str,
        passed: bool,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) {
        self.lines.push(Line {
            name: name.to_owned(),
            outcome: if passed {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            expected: expected.into(),
            seen: seen.into(),
        });
    }

    fn same(&mut self, name: &str, expected: impl Into<String>, seen: impl Into<String>) {
        let (expected, seen) = (expected.into(), seen.into());
        self.check(name, expected == seen, expected, seen);
    }
}

/// Checks everything.
pub(super) fn judge(file: &ReceiptFile, inputs: &Inputs) -> Judged {
    let mut judged = Judged {
        lines: Vec::new(),
        appraisal: None,
        receipt: None,
        policy_sha256: hex::encode(inputs.policy.digest()),
        policy_is_given: inputs.is_given,
        node: file.node.clone(),
        request_id: file.request_id.clone(),
    };
    let appraised_at = from_rfc3339(&file.appraised_at);
    judged.check(
        "time of the appraisal",
        appraised_at.is_some(),
        "a time",
        file.appraised_at.as_str(),
    );
    let asked_at = from_rfc3339(&file.asked_at);
    judged.check(
        "time of asking",
        asked_at.is_some_and(|asked| appraised_at.is_none_or(|at| asked <= at)),
        "a time, not after that",
        file.asked_at.as_str(),
    );
    if let (Some(statement), Some(at)) = (evidence(&mut judged, file, inputs), appraised_at) {
        rests_on(&mut judged, file, &statement, at);
        contents(&mut judged, file, inputs);
    }
    judged
}

/// Judges the evidence, and gives the statement that it is for.
fn evidence(judged: &mut Judged, file: &ReceiptFile, inputs: &Inputs) -> Option<Statement> {
    let digest = hex::encode(Sha256::digest(&file.evidence));
    judged.same("evidence's digest", file.evidence_sha256.as_str(), digest);
    if !inputs.is_given {
        let digest = judged.policy_sha256.clone();
        judged.same("policy's digest", file.policy_sha256.as_str(), digest);
    }
    let bundle = bundle(judged, file, inputs);
    let answer = Answer::from_json(&file.evidence);
    let nonce = file.nonce.parse().ok();
    let at = inputs.at.or_else(|| from_rfc3339(&file.appraised_at))?;
    // A policy that changed has evidence judged anew, which does not make it fresh, nor stale.
    let asked = from_rfc3339(&file.asked_at)?;
    let Ok(answer) = answer else {
        judged.check("answer", false, "a node's answer", "another text");
        return None;
    };
    judged.check(
        "nonce",
        nonce.is_some(),
        "64 hex digits",
        file.nonce.as_str(),
    );
    let nonce = nonce?;
    let policy = &inputs.policy;
    let appraisal = appraise_asked(&answer, policy, &bundle, Some(&nonce), at, asked);
    judged
        .lines
        .extend(appraisal.checks().iter().map(|check| Line {
            name: match check.device {
                Some(device) => format!("evidence: device {device}: {}", check.name),
                None => format!("evidence: {}", check.name),
            },
            outcome: check.outcome,
            expected: check.expected.clone(),
            seen: check.seen.clone(),
        }));
    judged.appraisal = Some(appraisal);
    Statement::parse(&answer.statement).ok()
}

/// The bundle in the file, as far as the policy believes it.
fn bundle(judged: &mut Judged, file: &ReceiptFile, inputs: &Inputs) -> Bundle {
    let none = "none".to_owned();
    let said = file.bundle_sha256.clone().unwrap_or_else(|| none.clone());
    let read = file.bundle.as_ref().map(|it| it.read(&inputs.policy));
    let (bundle, seen) = match read.transpose() {
        Ok(bundle) => {
            let bundle = bundle.unwrap_or_default();
            let digest = bundle.digest().map(hex::encode);
            (bundle, digest.unwrap_or(none))
        }
        Err(error) => (Bundle::empty(), error.to_string()),
    };
    judged.same("bundle's digest", said, seen);
    bundle
}

/// Checks the receipt against the statement that the evidence is for.
fn rests_on(judged: &mut Judged, file: &ReceiptFile, statement: &Statement, at: SystemTime) {
    judged.same("node", statement.node_id(), file.node.as_str());
    let receipt = match Receipt::verify(&file.receipt, statement.receipt_key()) {
        Ok(receipt) => receipt,
        Err(error) => {
            let expected = "signed by the key that the statement names";
            judged.check("receipt", false, expected, error.to_string());
            return;
        }
    };
    let key = hex::encode(statement.receipt_key());
    judged.same(
        "receipt",
        format!("signed by {key}"),
        format!("signed by {key}"),
    );
    judged.same(
        "receipt: request_id",
        file.request_id.as_str(),
        hex::encode(receipt.request_id),
    );
    judged.same(
        "receipt: statement",
        statement.digest().to_string(),
        receipt.statement.to_string(),
    );
    let mut keys = statement.keys().iter();
    let key = keys.find(|key| key.key_id == receipt.key_id);
    judged.check(
        "receipt: key_id",
        key.is_some(),
        "a key of the statement",
        receipt.key_id.to_string(),
    );
    judged.check(
        "receipt: path",
        Endpoint::of(&receipt.path).is_some(),
        "a path that nodes have",
        receipt.path.as_str(),
    );
    judged.check(
        "receipt: model",
        statement.models().contains(&receipt.model),
        "a model of the statement",
        receipt.model.as_str(),
    );
    let usage = receipt.usage.as_deref();
    let is_usage = |text: &str| Usage::from_json(text.as_bytes()).is_ok();
    judged.check(
        "receipt: usage",
        usage.is_none_or(is_usage),
        "token counters, or none",
        usage.unwrap_or("none"),
    );
    signed_at(judged, receipt.iat, key, at);
    judged.receipt = Some(receipt);
}

/// Checks that a receipt was signed after the appraisal and in the life of its key.
fn signed_at(judged: &mut Judged, iat: u64, key: Option<&ClaimedKey>, appraised_at: SystemTime) {
    let from = appraised_at.checked_sub(SKEW).unwrap_or(appraised_at);
    let until = key
        .and_then(|key| from_unix_seconds(key.not_after))
        .and_then(|end| end.checked_add(AFTER_KEY));
    let is_within =
        until.is_some_and(|until| (unix_seconds(from)..=unix_seconds(until)).contains(&iat));
    let text = |time: Option<SystemTime>| time.map_or_else(|| "never".to_owned(), to_rfc3339);
    judged.check(
        "receipt: iat",
        is_within,
        format!("from {} to {}", text(Some(from)), text(until)),
        text(from_unix_seconds(iat)),
    );
}

/// Checks that prompt and answer are those that the receipt is of.
fn contents(judged: &mut Judged, file: &ReceiptFile, inputs: &Inputs) {
    let Some(receipt) = &judged.receipt else {
        return;
    };
    let content = receipt.content;
    let salts = file.salts.as_deref().map(str::parse::<Salts>);
    let salts = match salts.transpose() {
        Ok(salts) => salts,
        Err(error) => {
            judged.check("salts", false, "two salts", error.to_string());
            None
        }
    };
    let is_paired = salts.is_some() == content.is_some();
    judged.check(
        "salts",
        is_paired,
        "where the receipt has commitments, and only there",
        if is_paired { "so" } else { "not so" },
    );
    let proofs = [
        ("request", &inputs.request, READINGS_OF_REQUEST),
        ("response", &inputs.response, READINGS_OF_RESPONSE),
    ];
    for (name, text, readings) in proofs {
        let Some(text) = text else { continue };
        let (commitment, salt) = match (&content, &salts) {
            (Some(content), Some(salts)) if name == "request" => (&content.request, &salts.request),
            (Some(content), Some(salts)) => (&content.response, &salts.response),
            _ => {
                let expected = "a receipt that proves contents";
                judged.check(name, false, expected, "it says what was used alone");
                continue;
            }
        };
        let reading = proves(commitment, salt, text, readings);
        let expected = format!("the {name} that the receipt is of");
        let seen = reading.map_or_else(
            || "another text".to_owned(),
            |how| format!("{} bytes, {how}: it is the one", text.len()),
        );
        judged.check(name, reading.is_some(), expected, seen);
    }
}

/// How a text can be read, and what then stands for it.
type Reading = (&'static str, fn(&[u8], &Salt) -> Commitment);

const READINGS_OF_REQUEST: &[Reading] = &[("as they are", as_they_are)];
const READINGS_OF_RESPONSE: &[Reading] = &[
    ("as they are", as_they_are),
    (
        "without its comments, which are not proved",
        without_comments,
    ),
    ("without the gateway's signs of life", without_signs_of_life),
];

fn proves(
    commitment: &Commitment,
    salt: &Salt,
    text: &[u8],
    readings: &[Reading],
) -> Option<&'static str> {
    // Only a stream has comments: in another text nothing is passed over.
    let is_stream = text.starts_with(b"data:") || memchr::memmem::find(text, b"\ndata:").is_some();
    let many = if is_stream { readings.len() } else { 1 };
    let mut readings = readings.iter().take(many);
    let found = readings.find(|(_, read)| read(text, salt) == *commitment);
    found.map(|(how, _)| *how)
}

fn as_they_are(text: &[u8], salt: &Salt) -> Commitment {
    salt.commit(text)
}

fn without_comments(text: &[u8], salt: &Salt) -> Commitment {
    let mut committer = Committer::of_events(salt);
    committer.update(text);
    committer.commitment()
}

fn without_signs_of_life(text: &[u8], salt: &Salt) -> Commitment {
    let mut committer = Committer::of_events(salt);
    let mut rest = text;
    let mut at_line = true;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(SIGN_OF_LIFE).filter(|_| at_line) {
            rest = after;
            continue;
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at.saturating_add(1));
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        committer.update(line);
        at_line = line.ends_with(b"\n");
        rest = after;
    }
    committer.commitment()
}

#[cfg(test)]
mod tests;
