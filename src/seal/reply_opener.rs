//! Opening a reply, chunk by chunk as it comes.

use std::fmt;

use bytes::Bytes;

use super::{
    bhttp::{Event, Fields, FormError, Reader, StatusLine},
    context::{OpenChunk as _, Place, ReplyOpening, ReplySecret},
    error::OpenError,
    framing::Deframer,
    plaintext::Joined,
};

const CONTENT_TYPE: &str = "content-type";
const RETRY_AFTER: &str = "retry-after";
const USAGE: &str = "sealgate-usage";
const RECEIPT: &str = "sealgate-receipt";
const RECEIPT_SALTS: &str = "sealgate-receipt-salts";
const INCOMPLETE: &str = "sealgate-incomplete";

/// What stands before the content of a reply; all other fields were dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// The final status, 200 to 599.
    pub status: u16,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `retry-after`.
    pub retry_after: Option<String>,
    /// `sealgate-receipt-salts`, where the node says them before the content too.
    pub receipt_salts: Option<String>,
}

impl ReplyHead {
    fn new(line: &StatusLine, mut fields: Fields) -> Result<Self, FormError> {
        fields.once(|name| [CONTENT_TYPE, RETRY_AFTER, RECEIPT_SALTS].contains(&name))?;
        Ok(Self {
            status: line.status,
            content_type: fields.take(CONTENT_TYPE),
            retry_after: fields.take(RETRY_AFTER),
            receipt_salts: fields.take(RECEIPT_SALTS),
        })
    }
}

/// What stands after the content of a reply; all other trailers were dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    /// `sealgate-usage`: token counters as JSON.
    pub usage: Option<String>,
    /// `sealgate-receipt`: a signed receipt.
    pub receipt: Option<String>,
    /// `sealgate-receipt-salts`: what the receipt's digests are salted with.
    pub receipt_salts: Option<String>,
    /// `sealgate-incomplete`: why the engine's answer is not whole.
    pub incomplete: Option<String>,
}

impl Trailers {
    fn new(mut fields: Fields) -> Result<Self, FormError> {
        fields.once(|name| [USAGE, RECEIPT, RECEIPT_SALTS, INCOMPLETE].contains(&name))?;
        Ok(Self {
            usage: fields.take(USAGE),
            receipt: fields.take(RECEIPT),
            receipt_salts: fields.take(RECEIPT_SALTS),
            incomplete: fields.take(INCOMPLETE),
        })
    }
}

/// An authenticated part of a reply that has not ended.
#[derive(PartialEq, Eq)]
pub enum ReplyPart {
    /// Status and fields; comes once, and before any content.
    Head(ReplyHead),
    /// A piece of the content.
    Content(Bytes),
}

impl fmt::Debug for ReplyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => f.debug_tuple("Head").field(head).finish(),
            Self::Content(content) => write!(f, "Content({} bytes)", content.len()),
        }
    }
}

/// What the end of a reply brought.
#[derive(PartialEq, Eq)]
#[must_use]
pub struct FinalPart {
    /// Status and fields, if no earlier part had them.
    pub head: Option<ReplyHead>,
    /// The rest of the content.
    pub content: Bytes,
    /// What came after the content.
    pub trailers: Trailers,
}

