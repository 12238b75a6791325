//! The appraisal of an answer, and what only it can make: verified nodes and keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::answer::{Answer, EvidenceItem};
use crate::bundle::Bundle;
use crate::check::{Check, Checks, Refusal};
use crate::claims::{Claims, Root};
use crate::digest::{Nonce, StatementDigest};
use crate::evidence;
use crate::input::{Context, Expected};
use crate::nvidia::{self, NvidiaPolicy};
use crate::padding::Padding;
use crate::policy::Policy;
use crate::statement::{ClaimedKey, Dialect, EngineLocation, PublicKey, Statement, Suite};
use crate::time::to_rfc3339;

/// Longest life of a node's key (`docs/wire.md`, "Keys").
pub const MAX_KEY_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A node whose evidence passed every check (RFC 9334 section 8.3).
///
/// [`verify`] is the only maker, so holding one is the proof. It holds until
/// [`VerifiedNode::expires_at`].
#[must_use]
#[derive(Clone, Debug)]
pub struct VerifiedNode {
    statement: Statement,
    claims: Claims,
    require_pq: bool,
    least_padding: Padding,
    forbidden_dialects: Vec<Dialect>,
    policy_digest: [u8; 32],
    bundle_digest: Option<[u8; 32]>,
    verified_at: SystemTime,
    expires_at: SystemTime,
}

/// The public key of a verified node.
///
/// [`VerifiedNode::sealing_key`] is the only maker.
#[must_use]
#[derive(Clone, Debug)]
pub struct VerifiedKey {
    key_id: u8,
    suite: Suite,
    key: PublicKey,
    statement_digest: StatementDigest,
    expires_at: SystemTime,
}

/// A verified node's public key for one of the dialects, to be given to clients that speak it.
///
/// [`VerifiedNode::dialect_key`] is the only maker. It is no [`VerifiedKey`], so that what this
/// project seals itself is never sealed to it.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct DialectKey {
    dialect: Dialect,
    key_id: u8,
    key: [u8; 32],
    statement_digest: StatementDigest,
    expires_at: SystemTime,
}

/// Why a verified node has no key to seal to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ineligible {
    /// The appraisal has ended; the node must be verified again.
    #[error("the appraisal has expired")]
    AppraisalExpired,
    /// None of its keys is in its life.
    #[error("no key is valid now")]
    NoKey,
    /// The policy forbids the dialect.
    #[error("the policy forbids the dialect {0}")]
    Forbidden(Dialect),
}

/// Every check that was made, and what follows.
#[derive(Clone, Debug)]
pub struct Appraisal {
    checks: Vec<Check>,
    refusal: Option<Refusal>,
    root: Option<Root>,
    policy_digest: Option<[u8; 32]>,
    bundle_digest: Option<[u8; 32]>,
    appraised_at: SystemTime,
    /// Of what was accepted.
    not_after: Option<SystemTime>,
    node: Option<Box<VerifiedNode>>,
}

/// Verifies an answer to `nonce`.
///
/// # Errors
/// The first check that did not pass. [`appraise`] tells the others too.
pub fn verify(
    answer: &Answer,
    policy: &Policy,
    bundle: &Bundle,
    nonce: &Nonce,
    now: SystemTime,
) -> Result<VerifiedNode, Refusal> {
    appraise(answer, policy, bundle, Some(nonce), now).into_result()
}

/// Makes every check of an answer.
///
/// Without a nonce, for evidence that was kept, the answer's own is taken: it can then be shown to
/// have been good, but not to be fresh, and no [`VerifiedNode`] comes of it.
pub fn appraise(
    answer: &Answer,
    policy: &Policy,
    bundle: &Bundle,
    nonce: Option<&Nonce>,
    now: SystemTime,
) -> Appraisal {
    appraise_asked(answer, policy, bundle, nonce, now, now)
}

