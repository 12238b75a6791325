//! Configuration of the node.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use attestation::collateral::MAX_PIECES;
use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::{ConfigError, Loaded};

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
    /// SHA-256 (64 hex digits) of the bearer token that gateways must send inside the seal.
    #[serde(skip_serializing, default)]
    pub credential_sha256: Option<CredentialDigest>,
    /// Allows engines at addresses that are not loopback. The statement says so, and a policy
    /// refuses such a node unless told otherwise.
    #[serde(default)]
    pub allow_remote_engine: bool,
    /// Where the evidence comes from.
    pub evidence: EvidenceConfig,
    /// The engines, in the order of preference for a model that several of them serve.
    #[serde(rename = "engine")]
    pub engines: Vec<EngineConfig>,
    /// The sealing keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// What the node holds at most.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How long the node waits at most.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
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
    check_evidence(config)?;
    let life = Duration::from_secs(value.keys.life_s.get());
    if life > MAX_KEY_LIFE {
        return Err(config.invalid("keys.life_s", "a sealer refuses keys that live over 7 days"));
    }
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

/// Checks that no answer grows past what a verifier reads.
fn check_evidence(config: &Loaded<NodeConfig>) -> Result<(), ConfigError> {
    let evidence = &config.value.evidence;
    let CollateralConfig {
        amd_crls,
        tdx,
        ocsp,
        ..
    } = evidence.collateral();
    let lists = [
        (
            "evidence.certificates",
            evidence.certificates(),
            EvidenceConfig::MAX_CERTIFICATES,
        ),
        ("evidence.collateral.amd_crls", amd_crls, MAX_PIECES),
        ("evidence.collateral.tdx", tdx, MAX_PIECES),
        ("evidence.collateral.ocsp", ocsp, MAX_PIECES),
    ];
    match lists.iter().find(|(_, files, most)| files.len() > *most) {
        Some((key, _, most)) => Err(config.invalid(key, format!("at most {most} files"))),
        None => Ok(()),
    }
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

/// Where a node's evidence comes from.
///
/// A policy sees which kind of evidence a node gives, not under which path this machine has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EvidenceConfig {
    /// A software root made by `sealgate demo`: the SEV-SNP formats, signed by a key on disk.
    SoftwareRoot {
        /// Folder with `vcek.key`, `vcek.pem` and `ask.pem`.
        #[serde(skip_serializing)]
        dir: PathBuf,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// SEV-SNP or TDX, through the kernel's configfs-tsm (Linux 6.7 or newer).
    ConfigfsTsm {
        /// Where the kernel's entries are made.
        #[serde(default = "EvidenceConfig::default_root", skip_serializing)]
        root: PathBuf,
        /// The VMPL to ask for; left out, the kernel's own.
        #[serde(default, skip_serializing)]
        privlevel: Option<u32>,
        /// SEV-SNP: files with the chip's certificate and AMD's intermediate; left out, the host is
        /// asked for them.
        #[serde(default, skip_serializing)]
        certificates: Vec<PathBuf>,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// SEV-SNP, through the guest driver's own device.
    SevGuest {
        /// The device.
        #[serde(default = "EvidenceConfig::default_sev_guest", skip_serializing)]
        device: PathBuf,
        /// The VMPL to ask for.
        #[serde(default, skip_serializing)]
        privlevel: u32,
        /// As for `configfs-tsm`.
        #[serde(default, skip_serializing)]
        certificates: Vec<PathBuf>,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// An AWS Nitro enclave, through its secure module.
    Nitro {
        /// The device.
        #[serde(default = "EvidenceConfig::default_nsm", skip_serializing)]
        device: PathBuf,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
}

impl EvidenceConfig {
    /// Most files with certificates.
    const MAX_CERTIFICATES: usize = 8;

    fn default_root() -> PathBuf {
        "/sys/kernel/config/tsm/report".into()
    }

    fn default_sev_guest() -> PathBuf {
        "/dev/sev-guest".into()
    }

    fn default_nsm() -> PathBuf {
        "/dev/nsm".into()
    }

    /// Where the GPUs' evidence comes from. A Nitro enclave has none.
    #[must_use]
    pub fn gpus(&self) -> Option<&GpusConfig> {
        match self {
            Self::SoftwareRoot { gpus, .. }
            | Self::ConfigfsTsm { gpus, .. }
            | Self::SevGuest { gpus, .. } => gpus.as_ref(),
            Self::Nitro { .. } => None,
        }
    }

    /// What vendors sign beside the evidence.
    #[must_use]
    pub fn collateral(&self) -> &CollateralConfig {
        match self {
            Self::SoftwareRoot { collateral, .. }
            | Self::ConfigfsTsm { collateral, .. }
            | Self::SevGuest { collateral, .. }
            | Self::Nitro { collateral, .. } => collateral,
        }
    }

    fn certificates(&self) -> &[PathBuf] {
        match self {
            Self::ConfigfsTsm { certificates, .. } | Self::SevGuest { certificates, .. } => {
                certificates
            }
            Self::SoftwareRoot { .. } | Self::Nitro { .. } => &[],
        }
    }
}

/// Where GPUs' evidence comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum GpusConfig {
    /// Every NVIDIA GPU of the machine, through the driver's management library.
    Nvml {
        /// The library. It is pinned with the rest: what is loaded into the node sees prompts.
        #[serde(default = "GpusConfig::default_library")]
        library: PathBuf,
    },
}

impl GpusConfig {
    fn default_library() -> PathBuf {
        "libnvidia-ml.so.1".into()
    }
}

/// Files with what vendors sign beside the evidence. It is checked by whoever appraises.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollateralConfig {
    /// AMD's certificate revocation lists, DER or PEM, for SEV-SNP.
    pub amd_crls: Vec<PathBuf>,
    /// Intel's collateral for a platform, each the JSON of docs/wire.md, "Collateral", for TDX.
    pub tdx: Vec<PathBuf>,
    /// OCSP responses, DER, for GPUs.
    pub ocsp: Vec<PathBuf>,
    /// Seconds between two readings of the files.
    #[serde(deserialize_with = "CollateralConfig::reread_s")]
    pub reread_s: NonZeroU64,
}

impl CollateralConfig {
    /// Names the key, which the parser no longer knows inside a table with a `source`.
    fn reread_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU64, D::Error> {
        let named = |error: D::Error| de::Error::custom(format_args!("reread_s: {error}"));
        NonZeroU64::deserialize(deserializer).map_err(named)
    }
}

impl Default for CollateralConfig {
    fn default() -> Self {
        Self {
            amd_crls: Vec::new(),
            tdx: Vec::new(),
            ocsp: Vec::new(),
            reread_s: NonZeroU64::MIN.saturating_add(5 * 60 - 1),
        }
    }
}

/// One engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Where it is: `http://127.0.0.1:8000`, or `builtin:echo` for the engine that repeats.
    pub url: EngineUrl,
    /// The models it serves; left out, it is asked.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// File with the bearer token that the engine wants.
    #[serde(skip_serializing, default)]
    pub api_key_file: Option<PathBuf>,
    /// PEM file with the roots for an `https` engine, in place of the public ones.
    #[serde(skip_serializing, default)]
    pub ca_file: Option<PathBuf>,
    /// Members of a request that the engine would ignore without a word: they are refused.
    #[serde(default)]
    pub ignores: Vec<String>,
    /// Most requests in flight to it.
    #[serde(default = "EngineConfig::default_max_in_flight")]
    pub max_in_flight: NonZeroUsize,
}

impl EngineConfig {
    fn default_max_in_flight() -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(2047)
    }
}

