//! Why a request of this dialect was not opened.

/// Why a body could not be opened. No variant holds a value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Not the JSON that a confidential request is.
    #[error("the body is not the JSON of a confidential request")]
    Json,
    /// A member that is not base64 of its length.
    #[error("`{member}` is not base64 of {len} bytes, with padding")]
    Base64 {
        /// The member's name.
        member: &'static str,
        /// The bytes that it holds.
        len: usize,
    },
    /// The ciphertext is not base64, or shorter than a tag.
    #[error("`ciphertext` is not base64, with padding, of a ciphertext and its tag")]
    Ciphertext,
    /// The content is larger than allowed.
    #[error("content exceeds {max} bytes")]
    TooLarge {
        /// The limit that was passed.
        max: usize,
    },
    /// The client sealed to a key that the node has not, or has no more.
    #[error("`node_dh_public_key` is none of the node's keys: take a new lock")]
    UnknownKey,
    /// The client's key gives an all-zero shared secret (RFC 7748 section 6.1).
    #[error("`client_dh_public_key` is not usable")]
    UnusableKey,
    /// The ciphertext was not authentic.
    #[error("the ciphertext does not open")]
    Decrypt,
    /// The plaintext is not what the client hashed.
    #[error("`plaintext_body_hash` is of something else")]
    BodyHash,
}
