//! Configuration of the gateway.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::{Uri, uri::Authority};
use serde::{Deserialize, Deserializer, de};

use super::{
    ConfigError, Loaded,
    admin::AdminConfig,
    archive::{self, ArchiveConfig},
    cors::{self, CorsConfig},
    prices::{self, Prices},
    store::{self, StoreConfig},
    terms::Tees,
    tls::{self, TlsConfig},
};
use crate::seal::Padding;

mod announce;
mod attestation;
mod locks;
mod proxy;
mod receipts;
mod selection;
mod streams;

pub use self::{
    announce::{Allowed, AnnounceConfig, InvalidAllowed},
    attestation::{AttestationConfig, effective},
    locks::LocksConfig,
    proxy::{InvalidProxyUrl, ProxyConfig, ProxyUrl},
    receipts::{ReceiptMode, ReceiptsConfig},
    selection::{HealthConfig, Label, MAX_LABELS, Ratio, SelectionConfig, WarmUp, seconds},
    streams::StreamsConfig,
};

/// Most nodes of one gateway.
const MAX_NODES: usize = 4096;
/// Most other names for models.
const MAX_ALIASES: usize = 4096;
/// Largest request body that a node takes (docs/wire.md, "Request").
const MAX_BODY_BYTES: u32 = 16 << 20;

/// Everything that a gateway is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address to listen on; port 0 lets the system choose.
    #[serde(default = "GatewayConfig::default_listen")]
    pub listen: SocketAddr,
    /// TLS there; left out, callers connect without.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Keeps all of the process's memory out of swap; needs `LimitMEMLOCK=infinity`.
    #[serde(default)]
    pub lock_memory: bool,
    /// Who may ask.
    #[serde(default)]
    pub auth: Auth,
    /// File with the digests of the API keys; left out, they are in the store.
    #[serde(default)]
    pub keys_file: Option<PathBuf>,
    /// Where keys and usage are kept; see [`GatewayConfig::store`].
    #[serde(default)]
    pub store: Option<StoreConfig>,
    /// The appraisal policy.
    pub policy: PathBuf,
    /// Folder of the bundle beside it; left out, there is none.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
    /// The nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
    /// The proxy that leads to them; left out, they are reached straight.
    #[serde(default)]
    pub proxy: Option<ProxyConfig>,
    /// Other names for models: the caller's name to the node's.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// What models cost, by the caller's name or the node's; those without a price have no cost.
    #[serde(default)]
    pub prices: Prices,
    /// Seconds between two appraisals of a node; an appraisal that ends sooner is renewed sooner.
    #[serde(default = "GatewayConfig::default_reattest_s")]
    pub reattest_s: NonZeroU32,
    /// Seconds between two looks at this configuration, the policy, certificates and the files that
    /// they name; what changed is put in force once it is seen unchanged in two looks, or at once on
    /// SIGHUP.
    #[serde(default = "GatewayConfig::default_reload_s")]
    pub reload_s: NonZeroU32,
    /// Where evidence is kept; left out, nowhere.
    #[serde(default)]
    pub archive: Option<ArchiveConfig>,
    /// Where metrics and health are served to the operator; left out, nowhere.
    #[serde(default)]
    pub admin: Option<AdminConfig<8081>>,
    /// The gateway's own evidence and sealing keys; left out, it has none.
    #[serde(default)]
    pub attestation: Option<AttestationConfig>,
    /// Which pages in browsers may ask.
    #[serde(default)]
    pub cors: CorsConfig,
    /// Which nodes may announce themselves; left out, none.
    #[serde(default)]
    pub announce: Option<AnnounceConfig>,
    /// What locks on nodes hold at most.
    #[serde(default)]
    pub locks: LocksConfig,
    /// How nodes share the requests.
    #[serde(default)]
    pub selection: SelectionConfig,
    /// When a node that fails is put out, and how it comes back.
    #[serde(default)]
    pub health: HealthConfig,
    /// How the length of what travels is hidden: `paced`, `bucket` or `off` (docs/wire.md, "Hiding lengths").
    #[serde(default)]
    pub padding: Padding,
    /// What nodes sign of their replies.
    #[serde(default)]
    pub receipts: ReceiptsConfig,
    /// How event streams look to callers.
    #[serde(default)]
    pub streams: StreamsConfig,
    /// Retries on an error that stands outside the seal and did not come over a connection that
    /// the evidence vouches for. Someone on the path can then have a request sent twice (he can
    /// neither read nor change an answer); without it, his errors end the request.
    #[serde(default = "yes")]
    pub retry_unauthenticated: bool,
    /// What the gateway holds at most.
    #[serde(default)]
    pub limits: Limits,
    /// How long the gateway waits at most.
    #[serde(default)]
    pub timeouts: Timeouts,
}