impl fmt::Debug for FinalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalPart")
            .field("head", &self.head)
            .field("content_len", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Opens the one reply to a request. Handed out by sealing that request.
///
/// Push bytes as they come, take parts until there is none, and call [`Self::finish`] when the HTTP
/// body has ended: only that proves that the reply is whole.
#[must_use]
pub struct ReplyOpener {
    frames: Deframer,
    stage: Stage,
    reader: Reader<StatusLine>,
    /// Opened bytes that were not read yet.
    plaintext: Bytes,
    trailers: Trailers,
    chunks_opened: u64,
}

enum Stage {
    /// The response nonce has not come.
    Nonce(ReplySecret),
    Chunks(ReplyOpening),
    Failed,
}

impl ReplyOpener {
    pub(in crate::seal) fn new(secret: ReplySecret) -> Self {
        Self {
            frames: Deframer::default(),
            stage: Stage::Nonce(secret),
            // Content is handed on piece by piece: whoever collects it bounds it.
            reader: Reader::new(u64::MAX),
            plaintext: Bytes::new(),
            trailers: Trailers::default(),
            chunks_opened: 0,
        }
    }

    /// Takes in bytes of the HTTP body.
    ///
    /// # Errors
    /// [`OpenError::Unread`] if earlier bytes were never taken as parts, [`OpenError::Failed`] after
    /// an error.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), OpenError> {
        self.alive()?;
        let pushed = self.frames.push(bytes);
        self.poison(pushed)
    }

    /// Opens up to the next part; `None` asks for more bytes, or for [`Self::finish`] at the end.
    ///
    /// # Errors
    /// [`OpenError`] for the first thing that is wrong, and [`OpenError::Failed`] ever after.
    pub fn next_part(&mut self) -> Result<Option<ReplyPart>, OpenError> {
        self.alive()?;
        let part = self.next_part_inner();
        self.poison(part)
    }

    /// How many chunks have opened: a sign of life for whoever measures idleness.
    #[must_use]
    pub fn chunks_opened(&self) -> u64 {
        self.chunks_opened
    }

    /// Ends the reply at the end of the HTTP body. Parts that were not taken come with it.
    ///
    /// # Errors
    /// [`OpenError`] unless the final chunk is there and authentic and the message in it has ended.
    pub fn finish(mut self) -> Result<FinalPart, OpenError> {
        self.alive()?;
        let mut rest = Rest::default();
        while let Some(part) = self.next_part_inner()? {
            rest.add(part);
        }
        let Stage::Chunks(mut opening) = self.stage else {
            return Err(OpenError::Truncated);
        };
        self.plaintext = opening.open(self.frames.finish()?, Place::Final)?;
        while let Some(part) = read_part(&mut self.reader, &mut self.plaintext, &mut self.trailers)?
        {
            rest.add(part);
        }
        self.reader.finish()?;
        Ok(FinalPart {
            head: rest.head,
            content: rest.content.into_bytes(),
            trailers: self.trailers,
        })
    }

    fn next_part_inner(&mut self) -> Result<Option<ReplyPart>, OpenError> {
        loop {
            let part = read_part(&mut self.reader, &mut self.plaintext, &mut self.trailers)?;
            if part.is_some() {
                return Ok(part);
            }
            match self.open_chunk()? {
                Some(plaintext) => self.plaintext = plaintext,
                None => return Ok(None),
            }
        }
    }

    fn open_chunk(&mut self) -> Result<Option<Bytes>, OpenError> {
        if let Stage::Nonce(secret) = &self.stage {
            let Some(nonce) = self.frames.head(secret.nonce_len()) else {
                return Ok(None);
            };
            self.stage = Stage::Chunks(secret.opening(&nonce)?);
        }
        let Stage::Chunks(opening) = &mut self.stage else {
            return Ok(None);
        };
        let Some(sealed) = self.frames.next_chunk()? else {
            return Ok(None);
        };
        let plaintext = opening.open(sealed, Place::Middle)?;
        self.chunks_opened = self.chunks_opened.saturating_add(1);
        Ok(Some(plaintext))
    }

    fn alive(&self) -> Result<(), OpenError> {
        match self.stage {
            Stage::Failed => Err(OpenError::Failed),
            Stage::Nonce(_) | Stage::Chunks(_) => Ok(()),
        }
    }

    fn poison<T>(&mut self, result: Result<T, OpenError>) -> Result<T, OpenError> {
        if result.is_err() {
            self.stage = Stage::Failed;
            self.plaintext = Bytes::new();
        }
        result
    }
}

impl fmt::Debug for ReplyOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyOpener(..)")
    }
}

fn read_part(
    reader: &mut Reader<StatusLine>,
    plaintext: &mut Bytes,
    trailers: &mut Trailers,
) -> Result<Option<ReplyPart>, FormError> {
    Ok(match reader.read(plaintext)? {
        None => None,
        Some(Event::Head(line, fields)) => Some(ReplyPart::Head(ReplyHead::new(&line, fields)?)),
        Some(Event::Content(piece)) => Some(ReplyPart::Content(piece)),
        Some(Event::Trailers(fields)) => {
            *trailers = Trailers::new(fields)?;
            // Nothing but padding follows, and that is no part.
            return reader.read(plaintext).map(|_| None);
        }
    })
}

/// Parts that the end brought, joined.
#[derive(Default)]
struct Rest {
    head: Option<ReplyHead>,
    content: Joined,
}

impl Rest {
    fn add(&mut self, part: ReplyPart) {
        match part {
            ReplyPart::Head(head) => self.head = Some(head),
            ReplyPart::Content(piece) => {
                let expected = piece.len();
                self.content.push(piece, expected);
            }
        }
    }
}
