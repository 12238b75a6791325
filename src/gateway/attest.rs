//! From a node's answer to a verified node: fetched, judged, archived.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::{
    Answer, AnswerError, Nonce, Refusal, VerifiedNode, statement::EngineLocation, time::to_rfc3339,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header::ACCEPT};
use http_body_util::Full;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    archive::{Archive, ArchiveError, Entry},
    audit::Audit,
    metrics::NodeCounts,
    node::{Node, Verified},
    rules::Rules,
    trust::Trust,
};
use crate::{
    clock::Clock,
    sealer::{self, Channel, NodeBody, Route, SendError, Spoken, TlsError},
    store::What,
};

/// Longest answer that is read (docs/wire.md, "What a node says of itself").
const MAX_ANSWER: usize = 1024 * 1024;
/// Most appraisals at once: their signature checks are work for the processor. They have threads of
/// their own, which tokio keeps for what blocks, so that they share the processor with requests as
/// the system divides it, and never stand in a request's way in the runtime's own threads.
const MAX_AT_ONCE: usize = 8;
/// Most nodes that are asked for evidence at once.
const MAX_FETCHES: usize = 256;

/// Why an appraisal gave no verified node.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttestError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("no answer in time")]
    Timeout,
    #[error("the answer has status {0}")]
    Status(StatusCode),
    #[error("the answer broke off: {0}")]
    Broken(hyper::Error),
    #[error("the answer exceeds {MAX_ANSWER} bytes")]
    TooLong,
    #[error("the answer: {0}")]
    Answer(#[from] AnswerError),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("the way to the node: {0}")]
    Tls(#[from] TlsError),
    #[error("the request makes no HTTP message: {0}")]
    Request(#[from] http::Error),
    #[error("the system gives no randomness")]
    Random,
    #[error("it is a gateway (engine: attested): a gateway seals to nodes alone")]
    Gateway,
    #[error("the node's name or statement makes no header value")]
    Name,
    #[error("the node that announced itself there had another id")]
    OtherNode,
    #[error("the verifier panicked")]
    Panicked,
    #[error("the archive, which is required: {0}")]
    Archive(#[from] ArchiveError),
}

impl AttestError {
    /// Counts it among a node's appraisals.
    pub(super) fn count(&self, counts: &NodeCounts) {
        counts.not_appraised(match self {
            Self::Refused(refusal) => return counts.refused(refusal.check),
            Self::Answer(_) => return counts.refused("answer"),
            Self::Send(_) => "send",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Broken(_) => "broken",
            Self::TooLong => "too_long",
            Self::Tls(_) => "tls",
            Self::Request(_) => "request",
            Self::Random => "random",
            Self::Gateway => "gateway",
            Self::Name => "name",
            Self::OtherNode => "other_node",
            Self::Panicked => "panicked",
            Self::Archive(_) => "archive",
        });
    }
}

/// What a node answered to a nonce of ours, as it came.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) bytes: Bytes,
    /// SHA-256 of the bytes in hex.
    pub(super) digest: String,
    pub(super) nonce: Nonce,
    /// When it came, by the time of day and by a clock that nobody sets.
    came: (SystemTime, Instant),
}

/// What came of judging evidence, before it is archived.
#[must_use]
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) outcome: Result<VerifiedNode, AttestError>,
    evidence: Arc<Evidence>,
    rules: Arc<Rules>,
    at: SystemTime,
}

/// Evidence that passed, and what it was judged by.
#[derive(Debug)]
pub(super) struct Judged {
    node: VerifiedNode,
    evidence: Arc<Evidence>,
    rules: Arc<Rules>,
    at: SystemTime,
}

/// How nodes are appraised.
#[derive(Debug)]
pub(super) struct Attester {
    pub(super) settings: Settings,
    rules: watch::Receiver<Arc<Rules>>,
    archive: Option<Archive>,
    audit: Audit,
    /// Ends all trust.
    cut: CancellationToken,
    pub(super) at_once: Arc<Semaphore>,
    fetches: Semaphore,
}

/// What the configuration says of appraisals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) clock: Clock,
    /// Longest time between two appraisals.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_idle: usize,
}

impl Evidence {
    fn new(bytes: Bytes, nonce: Nonce, now: SystemTime) -> Self {
        let digest = hex::encode(Sha256::digest(&bytes));
        Self {
            bytes,
            digest,
            nonce,
            came: (now, Instant::now()),
        }
    }

    /// When what was judged from it ends, by the clock that nobody sets: the time of day can be set
    /// back, and with it an end put off.
    fn last(&self, node: &VerifiedNode) -> Instant {
        let (came, at) = self.came;
        let left = node.expires_at().duration_since(came).unwrap_or_default();
        at.checked_add(left).unwrap_or(at)
    }

