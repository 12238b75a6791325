//! A strict reader of CBOR (RFC 8949), as far as attestation documents need it.
//!
//! The caller says what comes next, so nothing nests deeper than its own code and nothing is
//! allocated. Lengths are definite and every head is in its shortest form, so that the bytes around
//! a signature cannot be written in two ways. A general decoder would accept more and then have to
//! be checked for duplicate keys, indefinite lengths and depth; this is shorter than those checks.

/// Major types (RFC 8949 section 3.1).
const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/// The simple value `null`.
const NULL: u8 = 0xf6;

/// Why bytes are not the CBOR that was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CborError {
    /// The bytes end within an item.
    #[error("ends early")]
    Truncated,
    /// Something else stands where an item of this type must.
    #[error("another item in the place of {0}")]
    Type(&'static str),
    /// An indefinite or reserved length, or a head longer than its number needs.
    #[error("a length or number that is indefinite or not in its shortest form")]
    Form,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// Bytes after the last item.
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

/// Reads items one after another.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, CborError> {
        self.head(UNSIGNED, "an unsigned integer")
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let len = self.head(BYTES, "a byte string")?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CborError> {
        let len = self.head(TEXT, "a text")?;
        str::from_utf8(self.take(len)?).map_err(|_| CborError::Utf8)
    }

    /// The number of items that follow.
    pub(super) fn array(&mut self) -> Result<u64, CborError> {
        self.head(ARRAY, "an array")
    }

    /// The number of pairs that follow.
    pub(super) fn map(&mut self) -> Result<u64, CborError> {
        self.head(MAP, "a map")
    }

    /// A byte string, or `null` for none.
    pub(super) fn bytes_or_null(&mut self) -> Result<Option<&'a [u8]>, CborError> {
        if let Some((&NULL, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok(None);
        }
        self.bytes().map(Some)
    }

    /// Passes a tag if one comes next; tells its number.
    pub(super) fn tag(&mut self) -> Result<Option<u64>, CborError> {
        match self.0.first() {
            Some(first) if first >> 5 == TAG => self.head(TAG, "a tag").map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn finish(self) -> Result<(), CborError> {
        match self.0.len() {
            0 => Ok(()),
            len => Err(CborError::Trailing(len)),
        }
    }

    fn head(&mut self, major: u8, expected: &'static str) -> Result<u64, CborError> {
        let (first, rest) = self.0.split_first().ok_or(CborError::Truncated)?;
        if first >> 5 != major {
            return Err(CborError::Type(expected));
        }
        self.0 = rest;
        let (value, least) = match first & 0x1f {
            value @ 0..24 => (u64::from(value), 0),
            24 => (self.number::<1>()?, 24),
            25 => (self.number::<2>()?, 1 << 8),
            26 => (self.number::<4>()?, 1 << 16),
            27 => (self.number::<8>()?, 1 << 32),
            _ => return Err(CborError::Form),
        };
        if value < least {
            return Err(CborError::Form);
        }
        Ok(value)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, CborError> {
        let (bytes, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CborError::Truncated)?;
        self.0 = rest;
        let shifted = bytes
            .iter()
            .fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        Ok(shifted)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.0.split_at_checked(len));
        let (taken, rest) = taken.ok_or(CborError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8949 appendix A, and what stands just outside the shortest form.
    #[test]
    fn numbers_are_in_their_shortest_form() {
        let cases: [(&[u8], Result<u64, CborError>); 19] = [
            (&[0x00], Ok(0)),
            (&[0x17], Ok(23)),
            (&[0x18, 0x18], Ok(24)),
            (&[0x18, 0x17], Err(CborError::Form)),
            (&[0x18, 0xff], Ok(255)),
            (&[0x19, 0x01, 0x00], Ok(256)),
            (&[0x19, 0x00, 0xff], Err(CborError::Form)),
            (&[0x1a, 0x00, 0x01, 0x00, 0x00], Ok(65_536)),
            (&[0x1a, 0x00, 0x00, 0xff, 0xff], Err(CborError::Form)),
            (&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0], Ok(1 << 32)),
            (
                &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                Err(CborError::Form),
            ),
            (
                &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                Ok(u64::MAX),
            ),
            (&[0x1c], Err(CborError::Form)),
            (&[0x1f], Err(CborError::Form)),
            (&[0x20], Err(CborError::Type("an unsigned integer"))),
            (&[], Err(CborError::Truncated)),
            (&[0x18], Err(CborError::Truncated)),
            (&[0x19, 0x01], Err(CborError::Truncated)),
            (&[0x1b, 1, 2, 3, 4, 5, 6, 7], Err(CborError::Truncated)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).unsigned(), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn strings_have_a_definite_length_that_is_there() {
        assert_eq!(Reader::new(&[0x42, 1, 2]).bytes(), Ok(&[1, 2][..]));
        assert_eq!(Reader::new(&[0x40]).bytes(), Ok(&[][..]));
        assert_eq!(Reader::new(&[0x62, b'o', b'k']).text(), Ok("ok"));
        let cases: [(&[u8], CborError); 6] = [
            (&[0x42, 1], CborError::Truncated),
            (&[0x5f, 0x41, 1, 0xff], CborError::Form),
            (&[0x58, 0x01, 1], CborError::Form),
            (
                &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                CborError::Truncated,
            ),
            (&[0x61, b'a'], CborError::Type("a byte string")),
            (&[0xf6], CborError::Type("a byte string")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).bytes(), Err(expected), "{bytes:02x?}");
        }
        assert_eq!(Reader::new(&[0x61, 0xff]).text(), Err(CborError::Utf8));
        let not_text = Err(CborError::Type("a text"));
        assert_eq!(Reader::new(&[0x41, b'a']).text(), not_text);
    }

    #[test]
    fn items_follow_one_another_to_the_end() {
        let mut reader = Reader::new(&[0xd2, 0x82, 0xa1, 0xf6, 0x41, 7]);
        assert_eq!(reader.tag(), Ok(Some(18)));
        assert_eq!(reader.tag(), Ok(None));
        assert_eq!(reader.array(), Ok(2));
        assert_eq!(reader.map(), Ok(1));
        assert_eq!(reader.bytes_or_null(), Ok(None));
        assert_eq!(reader.bytes_or_null(), Ok(Some(&[7][..])));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(Reader::new(&[0; 3]).finish(), Err(CborError::Trailing(3)));
        let indefinite = Err(CborError::Form);
        assert_eq!(Reader::new(&[0x9f, 0xff]).array(), indefinite);
        assert_eq!(Reader::new(&[0xbf, 0xff]).map(), indefinite);
    }
}