/// [`appraise`], for an answer that was asked for and first appraised at `asked`: it is as fresh as it was
/// then.
pub fn appraise_asked(
    answer: &Answer,
    policy: &Policy,
    bundle: &Bundle,
    nonce: Option<&Nonce>,
    now: SystemTime,
    asked: SystemTime,
) -> Appraisal {
    let mut checks = Checks::default();
    bundle.check(&mut checks, now);
    let bundle = &*bundle.in_force(now);
    let context = Context {
        policy: Some(policy),
        bundle,
        now,
        asked,
    };
    check_nonce(&mut checks, answer, nonce);
    let nonce_used = nonce.unwrap_or(&answer.nonce);
    let statement = Statement::parse(&answer.statement).map(|statement| {
        let seen = format!("{}, sha256 {}", statement.node_id(), statement.digest());
        (statement, seen)
    });
    let statement = checks.step("statement", "well formed, version 1", statement);
    let key = statement.as_ref().and_then(|statement| {
        check_node(&mut checks, statement, policy);
        check_suites(&mut checks, statement, policy, now);
        check_keys(&mut checks, statement, policy, now)
    });
    let claims = evidence::check(&mut checks, answer, nonce_used, &context);

    let refusal = checks.refusal();
    let root = claims.as_ref().map(Claims::root);
    let passed = statement.zip(claims).zip(key);
    let passed = passed.filter(|_| refusal.is_none());
    let passed = passed.and_then(|((statement, claims), key)| {
        let not_after = unix(key.not_after)?;
        let by_policy = now.checked_add(policy.appraisal_max_age)?;
        let by_claims = claims.not_after().min(not_after);
        let by_bundle = bundle.not_after(now).unwrap_or(by_claims);
        Some((statement, claims, by_policy.min(by_claims).min(by_bundle)))
    });
    let not_after = passed.as_ref().map(|(_, _, not_after)| *not_after);
    let proven = passed.filter(|_| nonce.is_some());
    let node = proven.map(|(statement, claims, expires_at)| {
        Box::new(VerifiedNode {
            expires_at,
            verified_at: now,
            require_pq: policy.require_pq,
            least_padding: policy.least_padding,
            forbidden_dialects: policy.forbidden_dialects.clone(),
            policy_digest: *policy.digest(),
            bundle_digest: bundle.digest().copied(),
            statement,
            claims,
        })
    });
    Appraisal {
        checks: checks.into_vec(),
        refusal,
        root,
        policy_digest: Some(*policy.digest()),
        bundle_digest: bundle.digest().copied(),
        appraised_at: now,
        not_after,
        node,
    }
}

/// What is expected of a nonce where none was given.
const ANY_NONCE: &str = "any: none was given";

fn check_nonce(checks: &mut Checks, answer: &Answer, nonce: Option<&Nonce>) {
    let expected = nonce.map_or_else(
        || format!("{ANY_NONCE}, so freshness is not shown"),
        Nonce::to_string,
    );
    let passed = nonce.is_none_or(|nonce| *nonce == answer.nonce);
    checks.record("nonce", passed, expected, answer.nonce.to_string());
}

fn check_node(checks: &mut Checks, statement: &Statement, policy: &Policy) {
    let engine = statement.engine();
    let allowed = match engine {
        EngineLocation::Local => true,
        EngineLocation::Remote => policy.allow_remote_engine,
        EngineLocation::Attested => policy.allow_attested_engine,
    };
    let expected = match (
        engine,
        policy.allow_remote_engine,
        policy.allow_attested_engine,
    ) {
        (_, true, true) => "local, remote or attested",
        (EngineLocation::Attested, _, false) => {
            "local: a gateway, which says attested, needs allow_attested_engine"
        }
        (_, true, false) => "local or remote",
        (_, false, true) => "local or attested",
        (_, false, false) => "local",
    };
    checks.record("engine", allowed, expected, engine.as_str());
    let config = statement.config_sha256();
    let listed = policy.config_sha256.as_ref();
    checks.record(
        "configuration",
        listed.is_none_or(|list| list.contains(config)),
        listed.map_or_else(
            || "any".to_owned(),
            |list| format!("one of {} that the policy lists", list.len()),
        ),
        hex::encode(config),
    );
}