    /// Judges it, where it was judged before as no younger than then.
    fn judge(
        &self,
        rules: &Rules,
        before: Option<&Verified>,
        now: SystemTime,
    ) -> Result<VerifiedNode, AttestError> {
        let answer = Answer::from_json(&self.bytes)?;
        let (policy, bundle, nonce) = (&rules.policy, &rules.bundle, &self.nonce);
        let node = match before {
            Some(before) => before
                .node
                .verify_again(&answer, policy, bundle, nonce, now)?,
            None => attestation::verify(&answer, policy, bundle, nonce, now)?,
        };
        // Who asks, and for which model, it would not hear from another gateway.
        if node.statement().engine() == EngineLocation::Attested {
            return Err(AttestError::Gateway);
        }
        Ok(node)
    }
}

impl Attester {
    pub(super) fn new(
        settings: Settings,
        rules: watch::Receiver<Arc<Rules>>,
        archive: Option<Archive>,
        cut: CancellationToken,
    ) -> Self {
        Self {
            settings,
            rules,
            archive,
            audit: Audit::default(),
            cut,
            at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            fetches: Semaphore::new(MAX_FETCHES),
        }
    }

    /// The same, telling the audit log of every verdict.
    pub(super) fn telling(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// The rules in force, and those that come after.
    pub(super) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.clone()
    }

    /// Asks `node` for evidence, and judges it by the rules that are in force when it was judged.
    ///
    /// # Errors
    /// [`AttestError`] says why nothing was verified.
    pub(super) async fn appraise(&self, node: &Node) -> Result<Judged, AttestError> {
        let nonce = fresh_nonce()?;
        let bytes = match timeout(self.settings.timeout, self.fetch(node, &nonce)).await {
            Ok(fetched) => fetched?,
            Err(_) => return Err(AttestError::Timeout),
        };
        let evidence = Evidence::new(bytes, nonce, self.settings.clock.now());
        let evidence = Arc::new(evidence);
        loop {
            let rules = Arc::clone(&self.rules.borrow());
            let verdict = self.judge(&evidence, &rules, None).await;
            let judged = self.archived(node, verdict).await;
            if Arc::ptr_eq(&rules, &self.rules.borrow()) {
                return judged;
            }
        }
    }

    /// Judges by `rules` what `before` was verified from.
    pub(super) async fn judge_again(&self, before: &Arc<Verified>, rules: &Arc<Rules>) -> Verdict {
        self.judge(&before.evidence, rules, Some(before)).await
    }

    async fn judge(
        &self,
        evidence: &Arc<Evidence>,
        rules: &Arc<Rules>,
        before: Option<&Arc<Verified>>,
    ) -> Verdict {
        // Not before the evidence is there: a node that is slow must not hold up others. The
        // semaphore is never closed; without a permit the work is merely less spread out.
        let turn = Arc::clone(&self.at_once).acquire_owned().await.ok();
        let now = self.settings.clock.now();
        let work = (Arc::clone(evidence), Arc::clone(rules), before.cloned());
        let judging = on_its_own_thread(turn, move || {
            let (evidence, rules, before) = work;
            evidence.judge(&rules, before.as_deref(), now)
        });
        let outcome = judging.await.unwrap_or(Err(AttestError::Panicked));
        Verdict {
            outcome,
            evidence: Arc::clone(evidence),
            rules: Arc::clone(rules),
            at: now,
        }
    }

    /// Has the archive keep a verdict; only then does one that passed count. What was refused is out
    /// of use before: the disk must not be waited for.
    ///
    /// # Errors
    /// Why the evidence was refused, or [`AttestError::Archive`].
    pub(super) async fn archived(
        &self,
        node: &Node,
        verdict: Verdict,
    ) -> Result<Judged, AttestError> {
        let Verdict {
            outcome,
            evidence,
            rules,
            at,
        } = verdict;
        let refused = match &outcome {
            Ok(_) => None,
            Err(AttestError::Panicked) => return Err(AttestError::Panicked),
            Err(AttestError::Refused(refusal)) => Some((refusal.check, refusal.device)),
            Err(AttestError::Gateway) => Some(("engine", None)),
            Err(_) => Some(("answer", None)),
        };
        let node_id = outcome.as_ref().ok().map(|it| it.node_id().to_owned());
        let what = match refused {
            Some(_) => What::AppraisalRefused,
            None => What::AppraisalAccepted,
        };
        self.audit.say(
            what,
            &node.url.to_string(),
            json!({
                "node_id": node_id,
                "evidence": evidence.digest,
                "policy": rules.policy_digest,
                "bundle": rules.bundle_digest,
                "check": refused.map(|(check, _)| check),
                "device": refused.and_then(|(_, device)| device),
            }),
        );
        if let Some(archive) = &self.archive {
            let entry = Entry {
                at: to_rfc3339(at),
                node: node.url.to_string(),
                node_id,
                evidence: evidence.bytes.clone(),
                digest: evidence.digest.clone(),
                nonce: evidence.nonce,
                rules: Arc::clone(&rules),
                refused,
            };
            archive.keep(entry).await?;
        }
        Ok(Judged {
            node: outcome?,
            evidence,
            rules,
            at,
        })
    }

