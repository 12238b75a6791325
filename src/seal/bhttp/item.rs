//! The two things a message is made of, integers and counted bytes, when they come in pieces.

use std::mem;

use bytes::Bytes;

use super::FormError;
use crate::seal::varint;

/// An integer or counted bytes of which a part has come.
#[derive(Default)]
pub(in crate::seal) struct Item {
    held: Vec<u8>,
    /// The length of the counted bytes, once it has come.
    len: Option<usize>,
}

impl Item {
    /// Whether nothing of an item has come.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.len.is_none()
    }

    /// The next integer, of any length form; `None` asks for more input.
    pub(super) fn integer(&mut self, input: &mut Bytes) -> Option<u64> {
        self.fill(input, 1);
        let len = varint::len_from(*self.held.first()?);
        if !self.fill(input, len) {
            return None;
        }
        let value = varint::decode(&self.held);
        self.held.clear();
        Some(value)
    }

    /// The next counted bytes, refused with `refusal` if over `max`; `None` asks for more input.
    pub(super) fn counted(
        &mut self,
        input: &mut Bytes,
        max: usize,
        refusal: FormError,
    ) -> Result<Option<Vec<u8>>, FormError> {
        let len = match self.len {
            Some(len) => len,
            None => {
                let Some(len) = self.integer(input) else {
                    return Ok(None);
                };
                usize::try_from(len)
                    .ok()
                    .filter(|len| *len <= max)
                    .ok_or(refusal)?
            }
        };
        self.len = Some(len);
        if !self.fill(input, len) {
            return Ok(None);
        }
        self.len = None;
        Ok(Some(mem::take(&mut self.held)))
    }

    /// Moves input over until `len` bytes are held.
    fn fill(&mut self, input: &mut Bytes, len: usize) -> bool {
        let missing = len.saturating_sub(self.held.len()).min(input.len());
        self.held.extend_from_slice(&input.split_to(missing));
        self.held.len() >= len
    }
}
