//! Sealing the messages of a reply: one, or one for each event of a stream.

use std::fmt;

use aead::AeadInOut as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hpke::inout::InOutBuf;
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::seal::{RandomError, SealError, aead::Aes256Gcm, nonce::NONCE_LEN};

/// Most messages under one key, since nonces are random (NIST SP 800-38D section 8.3).
const MAX_MESSAGES: u32 = u32::MAX;

/// Seals the reply to a request, under the key of the request. Handed out by opening it.
#[must_use]
pub struct SeedReplySealer {
    cipher: Aes256Gcm,
    /// Messages that may still be sealed.
    left: u32,
}

impl SeedReplySealer {
    pub(in crate::seal) const fn new(cipher: Aes256Gcm) -> Self {
        Self {
            cipher,
            left: MAX_MESSAGES,
        }
    }

    /// Seals one message, under a nonce of its own, and writes it as JSON. `usage`, a JSON value,
    /// stands in clear beside it. Nothing in the message says what was sealed before.
    ///
    /// # Errors
    /// [`SealError::Random`] if the system gives no randomness, [`SealError::Exhausted`] after
    /// 2^32 messages.
    pub fn seal(&mut self, content: &[u8], usage: Option<&[u8]>) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SysRng.try_fill_bytes(&mut nonce).map_err(|_| RandomError)?;
        self.seal_with(nonce, content, usage)
    }

    pub(in crate::seal) fn seal_with(
        &mut self,
        nonce: [u8; NONCE_LEN],
        content: &[u8],
        usage: Option<&[u8]>,
    ) -> Result<Vec<u8>, SealError> {
        self.left = self.left.checked_sub(1).ok_or(SealError::Exhausted)?;
        let mut sealed = Zeroizing::new(content.to_vec());
        let buffer = InOutBuf::from(sealed.as_mut_slice());
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce.into(), b"", buffer)
            .map_err(|_| SealError::Exhausted)?;
        sealed.extend_from_slice(&tag);
        Ok(message(&nonce, &sealed, usage))
    }
}

/// Both members that this project has no use for are there and null: some clients ask for them.
fn message(nonce: &[u8], sealed: &[u8], usage: Option<&[u8]>) -> Vec<u8> {
    let (ciphertext, nonce) = (STANDARD.encode(sealed), STANDARD.encode(nonce));
    let mut message = format!(
        "{{\"ciphertext\":\"{ciphertext}\",\"nonce\":\"{nonce}\",\"response_hash\":null,\
         \"signature\":null"
    )
    .into_bytes();
    if let Some(usage) = usage {
        message.extend_from_slice(b",\"usage\":");
        message.extend_from_slice(usage);
    }
    message.push(b'}');
    message
}

impl fmt::Debug for SeedReplySealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedReplySealer(..)")
    }
}