impl GatewayConfig {
    fn default_listen() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8080))
    }

    fn default_reattest_s() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(299)
    }

    fn default_reload_s() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(4)
    }
}

fn yes() -> bool {
    true
}

/// Checks what no single key can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the first key that breaks a rule.
pub fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let value = &config.value;
    check_address(config, value.listen)?;
    if value.nodes.is_empty() || value.nodes.len() > MAX_NODES {
        let message = format!("give 1 to {MAX_NODES} [[node]] tables");
        return Err(config.invalid("node", message));
    }
    let mut urls = HashSet::new();
    if let Some(twice) = value
        .nodes
        .iter()
        .find(|node| !urls.insert(node.url.to_string()))
    {
        return Err(config.invalid("node.url", format!("{} is given twice", twice.url)));
    }
    let names = value
        .models
        .iter()
        .flat_map(|(name, node_name)| [name, node_name]);
    if value.models.len() > MAX_ALIASES || names.into_iter().any(|name| !is_model_name(name)) {
        let message =
            format!("at most {MAX_ALIASES} names, each of 1 to 256 visible ASCII characters");
        return Err(config.invalid("models", message));
    }
    if value.limits.body_bytes.get() > MAX_BODY_BYTES {
        let message = format!("a node takes at most {MAX_BODY_BYTES}");
        return Err(config.invalid("limits.body_bytes", message));
    }
    selection::check(config)?;
    if let Some(admin) = &value.admin {
        admin.check(config, value.listen)?;
    }
    if let Some(tls) = &value.tls {
        tls::of_gateway(config, tls)?;
    }
    for node in &value.nodes {
        node.identity().map_err(|key| {
            config.invalid(key, "give client_certificate_file and client_key_file")
        })?;
    }
    attestation::check(config)?;
    proxy::check(config)?;
    announce::check(config)?;
    cors::check(config)?;
    streams::check(config)?;
    store::check(config)?;
    prices::check(config)?;
    archive::check(config)
}

/// Checks that whoever can connect to `address` may.
///
/// # Errors
/// [`ConfigError::Invalid`] if everybody could.
pub fn check_address(
    config: &Loaded<GatewayConfig>,
    address: SocketAddr,
) -> Result<(), ConfigError> {
    if config.value.auth == Auth::Open && !address.ip().is_loopback() {
        let message = "\"open\" lets everybody in who can connect, so it needs a loopback address \
                       in listen: use auth = \"keys\" elsewhere";
        return Err(config.invalid("auth", message));
    }
    Ok(())
}

