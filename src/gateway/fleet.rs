//! What callers may know of nodes and do with one: the list, evidence, announcements, locks, and
//! sealed requests that are only carried.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use hyper::body::Incoming;

use super::{
    Shared,
    authenticate::Caller,
    body::{self, ReplyBody},
    error::{Error, NotAnnounced},
    metrics::Shed,
    node::{Node, Reattested},
    routes::percent_decoded,
};
use crate::{
    clock::unix_seconds,
    config::gateway::NodeUrl,
    ids::RequestId,
    openai::{
        Endpoint, RequestError,
        nodes::{Announcement, ListedNode, NodeList},
    },
};

mod evidence;
mod keys;
mod lock;
mod sealed;

/// Longest body of an announcement, or of what asks for a lock, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// The list of nodes, and announcements.
    Nodes,
    Lock,
    /// What a node showed: by its id as it stands in the path.
    Attestation(&'a str),
    /// A node's key configurations for Oblivious HTTP.
    Keys(&'a str),
    /// What is sealed to them.
    Sealed(&'a str),
    /// What is sealed in the seed's format: the node's path for it.
    Confidential(&'static str),
}

impl<'a> Route<'a> {
    /// The route of a path without slashes at its end.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let mut confidential = Endpoint::ALL.into_iter().map(Endpoint::confidential_path);
        if let Some(path) = confidential.find(|known| *known == path) {
            return Some(Self::Confidential(path));
        }
        let below = path.strip_prefix("/v1/nodes")?;
        if below.is_empty() {
            return Some(Self::Nodes);
        }
        match below.strip_prefix('/')?.rsplit_once('/') {
            None if below == "/lock" => Some(Self::Lock),
            Some(("", _)) => None,
            Some((id, "attestation")) => Some(Self::Attestation(id)),
            Some((id, "ohttp-keys")) => Some(Self::Keys(id)),
            Some((id, "ohttp")) => Some(Self::Sealed(id)),
            _ => None,
        }
    }

    /// The path as the log has it, without ids.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Nodes => "/v1/nodes",
            Self::Lock => "/v1/nodes/lock",
            Self::Attestation(_) => "/v1/nodes/{id}/attestation",
            Self::Keys(_) => "/v1/nodes/{id}/ohttp-keys",
            Self::Sealed(_) => "/v1/nodes/{id}/ohttp",
            Self::Confidential(path) => path,
        }
    }

    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Nodes => "GET, HEAD, POST, OPTIONS",
            Self::Attestation(_) | Self::Keys(_) => "GET, HEAD, OPTIONS",
            Self::Lock | Self::Sealed(_) | Self::Confidential(_) => "POST, OPTIONS",
        }
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        let posts = method == Method::POST;
        let gets = method == Method::GET || method == Method::HEAD;
        match self {
            Self::Nodes => posts || gets,
            Self::Attestation(_) | Self::Keys(_) => gets,
            Self::Lock | Self::Sealed(_) | Self::Confidential(_) => posts,
        }
    }
}

impl Shared {
    /// Answers a request about nodes, or carries it to one.
    pub(super) async fn fleet(
        &self,
        id: RequestId,
        route: Route<'_>,
        parts: &Parts,
        mut body: Incoming,
    ) -> Response<ReplyBody> {
        let path = route.path();
        let answered = match route {
            Route::Sealed(_) | Route::Confidential(_) => {
                return self.carry(id, &route, parts, body).await;
            }
            Route::Nodes if parts.method == Method::POST => self.announce(parts, &mut body).await,
            Route::Nodes => self.list(parts).await,
            Route::Attestation(node) => self.attestation(node, parts).await,
            Route::Keys(node) => self.keys(node, parts).await,
            Route::Lock => self.lock(parts, &mut body).await,
        };
        let comes = answered
            .as_ref()
            .err()
            .is_none_or(Error::lets_the_body_come);
        let error = answered.as_ref().err().map(Error::code);
        let response = answered.unwrap_or_else(|error| {
            let (status, code) = (error.code().status().as_u16(), error.code().code());
            tracing::info!(request_id = %id, status, code, "request refused");
            error.into_response()
        });
        self.metrics.answered(path, response.status(), error);
        if comes {
            body::discard(&parts.headers, body).await;
        }
        response
    }

