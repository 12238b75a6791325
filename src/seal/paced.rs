//! Sealing a reply that goes out at ticks, in chunks that are all of one length (docs/wire.md,
//! "Hiding lengths").
//!
//! Whoever drives it says when a tick is, and asks for one chunk then: what there is to say travels
//! in it, and what is missing to its length is something that readers pass over. Before the head is
//! known that is an informational response, in an event stream a comment, after the end zeros. What
//! is no event stream goes out whole at one tick, under its bucket.

use std::{fmt, mem};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{
    bhttp::{
        MAX_INFORMATIONAL, Put as _, put_content, put_final_head, put_framing, put_informational,
    },
    chunks::{ChunkWriter, OpenChunkAt},
    context::{Place, ReplySealing},
    error::SealError,
    padding::{Lengths as _, Padding, Row, STREAM_UNIT},
    reply_sealer::{ResponseNonce, put_tail},
    stream::{COUNT_LEN, SHORTEST_COMMENT, is_event_stream, put_comment, put_count},
};

/// Plaintext of every chunk but the last, and of the last too where the trailers fit.
const CHUNK: usize = STREAM_UNIT;
/// Plaintext of the last chunk at least, where it may hold a receipt: one with commitments, salts and usage.
const WITH_RECEIPT: usize = 2048;
/// Status of what travels while the reply's own is not known: 102 Processing (RFC 2518).
const PROCESSING: u16 = 102;
/// What ends an event stream, and stands in the final chunk.
const END: &[u8] = b"data: [DONE]\n\n";

/// Seals a reply chunk by chunk, one at each tick. After an error it is gone.
#[must_use]
pub struct PacedSealer {
    sealing: ReplySealing,
    /// What goes out before anything encrypted; empty once it went.
    nonce: Option<ResponseNonce>,
    head: Head,
    /// Content that has not gone out.
    waiting: BytesMut,
    /// The end of the content and the trailers, once they are known.
    tail: Option<Vec<u8>>,
    /// Chunks that went out.
    sent: usize,
    /// What the number of chunks is one of; none once the reply was cut.
    row: Option<Row>,
    /// Plaintext of the last chunk at least.
    least_last: usize,
}

/// Status and fields of the reply.
enum Head {
    Unknown,
    /// An event stream's, as they are encoded, without the framing indicator.
    Known(Vec<u8>),
    Sent,
    /// With all that follows, of what is no event stream.
    Whole(Vec<u8>),
}

/// What a tick gives.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every tick gives the large one, and it moves back where it was"
)]
pub enum Tick {
    /// A chunk, and what seals the next one.
    Chunk(Bytes, PacedSealer),
    /// The last chunk.
    Last(Bytes),
}

impl PacedSealer {
    pub(in crate::seal) fn new(nonce: ResponseNonce, sealing: ReplySealing, row: Row) -> Self {
        Self {
            sealing,
            nonce: Some(nonce),
            head: Head::Unknown,
            waiting: BytesMut::new(),
            tail: None,
            sent: 0,
            row: Some(row),
            least_last: CHUNK,
        }
    }

    /// The same, whose last chunk has room for a receipt, whether one comes or not and whatever it says.
    pub fn with_room_for_receipt(self) -> Self {
        Self {
            least_last: WITH_RECEIPT,
            ..self
        }
    }

    /// Tells status and fields of an event stream, once.
    ///
    /// # Errors
    /// [`SealError`] if a field is not well-formed, they are no event stream's or do not fit a chunk, or
    /// the reply has begun.
    pub fn begin(&mut self, status: u16, fields: &[(&str, &str)]) -> Result<(), SealError> {
        if self.has_begun() {
            return Err(SealError::Failed);
        }
        if !is_event_stream(fields) {
            return Err(SealError::NotAnEventStream);
        }
        let mut head = Vec::new();
        put_final_head(&mut head, status, fields)?;
        // Some room for content is left beside them, and for the framing indicator.
        if head.len() > CHUNK / 2 {
            return Err(SealError::Malformed("field section"));
        }
        self.head = Head::Known(head);
        Ok(())
    }

