//! What evidence is accepted: the appraisal policy, read from TOML (`docs/policy.md`).
//!
//! Strict: an unknown key is an error, a list of allowed values that is empty allows nothing, and
//! nothing is trusted that is not named.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::certificate::CertificateError;
use crate::digest::{from_hex, sha256};
use crate::nitro::{self, NitroPolicy};
use crate::nvidia::{self, ARCHITECTURES, NvidiaPolicy};
use crate::padding::Padding;
use crate::sev_snp::{self, Product, SnpPolicy};
use crate::statement::{Dialect, Suite};
use crate::tdx::{self, TdxPolicy};
use crate::toml_error::TomlError;

/// Longest policy, in bytes.
pub const MAX_POLICY: usize = 1024 * 1024;
/// Most signers of bundles.
const MAX_BUNDLE_SIGNERS: usize = 16;
/// Longest that an appraisal may hold, in seconds: a week, as for keys.
pub const MAX_APPRAISAL_AGE_S: u64 = 7 * 24 * 60 * 60;

const VERSION: u64 = 1;
/// The tables of a policy.
const TABLES: [&str; 4] = ["sev_snp", "tdx", "nitro", "nvidia"];

/// An appraisal policy, complete.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) appraisal_max_age: Duration,
    pub(crate) allow_remote_engine: bool,
    pub(crate) allow_attested_engine: bool,
    pub(crate) required_suites: Vec<Suite>,
    pub(crate) require_pq: bool,
    pub(crate) least_padding: Padding,
    pub(crate) forbidden_dialects: Vec<Dialect>,
    pub(crate) config_sha256: Option<Vec<[u8; 32]>>,
    bundle_signers: Vec<[u8; 32]>,
    pub(crate) sev_snp: Option<SnpPolicy>,
    pub(crate) tdx: Option<TdxPolicy>,
    pub(crate) nitro: Option<NitroPolicy>,
    pub(crate) nvidia: Option<NvidiaPolicy>,
    digest: [u8; 32],
}

/// Why a policy is not used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`MAX_POLICY`].
    #[error("policy of {len} bytes exceeds the limit of {MAX_POLICY}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the TOML that a policy is.
    #[error("{0}")]
    Toml(TomlError),
    /// A table or key that no policy has.
    #[error("`{0}` is no key of a policy: its tables are sev_snp, tdx, nitro and nvidia")]
    UnknownKey(String),
    /// A chip that is not known.
    #[error("`nvidia.{key}` names `{name}`, which is none of {}", ARCHITECTURES.join(", "))]
    Architecture {
        /// The key.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// Another version than 1.
    #[error("policy version {0} is unknown")]
    Version(u64),
    /// A number or list outside its range.
    #[error("`{key}` is not {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it must be.
        range: &'static str,
    },
    /// Neither AMD's roots nor a software root.
    #[error("`sev_snp` trusts no root: set `amd_roots = true` or name `software_roots`")]
    NoRoot,
    /// Neither AWS's root nor a software root.
    #[error("`nitro` trusts no root: set `aws_root = true` or name `software_roots`")]
    NoAwsRoot,
    /// A product without a minimum TCB.
    #[error("`sev_snp.products` lists {0} but `sev_snp.minimum_tcb.{0}` is missing")]
    NoMinimumTcb(Product),
    /// A minimum with `fmc` where there is none, or without where there is.
    #[error("`sev_snp.minimum_tcb.{0}`: turin has `fmc`, the others have not")]
    Fmc(Product),
    /// A file that cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The path as written.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that holds no root.
    #[error("`{path}` holds no root certificate: {source}")]
    RootCertificate {
        /// The path as written.
        path: String,
        /// What was wrong.
        source: CertificateError,
    },
    /// Neither Intel's root nor a software root.
    #[error("`tdx` trusts no root: set `intel_root = true` or name `software_roots`")]
    NoIntelRoot,
    /// Intel's root, named as a software root.
    #[error("`{path}` is Intel's own root: use `intel_root = true`")]
    IntelAsSoftware {
        /// The path as written.
        path: String,
    },
    /// One of AMD's roots, named as a software root.
    #[error("`{path}` is AMD's own root: use `amd_roots = true`")]
    AmdAsSoftware {
        /// The path as written.
        path: String,
    },
    /// Neither NVIDIA's root nor a software root.
    #[error("`nvidia` trusts no root: set `nvidia_root = true` or name `software_roots`")]
    NoNvidiaRoot,
    /// NVIDIA's root, named as a software root.
    #[error("`{path}` is NVIDIA's own root: use `nvidia_root = true`")]
    NvidiaAsSoftware {
        /// The path as written.
        path: String,
    },
    /// AWS's root, named as a software root.
    #[error("`{path}` is AWS's own root: use `aws_root = true`")]
    AwsAsSoftware {
        /// The path as written.
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    #[serde(default = "File::default_appraisal_max_age_s")]
    appraisal_max_age_s: u64,
    #[serde(default)]
    allow_remote_engine: bool,
    #[serde(default)]
    allow_attested_engine: bool,
    #[serde(default)]
    required_suites: Vec<Suite>,
    #[serde(default)]
    require_pq: bool,
    #[serde(default = "File::default_least_padding")]
    least_padding: Padding,
    #[serde(default)]
    forbid_dialects: Vec<Dialect>,
    config_sha256: Option<Vec<Hex<32>>>,
    #[serde(default)]
    bundle_signers: Vec<Hex<32>>,
    sev_snp: Option<sev_snp::Section>,
    tdx: Option<tdx::Section>,
    nitro: Option<nitro::Section>,
    nvidia: Option<nvidia::Section>,
}

