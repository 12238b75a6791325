//! Keeps each node appraised: one task per node, so one appraisal at a time and never on a
//! request's path.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use attestation::{Answer, AnswerError, Bundle, Nonce, Policy, Refusal, Root};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header::ACCEPT};
use http_body_util::Full;
use rand::RngExt as _;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    node::{Node, Verified},
    nodes::Nodes,
    tls::{self, TlsError},
    upstream::{Channel, NodeBody, SendError},
};
use crate::clock::Clock;

/// Longest answer that is read (docs/wire.md, "What a node says of itself").
const MAX_ANSWER: usize = 1024 * 1024;
/// Most appraisals at once: their signature checks are work for the processor.
const MAX_AT_ONCE: usize = 8;
/// Rest after the first failed appraisal; doubled by each further one.
const FIRST_REST: Duration = Duration::from_millis(250);
/// Longest rest between failed appraisals.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Shortest time between two appraisals that passed.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Why an appraisal gave no verified node.
#[derive(Debug, thiserror::Error)]
enum AttestError {
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
    #[error("the node's name or statement makes no header value")]
    Name,
}

/// How nodes are appraised.
#[derive(Debug)]
pub(super) struct Attester {
    pub(super) policy: Policy,
    pub(super) clock: Clock,
    /// Longest time between two appraisals.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_idle: usize,
    at_once: Semaphore,
}

impl Attester {
    pub(super) fn new(
        policy: Policy,
        clock: Clock,
        interval: Duration,
        timeout: Duration,
        connect_timeout: Duration,
        max_idle: usize,
    ) -> Self {
        let at_once = Semaphore::new(MAX_AT_ONCE);
        Self {
            policy,
            clock,
            interval,
            timeout,
            connect_timeout,
            max_idle,
            at_once,
        }
    }

    /// Appraises `node` at once, then again before an appraisal ends, at the latest after the
    /// interval, and when a request asks for it.
    pub(super) async fn keep(&self, nodes: &Nodes, node: &Arc<Node>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let outcome = tokio::select! {
                outcome = self.appraise(node) => outcome,
                () = stop.cancelled() => return,
            };
            let now = self.clock.now();
            let rest = match &outcome {
                Ok(verified) => {
                    failures = 0;
                    self.until_renewal(verified, now)
                }
                Err(_) => {
                    failures += 1;
                    rest_after(failures)
                }
            };
            log(node, &outcome);
            let changed = node.appraised(outcome.ok());
            if node.expire(now) || changed {
                nodes.rebuild(now);
            }
            let wanted = async {
                node.wanted.notified().await;
                node.rest_before_demanded().await;
            };
            tokio::select! {
                () = self.rest(nodes, node, rest) => {}
                () = wanted => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits; an appraisal that ends meanwhile is forgotten in time.
    async fn rest(&self, nodes: &Nodes, node: &Node, rest: Duration) {
        let ends = node.verified().map(|verified| verified.node.expires_at());
        let left = ends.and_then(|ends| ends.duration_since(self.clock.now()).ok());
        match left.filter(|left| *left < rest) {
            Some(left) => {
                sleep(left).await;
                let now = self.clock.now();
                if node.expire(now) {
                    nodes.rebuild(now);
                }
                sleep(rest.saturating_sub(left)).await;
            }
            None => sleep(rest).await,
        }
    }

    /// The interval, or half of the time that is left if that is sooner, and a little less so that
    /// the nodes of a fleet do not fall into step.
    fn until_renewal(&self, verified: &Verified, now: SystemTime) -> Duration {
        let left = verified
            .node
            .expires_at()
            .duration_since(now)
            .unwrap_or_default();
        let most = self.interval.min(left / 2);
        most.mul_f64(rand::rng().random_range(0.9..=1.0))
            .max(MIN_INTERVAL)
    }

    async fn appraise(&self, node: &Node) -> Result<Arc<Verified>, AttestError> {
        let nonce = fresh_nonce()?;
        let bytes = match timeout(self.timeout, self.fetch(node, &nonce)).await {
            Ok(fetched) => fetched?,
            Err(_) => return Err(AttestError::Timeout),
        };
        // Not before the answer is there: a node that is slow to give one must not hold up others.
        // The semaphore is never closed; without a permit the work is merely less spread out.
        let _permit = self.at_once.acquire().await.ok();
        let answer = Answer::from_json(&bytes)?;
        let verified = attestation::verify(
            &answer,
            &self.policy,
            &Bundle::empty(),
            &nonce,
            self.clock.now(),
        )?;
        let pin = verified
            .tls_spki_sha256()
            .copied()
            .filter(|_| node.url.is_https());
        let old = node.verified();
        let same_way = old.filter(|old| old.node.tls_spki_sha256() == verified.tls_spki_sha256());
        let channel = match same_way {
            Some(old) => Arc::clone(&old.channel),
            None => Arc::new(self.channel(node, pin)?),
        };
        let id: Arc<str> = verified.node_id().into();
        Ok(Arc::new(Verified {
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
            Some(pin) => tls::to_key(pin)?,
            None => tls::to_name(&node.roots)?,
        };
        Ok(Channel::new(
            &node.url,
            tls,
            self.connect_timeout,
            self.max_idle,
        )?)
    }

    /// Asks over a connection of its own, which needs no authentication: an answer that somebody
    /// else gave, or changed, does not pass appraisal.
    async fn fetch(&self, node: &Node, nonce: &Nonce) -> Result<Bytes, AttestError> {
        let channel = Channel::new(&node.url, tls::to_anybody()?, self.connect_timeout, 0)?;
        let request = Request::get(format!("/v1/attestation?nonce={nonce}"))
            .header(ACCEPT, "application/json")
            .body(Full::default())?;
        let response = Arc::new(channel).send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(AttestError::Status(response.status()));
        }
        read(response.into_body()).await
    }
}

/// Straight from the system: a generator of this process could repeat itself after its machine was
/// restored from a snapshot, and with it a nonce.
fn fresh_nonce() -> Result<Nonce, AttestError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| AttestError::Random)?;
    Ok(Nonce::from(nonce))
}

async fn read(mut body: NodeBody) -> Result<Bytes, AttestError> {
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

/// Doubles with each failure up to a bound, with half of it left to chance.
fn rest_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let longest = FIRST_REST.saturating_mul(doubled).min(LONGEST_REST);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn log(node: &Node, outcome: &Result<Arc<Verified>, AttestError>) {
    match outcome {
        Ok(verified) => {
            let expires = verified.node.expires_at();
            let root = verified.node.root();
            tracing::info!(
                node = %node.url,
                node_id = &*verified.id,
                tee = verified.node.tee(),
                %root,
                statement = verified.statement,
                models = verified.node.models().len(),
                expires_at = attestation::time::to_rfc3339(expires),
                "{}",
                match root {
                    Root::Software => "node verified against a software root: no hardware vouches",
                    _ => "node verified",
                },
            );
        }
        Err(AttestError::Refused(refusal)) => {
            tracing::warn!(node = %node.url, %refusal, "node refused");
        }
        Err(error) => tracing::warn!(node = %node.url, %error, "node not appraised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_rest_longer_and_longer_up_to_a_bound() {
        for (failures, most) in [
            (1, 250),
            (2, 500),
            (3, 1000),
            (8, 30_000),
            (u32::MAX, 30_000),
        ] {
            let rest = rest_after(failures).as_millis();
            assert!((most / 2..=most).contains(&rest), "{failures}: {rest}");
        }
    }
}
