//! Attested Oblivious HTTP: encapsulate and open, chunk by chunk.
//!
//! A request is sealed to a key that appraisal made usable ([`seal_request`]), and sealing hands out
//! the one [`ReplyOpener`] that fits the reply. A node collects a request in a [`RequestOpener`],
//! whose end hands out the one [`ReplySealer`]. What travels is the encapsulation of
//! draft-ietf-ohai-chunked-ohttp around a Binary HTTP message (RFC 9292); `docs/wire.md` says it
//! byte by byte. Two further dialects are opened for clients that speak them already and never
//! sealed here: [`EhbpOpener`] and [`SeedEnvelope`], each with keys of a type of its own. What a node
//! signs of a reply is a [`Receipt`].
//!
//! Guarantees: no plaintext leaves an opener before its chunk was authenticated, an end that was not
//! proved is an error, an opener or sealer that failed stays failed, and no nonce is used twice.
//! This module does no IO, reads no clock and logs nothing; it does not know what the content means.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod aead;
mod bhttp;
mod chunks;
mod context;
mod dialect;
mod ehbp;
mod enc;
mod error;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod kem;
mod keys;
mod labels;
mod nonce;
mod paced;
mod padding;
mod plaintext;
mod receipt;
mod reply_opener;
mod reply_sealer;
mod request_opener;
mod request_sealer;
mod seed;
mod stack;
mod stream;
mod suite;
#[cfg(test)]
mod tests;
mod varint;
mod x_wing;

pub use bhttp::{Fields, FormError, MAX_INFORMATIONAL};
pub use dialect::{DialectKeys, DialectSecret};
pub use ehbp::{
    ENCAPSULATED_KEY, Ehbp, EhbpError, EhbpFrames, EhbpKeys, EhbpOpener, EhbpReplySealer,
    EhbpSecret, EncapsulatedKey, InvalidEncapsulatedKey, KEY_CONFIG_PROBLEM, OpenedBody,
    RESPONSE_NONCE, encode_ehbp_key_config,
};
pub use error::{OpenError, OpenErrorKind, RandomError, SealError};
pub use keys::{NodeSecret, OpeningKeys, encode_key_configs};
pub use paced::{PacedSealer, Tick};
pub use padding::{Padding, Row, UnknownPadding};
pub use receipt::{
    Commitment, Commitments, Committer, EventLines, InvalidSalts, MAX_RECEIPT, Receipt,
    ReceiptError, ReceiptKey, ReceiptScope, Salt, Salts, UnknownScope,
};
pub use reply_opener::{FinalPart, ReplyHead, ReplyOpener, ReplyPart, Trailers};
pub use reply_sealer::ReplySealer;
pub use request_opener::{MAX_REQUEST_CONTENT, OpenedRequest, RequestLimits, RequestOpener};
pub use request_sealer::{RequestHead, seal_request};
pub use seed::{
    OpenedSeedRequest, Seed, SeedEnvelope, SeedError, SeedKeys, SeedReplySealer, SeedSecret,
};
pub use stream::StreamSealer;
pub use suite::{Kem, named_key};

/// Media type of an encapsulated request.
pub const REQUEST_MEDIA_TYPE: &str = "message/ohttp-chunked-req";
/// Media type of an encapsulated response.
pub const RESPONSE_MEDIA_TYPE: &str = "message/ohttp-chunked-res";
/// Media type of a list of key configurations (RFC 9458 section 3.2).
pub const KEYS_MEDIA_TYPE: &str = "application/ohttp-keys";
