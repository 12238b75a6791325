//! Where one chunk of a body ends and the next begins (draft-ietf-ohai-chunked-ohttp section 3).
//!
//! Lengths are not authenticated, so nothing is concluded from them but where to cut.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{error::OpenError, suite::TAG_LEN, varint};

/// Longest plaintext of one chunk.
pub(super) const MAX_CHUNK: usize = 16 * 1024;
/// Longest chunk with its tag.
pub(super) const MAX_SEALED_CHUNK: usize = MAX_CHUNK + TAG_LEN;
/// Shortest chunk but the last: one byte and its tag.
const MIN_SEALED_CHUNK: usize = TAG_LEN + 1;
/// Most bytes that may wait when more are pushed.
const MAX_UNREAD: usize = 1024 * 1024;

/// Cuts the body of a message into sealed chunks, however its bytes arrive.
#[derive(Default)]
pub(super) struct Deframer {
    unread: BytesMut,
    next: Next,
}

#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Length,
    Chunk(usize),
    /// Runs to the end of the body.
    Final,
}

impl Deframer {
    /// Takes bytes in, without a copy where they are held by nobody else.
    pub(super) fn push(&mut self, bytes: Bytes) -> Result<(), OpenError> {
        if self.unread.len() > MAX_UNREAD {
            return Err(OpenError::Unread { max: MAX_UNREAD });
        }
        if !self.unread.is_empty() {
            self.unread.extend_from_slice(&bytes);
            return Ok(());
        }
        match bytes.try_into_mut() {
            Ok(bytes) => self.unread = bytes,
            Err(bytes) => self.unread.extend_from_slice(&bytes),
        }
        Ok(())
    }

    /// The `N` bytes that stand before the chunks, once they are there.
    pub(super) fn head(&mut self, len: usize) -> Option<BytesMut> {
        (self.unread.len() >= len).then(|| self.unread.split_to(len))
    }

    /// The next whole chunk that is not the last.
    pub(super) fn next_chunk(&mut self) -> Result<Option<BytesMut>, OpenError> {
        if matches!(self.next, Next::Length) {
            self.read_length()?;
        }
        match self.next {
            Next::Chunk(len) if self.unread.len() >= len => {
                self.next = Next::Length;
                Ok(Some(self.unread.split_to(len)))
            }
            Next::Final if self.unread.len() > MAX_SEALED_CHUNK => {
                Err(OpenError::FinalChunkTooLong {
                    max: MAX_SEALED_CHUNK,
                })
            }
            Next::Length | Next::Chunk(_) | Next::Final => Ok(None),
        }
    }

    /// The last chunk, at the end of the body and after every other chunk was taken.
    pub(super) fn finish(self) -> Result<BytesMut, OpenError> {
        match self.next {
            Next::Final if self.unread.len() > MAX_SEALED_CHUNK => {
                Err(OpenError::FinalChunkTooLong {
                    max: MAX_SEALED_CHUNK,
                })
            }
            Next::Final if self.unread.len() >= TAG_LEN => Ok(self.unread),
            Next::Length | Next::Chunk(_) | Next::Final => Err(OpenError::Truncated),
        }
    }

    fn read_length(&mut self) -> Result<(), OpenError> {
        let Some(first) = self.unread.first() else {
            return Ok(());
        };
        let prefix_len = varint::len_from(*first);
        let Some(prefix) = self.unread.get(..prefix_len) else {
            return Ok(());
        };
        let len = varint::decode(prefix);
        self.next = match usize::try_from(len) {
            Ok(0) => Next::Final,
            Ok(len @ MIN_SEALED_CHUNK..=MAX_SEALED_CHUNK) => Next::Chunk(len),
            Ok(_) | Err(_) => {
                return Err(OpenError::ChunkLength {
                    len,
                    min: MIN_SEALED_CHUNK,
                    max: MAX_SEALED_CHUNK,
                });
            }
        };
        self.unread.advance(prefix_len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> (Deframer, Result<Option<BytesMut>, OpenError>) {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::copy_from_slice(bytes)).unwrap();
        let chunk = deframer.next_chunk();
        (deframer, chunk)
    }

    #[test]
    fn lengths_outside_the_limits_are_refused_on_sight() {
        for len in (1..=16).chain([16_401, 1 << 20, (1 << 62) - 1]) {
            let prefix = varint::encode(len).unwrap();
            let refused = OpenError::ChunkLength {
                len: len as u64,
                min: 17,
                max: 16_400,
            };
            assert_eq!(after(prefix.as_bytes()).1, Err(refused), "{len}");
        }
        for len in [17, 16_400] {
            assert_eq!(
                after(varint::encode(len).unwrap().as_bytes()).1,
                Ok(None),
                "{len}"
            );
        }
        let mut long = vec![0; 1 + 16_401];
        assert_eq!(
            after(&long).1,
            Err(OpenError::FinalChunkTooLong { max: 16_400 })
        );
        long.pop();
        let (deframer, chunk) = after(&long);
        assert_eq!(chunk, Ok(None));
        assert_eq!(deframer.finish().unwrap().len(), 16_400);
    }

    #[test]
    fn an_end_needs_a_final_chunk_with_a_tag() {
        let cases: [(&str, Vec<u8>); 6] = [
            ("nothing", vec![]),
            ("half a length", vec![0x40]),
            ("half a chunk", vec![17, 1, 2]),
            ("a chunk and no final", [vec![17], vec![0; 17]].concat()),
            ("a final without content", vec![0]),
            ("a final shorter than a tag", vec![0; 16]),
        ];
        for (name, bytes) in cases {
            let (mut deframer, chunk) = after(&bytes);
            if chunk.unwrap().is_some() {
                assert_eq!(deframer.next_chunk(), Ok(None), "{name}");
            }
            assert_eq!(deframer.finish(), Err(OpenError::Truncated), "{name}");
        }
    }

    #[test]
    fn long_forms_of_a_length_are_accepted() {
        let (mut deframer, chunk) = after(&[&[0x80, 0, 0, 17][..], &[7; 17], &[0x40, 0]].concat());
        assert_eq!(chunk.unwrap().unwrap()[..], [7; 17]);
        assert_eq!(deframer.next_chunk(), Ok(None));
        deframer.push(Bytes::from_static(&[1; 16])).unwrap();
        assert_eq!(deframer.finish().unwrap()[..], [1; 16]);
    }

    /// Also if nobody asked for a chunk after its last bytes came.
    #[test]
    fn a_final_chunk_that_is_too_long_is_refused_at_the_end() {
        let (mut deframer, chunk) = after(&[0]);
        assert_eq!(chunk, Ok(None));
        deframer.push(Bytes::from(vec![1; 16_401])).unwrap();
        let refused = OpenError::FinalChunkTooLong { max: 16_400 };
        assert_eq!(deframer.finish(), Err(refused));
    }

    #[test]
    fn bytes_that_nobody_reads_are_bounded() {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from(vec![0x11; MAX_UNREAD])).unwrap();
        deframer.push(Bytes::from_static(&[0x11])).unwrap();
        assert_eq!(
            deframer.push(Bytes::new()),
            Err(OpenError::Unread { max: MAX_UNREAD })
        );
    }
}