pub(super) fn is_model_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Who may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Whoever has an API key.
    #[default]
    Keys,
    /// Whoever can connect; only on a loopback address.
    Open,
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Where it is: scheme, host and port.
    pub url: NodeUrl,
    /// File with the bearer token that the node wants inside the seal.
    #[serde(default)]
    pub credential_file: Option<PathBuf>,
    /// PEM file with the roots for an `https` node, in place of the public ones. A node whose
    /// evidence binds its certificate needs none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate that the gateway shows to an `https` node that asks for one.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// PEM file with that certificate's key.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// Whether it is reached through the proxy, if there is one and `no_proxy` does not name it.
    #[serde(default = "yes")]
    pub proxy: bool,
    /// The region it is in, in the operator's words; evidence says nothing of it.
    #[serde(default)]
    pub region: Option<Label>,
    /// What else can be asked for of it, in the operator's words.
    #[serde(default)]
    pub tags: Vec<Label>,
    /// Its share of the requests beside others, above 0.
    #[serde(default = "Ratio::one")]
    pub weight: Ratio,
    /// What it costs beside others, above 0 and in any unit; see `selection.price_weight`.
    #[serde(default = "Ratio::one")]
    pub price: Ratio,
    /// Most requests with it at once, in place of `limits.in_flight_per_node`.
    #[serde(default)]
    pub max_in_flight: Option<NonZeroU32>,
}

impl NodeConfig {
    /// The files of the certificate that is shown to the node, and of its key.
    ///
    /// # Errors
    /// The key that is missing, where only one of them is there.
    pub fn identity(&self) -> Result<Option<(&Path, &Path)>, &'static str> {
        match (&self.client_certificate_file, &self.client_key_file) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err("node.client_key_file"),
            (None, Some(_)) => Err("node.client_certificate_file"),
        }
    }
}

/// The address of a node: `http` or `https`, a host, perhaps a port, and no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl {
    https: bool,
    authority: Authority,
}

impl NodeUrl {
    /// Whether connections are TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host, an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port, the scheme's own if none is given.
    #[must_use]
    pub fn port(&self) -> u16 {
        let own = if self.https { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(own)
    }
}

/// A text that is no node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node's url is http:// or https:// with a host, perhaps a port, and nothing more")]
pub struct InvalidNodeUrl;

impl FromStr for NodeUrl {
    type Err = InvalidNodeUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .parse::<Uri>()
            .map_err(|_| InvalidNodeUrl)?
            .into_parts();
        let https = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidNodeUrl),
        };
        let bare = parts.path_and_query.is_none_or(|path| path == "/");
        match parts.authority {
            Some(authority) if bare && !authority.as_str().contains('@') => {
                Ok(Self { https, authority })
            }
            _ => Err(InvalidNodeUrl),
        }
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl<'de> Deserialize<'de> for NodeUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// What the gateway holds at most.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of callers at once.
    pub connections: NonZeroUsize,
    /// Requests at once, streams until their last byte.
    pub in_flight: NonZeroUsize,
    /// Requests at once with one API key.
    pub in_flight_per_key: NonZeroUsize,
    /// Requests and locks at once with one node.
    pub in_flight_per_node: NonZeroU32,
    /// Bytes of one request's body.
    pub body_bytes: NonZeroU32,
    /// Bytes of all requests' bodies at once.
    pub bodies_bytes: NonZeroU32,
    /// Bytes of a request's body that must come in each second, see `timeouts.slow_body_ms`; 0 for
    /// none.
    pub min_body_bytes_per_s: u32,
    /// Bytes of a reply that is given on whole.
    pub reply_bytes: NonZeroUsize,
    /// Tokens that a text is taken for before it is made, where its request has no `max_tokens`; keys with
    /// budgets or `tokens_per_minute` hold so many until it has ended.
    pub assumed_completion_tokens: NonZeroU32,
    /// Idle connections of HTTP/1.1 kept to each node; with 0, each request to a node without TLS has a
    /// connection of its own, in HTTP/1.1.
    pub idle_connections_per_node: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::MIN.saturating_add(16_383),
            in_flight: NonZeroUsize::MIN.saturating_add(8191),
            in_flight_per_key: NonZeroUsize::MIN.saturating_add(4095),
            in_flight_per_node: NonZeroU32::MIN.saturating_add(2047),
            body_bytes: NonZeroU32::MIN.saturating_add((8 << 20) - 1),
            bodies_bytes: NonZeroU32::MIN.saturating_add((512 << 20) - 1),
            min_body_bytes_per_s: 1024,
            reply_bytes: NonZeroUsize::MIN.saturating_add((64 << 20) - 1),
            assumed_completion_tokens: NonZeroU32::MIN.saturating_add(1023),
            idle_connections_per_node: 256,
        }
    }
}