/// Checks that there is a key in its life for each suite that the policy requires.
fn check_suites(checks: &mut Checks, statement: &Statement, policy: &Policy, now: SystemTime) {
    let required = &policy.required_suites;
    let keys = statement.keys();
    let has =
        |suite: &&Suite| newest(keys.iter().filter(|key| key.suite == **suite), now).is_some();
    let names = |suites: &mut dyn Iterator<Item = &Suite>| {
        let names: Vec<_> = suites.map(|suite| suite.as_str()).collect();
        format!("[{}]", names.join(", "))
    };
    let missing: Vec<_> = required
        .iter()
        .filter(|suite| !has(suite))
        .copied()
        .collect();
    let expected = match required.as_slice() {
        [] => "any: the policy requires none".to_owned(),
        _ => {
            let required = names(&mut required.iter());
            format!("a key in its life for each of {required}")
        }
    };
    let seen = match missing.as_slice() {
        [] => "none is missing".to_owned(),
        _ => format!("none for {}", names(&mut missing.iter())),
    };
    checks.record("suites", missing.is_empty(), expected, seen);
}

/// Checks the sealing keys, and gives the one to seal to at `now`.
fn check_keys(
    checks: &mut Checks,
    statement: &Statement,
    policy: &Policy,
    now: SystemTime,
) -> Option<ClaimedKey> {
    let life = |key: &ClaimedKey| key.not_after.saturating_sub(key.not_before);
    let suites = sealing_suites(policy.require_pq);
    let longest = statement.keys().iter().map(life).max().unwrap_or(0);
    checks.record(
        "key life",
        longest <= MAX_KEY_LIFE.as_secs(),
        format!("at most {} s", MAX_KEY_LIFE.as_secs()),
        format!("{longest} s"),
    );
    let preferred = preferred(statement, suites, now);
    let count: usize = suites
        .iter()
        .map(|it| keys_of(statement, *it).count())
        .sum();
    let names: Vec<_> = suites.iter().map(|suite| suite.as_str()).collect();
    checks.record(
        "sealing key",
        preferred.is_some(),
        format!("an {} key valid at {}", names.join(" or "), to_rfc3339(now)),
        preferred.map_or_else(
            || format!("none of {count}"),
            |key| {
                format!(
                    "key {} ({}) from {} to {}",
                    key.key_id,
                    key.suite.as_str(),
                    key.not_before,
                    key.not_after
                )
            },
        ),
    );
    preferred.cloned()
}

/// The suites that this project seals with, the preferred one first.
fn sealing_suites(require_pq: bool) -> &'static [Suite] {
    if require_pq {
        &[Suite::XWing]
    } else {
        &[Suite::XWing, Suite::X25519]
    }
}

/// The newest key in its life of the first suite that has one.
fn preferred<'a>(
    statement: &'a Statement,
    suites: &[Suite],
    now: SystemTime,
) -> Option<&'a ClaimedKey> {
    let mut newest = suites.iter().map(|it| newest(keys_of(statement, *it), now));
    newest.find_map(|key| key)
}

fn keys_of(statement: &Statement, suite: Suite) -> impl Iterator<Item = &ClaimedKey> {
    let keys = statement.keys().iter();
    keys.filter(move |key| key.suite == suite)
}

fn is_in_life(key: &ClaimedKey, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map(|now| now.as_secs());
    now.is_ok_and(|now| key.not_before <= now && now < key.not_after)
}

/// The key that began last among those in their life; the first listed among equals.
fn newest<'a>(
    keys: impl Iterator<Item = &'a ClaimedKey>,
    now: SystemTime,
) -> Option<&'a ClaimedKey> {
    let in_life = keys.filter(|key| is_in_life(key, now));
    in_life.reduce(|newest, key| {
        if key.not_before > newest.not_before {
            key
        } else {
            newest
        }
    })
}

