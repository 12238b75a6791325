//! TLS on a listener: TLS 1.2 and 1.3 over aws-lc-rs, HTTP/2 and HTTP/1.1, certificates of callers
//! where they are asked for.
//!
//! What is in force is one immutable configuration that is replaced as a whole (`keep`). No part of a
//! key reaches a log or an error.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::{self, sign::any_supported_type},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
        pem::{self, PemObject as _},
    },
    server::{
        NoClientAuth, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use x509_cert::{Certificate, der::Decode as _};
use zeroize::Zeroize as _;

use crate::config::{
    self, ConfigError, Loaded,
    tls::{ClientAuth, ClientFiles, PairFiles, TlsFiles},
};

mod keep;

pub(crate) use self::keep::Keeper;

/// What is spoken over TLS, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// A file holds no certificates, or none that can be read.
    #[error("{}: no PEM certificates: {source}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file holds no key of a kind that is known.
    #[error("{}: no PEM key that can be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("the key is not the certificate's")]
    Mismatch,
    /// The roots for callers cannot be used.
    #[error("{}: {source}", path.display())]
    Clients {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// No key can be made.
    #[error("no key can be made: {0}")]
    Generate(#[from] rcgen::Error),
    /// The library takes no such configuration.
    #[error("the TLS library: {0}")]
    Library(#[from] Error),
}

/// TLS as a listener serves it, whatever is in force.
#[derive(Clone, Debug)]
pub struct Tls(watch::Receiver<Arc<ServerConfig>>);

impl Tls {
    /// What takes a connection under the configuration that is in force now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}

/// What files hold, ready to serve.
#[derive(Debug)]
struct Ready {
    config: Arc<ServerConfig>,
    /// SHA-256 of the certificate's `SubjectPublicKeyInfo`.
    spki_sha256: [u8; 32],
    /// When the certificate begins and ends; `None` if it does not say so in a form that is known.
    life: Option<(Duration, Duration)>,
}

impl Ready {
    /// What has to be said of a certificate that callers will refuse, or soon.
    fn warning(&self, now: SystemTime) -> Option<&'static str> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (begins, ends) = self.life?;
        if now > ends {
            Some("the certificate has ended: callers refuse it")
        } else if now < begins {
            Some("the certificate is not valid yet: callers refuse it")
        } else if ends.saturating_sub(now) < SOON {
            Some("the certificate ends within a week")
        } else {
            None
        }
    }
}

const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Certificate and key, in memory.
#[derive(Clone, Debug)]
struct Pair(Arc<CertifiedKey>);

impl Pair {
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    fn read(files: &PairFiles) -> Result<Self, TlsError> {
        let chain = certificates(&files.certificate)?;
        let text = config::read_secret(&files.key)?;
        let unusable = || TlsError::Key {
            path: files.key.clone(),
        };
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| unusable())?;
        Self::new(chain, key)?.ok_or_else(unusable)
    }

    /// A key of this process alone, in a certificate that it signed itself: evidence vouches for it.
    ///
    /// # Errors
    /// [`TlsError::Generate`] if there is no randomness.
    fn generate(name: &str) -> Result<Self, TlsError> {
        let mut key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])?.self_signed(&key);
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        key.zeroize();
        let pair = Self::new(vec![certificate?.der().clone()], der.into())?;
        pair.ok_or(TlsError::Mismatch)
    }

    /// `None` if the key is of no kind that is known.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        mut key: PrivateKeyDer<'static>,
    ) -> Result<Option<Self>, TlsError> {
        let signing = any_supported_type(&key);
        key.zeroize();
        let Ok(signing) = signing else {
            return Ok(None);
        };
        let pair = CertifiedKey::new(chain, signing);
        match pair.keys_match() {
            Ok(()) => Ok(Some(Self(Arc::new(pair)))),
            Err(Error::InconsistentKeys(_)) => Err(TlsError::Mismatch),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts this certificate, and what is asked of callers, into one configuration.
    fn serve(&self, clients: Option<&ClientFiles>) -> Result<Ready, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match clients {
            Some(clients) => verifier(clients, &provider)?,
            None => Arc::new(NoClientAuth),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.0))));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        let certificate = self.0.end_entity_cert()?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Ready {
            config: Arc::new(config),
            spki_sha256: Sha256::digest(parsed.subject_public_key_info().as_ref()).into(),
            life: life(certificate),
        })
    }
}

/// Where certificate and key come from.
#[derive(Clone, Debug)]
enum Source {
    Files(PairFiles),
    /// Made at start, and the same for as long as the process runs.
    Made(Pair),
}

impl Source {
    fn new(files: Option<&PairFiles>, name: &str) -> Result<Self, TlsError> {
        Ok(match files {
            Some(files) => Self::Files(files.clone()),
            None => Self::Made(Pair::generate(name)?),
        })
    }

    fn serve(&self, clients: Option<&ClientFiles>) -> Result<Ready, TlsError> {
        match self {
            Self::Files(files) => Pair::read(files)?.serve(clients),
            Self::Made(pair) => pair.serve(clients),
        }
    }
}

/// What has to be known of a certificate in files that can be used.
pub(crate) fn warning(files: &TlsFiles, now: SystemTime) -> Option<String> {
    let pair = Pair::read(files.pair.as_ref()?).ok()?;
    let warning = pair.serve(files.clients.as_ref()).ok()?.warning(now)?;
    Some(format!("{}.certificate_file: {warning}", files.table))
}

/// An error of TLS as one of the configuration's keys.
pub(crate) fn named<T>(config: &Loaded<T>, files: &TlsFiles, error: &TlsError) -> ConfigError {
    let pair = files.pair.as_ref();
    let member = match error {
        TlsError::Read(
            ConfigError::Read { path, .. }
            | ConfigError::TooLong { path }
            | ConfigError::Parse { path, .. },
        )
        | TlsError::Certificates { path, .. }
        | TlsError::Clients { path, .. } => match pair {
            Some(pair) if *path == pair.certificate => ".certificate_file",
            Some(pair) if *path == pair.key => ".key_file",
            _ => ".client_ca_file",
        },
        TlsError::Key { .. } | TlsError::Mismatch => ".key_file",
        TlsError::Read(_) | TlsError::Generate(_) | TlsError::Library(_) => "",
    };
    config.invalid(&format!("{}{member}", files.table), error.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = config::read_text(path)?;
    let unusable = |source| TlsError::Certificates {
        path: path.to_owned(),
        source,
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(unusable(pem::Error::NoItemsFound)),
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(error)),
    }
}

fn verifier(
    clients: &ClientFiles,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&clients.ca)? {
        roots.add(root)?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match clients.auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|source| TlsError::Clients {
        path: clients.ca.clone(),
        source,
    })
}

fn life(certificate: &CertificateDer<'_>) -> Option<(Duration, Duration)> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some((
        validity.not_before.to_unix_duration(),
        validity.not_after.to_unix_duration(),
    ))
}

#[cfg(test)]
mod tests;
