//! Sealing a request, whole, in one buffer.

use std::time::SystemTime;

use attestation::{PublicKey, VerifiedKey};
use bytes::Bytes;
use rand::CryptoRng;

use super::{
    bhttp::{self, count},
    chunks::ChunkWriter,
    context::RequestSealing,
    error::SealError,
    keys::fresh_rng,
    labels,
    padding::{Lengths as _, Padding},
    reply_opener::ReplyOpener,
    suite::{Aead, Header, Suite},
};

/// What stands before the content of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The node's path, without a query.
    pub path: &'a str,
    /// Fields with names in lower case.
    pub fields: &'a [(&'a str, &'a str)],
}

/// Seals a request to a node's verified key, with AES-256-GCM.
///
/// The body of the HTTP request lies in one buffer of its exact length, into which the content was
/// copied once. The opener is the only one that reads the reply.
///
/// # Errors
/// [`SealError::KeyExpired`] if the appraisal has ended, [`SealError::UnusableKey`] if an X25519 key
/// gives an all-zero shared secret, [`SealError::Malformed`] if the path or a field is, and
/// [`SealError::Random`].
pub fn seal_request(
    key: &VerifiedKey,
    now: SystemTime,
    head: &RequestHead<'_>,
    content: &[u8],
    padding: Padding,
) -> Result<(Bytes, ReplyOpener), SealError> {
    let public_key = key.at(now).ok_or(SealError::KeyExpired)?;
    let recipient = Recipient {
        key_id: key.key_id(),
        public_key: public_key.as_bytes(),
        suite: match public_key {
            PublicKey::X25519(_) => Suite::X25519(Aead::Aes256Gcm),
            PublicKey::XWing(_) => Suite::XWing,
        },
    };
    seal_to(recipient, head, content, padding, &mut fresh_rng()?)
}

/// Whom a request is sealed to.
#[derive(Clone, Copy)]
pub(in crate::seal) struct Recipient<'a> {
    pub(in crate::seal) key_id: u8,
    pub(in crate::seal) public_key: &'a [u8],
    pub(in crate::seal) suite: Suite,
}

/// Seals to a key of any origin: known answers and peers in tests need that, callers never do.
pub(in crate::seal) fn seal_to(
    recipient: Recipient<'_>,
    head: &RequestHead<'_>,
    content: &[u8],
    padding: Padding,
    rng: &mut impl CryptoRng,
) -> Result<(Bytes, ReplyOpener), SealError> {
    let len = count(|out| bhttp::request(out, head.path, head.fields, content))?;
    let len = padding.whole(len).ok_or(SealError::Length)?;
    let header = Header {
        key_id: recipient.key_id,
        suite: recipient.suite,
    };
    let encoded = header.encode();
    let info = labels::request_info(&encoded);
    let (enc, mut sealing, secret) =
        RequestSealing::setup(recipient.suite, recipient.public_key, &info, rng)?;
    let mut out = ChunkWriter::new(&[&encoded, enc.as_bytes()], &mut sealing, len)?;
    bhttp::request(&mut out, head.path, head.fields, content)?;
    Ok((out.finish()?, ReplyOpener::new(secret)))
}
