//! What a receipt says of contents, and what proves it: `HMAC-SHA256(salt, SHA-256(content))`.
//!
//! The salt comes last on the wire. So that nobody has to keep a content until then, it is the
//! content's digest that is salted, and a content can be taken in piece by piece.

use std::{fmt, str::FromStr};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::seal::RandomError;

/// A salt as text, in characters.
const SALT_TEXT: usize = 43;

/// SHA-256 of a content. It never leaves: who guesses a prompt could confirm it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// Of a content that is whole.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentDigest(..)")
    }
}

/// Takes a reply's content in as it comes.
#[derive(Clone)]
#[must_use]
pub struct ContentHasher {
    hash: Sha256,
    /// Where an event stream's last byte stood; none where comments are content.
    place: Option<Place>,
}

/// Where the next byte of an event stream stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    Line,
    Comment,
}

impl ContentHasher {
    /// For a content of which every byte counts.
    pub fn of_bytes() -> Self {
        Self {
            hash: Sha256::new(),
            place: None,
        }
    }

    /// For an event stream, whose comment lines are no content.
    pub fn of_events() -> Self {
        Self {
            hash: Sha256::new(),
            place: Some(Place::LineStart),
        }
    }

    /// Takes in what comes next.
    pub fn update(&mut self, mut piece: &[u8]) {
        let Some(mut place) = self.place else {
            self.hash.update(piece);
            return;
        };
        while !piece.is_empty() {
            if place == Place::LineStart {
                place = if piece.first() == Some(&b':') {
                    Place::Comment
                } else {
                    Place::Line
                };
            }
            let end = memchr::memchr(b'\n', piece).and_then(|at| at.checked_add(1));
            let (line, rest) = piece
                .split_at_checked(end.unwrap_or(piece.len()))
                .unwrap_or((piece, &[]));
            if place == Place::Line {
                self.hash.update(line);
            }
            if end.is_some() {
                place = Place::LineStart;
            }
            piece = rest;
        }
        self.place = Some(place);
    }

    /// The digest of what was taken in so far.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        ContentDigest(self.hash.clone().finalize().into())
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHasher(..)")
    }
}

/// What stands for a content in a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment([u8; 32]);

impl Commitment {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it stands for this content under this salt.
    #[must_use]
    pub fn is_of(&self, salt: &Salt, content: &ContentDigest) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salt.0);
        hmac::verify(&key, &content.0, &self.0).is_ok()
    }
}

impl From<[u8; 32]> for Commitment {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Prompt and answer, as a receipt has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitments {
    /// The caller's body as it was sealed.
    pub request: Commitment,
    /// The reply's content.
    pub response: Commitment,
}

/// What hides one content.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    fn generate() -> Result<Self, RandomError> {
        let mut salt = [0; 32];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| RandomError)?;
        Ok(Self(salt))
    }

    /// `HMAC-SHA256(salt, SHA-256(content))`.
    #[must_use]
    pub fn commit(&self, content: &ContentDigest) -> Commitment {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, &content.0);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Commitment(bytes)
    }
}

/// What hides prompt and answer, each by itself: proving one tells nothing of the other.
///
/// As text `request.response`, both base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct Salts {
    /// The prompt's.
    pub request: Salt,
    /// The answer's.
    pub response: Salt,
}

impl Salts {
    /// Fresh ones.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self {
            request: Salt::generate()?,
            response: Salt::generate()?,
        })
    }
}

impl fmt::Debug for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salts(..)")
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

impl fmt::Display for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |salt: &Salt| URL_SAFE_NO_PAD.encode(salt.0);
        write!(f, "{}.{}", text(&self.request), text(&self.response))
    }
}

/// A text that is no pair of salts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("salts are two times 32 bytes in base64url with a dot between")]
pub struct InvalidSalts;

impl FromStr for Salts {
    type Err = InvalidSalts;

    fn from_str(text: &str) -> Result<Self, InvalidSalts> {
        let salt = |text: &str| {
            let bytes = Some(text).filter(|text| text.len() == SALT_TEXT);
            let bytes = bytes.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            bytes.map(Salt).ok_or(InvalidSalts)
        };
        let (request, response) = text.split_once('.').ok_or(InvalidSalts)?;
        Ok(Self {
            request: salt(request)?,
            response: salt(response)?,
        })
    }
}