/// The address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineUrl {
    /// The echo engine, in the node's own process.
    Echo,
    /// An HTTP server. The path has neither `/v1` nor a slash at its end.
    Http(Uri),
}

/// A text that is no engine's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine's url is `builtin:echo`, or http:// or https:// with a host and no query")]
pub struct InvalidEngineUrl;

impl EngineUrl {
    /// Whether the engine is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let Self::Http(uri) = self else { return true };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for EngineUrl {
    type Err = InvalidEngineUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "builtin:echo" {
            return Ok(Self::Echo);
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let uri: Uri = base.parse().map_err(|_| InvalidEngineUrl)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        if scheme && authority && uri.query().is_none() {
            return Ok(Self::Http(uri));
        }
        Err(InvalidEngineUrl)
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("builtin:echo"),
            Self::Http(uri) => uri.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for EngineUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for EngineUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The sealing keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// Seconds that a key lives; the next one is published when a quarter is left.
    pub life_s: NonZeroU64,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            life_s: NonZeroU64::MIN.saturating_add(24 * 60 * 60 - 1),
        }
    }
}

/// What the node holds at most.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once.
    pub connections: NonZeroUsize,
    /// Sealed requests at once, from their first byte to the last of the reply.
    pub requests: NonZeroUsize,
    /// Bytes of one request's content.
    pub body_bytes: NonZeroU32,
    /// Bytes of all requests that have arrived and not yet reached an engine.
    pub buffered_bytes: NonZeroUsize,
    /// Requests that the replay table remembers, about 100 bytes each; a request is remembered
    /// for about 120 seconds. Without a credential one address may hold a quarter.
    pub replay_entries: NonZeroUsize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        Self {
            connections: one.saturating_add(8 * 1024 - 1),
            requests: one.saturating_add(4 * 1024 - 1),
            body_bytes: NonZeroU32::MIN.saturating_add(16 * 1024 * 1024 - 1),
            buffered_bytes: one.saturating_add(512 * 1024 * 1024 - 1),
            replay_entries: one.saturating_add(2 * 1024 * 1024 - 1),
        }
    }
}

