//! `dcap-qvl` on aws-lc-rs: its verification steps, with the cryptography of everything else here.

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::x509::X509CertBackend;
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy, intel};
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

use crate::digest::sha256;

/// Verifies that collateral and quote hold together up to `root`, at `now` in seconds since the
/// Unix epoch. What comes of it is not judged.
pub(crate) fn verify(
    quote: &[u8],
    collateral: QuoteCollateralV3,
    root: &[u8],
    now: u64,
) -> Result<QuoteClaims, String> {
    let verifier = QuoteVerifier::<AwsLc>::new_with_config(root.to_vec());
    let judge_nothing = QuotePolicy::claims_only(now);
    verifier
        .verify_with_policy(quote, collateral, now, &judge_nothing)
        .map_err(|error| format!("{error:#}"))
}

/// The platform's family, as a PCK certificate's extension tells it.
pub(crate) fn fmspc(pck_certificate: &[u8]) -> Result<[u8; 6], String> {
    intel::parse_pck_extension_with::<AwsLc>(pck_certificate)
        .map(|extension| extension.fmspc)
        .map_err(|error| format!("{error:#}"))
}

struct AwsLc;

impl Config for AwsLc {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for AwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &EcdsaP256Sha256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        sha256(&[data])
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        let mut out = [0; 48];
        out.copy_from_slice(digest(&SHA384, data).as_ref());
        out
    }
}

#[derive(Debug)]
struct EcdsaP256Sha256;

impl SignatureVerificationAlgorithm for EcdsaP256Sha256 {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of nothing (FIPS 180-4).
    #[test]
    fn digests_are_the_standards() {
        let sha256 = hex::encode(AwsLc::sha256(b""));
        assert!(sha256.starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
        let sha384 = hex::encode(AwsLc::sha384(b""));
        assert!(sha384.starts_with("38b060a751ac96384cd9327eb1b1e36a"));
    }
}