    /// What was judged, as requests need it: connections and trust go on where it holds a key that
    /// was verified before. Behind one address there may be many machines, and a node that restarted
    /// is another: what rests on the one before must not live as long as this.
    ///
    /// # Errors
    /// If there is no way to the node.
    pub(super) fn verified(
        &self,
        node: &Node,
        judged: Judged,
    ) -> Result<Arc<Verified>, AttestError> {
        let Judged {
            node: verified,
            evidence,
            rules,
            at,
        } = judged;
        let pin = verified
            .tls_spki_sha256()
            .copied()
            .filter(|_| node.url.is_https());
        let held = node.held();
        let old = held.iter().find(|held| held.is_continued_by(&verified));
        let trust = match old {
            Some(old) => old.trust.clone(),
            None => Trust::begin(&self.cut),
        };
        let same_way = old.filter(|old| old.node.tls_spki_sha256() == verified.tls_spki_sha256());
        let channel = match same_way {
            Some(old) => Arc::clone(&old.channel),
            None => Arc::new(self.channel(node, pin)?),
        };
        let id: Arc<str> = verified.node_id().into();
        if !node.may_be(&id) {
            return Err(AttestError::OtherNode);
        }
        Ok(Arc::new(Verified {
            small_id: small_id(&id),
            last: evidence.last(&verified),
            evidence,
            rules,
            judged_at: at,
            trust,
            channel,
            authenticated_channel: pin.is_some(),
            id_header: HeaderValue::from_str(&id).map_err(|_| AttestError::Name)?,
            id,
            statement: verified.statement_digest().to_string(),
            node: verified,
        }))
    }

    fn channel(&self, node: &Node, pin: Option<[u8; 32]>) -> Result<Channel, AttestError> {
        let tls = match pin {
            Some(pin) => sealer::to_key(pin, node.shown.as_ref())?,
            None => sealer::to_name(&node.roots, node.shown.as_ref())?,
        };
        Ok(Channel::new(
            &node.url,
            self.route(node, &node.spoken),
            tls,
            self.settings.connect_timeout,
            self.settings.max_idle,
        )?)
    }

    /// Where no connection is kept, each request has one of its own.
    fn route<'a>(&self, node: &'a Node, spoken: &'a Arc<Spoken>) -> Route<'a> {
        Route {
            spoken: (self.settings.max_idle > 0).then_some(spoken),
            ..node.route()
        }
    }

    /// Asks over a connection of its own, which needs no authentication: an answer that somebody
    /// else gave, or changed, does not pass appraisal.
    async fn fetch(&self, node: &Node, nonce: &Nonce) -> Result<Bytes, AttestError> {
        // Waited for within the time that an attempt has: it fails when others take too long.
        let _one_of_few = self.fetches.acquire().await;
        // What it speaks is found out anew each time: something else may stand before it since.
        let spoken = Arc::<Spoken>::default();
        let channel = Channel::new(
            &node.url,
            self.route(node, &spoken),
            sealer::to_anybody(node.shown.as_ref())?,
            self.settings.connect_timeout.min(self.settings.timeout),
            0,
        )?;
        let request = Request::get(format!("/v1/attestation?nonce={nonce}"))
            .header(ACCEPT, "application/json")
            .body(Full::default())?;
        let response = Arc::new(channel).send(request).await?;
        node.spoken.set(spoken.get());
        if response.status() != StatusCode::OK {
            return Err(AttestError::Status(response.status()));
        }
        read(response.into_body()).await
    }
}

/// The number that stands for a node's id: the first 53 bits of its SHA-256, which every client's
/// JSON holds exactly.
fn small_id(id: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(id).into();
    let first = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
    (first >> 11).max(1)
}

/// Does work for the processor beside the runtime's own threads; nothing if it panicked. It holds its
/// turn to its end, also when nobody waits for it any more.
async fn on_its_own_thread<T: Send + 'static>(
    turn: Option<OwnedSemaphorePermit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let working = spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    working.await.ok()
}

/// Straight from the system: a generator of this process could repeat itself after its machine was
/// restored from a snapshot, and with it a nonce.
fn fresh_nonce() -> Result<Nonce, AttestError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| AttestError::Random)?;
    Ok(Nonce::from(nonce))
}

pub(super) async fn read(mut body: NodeBody) -> Result<Bytes, AttestError> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(AttestError::Broken)?;
        if all.len().saturating_add(data.len()) > MAX_ANSWER {
            return Err(AttestError::TooLong);
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_holds_its_turn_to_its_end() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).acquire_owned().await.ok();
        let (end, ended) = std::sync::mpsc::channel();
        {
            let working = pin!(on_its_own_thread(turn, move || ended.recv()));
            assert!(working.now_or_never().is_none());
        }
        assert_eq!(turns.available_permits(), 0);
        end.send(()).unwrap();
        assert!(turns.acquire().await.is_ok());
        let turn = Arc::clone(&turns).acquire_owned().await.ok();
        let panics = on_its_own_thread::<()>(turn, || panic!("on purpose"));
        assert!(panics.await.is_none());
        assert_eq!(turns.available_permits(), 1);
    }
}