/// How long the node waits at most. There is no total time for a reply.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// For a request head, and on HTTP/1.1 for the next request.
    pub head_ms: Millis,
    /// For the next request on an HTTP/2 connection.
    pub idle_ms: Millis,
    /// For the next bytes of a request's body.
    pub body_idle_ms: Millis,
    /// For a request's whole body.
    pub body_ms: Millis,
    /// For the peer to read what is written.
    pub write_ms: Millis,
    /// For a connection to an engine.
    pub engine_connect_ms: Millis,
    /// For the head of an engine's reply, which comes when a unary reply is whole.
    pub engine_first_byte_ms: Millis,
    /// For the next bytes of an engine's reply.
    pub engine_idle_ms: Millis,
    /// For open requests to end once the node is told to stop.
    pub drain_ms: Millis,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            head_ms: Millis::from_secs(30),
            idle_ms: Millis::from_secs(90),
            body_idle_ms: Millis::from_secs(15),
            body_ms: Millis::from_secs(300),
            write_ms: Millis::from_secs(60),
            engine_connect_ms: Millis::from_secs(5),
            engine_first_byte_ms: Millis::from_secs(600),
            engine_idle_ms: Millis::from_secs(120),
            drain_ms: Millis::from_secs(600),
        }
    }
}

/// A time to wait, in milliseconds; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Millis(NonZeroU64);