/// How long the gateway waits at most, in milliseconds. A stream as a whole has no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For a request head, and on HTTP/1.1 for the next request.
    pub head_ms: NonZeroU64,
    /// For the next request on an HTTP/2 connection.
    pub idle_connection_ms: NonZeroU64,
    /// For a request's body.
    pub body_ms: NonZeroU64,
    /// That a request's body may fall behind `limits.min_body_bytes_per_s`.
    pub slow_body_ms: NonZeroU64,
    /// For the caller to read what is written.
    pub write_ms: NonZeroU64,
    /// For a connection to a node.
    pub connect_ms: NonZeroU64,
    /// For a node's evidence.
    pub attest_ms: NonZeroU64,
    /// For the first part of a node's reply; a reply that is no stream comes whole.
    pub first_byte_ms: NonZeroU64,
    /// For all tries together, until the caller gets the first byte.
    pub total_first_byte_ms: NonZeroU64,
    /// For the next part of a node's reply.
    pub idle_ms: NonZeroU64,
    /// Between two signs of life on a stream that waits.
    pub sign_of_life_ms: NonZeroU64,
    /// Between being told to stop, when the gateway is no longer ready, and taking no more requests:
    /// as long as whoever sends them needs to notice.
    pub shutdown_delay_ms: u64,
    /// For open requests to end after that.
    pub drain_ms: NonZeroU64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_ms: in_ms(30),
            idle_connection_ms: in_ms(90),
            body_ms: in_ms(60),
            slow_body_ms: in_ms(10),
            write_ms: in_ms(60),
            connect_ms: in_ms(5),
            attest_ms: in_ms(10),
            first_byte_ms: in_ms(600),
            total_first_byte_ms: in_ms(630),
            idle_ms: in_ms(120),
            sign_of_life_ms: in_ms(15),
            shutdown_delay_ms: 0,
            drain_ms: in_ms(600),
        }
    }
}

const fn in_ms(seconds: u64) -> NonZeroU64 {
    match NonZeroU64::new(seconds.saturating_mul(1000)) {
        Some(millis) => millis,
        None => NonZeroU64::MIN,
    }
}

/// The time that a key of [`Timeouts`] means.
#[must_use]
pub const fn millis(value: NonZeroU64) -> Duration {
    Duration::from_millis(value.get())
}

/// The API keys: the file that `keys_file` names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// The keys.
    #[serde(rename = "key", default)]
    pub keys: Vec<KeyConfig>,
}

/// One API key, of which only the digest is stored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// What the logs call it.
    pub name: String,
    /// SHA-256 of the key, 64 hex digits.
    #[serde(deserialize_with = "digest")]
    pub sha256: [u8; 32],
    /// The models it may ask; left out, all.
    #[serde(default)]
    pub models: Option<HashSet<String>>,
    /// The regions that its requests may go to; left out, all.
    #[serde(default)]
    pub regions: Option<Vec<Label>>,
    /// Tags that a node must have to get its requests.
    #[serde(default)]
    pub tags: Vec<Label>,
    /// Whether its requests may only be sealed with X-Wing.
    #[serde(default)]
    pub require_pq: bool,
    /// The kinds of TEE that its requests may go to, by verified evidence; left out, all.
    #[serde(default)]
    pub tees: Option<Tees>,
    /// Whether its requests may only go to nodes in whose verified evidence is an NVIDIA GPU.
    #[serde(default)]
    pub require_gpu: bool,
    /// How its requests and their replies are padded, unless a request says so itself; left out, as the
    /// gateway's are.
    #[serde(default)]
    pub padding: Option<Padding>,
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&text, &mut digest)
        .map_err(|_| de::Error::custom("a SHA-256 is 64 hex digits"))?;
    Ok(digest)
}

/// Whether `host` names this machine whoever resolves it.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests;
