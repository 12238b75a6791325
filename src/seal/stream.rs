//! Sealing a reply whose content comes piece by piece.

use std::{fmt, mem};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    bhttp::put_response_head,
    chunks::OpenChunkAt,
    context::{Place, ReplySealing},
    error::SealError,
    framing::MAX_CHUNK,
    padding::{Padding, STREAM_UNIT},
    reply_sealer::{ResponseNonce, put_tail},
};

/// The content of a chunk is counted in the two-byte form, whatever its length, so that its length
/// does not move when a filling comment joins it.
pub(super) const COUNT_LEN: usize = 2;
/// Marker of the two-byte form (RFC 9000 section 16).
const TWO_BYTE_FORM: u16 = 0x4000;
/// The shortest comment line: a colon and its LF.
pub(super) const SHORTEST_COMMENT: usize = 2;
/// Trailers that leave the final chunk no room for content.
const MAX_TAIL: usize = MAX_CHUNK / 4 * 3;

const EVENT_STREAM: &str = "text/event-stream";

/// Seals a reply chunk by chunk. After an error it refuses everything.
#[must_use]
pub struct StreamSealer {
    sealing: ReplySealing,
    /// What goes out before anything encrypted; empty once it went.
    nonce: Option<ResponseNonce>,
    /// Status and fields; empty once they went.
    head: Vec<u8>,
    padding: Padding,
    failed: bool,
}

impl StreamSealer {
    pub(in crate::seal) fn new(
        nonce: ResponseNonce,
        sealing: ReplySealing,
        status: u16,
        fields: &[(&str, &str)],
        padding: Padding,
    ) -> Result<Self, SealError> {
        match padding {
            Padding::Off => {}
            Padding::Bucket if is_event_stream(fields) => {}
            Padding::Bucket => return Err(SealError::NotAnEventStream),
            Padding::Paced => return Err(SealError::NeedsTicks),
        }
        let mut head = Vec::new();
        put_response_head(&mut head, status, fields)?;
        if head.len() > MAX_CHUNK / 2 {
            return Err(SealError::Malformed("field section"));
        }
        Ok(Self {
            sealing,
            nonce: Some(nonce),
            head,
            padding,
            failed: false,
        })
    }

    /// Seals content, which in a padded event stream is whole lines.
    ///
    /// The first call carries status and fields, also when it has no content; a later call without
    /// content gives no bytes.
    ///
    /// # Errors
    /// [`SealError::PartialLine`] if padding would have to go inside a line, [`SealError::Failed`]
    /// after an error.
    pub fn chunk(&mut self, content: &[u8]) -> Result<Bytes, SealError> {
        self.begin(content)?;
        let mut out = BytesMut::new();
        self.put_nonce(&mut out);
        self.put_chunks(&mut out, content)?;
        self.failed = false;
        Ok(out.freeze())
    }

    /// Seals the last content and the trailers, and ends the reply.
    ///
    /// # Errors
    /// As [`Self::chunk`]; [`SealError::TrailersTooLong`] if they are.
    pub fn finish(mut self, content: &[u8], trailers: &[(&str, &str)]) -> Result<Bytes, SealError> {
        self.begin(content)?;
        let mut tail = Vec::new();
        put_tail(&mut tail, trailers)?;
        if tail.len() > MAX_TAIL {
            return Err(SealError::TrailersTooLong { max: MAX_TAIL });
        }
        let mut out = BytesMut::new();
        self.put_nonce(&mut out);
        let room = MAX_CHUNK
            .saturating_sub(COUNT_LEN)
            .saturating_sub(tail.len());
        let fits = content.len().saturating_add(self.head.len()) <= room;
        let last = if fits {
            content
        } else {
            let (before, last) = cut_end(content, room);
            self.put_chunks(&mut out, before)?;
            last
        };
        self.put_final(&mut out, last, &tail)?;
        Ok(out.freeze())
    }

    /// Marks the sealer failed until the call has succeeded.
    fn begin(&mut self, content: &[u8]) -> Result<(), SealError> {
        if mem::replace(&mut self.failed, true) {
            return Err(SealError::Failed);
        }
        let whole_lines = content.last().is_none_or(|last| *last == b'\n');
        if self.padding != Padding::Off && !whole_lines {
            return Err(SealError::PartialLine);
        }
        Ok(())
    }

    fn put_nonce(&mut self, out: &mut BytesMut) {
        if let Some(nonce) = self.nonce.take() {
            out.extend_from_slice(nonce.as_bytes());
        }
    }

    /// Chunks, none of them the last, with all of `content`.
    fn put_chunks(&mut self, out: &mut BytesMut, mut content: &[u8]) -> Result<(), SealError> {
        while !content.is_empty() || !self.head.is_empty() {
            let overhead = self.head.len().saturating_add(COUNT_LEN);
            let room = MAX_CHUNK.saturating_sub(overhead);
            let piece;
            (piece, content) = match self.padding {
                Padding::Off => content.split_at_checked(room).unwrap_or((content, &[])),
                Padding::Bucket | Padding::Paced => cut_piece(content, room),
            };
            self.put_chunk(out, piece)?;
        }
        Ok(())
    }

