//! What a client is made of, checked before anything is sent.

use std::{sync::Arc, time::Duration};

use attestation::{Bundle, Policy, statement::is_node_id};

use super::evidence::{Client, Place, Rules, Settings};
use crate::{
    clock::Clock,
    config::gateway::{InvalidNodeUrl, NodeUrl},
    seal::Padding,
    sealer::{self, Channel, Credential, InvalidCredential, Roots, Route, TlsError},
};

/// Idle connections that are kept.
const MAX_IDLE: usize = 8;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] InvalidNodeUrl),
    /// The address makes no HTTP message.
    #[error("the address: {0}")]
    Uri(#[from] http::Error),
    /// The API key, or the node's credential, is none.
    #[error(transparent)]
    Credential(#[from] InvalidCredential),
    /// An API key is a gateway's; a node takes a credential.
    #[error("a node takes no API key: what it asks for is a credential")]
    ApiKeyAtNode,
    /// A node's credential is the gateway's own matter, where that is sealed to.
    #[error("a gateway that is sealed to takes an API key: nodes' credentials are its own")]
    CredentialAtGateway,
    /// The node's id is none.
    #[error("a node's id is 1 to 64 of a to z, 0 to 9 and -")]
    NodeId,
    /// The roots cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is said to stand at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// It only carries.
    Gateway,
    /// It is sealed to, in a TEE of its own.
    AttestedGateway,
    Node,
}

/// A client to be. Begun by [`Client::at_gateway`],
/// [`Client::at_attested_gateway`] and [`Client::at_node`].
#[must_use]
#[derive(Debug)]
pub struct ClientBuilder {
    at: At,
    url: String,
    policy: Policy,
    bundle: Bundle,
    api_key: Option<Result<Credential, InvalidCredential>>,
    credential: Option<Result<Credential, InvalidCredential>>,
    roots_pem: Option<Vec<u8>>,
    node_id: Option<String>,
    settings: Settings,
    connect: Duration,
}

impl ClientBuilder {
    pub(super) fn new(at: At, url: &str, policy: Policy) -> Self {
        Self {
            at,
            url: url.to_owned(),
            policy,
            bundle: Bundle::default(),
            api_key: None,
            credential: None,
            roots_pem: None,
            node_id: None,
            settings: Settings {
                clock: Clock::system(),
                padding: Padding::default(),
                require_pq: false,
                attest: Duration::from_secs(10),
                first_byte: Duration::from_secs(600),
                idle: Duration::from_secs(120),
                reply_bytes: 64 << 20,
            },
            connect: Duration::from_secs(5),
        }
    }

    /// The gateway's API key. To a gateway that only carries it is sent as a bearer token outside the
    /// seal: over plain http whoever is on the path reads it. To one that is sealed to it travels
    /// inside the seal alone.
    pub fn api_key(mut self, key: &str) -> Self {
        self.api_key = Some(Credential::from_file_text(key));
        self
    }

    /// The credential that the node asks for. It travels inside the seal.
    pub fn credential(mut self, token: &str) -> Self {
        self.credential = Some(Credential::from_file_text(token));
        self
    }

    /// The one node to verify, by its id; without it any that serves the model.
    pub fn node_id(mut self, id: &str) -> Self {
        self.node_id = Some(id.to_owned());
        self
    }

    /// Vendors' collateral, signed by whom the policy names.
    pub fn bundle(mut self, bundle: Bundle) -> Self {
        self.bundle = bundle;
        self
    }

    /// PEM certificates that vouch for an `https` address, in place of the public roots.
    pub fn roots_pem(mut self, pem: &[u8]) -> Self {
        self.roots_pem = Some(pem.to_owned());
        self
    }

    /// How lengths, and with [`Padding::Paced`] times too, are hidden, both ways; [`Padding::Bucket`]
    /// by default. Where the policy has a `least_padding` above it, that one holds.
    pub fn padding(mut self, padding: Padding) -> Self {
        self.settings.padding = padding;
        self
    }

    /// Seals with X-Wing alone, whatever the policy lets pass: a node without a key for it does not
    /// verify. Without this X-Wing is taken where a node has it, and X25519 elsewhere.
    pub fn require_pq(mut self) -> Self {
        self.settings.require_pq = true;
        self
    }

    /// Longest time to connect; 5 s by default.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect = time;
        self
    }

    /// Longest time for one node's evidence to come; 10 s by default.
    pub fn attest_timeout(mut self, time: Duration) -> Self {
        self.settings.attest = time;
        self
    }

    /// Longest time for a reply to begin, or to come whole where it is no stream; 600 s by default.
    pub fn first_byte_timeout(mut self, time: Duration) -> Self {
        self.settings.first_byte = time;
        self
    }

    /// Longest silence that is waited for in a reply that has begun; 120 s by default.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.settings.idle = time;
        self
    }

    /// Most bytes of a reply that is no stream; 64 MiB by default.
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.settings.reply_bytes = bytes;
        self
    }

    /// Takes the time of day from another clock.
    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Makes the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] says what cannot be used.
    pub fn build(self) -> Result<Client, BuildError> {
        let url: NodeUrl = self.url.parse()?;
        let api_key = self.api_key.transpose()?.map(Arc::new);
        let credential = self.credential.transpose()?.map(Arc::new);
        let (api_key, credential) = match self.at {
            At::Gateway => (api_key, credential),
            At::AttestedGateway if credential.is_some() => {
                return Err(BuildError::CredentialAtGateway);
            }
            At::AttestedGateway => (None, api_key),
            At::Node if api_key.is_some() => return Err(BuildError::ApiKeyAtNode),
            At::Node => (None, credential),
        };
        if self.node_id.as_deref().is_some_and(|id| !is_node_id(id)) {
            return Err(BuildError::NodeId);
        }
        let roots = match &self.roots_pem {
            Some(pem) => Roots::from_pem(pem)?,
            None => Roots::Public,
        };
        let to_name = sealer::to_name(&roots, None)?;
        let channel = Channel::new(&url, Route::default(), to_name, self.connect, MAX_IDLE)?;
        let place = match self.at {
            At::Gateway => Place::Gateway,
            // Evidence proves itself, whoever brings it.
            At::Node | At::AttestedGateway => Place::Node {
                asked: Arc::new(Channel::new(
                    &url,
                    Route::default(),
                    sealer::to_anybody(None)?,
                    self.connect,
                    0,
                )?),
                is_gateway: self.at == At::AttestedGateway,
            },
        };
        Ok(Client {
            place,
            url,
            connect: self.connect,
            max_idle: MAX_IDLE,
            channel: Arc::new(channel),
            api_key,
            credential,
            node_id: self.node_id,
            rules: Arc::new(Rules {
                policy: self.policy,
                bundle: self.bundle,
            }),
            settings: self.settings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::from_toml("version = 1\nappraisal_max_age_s = 60\n", &mut |_| {
            Err(std::io::ErrorKind::NotFound.into())
        })
        .unwrap()
    }

    #[test]
    fn what_cannot_be_used_is_said_before_anything_is_sent() {
        let at_node = |url| Client::at_node(url, policy());
        let at_gateway = |url| Client::at_gateway(url, policy());
        let at_attested = |url| Client::at_attested_gateway(url, policy());
        let good = "https://a.example:8443";
        let built = at_gateway(good)
            .api_key("sk-1")
            .credential("c")
            .node_id("node-1");
        assert!(built.build().is_ok());
        type Expected = fn(&BuildError) -> bool;
        assert!(at_attested(good).api_key("sk-1").build().is_ok());
        let cases: [(&str, ClientBuilder, Expected); 8] = [
            ("a path", at_gateway("https://a.example/v1"), |e| {
                matches!(e, BuildError::Url(_))
            }),
            ("no scheme", at_node("a.example"), |e| {
                matches!(e, BuildError::Url(_))
            }),
            (
                "a key of two lines",
                at_gateway(good).api_key("a\nb"),
                |e| matches!(e, BuildError::Credential(_)),
            ),
            ("an empty credential", at_node(good).credential(""), |e| {
                matches!(e, BuildError::Credential(_))
            }),
            (
                "an API key for a node",
                at_node(good).api_key("sk-1"),
                |e| matches!(e, BuildError::ApiKeyAtNode),
            ),
            (
                "a credential for a gateway that is sealed to",
                at_attested(good).credential("c"),
                |e| matches!(e, BuildError::CredentialAtGateway),
            ),
            ("an id with a slash", at_gateway(good).node_id("a/b"), |e| {
                matches!(e, BuildError::NodeId)
            }),
            ("no roots", at_gateway(good).roots_pem(b"none"), |e| {
                matches!(e, BuildError::Tls(_))
            }),
        ];
        for (name, builder, is_expected) in cases {
            let error = builder.build().unwrap_err();
            assert!(is_expected(&error), "{name}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let builder = Client::at_gateway("http://a", policy())
            .api_key("sk-secret")
            .credential("secret-too");
        let shown = format!("{builder:?}");
        assert!(!shown.contains("secret"), "{shown}");
        let shown = format!("{:?}", builder.build().unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