impl File {
    /// Where a key at the top is unknown too, that is what is wrong: a misspelt table lacks nothing.
    fn parse(text: &str) -> Result<Self, PolicyError> {
        toml::from_str(text).map_err(|error| {
            let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
            let unknown = table.iter().find(|(key, value)| {
                let is_known = TABLES.contains(&key.as_str());
                value.is_table() && !is_known
            });
            match unknown {
                Some((key, _)) => PolicyError::UnknownKey(key.clone()),
                None => PolicyError::Toml(TomlError::of(text, &error)),
            }
        })
    }

    /// An hour.
    fn default_appraisal_max_age_s() -> u64 {
        60 * 60
    }

    fn default_least_padding() -> Padding {
        Padding::Off
    }
}

impl Policy {
    /// Reads a policy. Files that it names are asked of `read_file`, with their paths as written.
    ///
    /// # Errors
    /// If the text is no policy, trusts no root, or names a file that holds none.
    pub fn from_toml(
        text: &str,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError::TooLong { len: text.len() });
        }
        let file = File::parse(text)?;
        if file.version != VERSION {
            return Err(PolicyError::Version(file.version));
        }
        if !(1..=MAX_APPRAISAL_AGE_S).contains(&file.appraisal_max_age_s) {
            return Err(PolicyError::OutOfRange {
                key: "appraisal_max_age_s",
                range: "1 to 604800",
            });
        }
        if file.bundle_signers.len() > MAX_BUNDLE_SIGNERS {
            return Err(PolicyError::OutOfRange {
                key: "bundle_signers",
                range: "a list of at most 16 keys",
            });
        }
        let mut digests = vec![sha256(&[text.as_bytes()])];
        let sev_snp = file
            .sev_snp
            .map(|it| it.load(read_file, &mut digests))
            .transpose()?;
        let tdx = file
            .tdx
            .map(|it| it.load(read_file, &mut digests))
            .transpose()?;
        let nitro = file
            .nitro
            .map(|it| it.load(read_file, &mut digests))
            .transpose()?;
        let nvidia = file
            .nvidia
            .map(|it| it.load(read_file, &mut digests))
            .transpose()?;
        Ok(Self {
            appraisal_max_age: Duration::from_secs(file.appraisal_max_age_s),
            allow_remote_engine: file.allow_remote_engine,
            allow_attested_engine: file.allow_attested_engine,
            required_suites: required_suites(file.required_suites, file.require_pq),
            require_pq: file.require_pq,
            least_padding: file.least_padding,
            forbidden_dialects: forbidden_dialects(file.forbid_dialects, file.require_pq),
            config_sha256: file.config_sha256.map(Hex::unwrap_all),
            bundle_signers: Hex::unwrap_all(file.bundle_signers),
            sev_snp,
            tdx,
            nitro,
            nvidia,
            digest: sha256(&[digests.as_flattened()]),
        })
    }

    /// How long an appraisal under this policy holds at most.
    pub fn appraisal_max_age(&self) -> Duration {
        self.appraisal_max_age
    }

    /// The Ed25519 keys whose bundles are believed; none believes no bundle.
    pub fn bundle_signers(&self) -> &[[u8; 32]] {
        &self.bundle_signers
    }

    /// Whether a node may send prompts to an engine outside its machine.
    pub fn allows_remote_engine(&self) -> bool {
        self.allow_remote_engine
    }

    /// Whether it may be a gateway, which hands prompts to nodes that it verified itself.
    pub fn allows_attested_engine(&self) -> bool {
        self.allow_attested_engine
    }

    /// Whether `config_sha256` says which configurations are accepted.
    pub fn pins_configuration(&self) -> bool {
        self.config_sha256.is_some()
    }

    /// Whether nothing is sealed to a node but under a suite that is post-quantum.
    pub fn requires_pq(&self) -> bool {
        self.require_pq
    }

    /// The padding that no exchange with a node goes under.
    pub fn least_padding(&self) -> Padding {
        self.least_padding
    }

    /// Whether it forbids to give out keys of `dialect`.
    pub fn forbids(&self, dialect: Dialect) -> bool {
        self.forbidden_dialects.contains(&dialect)
    }

    /// What it asks of SEV-SNP evidence; `None` refuses all of it.
    pub fn sev_snp(&self) -> Option<&SnpPolicy> {
        self.sev_snp.as_ref()
    }

    /// What it asks of TDX evidence; `None` refuses all of it.
    pub fn tdx(&self) -> Option<&TdxPolicy> {
        self.tdx.as_ref()
    }

    /// What it asks of Nitro evidence; `None` refuses all of it.
    pub fn nitro(&self) -> Option<&NitroPolicy> {
        self.nitro.as_ref()
    }

    /// What it asks of NVIDIA devices' evidence; `None` refuses all of it.
    pub fn nvidia(&self) -> Option<&NvidiaPolicy> {
        self.nvidia.as_ref()
    }

    /// Tells this policy from any other: SHA-256 over the digests of its text and of each file that
    /// it names.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Without a key of X-Wing there is nothing that a policy with `require_pq` seals to.
fn required_suites(mut listed: Vec<Suite>, require_pq: bool) -> Vec<Suite> {
    if require_pq && !listed.contains(&Suite::XWing) {
        listed.push(Suite::XWing);
    }
    listed
}

/// No dialect has a suite that is post-quantum.
fn forbidden_dialects(listed: Vec<Dialect>, require_pq: bool) -> Vec<Dialect> {
    if require_pq {
        Dialect::ALL.to_vec()
    } else {
        listed
    }
}

/// `N` bytes, written as lower-case hex.
pub(crate) struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    pub(crate) fn into_inner(self) -> [u8; N] {
        self.0
    }

    pub(crate) fn unwrap_all(list: Vec<Self>) -> Vec<[u8; N]> {
        list.into_iter().map(|hex| hex.0).collect()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text)
            .map(Self)
            .map_err(|error| match from_hex::<N>(&text.to_ascii_lowercase()) {
                Ok(_) => D::Error::custom(format_args!("{error}: write it in lower case")),
                Err(_) => D::Error::custom(error),
            })
    }
}