impl Millis {
    /// So many seconds; at least a millisecond.
    const fn from_secs(seconds: u64) -> Self {
        match NonZeroU64::new(seconds.saturating_mul(1000)) {
            Some(millis) => Self(millis),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The time to wait.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const MINIMAL: &str = "node_id = \"n\"\n\
        [evidence]\nsource = \"software-root\"\ndir = \"software-root\"\n\
        [[engine]]\nurl = \"http://127.0.0.1:8000/v1/\"\n";

    fn load(text: &str) -> Result<NodeConfig, String> {
        let loaded = super::super::parse(Path::new("node.toml"), text, std::iter::empty())
            .map_err(|e| e.to_string())?;
        check(&loaded).map_err(|e| e.to_string())?;
        Ok(loaded.value)
    }

    #[test]
    fn the_least_configuration_has_defaults_for_the_rest() {
        let config = load(MINIMAL).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8090");
        assert_eq!(config.keys.life_s.get(), 86_400);
        assert_eq!(config.limits.body_bytes.get(), 16 << 20);
        assert_eq!(
            config.timeouts.engine_idle_ms.duration(),
            Duration::from_secs(120)
        );
        assert_eq!(config.engines[0].url.to_string(), "http://127.0.0.1:8000/");
        assert!(config.engines_are_local());
    }

    /// The least configuration with another source.
    fn source(lines: &str) -> String {
        MINIMAL.replace("source = \"software-root\"\ndir = \"software-root\"", lines)
    }

    #[test]
    fn every_source_has_defaults() {
        let evidence = |lines: &str| load(&source(lines)).unwrap().evidence;
        let EvidenceConfig::ConfigfsTsm { root, .. } = evidence("source = \"configfs-tsm\"") else {
            panic!("another source")
        };
        assert_eq!(root, PathBuf::from("/sys/kernel/config/tsm/report"));
        let EvidenceConfig::SevGuest { device, .. } = evidence("source = \"sev-guest\"") else {
            panic!("another source")
        };
        assert_eq!(device, PathBuf::from("/dev/sev-guest"));
        let nitro = evidence("source = \"nitro\"");
        let EvidenceConfig::Nitro { device, .. } = &nitro else {
            panic!("another source")
        };
        assert_eq!(*device, PathBuf::from("/dev/nsm"));
        assert_eq!(nitro.collateral().reread_s.get(), 300);
        assert!(nitro.gpus().is_none());
        let gpus = evidence("source = \"sev-guest\"\ngpus = { source = \"nvml\" }");
        let Some(GpusConfig::Nvml { library }) = gpus.gpus() else {
            panic!("no GPUs")
        };
        assert_eq!(*library, PathBuf::from("libnvidia-ml.so.1"));
        let most = format!("certificates = [{}]", "\"x\", ".repeat(8));
        evidence(&format!("source = \"configfs-tsm\"\n{most}"));
    }

    #[test]
    fn of_the_evidence_its_kind_is_pinned_and_no_path() {
        let pinned = |lines: &str| {
            serde_json::to_value(load(&source(lines)).unwrap()).unwrap()["evidence"].clone()
        };
        for (lines, expected) in [
            (
                "source = \"software-root\"\ndir = \"x\"",
                r#"{"source":"software-root"}"#,
            ),
            (
                "source = \"configfs-tsm\"\nroot = \"/x\"\nprivlevel = 1\n\
                 certificates = [\"x\"]\n[evidence.collateral]\ntdx = [\"x\"]",
                r#"{"source":"configfs-tsm"}"#,
            ),
            (
                "source = \"sev-guest\"\ndevice = \"/x\"",
                r#"{"source":"sev-guest"}"#,
            ),
            (
                "source = \"nitro\"\ndevice = \"/x\"",
                r#"{"source":"nitro"}"#,
            ),
            (
                "source = \"sev-guest\"\ngpus = { source = \"nvml\" }",
                r#"{"gpus":{"library":"libnvidia-ml.so.1","source":"nvml"},"source":"sev-guest"}"#,
            ),
        ] {
            let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
            assert_eq!(pinned(lines), expected, "{lines}");
        }
    }

    #[test]
    fn a_wrong_configuration_names_the_key() {
        let engine = |url: &str| MINIMAL.replace("http://127.0.0.1:8000/v1/", url);
        let with = |line: &str| format!("{line}\n{MINIMAL}");
        let after = |lines: &str| format!("{MINIMAL}{lines}\n");
        let cases = [
            ("an unknown key", with("nodeid = 1"), "nodeid"),
            (
                "an upper-case id",
                MINIMAL.replace("\"n\"", "\"N\""),
                "node id",
            ),
            (
                "a remote engine",
                engine("http://10.0.0.1:8000"),
                "allow_remote_engine",
            ),
            ("no scheme", engine("127.0.0.1:8000"), "engine's url"),
            (
                "user information",
                engine("http://a:b@127.0.0.1:1"),
                "engine's url",
            ),
            ("a query", engine("http://127.0.0.1:1/?a"), "engine's url"),
            ("an unknown engine", engine("builtin:other"), "engine's url"),
            (
                "an unknown source",
                MINIMAL.replace("software-root\"\ndir", "none\"\ndir"),
                "none",
            ),
            (
                "an unknown key of a source",
                MINIMAL.replace("dir =", "di ="),
                "di",
            ),
            (
                "a path of another source",
                source("source = \"nitro\"\nroot = \"/x\""),
                "root",
            ),
            (
                "GPUs of an enclave",
                source("source = \"nitro\"\ngpus = { source = \"nvml\" }"),
                "gpus",
            ),
            (
                "an unknown kind of GPU",
                source("source = \"configfs-tsm\"\ngpus = { source = \"other\" }"),
                "other",
            ),
            (
                "an unknown kind of collateral",
                source("source = \"nitro\"\n[evidence.collateral]\ncrl = []"),
                "crl",
            ),
            (
                "files that are never read again",
                source("source = \"nitro\"\n[evidence.collateral]\nreread_s = 0"),
                "reread_s",
            ),
            (
                "more collateral than an answer holds",
                source(&format!(
                    "source = \"nitro\"\n[evidence.collateral]\nocsp = [{}]",
                    "\"x\", ".repeat(17)
                )),
                "evidence.collateral.ocsp",
            ),
            (
                "many certificates",
                source(&format!(
                    "source = \"sev-guest\"\ncertificates = [{}]",
                    "\"x\", ".repeat(9)
                )),
                "evidence.certificates",
            ),
            (
                "a zero timeout",
                after("[timeouts]\nbody_ms = 0"),
                "body_ms",
            ),
            ("a zero limit", after("[limits]\nrequests = 0"), "requests"),
            (
                "a key that lives too long",
                after("[keys]\nlife_s = 604801"),
                "life_s",
            ),
            (
                "a model with a blank",
                after("models = [\"a b\"]"),
                "engine.models",
            ),
            (
                "a short digest",
                with("credential_sha256 = \"00\""),
                "SHA-256",
            ),
        ];
        for (name, text, named) in cases {
            let error = load(&text).expect_err(name);
            assert!(error.contains(named), "{name}: {error}");
        }
    }

    #[test]
    fn addresses_are_local_only_on_loopback() {
        let cases = [
            ("builtin:echo", true),
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("https://[::1]:1", true),
            ("http://localhost.example", false),
            ("http://0.0.0.0:1", false),
            ("http://[::ffff:7f00:1]:1", false),
        ];
        for (text, local) in cases {
            assert_eq!(
                text.parse::<EngineUrl>().unwrap().is_local(),
                local,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_pinned_names_no_replica_and_no_secret() {
        let mut config = load(MINIMAL).unwrap();
        let pinned = serde_json::to_string(&config).unwrap();
        config.node_id = NodeId("other".to_owned());
        config.credential_sha256 = Some(CredentialDigest::of(b"token"));
        config.engines[0].api_key_file = Some("/run/key".into());
        assert_eq!(serde_json::to_string(&config).unwrap(), pinned);
        config.engines[0].url = EngineUrl::Echo;
        assert_ne!(serde_json::to_string(&config).unwrap(), pinned);
    }
}