fn unix(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Appraises one piece of evidence by itself, as an auditor has it: no statement, no binding.
///
/// Without a policy, vendors' roots are trusted and checks that need one are
/// [`Outcome::NotChecked`](crate::Outcome::NotChecked), as is what `expected` leaves out; either way
/// the appraisal is not accepted.
pub fn appraise_item(
    item: &EvidenceItem,
    policy: Option<&Policy>,
    bundle: &Bundle,
    expected: Expected,
    now: SystemTime,
) -> Appraisal {
    let mut checks = Checks::default();
    bundle.check(&mut checks, now);
    let in_force = bundle.in_force(now);
    let context = Context {
        policy,
        bundle: &in_force,
        now,
        asked: now,
    };
    let shown = evidence::check_item(&mut checks, item, expected, &context);
    let refusal = checks.refusal();
    let by_policy = policy.and_then(|policy| now.checked_add(policy.appraisal_max_age));
    let ends = [
        by_policy,
        shown.map(|(_, end)| end),
        in_force.not_after(now),
    ];
    let not_after = ends.into_iter().flatten().min();
    Appraisal {
        not_after: not_after.filter(|_| refusal.is_none()),
        refusal,
        checks: checks.into_vec(),
        root: shown.map(|(root, _)| root),
        policy_digest: policy.map(|policy| *policy.digest()),
        bundle_digest: bundle.digest().copied(),
        appraised_at: now,
        node: None,
    }
}

impl Appraisal {
    /// Every check that was made, in order.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The first check that did not pass.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether every check passed.
    pub fn accepted(&self) -> bool {
        self.refusal.is_none()
    }

    /// Whether the evidence answers a nonce that was given: without one it may be old. `None` for a
    /// report that has no nonce of its own, where the report data alone can tell.
    pub fn shows_freshness(&self) -> Option<bool> {
        let nonces = || {
            let names = ["nonce", "report nonce"];
            self.checks
                .iter()
                .filter(move |it| names.contains(&it.name))
        };
        nonces().next()?;
        let any = nonces().any(|check| check.expected.starts_with(ANY_NONCE));
        Some(!any && nonces().any(Check::passed))
    }

    /// Adds what the report of one device by itself leaves open: what is asked of the devices of a
    /// machine together. A node's answer holds all of them.
    #[must_use]
    pub fn of_device_alone(self, policy: &NvidiaPolicy) -> Self {
        let mut checks = Checks::after(self.checks);
        nvidia::leave_set_open(&mut checks, policy);
        Self {
            refusal: checks.refusal(),
            checks: checks.into_vec(),
            not_after: None,
            node: None,
            ..self
        }
    }

    /// The policy it was made under, see [`Policy::digest`]; `None` if there was none.
    pub fn policy_digest(&self) -> Option<&[u8; 32]> {
        self.policy_digest.as_ref()
    }

    /// The time that it was made for.
    pub fn appraised_at(&self) -> SystemTime {
        self.appraised_at
    }

    /// When it ends: the earliest end of policy, certificates, collateral, bundle and sealing key;
    /// `None` for what was not accepted.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// Where the certificates chain to, if they chain to a trusted root at all.
    pub fn root(&self) -> Option<Root> {
        self.root
    }

    /// The bundle it drew on, see [`Bundle::digest`].
    pub fn bundle_digest(&self) -> Option<&[u8; 32]> {
        self.bundle_digest.as_ref()
    }

    /// The node, if every check passed and the nonce was the caller's.
    fn into_result(self) -> Result<VerifiedNode, Refusal> {
        match (self.refusal, self.node) {
            (None, Some(node)) => Ok(*node),
            (Some(refusal), _) => Err(refusal),
            (None, None) => Err(Refusal {
                check: "expiry",
                device: None,
                expected: "a time that can be told".to_owned(),
                seen: "a time beyond the clock's range".to_owned(),
                outcome: crate::Outcome::Failed,
            }),
        }
    }
}

impl VerifiedNode {
    /// The node's name for itself.
    pub fn node_id(&self) -> &str {
        self.statement.node_id()
    }

    /// The statement that the evidence vouches for.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Its digest.
    pub fn statement_digest(&self) -> StatementDigest {
        self.statement.digest()
    }

    /// The models that it serves.
    pub fn models(&self) -> &[String] {
        self.statement.models()
    }

    /// SHA-256 of the TLS key that connections to it must have, if it ends TLS itself.
    pub fn tls_spki_sha256(&self) -> Option<&[u8; 32]> {
        self.statement.tls_spki_sha256()
    }

    /// The Ed25519 key that signs its receipts.
    pub fn receipt_key(&self) -> &[u8; 32] {
        self.statement.receipt_key()
    }

    /// What its evidence says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The kind of TEE, as in an answer: `sev-snp`, `tdx` or `nitro`.
    pub fn tee(&self) -> &'static str {
        self.claims.cpu.kind().as_str()
    }

    /// Where its certificates chain to.
    pub fn root(&self) -> Root {
        self.claims.root()
    }

    /// The policy it was verified under, see [`Policy::digest`].
    pub fn policy_digest(&self) -> &[u8; 32] {
        &self.policy_digest
    }

    /// Whether the policy lets nothing be sealed to it but under a post-quantum suite.
    pub fn requires_pq(&self) -> bool {
        self.require_pq
    }

    /// The padding that the policy lets no exchange with it go under.
    pub fn least_padding(&self) -> Padding {
        self.least_padding
    }

    /// The bundle that was at hand, see [`Bundle::digest`]; `None` if there was none.
    pub fn bundle_digest(&self) -> Option<&[u8; 32]> {
        self.bundle_digest.as_ref()
    }

    /// When it was verified.
    pub fn verified_at(&self) -> SystemTime {
        self.verified_at
    }

    /// When the appraisal ends: the earliest end of policy, certificates, collateral, bundle and
    /// sealing key.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Verifies this node's answer once more, after the policy or the bundle changed.
    ///
    /// Evidence does not become fresh by it: what comes of it is as old as `self`, ends no later,
    /// and no later than the policy allows at that age.
    ///
    /// # Errors
    /// As for [`verify`], and if it would have ended already.
    pub fn verify_again(
        &self,
        answer: &Answer,
        policy: &Policy,
        bundle: &Bundle,
        nonce: &Nonce,
        now: SystemTime,
    ) -> Result<Self, Refusal> {
        let asked = self.verified_at;
        let node = appraise_asked(answer, policy, bundle, Some(nonce), now, asked).into_result()?;
        let by_age = self.verified_at.checked_add(policy.appraisal_max_age);
        let end = self.expires_at.min(by_age.unwrap_or(self.verified_at));
        if now < end {
            return Ok(Self {
                verified_at: self.verified_at,
                expires_at: node.expires_at.min(end),
                ..node
            });
        }
        Err(Refusal {
            check: "evidence age",
            device: None,
            expected: format!("at most {} s", policy.appraisal_max_age.as_secs()),
            seen: format!("verified at {}", to_rfc3339(self.verified_at)),
            outcome: crate::Outcome::Failed,
        })
    }

    /// The key to seal to at `now`: of those in their life, the one that began last, and an X-Wing
    /// key before any of X25519. Nobody on the way can take the better ones from the list, since
    /// evidence covers it.
    ///
    /// # Errors
    /// If the appraisal has ended, or no key is in its life; where the policy has `require_pq`, no
    /// X-Wing key.
    pub fn sealing_key(&self, now: SystemTime) -> Result<VerifiedKey, Ineligible> {
        let suites = sealing_suites(self.require_pq);
        let key = preferred(&self.statement, suites, now);
        let (key, expires_at) = self.in_force(key, now)?;
        Ok(VerifiedKey {
            key_id: key.key_id,
            suite: key.suite,
            key: key.public_key.clone(),
            statement_digest: self.statement.digest(),
            expires_at,
        })
    }

    /// The keys that may be sealed to at `now`, the newest first and X-Wing before X25519 of the same
    /// age; none once the appraisal has ended.
    pub fn sealing_keys(&self, now: SystemTime) -> Vec<&ClaimedKey> {
        if now >= self.expires_at {
            return Vec::new();
        }
        let suites = sealing_suites(self.require_pq).iter();
        let mut keys: Vec<_> = suites
            .flat_map(|suite| keys_of(&self.statement, *suite))
            .filter(|key| is_in_life(key, now))
            .collect();
        // Stable, so that X-Wing stays first among keys of one age.
        keys.sort_by_key(|key| std::cmp::Reverse(key.not_before));
        keys
    }

    /// The same, and only if its suite is post-quantum.
    ///
    /// # Errors
    /// If the appraisal has ended, or no such key is in its life.
    pub fn post_quantum_key(&self, now: SystemTime) -> Result<VerifiedKey, Ineligible> {
        let key = self.sealing_key(now)?;
        let is_pq = key.suite.is_post_quantum();
        is_pq.then_some(key).ok_or(Ineligible::NoKey)
    }

    /// The suites of the keys that it has for anybody at `now`, the better ones first.
    pub fn suites(&self, now: SystemTime) -> Vec<Suite> {
        if now >= self.expires_at {
            return Vec::new();
        }
        let dialects = Dialect::ALL.into_iter();
        let allowed = dialects.filter(|it| !self.forbidden_dialects.contains(it));
        let sealing = sealing_suites(self.require_pq).iter().copied();
        let given = sealing.chain(allowed.map(Dialect::suite));
        given
            .filter(|suite| newest(keys_of(&self.statement, *suite), now).is_some())
            .collect()
    }

    /// The key that clients of `dialect` seal to at `now`: of those in their life, the one that
    /// began last.
    ///
    /// # Errors
    /// If the policy forbids the dialect, the appraisal has ended, or no such key is in its life:
    /// the node does not speak the dialect, or says nothing newer.
    pub fn dialect_key(&self, dialect: Dialect, now: SystemTime) -> Result<DialectKey, Ineligible> {
        if self.forbidden_dialects.contains(&dialect) {
            return Err(Ineligible::Forbidden(dialect));
        }
        let key = newest(keys_of(&self.statement, dialect.suite()), now);
        let (key, expires_at) = self.in_force(key, now)?;
        Ok(DialectKey {
            dialect,
            key_id: key.key_id,
            key: *key.public_key.x25519().ok_or(Ineligible::NoKey)?,
            statement_digest: self.statement.digest(),
            expires_at,
        })
    }

    /// A key, and its end, which the appraisal's bounds.
    fn in_force<'a>(
        &self,
        key: Option<&'a ClaimedKey>,
        now: SystemTime,
    ) -> Result<(&'a ClaimedKey, SystemTime), Ineligible> {
        if now >= self.expires_at {
            return Err(Ineligible::AppraisalExpired);
        }
        let key = key.ok_or(Ineligible::NoKey)?;
        let not_after = unix(key.not_after).ok_or(Ineligible::NoKey)?;
        Ok((key, self.expires_at.min(not_after)))
    }
}

impl DialectKey {
    /// The dialect that it is for.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The key's id in the statement. The dialects themselves know no ids.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The key, or `None` once it or its appraisal has ended.
    pub fn at(&self, now: SystemTime) -> Option<&[u8; 32]> {
        (now < self.expires_at).then_some(&self.key)
    }

    /// The statement that it was in.
    pub fn statement_digest(&self) -> StatementDigest {
        self.statement_digest
    }

    /// When it may no longer be given out.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl VerifiedKey {
    /// The key's id in OHTTP's key configuration.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// What it is sealed to with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key, or `None` once it or its appraisal has ended.
    pub fn at(&self, now: SystemTime) -> Option<&PublicKey> {
        (now < self.expires_at).then_some(&self.key)
    }

    /// The statement that it was in.
    pub fn statement_digest(&self) -> StatementDigest {
        self.statement_digest
    }

    /// When it may no longer be sealed to.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}
