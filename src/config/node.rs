//! Configuration of the node.

use std::{collections::HashSet, net::SocketAddr, num::NonZeroU64, time::Duration};

use attestation::Dialect;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::{
    ConfigError, Loaded,
    admin::AdminConfig,
    tls::{self, NodeTlsConfig},
};
use crate::seal::Kem;

mod bounds;
mod engine;
mod evidence;
mod padding;

pub(super) use self::evidence::check as check_evidence;
pub use self::{
    bounds::{LimitsConfig, Millis, TimeoutsConfig},
    engine::{CacheSalting, EngineConfig, EngineUrl, InvalidEngineUrl, MAX_IN_FLIGHT},
    evidence::{CollateralConfig, EvidenceConfig, GpusConfig},
    padding::PaddingConfig,
};

/// Most engines of one node.
const MAX_ENGINES: usize = 64;
/// Most models of one node (docs/wire.md, "What a node says of itself").
pub const MAX_MODELS: usize = 256;
/// Longest life of a key that a sealer accepts (docs/wire.md, "Keys").
const MAX_KEY_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Everything that a node is told.
///
/// What is serialised is what a policy can pin with `config_sha256`: all that decides what happens
/// to a prompt, without secrets and without what only tells replicas apart.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's name in its statement.
    #[serde(skip_serializing)]
    pub node_id: NodeId,
    /// Address to listen on; port 0 lets the system choose.
    #[serde(skip_serializing, default = "NodeConfig::default_listen")]
    pub listen: SocketAddr,
    /// TLS there; left out, gateways connect without. The evidence vouches for its key.
    #[serde(skip_serializing, default)]
    pub tls: Option<NodeTlsConfig>,
    /// Keeps all of the process's memory out of swap; needs `LimitMEMLOCK=infinity`.
    #[serde(skip_serializing, default)]
    pub lock_memory: bool,
    /// SHA-256 (64 hex digits) of the bearer token that gateways must send inside the seal.
    #[serde(skip_serializing, default)]
    pub credential_sha256: Option<CredentialDigest>,
    /// Where metrics and health are served to the operator; left out, nowhere. Whether they are is
    /// for a policy to pin: how full an engine's cache is can tell how long a prompt is.
    #[serde(serialize_with = "is_there", default)]
    pub admin: Option<AdminConfig<8091>>,
    /// Allows engines at addresses that are not loopback. The statement says so, and a policy
    /// refuses such a node unless told otherwise.
    #[serde(default)]
    pub allow_remote_engine: bool,
    /// What the node opens besides its own format, for clients that seal so already.
    #[serde(default)]
    pub dialects: Vec<Dialect>,
    /// Where the evidence comes from.
    pub evidence: EvidenceConfig,
    /// The engines, in the order of preference for a model that several of them serve.
    #[serde(rename = "engine")]
    pub engines: Vec<EngineConfig>,
    /// The sealing keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The pace of replies that are paced.
    #[serde(default)]
    pub padding: PaddingConfig,
    /// What the node holds at most.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How long the node waits at most.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
}

fn is_there<T, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(value.is_some())
}

impl NodeConfig {
    fn default_listen() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8090))
    }

    /// Whether every engine is on this machine.
    #[must_use]
    pub fn engines_are_local(&self) -> bool {
        self.engines.iter().all(|engine| engine.url.is_local())
    }
}

/// Checks what no single key can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the first key that breaks a rule.
pub fn check(config: &Loaded<NodeConfig>) -> Result<(), ConfigError> {
    let value = &config.value;
    if value.engines.is_empty() || value.engines.len() > MAX_ENGINES {
        return Err(config.invalid(
            "engine",
            format!("give 1 to {MAX_ENGINES} [[engine]] tables"),
        ));
    }
    if !value.engines_are_local() && !value.allow_remote_engine {
        let message = "an engine outside this machine sees every prompt: keep it on loopback, or \
                       set allow_remote_engine = true and allow it in the policy too";
        return Err(config.invalid("engine.url", message));
    }
    if let Some(admin) = &value.admin {
        admin.check(config, value.listen)?;
    }
    if let Some(tls) = &value.tls {
        tls::of_node(config, tls)?;
    }
    evidence::check(config, &value.evidence, "evidence")?;
    if value.dialects.iter().collect::<HashSet<_>>().len() < value.dialects.len() {
        return Err(config.invalid("dialects", "name each dialect once"));
    }
    value.keys.check(config, "keys")?;
    padding::check(config)?;
    let mut names = HashSet::new();
    for model in value
        .engines
        .iter()
        .flat_map(|engine| engine.models.iter().flatten())
    {
        if !is_model_name(model) {
            return Err(config.invalid(
                "engine.models",
                "a name is 1 to 256 visible ASCII characters",
            ));
        }
        names.insert(model);
    }
    if names.len() > MAX_MODELS {
        return Err(config.invalid("engine.models", format!("at most {MAX_MODELS} models")));
    }
    Ok(())
}

/// Whether a statement can carry `name` as the name of a model.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A node's name: 1 to 64 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId(String);

impl NodeId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let legal = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text));
        }
        Err(de::Error::custom("a node id is 1 to 64 of a-z, 0-9 and -"))
    }
}

/// SHA-256 of a gateway's bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialDigest([u8; 32]);

impl CredentialDigest {
    /// The digest of `token`.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The digest, for comparison in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for CredentialDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest)
            .map_err(|_| de::Error::custom("a SHA-256 is 64 hex digits"))?;
        Ok(Self(digest))
    }
}

/// The sealing keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// Seconds that a key lives; the next one is published when a quarter is left.
    pub life_s: NonZeroU64,
    /// What the node opens in its own format; each has keys of its own.
    pub suites: Vec<Kem>,
}

impl KeysConfig {
    /// # Errors
    /// [`ConfigError::Invalid`] names the key that breaks a rule, in the table of that name.
    pub(super) fn check<T>(&self, config: &Loaded<T>, table: &str) -> Result<(), ConfigError> {
        let suites = &self.suites;
        if suites.is_empty() || suites.iter().collect::<HashSet<_>>().len() < suites.len() {
            let message = "name x-wing, x25519 or both, each once";
            return Err(config.invalid(&format!("{table}.suites"), message));
        }
        if Duration::from_secs(self.life_s.get()) > MAX_KEY_LIFE {
            let message = "a sealer refuses keys that live over 7 days";
            return Err(config.invalid(&format!("{table}.life_s"), message));
        }
        Ok(())
    }
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            life_s: NonZeroU64::MIN.saturating_add(24 * 60 * 60 - 1),
            suites: vec![Kem::XWing, Kem::X25519],
        }
    }
}

#[cfg(test)]
mod tests;