    /// Tells a reply that is no event stream, once and whole, trailers included: it goes out at the next
    /// tick.
    ///
    /// # Errors
    /// [`SealError`] if a field or a trailer is not well-formed, or the reply has begun.
    pub fn say(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        content: &[u8],
        trailers: &[(&str, &str)],
    ) -> Result<(), SealError> {
        if self.has_begun() {
            return Err(SealError::Failed);
        }
        let mut message = Vec::new();
        put_final_head(&mut message, status, fields)?;
        put_content(&mut message, content)?;
        put_tail(&mut message, trailers)?;
        self.head = Head::Whole(message);
        Ok(())
    }

    /// Adds content, whole lines.
    ///
    /// # Errors
    /// [`SealError::PartialLine`], or [`SealError::Failed`] before the head and after the end.
    pub fn push(&mut self, content: &[u8]) -> Result<(), SealError> {
        if !self.takes_content() {
            return Err(SealError::Failed);
        }
        if content.last().is_some_and(|last| *last != b'\n') {
            return Err(SealError::PartialLine);
        }
        self.waiting.extend_from_slice(content);
        Ok(())
    }

    /// Ends the content, and adds the trailers.
    ///
    /// # Errors
    /// [`SealError`] if a trailer is not well-formed or they are too long; [`SealError::Failed`]
    /// before the head and after the end.
    pub fn end(&mut self, trailers: &[(&str, &str)]) -> Result<(), SealError> {
        if !self.takes_content() {
            return Err(SealError::Failed);
        }
        let mut tail = Vec::new();
        put_tail(&mut tail, trailers)?;
        self.tail = Some(tail);
        Ok(())
    }