    async fn list(&self, parts: &Parts) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        self.nodes.settled(self.timeouts.attest).await;
        let snapshot = self.nodes.snapshot();
        let verified: Vec<_> = snapshot
            .nodes()
            .filter_map(|node| Some((node, node.verified()?)))
            .collect();
        let models = |models: &'_ [String]| -> Vec<String> {
            let usable = models.iter().filter(|model| caller.may_use(model));
            usable.cloned().collect()
        };
        let models: Vec<_> = verified
            .iter()
            .map(|(_, it)| models(it.node.models()))
            .collect();
        let now = self.clock.now();
        let listed = verified
            .iter()
            .zip(&models)
            .map(|((node, verified), models)| ListedNode {
                id: &verified.id,
                object: "node",
                node_small_id: verified.small_id,
                origin: if node.is_announced() {
                    "announced"
                } else {
                    "configured"
                },
                models: models.iter().map(String::as_str).collect(),
                tee: verified.node.tee(),
                root: verified.node.root().as_str(),
                suites: verified
                    .node
                    .suites(now)
                    .iter()
                    .map(|it| it.as_str())
                    .collect(),
                statement: &verified.statement,
                verified_at: unix_seconds(verified.node.verified_at()),
                expires_at: unix_seconds(verified.node.expires_at()),
            });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_unstable_by_key(|node| node.id);
        Ok(json(NodeList::new(listed).to_json()))
    }

    /// Takes in a node that announces itself, if its evidence passes.
    async fn announce(
        &self,
        parts: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let desk = self.desk.as_ref().ok_or(NotAnnounced::Off)?;
        let _permit = self.admission.admit(&caller)?;
        desk.count(&caller)?;
        let content = self.read_small(parts, body).await?;
        let url = address(&content)?;
        let _turn = desk.turns.try_acquire().map_err(|_| {
            self.metrics.shed(Shed::Announcements);
            Error::Overloaded
        })?;
        let addresses = desk.addresses(&url, self.timeouts.connect).await?;
        match self.known_at(&url, &addresses) {
            Some(known) => self.refresh(&known).await?,
            None => desk.join(url, addresses).await?,
        }
        Ok(json(Bytes::from_static(br#"{"message":"Success"}"#)))
    }

    /// The node at this address, if what is known of it still holds there.
    fn known_at(&self, url: &NodeUrl, addresses: &[SocketAddr]) -> Option<Arc<Node>> {
        self.nodes.at(url).filter(|known| known.is_at(addresses))
    }

    async fn refresh(&self, known: &Node) -> Result<(), Error> {
        match known.refresh(self.timeouts.attest).await {
            Reattested::Passed => Ok(()),
            // It was appraised just now: that is the word.
            Reattested::TooSoon(_) if known.passed_last() => Ok(()),
            Reattested::TooSoon(_) | Reattested::Failed => Err(NotAnnounced::NotRefreshed.into()),
        }
    }

    /// Reads the body of a request that is no inference.
    async fn read_small(&self, parts: &Parts, body: &mut Incoming) -> Result<Bytes, Error> {
        body::check_head(&parts.headers, body, MAX_BODY)?;
        let reading = body::read(body, MAX_BODY, self.timeouts.body, &self.admission);
        Ok(reading.await?.0)
    }

    /// The verified node of an id as it stands in a path.
    fn node_of(&self, id: &str) -> Result<Arc<Node>, Error> {
        let id = percent_decoded(id).ok_or(Error::NodeNotFound)?;
        let snapshot = self.nodes.snapshot();
        snapshot.node(&id).cloned().ok_or(Error::NodeNotFound)
    }
}

impl Caller {
    /// Whether it may use every one of these models.
    fn may_use_all(&self, models: &[String]) -> bool {
        models.iter().all(|model| self.may_use(model))
    }
}

fn address(content: &[u8]) -> Result<NodeUrl, Error> {
    let announced = Announcement::parse(content)?;
    let url = announced.public_address.parse();
    Ok(url.map_err(|_| RequestError::Invalid {
        param: Some("data.public_address".into()),
        expected: "https:// or http:// with a host, perhaps a port, and nothing more",
    })?)
}

fn json(body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked_of_which_node() {
        let cases = [
            ("/v1/nodes/lock", Some(Route::Lock)),
            ("/v1/nodes/a/attestation", Some(Route::Attestation("a"))),
            ("/v1/nodes/a/b/attestation", Some(Route::Attestation("a/b"))),
            ("/v1/nodes/lock/ohttp", Some(Route::Sealed("lock"))),
            ("/v1/nodes/a/ohttp-keys", Some(Route::Keys("a"))),
            (
                "/v1/confidential/chat/completions",
                Some(Route::Confidential("/v1/confidential/chat/completions")),
            ),
            ("/v1/confidential", None),
            ("/v1/confidential/models", None),
            ("/v1/nodes/a", None),
            ("/v1/nodes/a/other", None),
            ("/v1/nodes//attestation", None),
            ("/v1/nodesx/attestation", None),
            ("/v1/nodes-lock", None),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
        assert_eq!(Route::of("/v1/nodes"), Some(Route::Nodes));
    }
}
