//! Keeps callers apart in an engine's prefix cache.
//!
//! An engine that has seen the beginning of a prompt answers sooner, so that whoever can time it may
//! ask what others have asked. Under a salt a prompt is found again only by who has the same salt.
//! What a caller sends as his own narrows his part of the cache and never leads into another's: no
//! salt of an engine can be chosen, or told from what a caller knows.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::RngExt as _;
use zeroize::Zeroizing;

pub(super) use crate::attester::caller::Caller;

/// Bytes of a secret and of a salt.
const LEN: usize = 32;
/// What the salt of a known caller is made of begins with.
const LABEL: &[u8] = b"caller";

/// What a node makes salts with: made at its start, and gone with it.
pub(super) struct SaltSecret(Zeroizing<[u8; LEN]>);

impl SaltSecret {
    pub(super) fn generate() -> Self {
        Self(Zeroizing::new(rand::rng().random()))
    }

    /// The engine's salt for a request: of one caller always the same, of nobody known another each
    /// time.
    ///
    /// `HMAC-SHA256(secret, "caller" || caller || 0x00 || own)`, base64url.
    pub(super) fn salt(&self, caller: Option<Caller>, own: Option<&str>) -> String {
        let Some(caller) = caller else {
            return BASE64_URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; LEN]>());
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        let mut context = hmac::Context::with_key(&key);
        context.update(LABEL);
        context.update(hex::encode(caller.as_bytes()).as_bytes());
        context.update(&[0]);
        context.update(own.unwrap_or_default().as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(context.sign())
    }
}

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_the_formula() {
        // Made with Python's hmac module.
        let secret = SaltSecret(Zeroizing::new([7; LEN]));
        let caller = "000102030405060708090a0b0c0d0e0f".parse().ok();
        let cases = [
            (None, "VuLSX35nNvocakSDRgrt5NvEe9_IPBtwHy-_7vbZPyg"),
            (Some("mine"), "0-uYoF347I4hqCkOXosNcYpF7zfXKlO52g3aHg_V_1A"),
        ];
        for (own, expected) in cases {
            assert_eq!(secret.salt(caller, own), expected);
        }
    }

    #[test]
    fn nobody_known_never_has_the_same_salt_twice() {
        let secret = SaltSecret::generate();
        let salts = [(); 3].map(|()| secret.salt(None, Some("mine")));
        assert!(salts[0] != salts[1] && salts[1] != salts[2] && salts[0] != salts[2]);
        assert!(salts.iter().all(|salt| salt.len() == 43));
    }
}
