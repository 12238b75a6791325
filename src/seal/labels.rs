//! Every label of the protocol, and the formulas that use them.
//!
//! Draft: draft-ietf-ohai-chunked-ohttp-08, on RFC 9458.

use aead::KeyInit as _;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    aead::{Aes128Gcm, Aes256Gcm},
    context::ReplyCipher,
    nonce::{CounterNonce, NONCE_LEN},
    suite::{Aead, HEADER_LEN, MAX_KEY_LEN, X_WING_ENC_LEN},
};

/// What the HPKE context of a request is bound to (draft section 6.1).
const REQUEST_INFO_LABEL: &[u8] = b"message/bhttp chunked request";
/// What the secret of a response is exported under (draft section 6.2).
pub(super) const RESPONSE_EXPORT_LABEL: &[u8] = b"message/bhttp chunked response";
/// Associated data of every chunk but the last.
pub(super) const CHUNK_AAD: &[u8] = b"";
/// Associated data of the last chunk.
pub(super) const FINAL_CHUNK_AAD: &[u8] = b"final";
/// `info` of the response key (RFC 9458 section 4.4).
const RESPONSE_KEY_LABEL: &[u8] = b"key";
/// `info` of the response nonce (RFC 9458 section 4.4).
const RESPONSE_NONCE_LABEL: &[u8] = b"nonce";

/// What the HPKE context of an EHBP request is bound to: nothing else of the request.
pub(super) const EHBP_REQUEST_INFO: &[u8] = b"ehbp request";
/// What the secret of an EHBP response is exported under. [`reply_cipher`] derives the rest.
pub(super) const EHBP_RESPONSE_EXPORT_LABEL: &[u8] = b"ehbp response";

/// `info` of the seed's key, which has none.
const SEED_KEY_INFO: &[u8] = b"";
/// `info` of what a replay of the seed's dialect is known by.
const SEED_CLAIM_LABEL: &[u8] = b"sealgate seed claim v1";

/// Length of [`request_info`].
const REQUEST_INFO_LEN: usize = 37;

/// `info = "message/bhttp chunked request" || 0x00 || header` (draft section 6.1).
pub(super) fn request_info(header: &[u8; HEADER_LEN]) -> [u8; REQUEST_INFO_LEN] {
    let mut info = [0; REQUEST_INFO_LEN];
    let parts = REQUEST_INFO_LABEL.iter().chain(&[0]).chain(header);
    for (to, from) in info.iter_mut().zip(parts) {
        *to = *from;
    }
    info
}

/// The key and nonce of a response (draft section 6.2, RFC 9458 section 4.4):
///
/// ```text
/// prk        = Extract(salt = enc || response_nonce, secret)
/// aead_key   = Expand(prk, "key", Nk)
/// aead_nonce = Expand(prk, "nonce", Nn)
/// ```
///
/// `secret` and `response_nonce` are `max(Nn, Nk)` bytes long. `None` cannot happen with the lengths
/// of these suites; it stands for what the library calls an invalid length.
#[inline(never)]
pub(super) fn reply_cipher(
    aead: Aead,
    secret: &[u8],
    enc: &[u8],
    response_nonce: &[u8],
) -> Option<ReplyCipher> {
    let mut salt = [0; X_WING_ENC_LEN + MAX_KEY_LEN];
    let salt_len = enc.len().checked_add(response_nonce.len())?;
    let salt = salt.get_mut(..salt_len)?;
    for (to, from) in salt.iter_mut().zip(enc.iter().chain(response_nonce)) {
        *to = *from;
    }
    let prk = Hkdf::<Sha256>::new(Some(salt), secret);
    let mut key = Zeroizing::new([0; MAX_KEY_LEN]);
    let key = key.get_mut(..aead.key_len())?;
    prk.expand(RESPONSE_KEY_LABEL, key).ok()?;
    let mut nonce = Zeroizing::new([0; NONCE_LEN]);
    prk.expand(RESPONSE_NONCE_LABEL, nonce.as_mut()).ok()?;
    let nonce = CounterNonce::new(nonce);
    Some(match aead {
        Aead::Aes128Gcm => {
            ReplyCipher::Aes128Gcm(Box::new(Aes128Gcm::new_from_slice(key).ok()?), nonce)
        }
        Aead::Aes256Gcm => {
            ReplyCipher::Aes256Gcm(Box::new(Aes256Gcm::new_from_slice(key).ok()?), nonce)
        }
    })
}

/// The key of an exchange in the seed's dialect, which serves both directions:
/// `HKDF(salt, exchanged, "", 32)`.
pub(super) fn seed_cipher(salt: &[u8], exchanged: &[u8]) -> Option<Aes256Gcm> {
    let mut key = Zeroizing::new([0; MAX_KEY_LEN]);
    let prk = Hkdf::<Sha256>::new(Some(salt), exchanged);
    prk.expand(SEED_KEY_INFO, key.as_mut()).ok()?;
    Aes256Gcm::new_from_slice(key.as_ref()).ok()
}

/// What a replay of the seed's dialect is known by: `HKDF("", exchanged, claim label, 32)`.
///
/// Not the client's public key: several encodings and several points give one exchanged value, and
/// nothing in this format tells which of them was meant.
pub(super) fn seed_claim(exchanged: &[u8]) -> Option<[u8; 32]> {
    let mut claim = [0; 32];
    let prk = Hkdf::<Sha256>::new(None, exchanged);
    prk.expand(SEED_CLAIM_LABEL, &mut claim).ok()?;
    Some(claim)
}
