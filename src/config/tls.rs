//! `[tls]` and `[admin.tls]`: what a listener shows of itself, and whether callers must show
//! certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Loaded};

/// `[tls]` of a gateway, and `[admin.tls]` of either role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate, and after it those of its issuers.
    pub certificate_file: PathBuf,
    /// PEM file with the certificate's key.
    pub key_file: PathBuf,
    /// PEM file with the roots that callers' certificates must hang from; left out, none is asked for.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a caller must have one; left out, he must.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// `[tls]` of a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTlsConfig {
    /// PEM file with the certificate, and after it those of its issuers; left out, the node makes a
    /// key of its own at start, which its evidence vouches for.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// PEM file with the roots that gateways' certificates must hang from; left out, none is asked for.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a gateway must have one; left out, it must.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// Whether who connects must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// No connection without one.
    #[default]
    Required,
    /// One that is shown must hold; none will do.
    Optional,
}

/// The files of a listener's TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The table of the configuration that names them.
    pub table: &'static str,
    /// Certificate and key; `None` has a key made at start.
    pub pair: Option<PairFiles>,
    /// Whose certificates callers must have.
    pub clients: Option<ClientFiles>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct PairFiles {
    /// The certificate with its issuers.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What callers' certificates are held against.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// The roots.
    pub ca: PathBuf,
    /// Whether one must be shown.
    pub auth: ClientAuth,
}

/// The table for whoever connects to do what the role is for.
const PUBLIC: &str = "tls";
/// The one for whoever operates it.
const ADMIN: &str = "admin.tls";

/// The files that a gateway's `[tls]` names.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key that breaks a rule.
pub fn of_gateway<T>(config: &Loaded<T>, tls: &TlsConfig) -> Result<TlsFiles, ConfigError> {
    of(config, PUBLIC, tls)
}

/// The files that `[admin.tls]` of either role names.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key that breaks a rule.
pub fn of_admin<T>(config: &Loaded<T>, tls: &TlsConfig) -> Result<TlsFiles, ConfigError> {
    of(config, ADMIN, tls)
}

fn of<T>(
    config: &Loaded<T>,
    table: &'static str,
    tls: &TlsConfig,
) -> Result<TlsFiles, ConfigError> {
    Ok(TlsFiles {
        table,
        pair: Some(PairFiles {
            certificate: config.resolve(&tls.certificate_file),
            key: config.resolve(&tls.key_file),
        }),
        clients: clients(config, table, tls.client_ca_file.as_ref(), tls.client_auth)?,
    })
}

/// The files that a node's `[tls]` names.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key that breaks a rule.
pub fn of_node<T>(config: &Loaded<T>, tls: &NodeTlsConfig) -> Result<TlsFiles, ConfigError> {
    let pair = match (&tls.certificate_file, &tls.key_file) {
        (Some(certificate), Some(key)) => Some(PairFiles {
            certificate: config.resolve(certificate),
            key: config.resolve(key),
        }),
        (None, None) => None,
        (Some(_), None) => return Err(config.invalid("tls.key_file", PAIR)),
        (None, Some(_)) => return Err(config.invalid("tls.certificate_file", PAIR)),
    };
    Ok(TlsFiles {
        table: PUBLIC,
        pair,
        clients: clients(config, PUBLIC, tls.client_ca_file.as_ref(), tls.client_auth)?,
    })
}

const PAIR: &str = "give certificate_file and key_file, or neither";

fn clients<T>(
    config: &Loaded<T>,
    table: &str,
    ca: Option<&PathBuf>,
    auth: Option<ClientAuth>,
) -> Result<Option<ClientFiles>, ConfigError> {
    match (ca, auth) {
        (Some(ca), auth) => Ok(Some(ClientFiles {
            ca: config.resolve(ca),
            auth: auth.unwrap_or_default(),
        })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let message = "certificates of callers are held against the roots in client_ca_file";
            Err(config.invalid(&format!("{table}.client_ca_file"), message))
        }
    }
}
