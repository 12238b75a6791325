//! Integers of variable length (RFC 9000 section 16).

/// Length of the integer that begins with this byte.
pub(super) const fn len_from(first: u8) -> usize {
    match first >> 6 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => 8,
    }
}

/// The value of a whole integer, in whichever of its forms it was written.
pub(super) fn decode(bytes: &[u8]) -> u64 {
    let mut rest = bytes.iter();
    let first = rest.next().map_or(0, |byte| u64::from(byte & 0x3f));
    rest.fold(first, |value, byte| (value << 8) | u64::from(*byte))
}

/// An integer in its shortest form.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    bytes: [u8; 8],
    len: usize,
}

impl Encoded {
    pub(super) fn as_bytes(&self) -> &[u8] {
        let skipped = self.bytes.len().saturating_sub(self.len);
        self.bytes.get(skipped..).unwrap_or_default()
    }
}

/// The shortest form of `value`, or `None` from 2^62 on.
pub(super) fn encode(value: usize) -> Option<Encoded> {
    let value = u64::try_from(value).ok()?;
    let (len, marker) = match value {
        0..=0x3f => (1, 0),
        0x40..=0x3fff => (2, 1 << 14),
        0x4000..=0x3fff_ffff => (4, 2 << 30),
        0x4000_0000..=0x3fff_ffff_ffff_ffff => (8, 3 << 62),
        _ => return None,
    };
    Some(Encoded {
        bytes: (value | marker).to_be_bytes(),
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_decodes_and_the_shortest_is_written() {
        // RFC 9000 appendix A.1, and one value in all four forms.
        let cases: [(&[u8], u64); 8] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
            (&[0x80, 0, 0, 0x25], 37),
            (&[0xc0, 0, 0, 0, 0, 0, 0, 0x25], 37),
            (&[0], 0),
        ];
        for (bytes, value) in cases {
            assert_eq!(len_from(bytes[0]), bytes.len(), "{value}");
            assert_eq!(decode(bytes), value);
        }
        for value in [
            0,
            63,
            64,
            16_383,
            16_384,
            16_400,
            (1 << 30) - 1,
            1 << 30,
            (1 << 62) - 1,
        ] {
            let encoded = encode(value).unwrap();
            assert_eq!(decode(encoded.as_bytes()), value as u64);
            assert_eq!(len_from(encoded.as_bytes()[0]), encoded.as_bytes().len());
        }
        assert!(encode(1 << 62).is_none());
    }
}
