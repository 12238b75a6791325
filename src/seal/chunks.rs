//! Writing a message as sealed chunks into one buffer of its exact length.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    bhttp::Put,
    context::{Place, SealChunk},
    error::SealError,
    framing::MAX_CHUNK,
    suite::TAG_LEN,
    varint,
};

/// What stands before a chunk: its sealed length, or zero before the last.
fn prefix(len: usize, place: Place) -> Result<varint::Encoded, SealError> {
    let sealed = match place {
        Place::Middle => len.checked_add(TAG_LEN).ok_or(SealError::Length)?,
        Place::Final => 0,
    };
    varint::encode(sealed).ok_or(SealError::Length)
}

/// Bytes on the wire of a chunk with `len` bytes of plaintext.
fn wire_len(len: usize, place: Place) -> Result<usize, SealError> {
    let prefix = prefix(len, place)?.as_bytes().len();
    prefix
        .checked_add(len)
        .and_then(|n| n.checked_add(TAG_LEN))
        .ok_or(SealError::Length)
}

/// Writes one chunk of known length at the end of `out`: room and prefix when it begins, cipher and
/// tag when it ends.
pub(super) struct OpenChunkAt {
    start: usize,
    len: usize,
    place: Place,
}

impl OpenChunkAt {
    pub(super) fn begin(out: &mut BytesMut, len: usize, place: Place) -> Result<Self, SealError> {
        out.reserve(wire_len(len, place)?);
        out.extend_from_slice(prefix(len, place)?.as_bytes());
        Ok(Self {
            start: out.len(),
            len,
            place,
        })
    }

    pub(super) fn end(
        self,
        out: &mut BytesMut,
        sealing: &mut impl SealChunk,
    ) -> Result<(), SealError> {
        let chunk = out
            .get_mut(self.start..)
            .filter(|chunk| chunk.len() == self.len);
        let tag = sealing.seal_in_place(chunk.ok_or(SealError::Length)?, self.place)?;
        out.extend_from_slice(&tag);
        Ok(())
    }
}

/// Takes a message of known length piece by piece, cuts it every 16,384 bytes, and encrypts each
/// chunk where it lies as soon as it is full.
pub(super) struct ChunkWriter<'a, S> {
    out: BytesMut,
    sealing: &'a mut S,
    /// Plaintext that belongs to chunks not begun yet.
    left: usize,
    /// Plaintext that the current chunk still lacks.
    room: usize,
    chunk: Option<OpenChunkAt>,
}

impl<'a, S: SealChunk> ChunkWriter<'a, S> {
    /// A message of `len` bytes of plaintext after `head`, which is not encrypted.
    pub(super) fn new(head: &[&[u8]], sealing: &'a mut S, len: usize) -> Result<Self, SealError> {
        let whole = len
            .saturating_sub(1)
            .checked_div(MAX_CHUNK)
            .ok_or(SealError::Length)?;
        let full = whole.checked_mul(wire_len(MAX_CHUNK, Place::Middle)?);
        let last = len.saturating_sub(whole.saturating_mul(MAX_CHUNK));
        let last = wire_len(last, Place::Final)?;
        let head_len = head.iter().map(|part| part.len()).sum::<usize>();
        let total = full
            .and_then(|full| full.checked_add(last))
            .and_then(|chunks| chunks.checked_add(head_len))
            .ok_or(SealError::Length)?;
        let mut out = BytesMut::with_capacity(total);
        for part in head {
            out.extend_from_slice(part);
        }
        let mut writer = Self {
            out,
            sealing,
            left: len,
            room: 0,
            chunk: None,
        };
        writer.begin()?;
        Ok(writer)
    }

    fn begin(&mut self) -> Result<(), SealError> {
        let (len, place) = if self.left > MAX_CHUNK {
            (MAX_CHUNK, Place::Middle)
        } else {
            (self.left, Place::Final)
        };
        self.left = self.left.saturating_sub(len);
        self.room = len;
        self.chunk = Some(OpenChunkAt::begin(&mut self.out, len, place)?);
        Ok(())
    }

    /// Encrypts the chunk if it is full, and begins the next if there is one.
    fn turn(&mut self) -> Result<(), SealError> {
        if self.room > 0 {
            return Ok(());
        }
        if let Some(chunk) = self.chunk.take() {
            chunk.end(&mut self.out, self.sealing)?;
        }
        if self.left > 0 { self.begin() } else { Ok(()) }
    }

    /// Fills what is left with zeros, and returns the whole message.
    pub(super) fn finish(mut self) -> Result<Bytes, SealError> {
        while self.room > 0 {
            self.out.put_bytes(0, self.room);
            self.room = 0;
            self.turn()?;
        }
        if let Some(chunk) = self.chunk.take() {
            chunk.end(&mut self.out, self.sealing)?;
        }
        Ok(self.out.freeze())
    }
}

impl<S: SealChunk> Put for ChunkWriter<'_, S> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), SealError> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at_checked(self.room).unwrap_or((bytes, &[]));
            if piece.is_empty() {
                return Err(SealError::Length);
            }
            self.out.extend_from_slice(piece);
            self.room = self.room.saturating_sub(piece.len());
            bytes = rest;
            self.turn()?;
        }
        Ok(())
    }
}
