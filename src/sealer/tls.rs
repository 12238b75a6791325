//! Whom a TLS connection to a node, or to a gateway that leads to it, must end at.
//!
//! What is sent is sealed to an attested key anyway, so TLS here hides metadata and, where the
//! evidence binds a certificate, proves who sent an error that stands outside the seal.

use std::{io, path::Path, sync::Arc};

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, sign::any_supported_type},
        verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The provider of cryptography takes no such configuration.
    #[error("the TLS provider: {0}")]
    Provider(#[from] Error),
    /// A text that holds no certificates.
    #[error("no PEM certificates: {0}")]
    Pem(pem::Error),
    /// A text that holds no key, or another certificate's.
    #[error("no PEM key of the certificate's")]
    Key,
    /// A host that no certificate can be of.
    #[error("the host is no name that a certificate could have")]
    Name,
}

/// The roots that vouch for a node whose evidence binds no certificate.
#[derive(Clone, Debug)]
pub(crate) enum Roots {
    Public,
    Own(Arc<RootCertStore>),
}

impl Roots {
    pub(crate) fn from_pem_file(file: &Path) -> Result<Self, TlsError> {
        Self::from_certificates(CertificateDer::pem_file_iter(file).map_err(TlsError::Pem)?)
    }

    pub(crate) fn from_pem(text: &[u8]) -> Result<Self, TlsError> {
        Self::from_certificates(CertificateDer::pem_slice_iter(text))
    }

    fn from_certificates(
        certificates: impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.map_err(TlsError::Pem)?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Pem(pem::Error::NoItemsFound));
        }
        Ok(Self::Own(Arc::new(roots)))
    }
}

/// The certificate that this side shows where it is asked for one.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Arc<SingleCertAndKey>);

impl Shown {
    /// # Errors
    /// [`TlsError`] if the texts hold no certificate, or not its key.
    pub(crate) fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(TlsError::Pem)?;
        if chain.is_empty() {
            return Err(TlsError::Pem(pem::Error::NoItemsFound));
        }
        let mut key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        let signing = any_supported_type(&key);
        key.zeroize();
        let pair = CertifiedKey::new(chain, signing.map_err(|_| TlsError::Key)?);
        pair.keys_match().map_err(|_| TlsError::Key)?;
        Ok(Self(Arc::new(pair.into())))
    }
}

/// For connections that carry only a nonce and evidence, which proves itself.
pub(crate) fn to_anybody(shown: Option<&Shown>) -> Result<ClientConfig, TlsError> {
    with_rule(Rule::Anybody, shown)
}

/// For connections that must end at the certificate that the evidence names.
pub(crate) fn to_key(
    spki_sha256: [u8; 32],
    shown: Option<&Shown>,
) -> Result<ClientConfig, TlsError> {
    with_rule(Rule::Key(spki_sha256), shown)
}

/// For connections to whoever the roots vouch for.
pub(crate) fn to_name(roots: &Roots, shown: Option<&Shown>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Roots::Public => builder.with_webpki_roots(),
        Roots::Own(roots) => builder.with_root_certificates(Arc::clone(roots)),
    };
    Ok(showing(builder, shown))
}

fn showing(
    builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    shown: Option<&Shown>,
) -> ClientConfig {
    match shown {
        Some(Shown(shown)) => builder.with_client_cert_resolver(Arc::clone(shown) as _),
        None => builder.with_no_client_auth(),
    }
}

/// Whether a connection was not made because it ended at another certificate than the one that the
/// evidence names.
pub(super) fn is_other_key(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Error::InvalidCertificate(why)) = error.downcast_ref() {
            return *why == CertificateError::ApplicationVerificationFailure;
        }
        // An `io::Error` passes over what it holds when it is asked for its source.
        let held = error.downcast_ref().and_then(io::Error::get_ref);
        let held = held.map(|held| held as &(dyn std::error::Error + 'static));
        next = held.or_else(|| error.source());
    }
    false
}

fn with_rule(rule: Rule, shown: Option<&Shown>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        rule,
        provider: Arc::clone(&provider),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(showing(builder, shown))
}

#[derive(Debug)]
enum Rule {
    Anybody,
    Key([u8; 32]),
}

/// Checks a certificate's key, not its chain; the handshake's signature always.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Rule::Key(expected) = &self.rule else {
            return Ok(ServerCertVerified::assertion());
        };
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let seen: [u8; 32] = Sha256::digest(spki.as_ref()).into();
        if bool::from(seen.ct_eq(expected)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