    fn put_chunk(&mut self, out: &mut BytesMut, piece: &[u8]) -> Result<(), SealError> {
        let head = mem::take(&mut self.head);
        let filled = self.filled_len(head.len(), piece.len())?;
        let counted = if filled == 0 {
            0
        } else {
            filled.saturating_add(COUNT_LEN)
        };
        let len = head.len().saturating_add(counted);
        let chunk = OpenChunkAt::begin(out, len, Place::Middle)?;
        out.extend_from_slice(&head);
        if filled > 0 {
            put_count(out, filled)?;
            out.extend_from_slice(piece);
            put_comment(out, filled.saturating_sub(piece.len()));
        }
        chunk.end(out, &mut self.sealing)
    }

    /// The length of a chunk of `len` bytes once padded.
    fn padded(&self, len: usize) -> Result<usize, SealError> {
        let padded = match self.padding {
            Padding::Off => Some(len),
            Padding::Bucket | Padding::Paced => len.checked_next_multiple_of(STREAM_UNIT),
        };
        padded.ok_or(SealError::Length)
    }

    /// The length of a chunk's content with the comment that fills it.
    fn filled_len(&self, head: usize, piece: usize) -> Result<usize, SealError> {
        let bare = head.saturating_add(COUNT_LEN).saturating_add(piece);
        let padded = self.padded(bare)?;
        let gap = match padded.saturating_sub(bare) {
            one if one > 0 && one < SHORTEST_COMMENT => one.saturating_add(STREAM_UNIT),
            gap => gap,
        };
        Ok(piece.saturating_add(gap))
    }

    fn put_final(&mut self, out: &mut BytesMut, last: &[u8], tail: &[u8]) -> Result<(), SealError> {
        let head = mem::take(&mut self.head);
        let counted = if last.is_empty() {
            0
        } else {
            last.len().saturating_add(COUNT_LEN)
        };
        let bare = head
            .len()
            .saturating_add(counted)
            .saturating_add(tail.len());
        let len = self.padded(bare)?;
        let chunk = OpenChunkAt::begin(out, len, Place::Final)?;
        out.extend_from_slice(&head);
        if !last.is_empty() {
            put_count(out, last.len())?;
            out.extend_from_slice(last);
        }
        out.extend_from_slice(tail);
        out.put_bytes(0, len.saturating_sub(bare));
        chunk.end(out, &mut self.sealing)
    }
}

impl fmt::Debug for StreamSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSealer(..)")
    }
}

pub(super) fn put_count(out: &mut BytesMut, len: usize) -> Result<(), SealError> {
    let count = u16::try_from(len)
        .ok()
        .filter(|count| *count < TWO_BYTE_FORM);
    out.put_u16(count.ok_or(SealError::Length)? | TWO_BYTE_FORM);
    Ok(())
}

/// Whether these fields are an event stream's, in which comments can stand.
pub(super) fn is_event_stream(fields: &[(&str, &str)]) -> bool {
    fields.iter().any(|(name, value)| {
        let media_type = value.split(';').next().unwrap_or_default().trim_end();
        *name == "content-type" && media_type.eq_ignore_ascii_case(EVENT_STREAM)
    })
}

/// A colon, blanks and LF: `len` bytes, or none.
pub(super) fn put_comment(out: &mut BytesMut, len: usize) {
    if let Some(blanks) = len.checked_sub(SHORTEST_COMMENT) {
        out.put_u8(b':');
        out.put_bytes(b' ', blanks);
        out.put_u8(b'\n');
    }
}

/// What of whole lines goes into a chunk with `room` for content, and what does not.
///
/// The piece ends with a line and leaves a gap that a comment can fill, or none. A line longer than
/// a chunk is cut where the chunk's plaintext is a multiple of 512.
fn cut_piece(content: &[u8], room: usize) -> (&[u8], &[u8]) {
    let fillable = room.saturating_sub(SHORTEST_COMMENT);
    let fits = |len: usize| len <= fillable || len == room;
    if fits(content.len()) {
        return (content, &[]);
    }
    let lines = content
        .get(..room)
        .filter(|lines| lines.ends_with(b"\n"))
        .map(<[u8]>::len);
    let at = lines.or_else(|| {
        let last = memchr::memrchr(b'\n', content.get(..fillable)?)?;
        last.checked_add(1)
    });
    let inside = if content.len() < room {
        room.saturating_sub(STREAM_UNIT)
    } else {
        room
    };
    content
        .split_at_checked(at.unwrap_or(inside))
        .unwrap_or((content, &[]))
}

/// Cuts so that the second part has at most `room` bytes and, where lines allow, begins with one.
fn cut_end(content: &[u8], room: usize) -> (&[u8], &[u8]) {
    let earliest = content.len().saturating_sub(room);
    let from = earliest.saturating_sub(1);
    let line_end = content
        .get(from..)
        .and_then(|end| memchr::memchr(b'\n', end));
    let at = line_end.and_then(|end| from.checked_add(end)?.checked_add(1));
    content
        .split_at_checked(at.unwrap_or(earliest))
        .unwrap_or((content, &[]))
}
