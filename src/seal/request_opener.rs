//! Opening a request, chunk by chunk as it comes.

use std::fmt;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::{
    bhttp::{Event, Fields, FormError, Reader, RequestLine},
    context::{OpenChunk as _, Place, RequestOpening},
    enc::Enc,
    error::OpenError,
    framing::Deframer,
    keys::OpeningKeys,
    labels::{self, RESPONSE_EXPORT_LABEL},
    plaintext::Joined,
    reply_sealer::ReplySealer,
    suite::{HEADER_LEN, Header, Suite},
};

/// Most bytes of content that a node opens unless told otherwise (docs/wire.md, "Request").
pub const MAX_REQUEST_CONTENT: usize = 16 * 1024 * 1024;
/// Head, trailers and framing of a message, generously: what plaintext may exceed content by.
pub(super) const MAX_OVERHEAD: usize = 64 * 1024;

/// Fields that a node reads besides its own, and that may stand only once.
const SINGLE_FIELDS: [&str; 3] = ["authorization", "content-type", "date"];
/// Fields of this protocol, which may stand only once each.
const OWN_PREFIX: &str = "sealgate-";

/// What a request may take up.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Most bytes of content. Padding may double the message.
    pub content_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            content_bytes: MAX_REQUEST_CONTENT,
        }
    }
}

/// A request whose every byte was authenticated.
pub struct OpenedRequest {
    /// SHA-256 of the encapsulated key: what a replay is known by.
    pub enc_digest: [u8; 32],
    /// The key that opened it.
    pub key_id: u8,
    /// A token, to be judged by the node.
    pub method: String,
    /// Visible ASCII, to be compared byte for byte by the node.
    pub path: String,
    /// The fields, none of them repeated that must not be.
    pub fields: Fields,
    /// The content; its memory is wiped when the last view of it is dropped.
    pub content: Bytes,
}

