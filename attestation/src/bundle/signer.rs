//! The operator's key that signs bundles.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// An Ed25519 key that signs bundles.
pub struct BundleKey(Ed25519KeyPair);

/// Why there is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BundleKeyError {
    /// The system gave no random bytes.
    #[error("no key could be made")]
    Generate,
    /// Another form or another kind of key.
    #[error("not an Ed25519 private key in PKCS #8 PEM")]
    Form,
}

impl BundleKey {
    /// Makes a key, and its only copy as text: PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`BundleKeyError::Generate`] if there are no random bytes.
    pub fn generate() -> Result<(Self, Zeroizing<String>), BundleKeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| BundleKeyError::Generate)?;
        // Version 1, without the public key: OpenSSL reads no other.
        let der = pair.to_pkcs8v1().map_err(|_| BundleKeyError::Generate)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let pem = Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", *body));
        Ok((Self(pair), pem))
    }

    /// Reads a key, as [`BundleKey::generate`] or OpenSSL writes it.
    ///
    /// # Errors
    /// [`BundleKeyError::Form`] if it is none.
    pub fn from_pem(pem: &str) -> Result<Self, BundleKeyError> {
        let body = pem.trim().strip_prefix(PEM_BEGIN);
        let body = body.and_then(|rest| rest.strip_suffix(PEM_END));
        let body: Option<Zeroizing<String>> =
            body.map(|body| Zeroizing::new(body.split_ascii_whitespace().collect()));
        let der = body.and_then(|body| STANDARD.decode(body.as_bytes()).ok());
        let der = Zeroizing::new(der.ok_or(BundleKeyError::Form)?);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Self).map_err(|_| BundleKeyError::Form)
    }

    /// What a policy lists in `bundle_signers`.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    /// Signs a manifest: the text of `manifest.sig`.
    pub fn sign(&self, manifest: &[u8]) -> String {
        let signature = self.0.sign(manifest);
        STANDARD.encode(signature.as_ref()) + "\n"
    }
}

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BundleKey(..)")
    }
}