    /// Ends the reply with the next tick: what waits is lost, unless it is the end itself, in full.
    /// Says whether something is.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub fn cut(&mut self, trailers: &[(&str, &str)]) -> Result<bool, SealError> {
        self.row = None;
        if self.is_last() {
            return Ok(false);
        }
        self.waiting.clear();
        self.tail = None;
        self.end(trailers)?;
        Ok(true)
    }

    /// Whether the reply's status is known.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(self.head, Head::Unknown)
    }

    /// Whether readers would pass over no more before the reply's status: it has to begin now.
    #[must_use]
    pub fn must_begin(&self) -> bool {
        !self.has_begun() && self.sent >= MAX_INFORMATIONAL
    }

    /// Bytes of content that have not gone out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Seals what goes out at this tick.
    ///
    /// # Errors
    /// [`SealError`] if the counter is used up, or the reply [had to begin](Self::must_begin) and did
    /// not: it must be aborted then.
    pub fn tick(mut self) -> Result<Tick, SealError> {
        if self.must_begin() {
            return Err(SealError::Failed);
        }
        if matches!(self.head, Head::Whole(_)) {
            return self.put_whole().map(Tick::Last);
        }
        let mut out = BytesMut::new();
        if let Some(nonce) = self.nonce.take() {
            out.extend_from_slice(nonce.as_bytes());
        }
        if self.is_last() {
            self.put_last(&mut out)?;
            return Ok(Tick::Last(out.freeze()));
        }
        let mut head = self.framing();
        match mem::replace(&mut self.head, Head::Sent) {
            Head::Unknown => {
                let room = CHUNK.saturating_sub(head.len());
                put_informational(&mut head, PROCESSING, room)?;
                self.head = Head::Unknown;
            }
            Head::Known(known) => head.extend_from_slice(&known),
            Head::Sent | Head::Whole(_) => {}
        }
        self.put_middle(&mut out, &head)?;
        self.sent = self.sent.saturating_add(1);
        Ok(Tick::Chunk(out.freeze(), self))
    }

    fn takes_content(&self) -> bool {
        matches!(self.head, Head::Known(_) | Head::Sent) && self.tail.is_none()
    }

    /// What stands before the first chunk's head.
    fn framing(&self) -> Vec<u8> {
        let mut framing = Vec::new();
        if self.sent == 0 {
            put_framing(&mut framing);
        }
        framing
    }

    /// The end event, where the content has one: it is kept for the final chunk.
    fn kept(&self) -> usize {
        let has_end = self.tail.is_some() && self.waiting.ends_with(END);
        if has_end { END.len() } else { 0 }
    }

    /// Whether the next chunk is the last: all that waits fits in it, and the total is of the row.
    fn is_last(&self) -> bool {
        let Some(tail) = &self.tail else {
            return matches!(self.head, Head::Whole(_));
        };
        let waits = self.waiting.len();
        let room = CHUNK.saturating_sub(self.head_len());
        // With a receipt, what the trailers leave free must not show in what else goes with them.
        let shares =
            self.least_last == CHUNK && counted_len(waits).saturating_add(tail.len()) <= room;
        let fits = waits == self.kept() || shares;
        let next = self.sent.saturating_add(1);
        fits && self.row.is_none_or(|row| row.total(next) == next)
    }

    fn head_len(&self) -> usize {
        let framing = usize::from(self.sent == 0);
        match &self.head {
            Head::Known(head) => head.len().saturating_add(framing),
            Head::Unknown | Head::Sent | Head::Whole(_) => framing,
        }
    }

    /// A chunk that is not the last, of `head` and then as much content as fits.
    fn put_middle(&mut self, out: &mut BytesMut, head: &[u8]) -> Result<(), SealError> {
        let chunk = OpenChunkAt::begin(out, CHUNK, Place::Middle)?;
        out.extend_from_slice(head);
        let room = CHUNK.saturating_sub(head.len());
        if let Some(room) = room.checked_sub(COUNT_LEN).filter(|room| *room > 0) {
            self.put_content(out, room)?;
        }
        chunk.end(out, &mut self.sealing)
    }

    /// Content that takes `room` and the integer before it.
    fn put_content(&mut self, out: &mut BytesMut, room: usize) -> Result<(), SealError> {
        let ready = self.waiting.len().saturating_sub(self.kept()).min(room);
        let gap = room.saturating_sub(ready);
        if gap > 0 && gap < SHORTEST_COMMENT {
            // No comment is so short: the integer of a second piece is.
            let second = ready.min(1);
            let first = ready.saturating_sub(second);
            put_count(out, first)?;
            self.put_waiting(out, first);
            out.put_u8(1);
            self.put_waiting(out, second);
            return Ok(());
        }
        put_count(out, room)?;
        self.put_waiting(out, ready);
        put_comment(out, gap);
        Ok(())
    }

    fn put_waiting(&mut self, out: &mut BytesMut, len: usize) {
        if let Some(piece) = self.waiting.get(..len) {
            out.extend_from_slice(piece);
            self.waiting.advance(len);
        }
    }

    /// All of what is no event stream, in the form of a whole message.
    fn put_whole(mut self) -> Result<Bytes, SealError> {
        let nonce = self.nonce.take();
        let nonce = nonce.as_ref().map_or(&[][..], ResponseNonce::as_bytes);
        let mut plain = self.framing();
        if let Head::Whole(message) = &self.head {
            plain.extend_from_slice(message);
        }
        let len = Padding::Bucket
            .whole(plain.len())
            .ok_or(SealError::Length)?;
        let mut out = ChunkWriter::new(&[nonce], &mut self.sealing, len)?;
        out.put(&plain)?;
        out.finish()
    }

    fn put_last(mut self, out: &mut BytesMut) -> Result<(), SealError> {
        let mut plain = self.framing();
        if let Head::Known(head) = &self.head {
            plain.extend_from_slice(head);
        }
        let tail = self.tail.take().unwrap_or_default();
        let bare = plain
            .len()
            .saturating_add(counted_len(self.waiting.len()))
            .saturating_add(tail.len());
        // Powers of two, so that a receipt's length does not tell how many digits the usage has.
        let len = bare.max(self.least_last).next_power_of_two();
        let chunk = OpenChunkAt::begin(out, len, Place::Final)?;
        out.extend_from_slice(&plain);
        if !self.waiting.is_empty() {
            put_count(out, self.waiting.len())?;
            out.extend_from_slice(&self.waiting);
        }
        out.extend_from_slice(&tail);
        out.put_bytes(0, len.saturating_sub(bare));
        chunk.end(out, &mut self.sealing)
    }
}

impl fmt::Debug for PacedSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacedSealer(..)")
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk(..) => "Chunk(..)",
            Self::Last(_) => "Last(..)",
        })
    }
}

/// Content with the integer before it, which is not there without content.
fn counted_len(content: usize) -> usize {
    if content == 0 {
        0
    } else {
        content.saturating_add(COUNT_LEN)
    }
}