impl fmt::Debug for OpenedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedRequest")
            .field("key_id", &self.key_id)
            .field("content_len", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Collects one encapsulated request.
#[must_use]
pub struct RequestOpener {
    frames: Deframer,
    stage: Stage,
    message: Message,
    limits: RequestLimits,
    /// Plaintext that may still come, padding included.
    plaintext_left: usize,
}

enum Stage {
    Header,
    /// The header named a key, and a suite that fits it.
    Enc([u8; HEADER_LEN], Suite),
    Chunks(Opening),
    Failed,
}

struct Opening {
    context: RequestOpening,
    key_id: u8,
    enc: Enc,
    /// Whether a chunk has opened, so that the key is known to be the sender's.
    proved: bool,
}

impl RequestOpener {
    /// An opener for one request.
    pub fn new(limits: RequestLimits) -> Self {
        let content = u64::try_from(limits.content_bytes).unwrap_or(u64::MAX);
        Self {
            frames: Deframer::default(),
            stage: Stage::Header,
            message: Message::new(content),
            limits,
            plaintext_left: limits
                .content_bytes
                .saturating_add(MAX_OVERHEAD)
                .saturating_mul(2),
        }
    }

    /// Takes in bytes of the HTTP body and opens every chunk that is whole.
    ///
    /// # Errors
    /// [`OpenError`] for the first thing that is wrong, and [`OpenError::Failed`] ever after. A
    /// message that is authentic and whose form is wrong is refused by [`Self::finish`].
    pub fn push(&mut self, keys: &OpeningKeys, bytes: Bytes) -> Result<(), OpenError> {
        let pushed = self.push_inner(keys, bytes);
        if pushed.is_err() {
            self.stage = Stage::Failed;
        }
        pushed
    }

    /// Ends the request at the end of the HTTP body.
    ///
    /// # Errors
    /// [`OpenError`] unless the final chunk is there and authentic and the message in it has ended.
    pub fn finish(self) -> Result<(OpenedRequest, ReplySealer), OpenError> {
        let (request, sealer) = self.finish_or_refuse()?;
        Ok((request?, sealer))
    }

    /// Like [`Self::finish`], but hands out the reply's sealer for an authentic message of wrong form
    /// too, so that the refusal can travel sealed.
    ///
    /// # Errors
    /// [`OpenError`] unless the final chunk is there and authentic.
    pub fn finish_or_refuse(
        mut self,
    ) -> Result<(Result<OpenedRequest, FormError>, ReplySealer), OpenError> {
        let mut opening = match self.stage {
            Stage::Chunks(opening) => opening,
            Stage::Header | Stage::Enc(..) => return Err(OpenError::Truncated),
            Stage::Failed => return Err(OpenError::Failed),
        };
        let sealed = self.frames.finish()?;
        let plaintext = opening.open(sealed, Place::Final)?;
        if plaintext.len() > self.plaintext_left {
            return Err(OpenError::TooLarge {
                max: self.limits.content_bytes,
            });
        }
        self.message.read(plaintext, self.limits)?;
        let enc_digest = Sha256::digest(opening.enc.as_bytes()).into();
        let secret = opening
            .context
            .reply_secret(opening.enc, RESPONSE_EXPORT_LABEL)
            .ok_or(OpenError::Decrypt)?;
        let sealer = ReplySealer::new(secret);
        let request = self
            .message
            .finish()
            .map(|(line, fields, content)| OpenedRequest {
                enc_digest,
                key_id: opening.key_id,
                method: line.method,
                path: line.path,
                fields,
                content,
            });
        Ok((request, sealer))
    }

    fn push_inner(&mut self, keys: &OpeningKeys, bytes: Bytes) -> Result<(), OpenError> {
        if matches!(self.stage, Stage::Failed) {
            return Err(OpenError::Failed);
        }
        self.frames.push(bytes)?;
        if matches!(self.stage, Stage::Header) {
            let Some(header) = self.frames.head(HEADER_LEN) else {
                return Ok(());
            };
            let header = header
                .as_ref()
                .try_into()
                .map_err(|_| OpenError::Truncated)?;
            self.stage = Stage::Enc(header, suite_of(keys, &header)?);
        }
        if let Stage::Enc(header, suite) = self.stage {
            let Some(enc) = self.frames.head(suite.kem().enc_len()) else {
                return Ok(());
            };
            self.stage = Stage::Chunks(Opening::begin(keys, &header, suite, &enc)?);
        }
        let Stage::Chunks(opening) = &mut self.stage else {
            return Ok(());
        };
        while let Some(sealed) = self.frames.next_chunk()? {
            let plaintext = opening.open(sealed, Place::Middle)?;
            self.plaintext_left =
                self.plaintext_left
                    .checked_sub(plaintext.len())
                    .ok_or(OpenError::TooLarge {
                        max: self.limits.content_bytes,
                    })?;
            self.message.read(plaintext, self.limits)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RequestOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestOpener(..)")
    }
}

/// The suite that a header names, if the key that it names is of its KEM.
fn suite_of(keys: &OpeningKeys, header: &[u8; HEADER_LEN]) -> Result<Suite, OpenError> {
    let (key_id, suite) = Header::decode(header);
    let secret = keys.get(key_id).ok_or(OpenError::UnknownKey(key_id))?;
    suite
        .filter(|suite| suite.kem() == secret.kem())
        .ok_or(OpenError::UnsupportedSuite)
}

impl Opening {
    fn begin(
        keys: &OpeningKeys,
        header: &[u8; HEADER_LEN],
        suite: Suite,
        enc: &[u8],
    ) -> Result<Self, OpenError> {
        let (key_id, _) = Header::decode(header);
        // It may have ended since the header came.
        let secret = keys.get(key_id).ok_or(OpenError::UnknownKey(key_id))?;
        let enc = Enc::read(suite.kem(), enc).ok_or(OpenError::Truncated)?;
        let info = labels::request_info(header);
        let context = RequestOpening::setup(suite, secret, &enc, &info)?;
        Ok(Self {
            context,
            key_id,
            enc,
            proved: false,
        })
    }

    fn open(&mut self, sealed: BytesMut, place: Place) -> Result<Bytes, OpenError> {
        match self.context.open(sealed, place) {
            Ok(plaintext) => {
                self.proved = true;
                Ok(plaintext)
            }
            Err(OpenError::Decrypt) if !self.proved => Err(OpenError::FirstChunk),
            Err(error) => Err(error),
        }
    }
}

/// The message inside, as far as it has come. Once its form is wrong the rest is dropped unread:
/// the sender still has to prove the end before it is told.
struct Message {
    reader: Reader<RequestLine>,
    head: Option<(RequestLine, Fields)>,
    content: Joined,
    refusal: Option<FormError>,
}

impl Message {
    fn new(max_content: u64) -> Self {
        Self {
            reader: Reader::new(max_content),
            head: None,
            content: Joined::default(),
            refusal: None,
        }
    }

    fn read(&mut self, plaintext: Bytes, limits: RequestLimits) -> Result<(), OpenError> {
        if self.refusal.is_some() {
            return Ok(());
        }
        match self.read_events(plaintext) {
            Ok(()) => Ok(()),
            Err(FormError::ContentTooLong) => Err(OpenError::TooLarge {
                max: limits.content_bytes,
            }),
            Err(refusal) => {
                self.content = Joined::default();
                self.refusal = Some(refusal);
                Ok(())
            }
        }
    }

    fn read_events(&mut self, mut plaintext: Bytes) -> Result<(), FormError> {
        while let Some(event) = self.reader.read(&mut plaintext)? {
            match event {
                Event::Head(line, fields) => {
                    fields.once(|name| {
                        name.starts_with(OWN_PREFIX) || SINGLE_FIELDS.contains(&name)
                    })?;
                    self.head = Some((line, fields));
                }
                Event::Content(piece) => {
                    let to_come = usize::try_from(self.reader.content_to_come()).unwrap_or(0);
                    let expected = piece.len().saturating_add(to_come);
                    self.content.push(piece, expected);
                }
                // A request's trailers mean nothing to a node.
                Event::Trailers(_) => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(RequestLine, Fields, Bytes), FormError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        self.reader.finish()?;
        let (line, fields) = self.head.ok_or(FormError::Incomplete)?;
        Ok((line, fields, self.content.into_bytes()))
    }
}
