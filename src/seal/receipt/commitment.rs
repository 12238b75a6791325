//! What a receipt says of contents, and what proves it: `HMAC-SHA256(salt, content)`.
//!
//! Who has the salt before the content can take it in piece by piece, and keeps none of it.

use std::{fmt, str::FromStr};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::seal::RandomError;

/// A salt as text, in characters.
const SALT_TEXT: usize = 43;

/// What of an event stream is content, as it comes: all lines but comments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventLines {
    /// A line begins.
    #[default]
    Start,
    /// Within a line that is content.
    Line,
    /// Within a comment.
    Comment,
}

impl EventLines {
    /// Gives what of the next piece is content, in order.
    pub fn take(&mut self, mut piece: &[u8], mut content: impl FnMut(&[u8])) {
        while !piece.is_empty() {
            if *self == Self::Start {
                *self = if piece.first() == Some(&b':') {
                    Self::Comment
                } else {
                    Self::Line
                };
            }
            let end = memchr::memchr(b'\n', piece).and_then(|at| at.checked_add(1));
            let (line, rest) = piece
                .split_at_checked(end.unwrap_or(piece.len()))
                .unwrap_or((piece, &[]));
            if *self == Self::Line {
                content(line);
            }
            if end.is_some() {
                *self = Self::Start;
            }
            piece = rest;
        }
    }
}

/// Takes a content in as it comes, under its salt.
#[derive(Clone)]
#[must_use]
pub struct Committer {
    /// It is large, and moved often.
    mac: Box<hmac::Context>,
    /// Where an event stream stands; none where comments are content.
    lines: Option<EventLines>,
}

impl Committer {
    /// For a content of which every byte counts.
    pub fn of_bytes(salt: &Salt) -> Self {
        Self {
            mac: Box::new(hmac::Context::with_key(&salt.key())),
            lines: None,
        }
    }

    /// For an event stream, whose comment lines are no content.
    pub fn of_events(salt: &Salt) -> Self {
        Self {
            lines: Some(EventLines::default()),
            ..Self::of_bytes(salt)
        }
    }

    /// Takes in what comes next.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.lines {
            None => self.mac.update(piece),
            Some(lines) => lines.take(piece, |content| self.mac.update(content)),
        }
    }

    /// What stands for all that was taken in so far.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        let tag = hmac::Context::clone(&self.mac).sign();
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Commitment(bytes)
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Committer(..)")
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

    /// `HMAC-SHA256(salt, content)`.
    #[must_use]
    pub fn commit(&self, content: &[u8]) -> Commitment {
        let mut committer = Committer::of_bytes(self);
        committer.update(content);
        committer.commitment()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
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
