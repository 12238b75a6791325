//! Whom a TLS connection to a node, or to a gateway that leads to it, must end at.
//!
//! What is sent is sealed to an attested key anyway, so TLS here hides metadata and, where the
//! evidence binds a certificate, proves who sent an error that stands outside the seal.

use std::{path::Path, sync::Arc};

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    server::ParsedCertificate,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The provider of cryptography takes no such configuration.
    #[error("the TLS provider: {0}")]
    Provider(#[from] Error),
    /// A text that holds no certificates.
    #[error("no PEM certificates: {0}")]
    Pem(pem::Error),
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

/// For connections that carry only a nonce and evidence, which proves itself.
pub(crate) fn to_anybody() -> Result<ClientConfig, TlsError> {
    with_rule(Rule::Anybody)
}

/// For connections that must end at the certificate that the evidence names.
pub(crate) fn to_key(spki_sha256: [u8; 32]) -> Result<ClientConfig, TlsError> {
    with_rule(Rule::Key(spki_sha256))
}

/// For connections to whoever the roots vouch for.
pub(crate) fn to_name(roots: &Roots) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(match roots {
        Roots::Public => builder.with_webpki_roots(),
        Roots::Own(roots) => builder.with_root_certificates(Arc::clone(roots)),
    }
    .with_no_client_auth())
}

fn with_rule(rule: Rule) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        rule,
        provider: Arc::clone(&provider),
    });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
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
