//! From an address and a policy to a verified channel.

use std::{sync::Arc, time::Duration};

use attestation::{
    Answer, AnswerError, Bundle, Nonce, Policy, Refusal, Suite, VerifiedNode,
    statement::{EngineLocation, is_node_id},
};
use bytes::{Bytes, BytesMut};
use http::{
    Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use http_body_util::Full;
use rand::seq::SliceRandom as _;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{
    builder::{At, ClientBuilder},
    channel::{Channel, End, Line},
};
use crate::{
    clock::Clock,
    config::gateway::NodeUrl,
    openai::nodes::{MalformedList, SaidNode, serving},
    seal::Padding,
    sealer::{self, Channel as Upstream, Credential, NodeBody, OHTTP, Route, SendError, TlsError},
};

/// Longest answer that is read (docs/wire.md, "What a node says of itself").
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest list of nodes that is read, in bytes.
const MAX_LIST: usize = 8 * 1024 * 1024;
/// Most nodes of a gateway that are asked for evidence before verification fails.
const MAX_ASKED: usize = 3;

/// Why no node was verified: nothing was sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There was no response.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer has another status than 200.
    #[error("the answer has status {0}")]
    Status(StatusCode),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(hyper::Error),
    /// The answer is longer than it may be.
    #[error("the answer exceeds {max} bytes")]
    TooLong {
        /// Most bytes that it may have.
        max: usize,
    },
    /// The gateway's list of nodes is none.
    #[error(transparent)]
    List(#[from] MalformedList),
    /// The gateway lists no node that serves the model.
    #[error("the gateway lists no node for the model")]
    NoNode,
    /// The answer is none.
    #[error("the answer: {0}")]
    Answer(#[from] AnswerError),
    /// The policy refuses the node.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The evidence is another node's than the one that was asked for.
    #[error("the evidence is of another node")]
    OtherNode,
    /// The evidence passes, and is no gateway's whose every node was verified: its statement's `engine`
    /// is not `attested`. An API key is sealed to nobody else.
    #[error("the evidence is of no gateway that says `attested`")]
    NotAttestedGateway,
    /// The node passes, and does not serve the model.
    #[error("the node does not serve the model")]
    ModelNotServed,
    /// The node passes, and has no key that a post-quantum seal needs.
    #[error("the node has no post-quantum key")]
    NotPostQuantum,
    /// The node names its certificate, and the address is plain http.
    #[error("the node names its TLS certificate, and the address is no https")]
    TlsRequired,
    /// There is no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The request makes no HTTP message.
    #[error("the request makes no HTTP message: {0}")]
    Request(#[from] http::Error),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Random,
    /// The verifier panicked.
    #[error("the verifier panicked")]
    Panicked,
}

/// Verifies nodes by one policy, and makes channels to them.
#[derive(Debug)]
pub struct Client {
    pub(super) place: Place,
    pub(super) url: NodeUrl,
    pub(super) connect: Duration,
    pub(super) max_idle: usize,
    /// To whoever the roots vouch for.
    pub(super) channel: Arc<Upstream>,
    pub(super) api_key: Option<Arc<Credential>>,
    pub(super) credential: Option<Arc<Credential>>,
    pub(super) node_id: Option<String>,
    pub(super) rules: Arc<Rules>,
    pub(super) settings: Settings,
}

/// What stands at the address.
#[derive(Debug)]
pub(super) enum Place {
    /// A gateway that carries.
    Gateway,
    /// Whoever is sealed to.
    Node {
        /// For evidence alone, whoever answers.
        asked: Arc<Upstream>,
        /// Whether it must be a gateway, since it gets an API key.
        is_gateway: bool,
    },
}

/// What evidence is judged by.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) bundle: Bundle,
}

/// What every exchange of a client has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) clock: Clock,
    pub(super) padding: Padding,
    /// Whether nothing is sealed but to a post-quantum key.
    pub(super) require_pq: bool,
    pub(super) attest: Duration,
    pub(super) first_byte: Duration,
    pub(super) idle: Duration,
    pub(super) reply_bytes: usize,
}

/// A node that passed, and the last moment at which it counts by a clock that nobody sets.
struct Judged {
    node: VerifiedNode,
    last: Instant,
}

impl Client {
    /// A client of a gateway at `url` (scheme, host, perhaps a port), which only carries.
    pub fn at_gateway(url: &str, policy: Policy) -> ClientBuilder {
        ClientBuilder::new(At::Gateway, url, policy)
    }

    /// A client of a gateway at `url` (scheme, host, perhaps a port) that has evidence of its own: it
    /// is verified, and sealed to as a node is. `policy` must allow it by `allow_attested_engine`, and
    /// its statement must say `attested`: to a node, and to a gateway that lets nodes send prompts
    /// elsewhere, no API key is sealed.
    pub fn at_attested_gateway(url: &str, policy: Policy) -> ClientBuilder {
        ClientBuilder::new(At::AttestedGateway, url, policy)
    }

    /// A client of the node at `url` (scheme, host, perhaps a port).
    pub fn at_node(url: &str, policy: Policy) -> ClientBuilder {
        ClientBuilder::new(At::Node, url, policy)
    }

    /// Verifies a node that serves `model`, from evidence for a nonce that was not used before.
    ///
    /// Of a gateway's nodes up to three are tried, in random order; a node id that was set is the
    /// only one.
    ///
    /// # Errors
    /// [`VerifyError`], of the first node that was tried. Nothing was sealed then.
    pub async fn verify(&self, model: &str) -> Result<Channel, VerifyError> {
        let Place::Node { asked, is_gateway } = &self.place else {
            return self.verify_one_of_many(model).await;
        };
        let judged = self.appraise(asked, "/v1/attestation").await?;
        let node = &judged.node;
        // Whoever carries the evidence chooses whose it is.
        if *is_gateway && node.statement().engine() != EngineLocation::Attested {
            return Err(VerifyError::NotAttestedGateway);
        }
        check(node, self.node_id.as_deref(), model)?;
        let end = End {
            channel: self.way_to(node)?,
            path: OHTTP.to_owned(),
            authorization: None,
            is_authenticated: node.tls_spki_sha256().is_some(),
        };
        Ok(self.open(judged, end))
    }

    async fn verify_one_of_many(&self, model: &str) -> Result<Channel, VerifyError> {
        let ids = match &self.node_id {
            Some(id) => vec![id.clone()],
            None => self.list(model).await?,
        };
        let mut first = None;
        for id in ids.iter().take(MAX_ASKED) {
            match self.verify_through_gateway(id, model).await {
                Ok(channel) => return Ok(channel),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(VerifyError::NoNode))
    }

    async fn verify_through_gateway(&self, id: &str, model: &str) -> Result<Channel, VerifyError> {
        let path = format!("/v1/nodes/{id}/attestation");
        let judged = self.appraise(&self.channel, &path).await?;
        check(&judged.node, Some(id), model)?;
        let end = End {
            channel: Arc::clone(&self.channel),
            path: format!("/v1/nodes/{id}/ohttp"),
            authorization: self.api_key.clone(),
            // Errors outside the seal may be the gateway's as well as the node's.
            is_authenticated: false,
        };
        Ok(self.open(judged, end))
    }

    fn open(&self, judged: Judged, end: End) -> Channel {
        let line = Line {
            end,
            credential: self.credential.clone(),
            settings: self.settings,
        };
        Channel::new(judged.node, judged.last, line)
    }

    /// The nodes that the gateway lists for a model, in random order; where a post-quantum key is
    /// required, those first that it says have one.
    async fn list(&self, model: &str) -> Result<Vec<String>, VerifyError> {
        let listed = self.fetch(&self.channel, "/v1/nodes", MAX_LIST).await?;
        let mut nodes = serving(&listed, model)?;
        // Ids go into paths: one that no node can have is none.
        nodes.retain(|node| is_node_id(&node.id));
        nodes.shuffle(&mut rand::rng());
        if self.settings.require_pq {
            let pq = Suite::XWing.as_str();
            let lacks_pq = |node: &SaidNode| !node.suites.iter().any(|suite| suite == pq);
            nodes.sort_by_key(lacks_pq);
        }
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }

    async fn appraise(&self, from: &Arc<Upstream>, path: &str) -> Result<Judged, VerifyError> {
        let nonce = fresh_nonce()?;
        let path = format!("{path}?nonce={nonce}");
        let answer = self.fetch(from, &path, MAX_ANSWER).await?;
        let (came, at) = (self.settings.clock.now(), Instant::now());
        let rules = Arc::clone(&self.rules);
        // Work for the processor, and not for the runtime's own threads.
        let judging = spawn_blocking(move || {
            let answer = Answer::from_json(&answer)?;
            let (policy, bundle) = (&rules.policy, &rules.bundle);
            Ok(attestation::verify(&answer, policy, bundle, &nonce, came)?)
        });
        let judged: Result<VerifiedNode, VerifyError> =
            judging.await.map_err(|_| VerifyError::Panicked)?;
        let node = judged?;
        if self.settings.require_pq && node.post_quantum_key(came).is_err() {
            return Err(VerifyError::NotPostQuantum);
        }
        let left = node.expires_at().duration_since(came).unwrap_or_default();
        Ok(Judged {
            last: at.checked_add(left).unwrap_or(at),
            node,
        })
    }

    /// The way straight to a node: to the certificate that it names, if it names one.
    fn way_to(&self, node: &VerifiedNode) -> Result<Arc<Upstream>, VerifyError> {
        let Some(pin) = node.tls_spki_sha256() else {
            return Ok(Arc::clone(&self.channel));
        };
        if !self.url.is_https() {
            return Err(VerifyError::TlsRequired);
        }
        let tls = sealer::to_key(*pin, None)?;
        let way = Upstream::new(
            &self.url,
            Route::default(),
            tls,
            self.connect,
            self.max_idle,
        )?;
        Ok(Arc::new(way))
    }

    async fn fetch(
        &self,
        from: &Arc<Upstream>,
        path: &str,
        max: usize,
    ) -> Result<Bytes, VerifyError> {
        let mut request = Request::get(path).header(ACCEPT, "application/json");
        if let Some(key) = &self.api_key {
            request = request.header(AUTHORIZATION, key.to_header()?);
        }
        let request = request.body(Full::default())?;
        let fetching = async {
            let response = from.send(request).await?;
            if response.status() != StatusCode::OK {
                return Err(VerifyError::Status(response.status()));
            }
            read(response.into_body(), max).await
        };
        timeout(self.settings.attest, fetching)
            .await
            .unwrap_or(Err(VerifyError::Timeout))
    }
}

/// Checks that a node is the one that is wanted, where one is, and serves the model.
fn check(node: &VerifiedNode, id: Option<&str>, model: &str) -> Result<(), VerifyError> {
    if id.is_some_and(|id| id != node.node_id()) {
        return Err(VerifyError::OtherNode);
    }
    let mut models = node.models().iter();
    models
        .any(|served| served == model)
        .then_some(())
        .ok_or(VerifyError::ModelNotServed)
}

/// Straight from the system: a generator of this process could repeat itself after its machine was
/// restored from a snapshot, and with it a nonce.
fn fresh_nonce() -> Result<Nonce, VerifyError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| VerifyError::Random)?;
    Ok(Nonce::from(nonce))
}

async fn read(mut body: NodeBody, max: usize) -> Result<Bytes, VerifyError> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(VerifyError::Broken)?;
        if all.len().saturating_add(data.len()) > max {
            return Err(VerifyError::TooLong { max });
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
