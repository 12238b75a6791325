//! The table of certificates that an SEV-SNP host hands its guest (AMD's "Guest-Hypervisor
//! Communication Block", extended guest request).
//!
//! Entries of 24 bytes stand at the start: a GUID as RFC 9562 writes it, an offset and a length,
//! little-endian; one of zeros ends them. The host is not trusted: nothing here is more than bytes
//! to be checked by the verifier.

use super::pem;

/// Longest table, in bytes; the kernel gives at most 16 KiB.
pub(super) const MAX_TABLE: usize = 64 * 1024;
/// Most entries before the one that ends them.
const MAX_ENTRIES: usize = 32;
const ENTRY_LEN: usize = 24;

const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
/// The certificate over either: AMD's ASK or ASVK.
const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
const CRL: [u8; 16] = 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea_u128.to_be_bytes();

/// Why a table cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Longer than any table.
    #[error("it has {0} bytes; at most {MAX_TABLE} are read")]
    TooLong(usize),
    /// The table ends before its last entry.
    #[error("its entries have no end")]
    Endless,
    /// An entry points outside the table.
    #[error("entry {0} points outside the table")]
    Outside(usize),
    /// A kind of certificate is there twice.
    #[error("entry {0} repeats an earlier one")]
    Repeated(usize),
    /// An entry is neither DER nor PEM.
    #[error("entry {0} holds no certificate")]
    NoCertificate(usize),
}

/// What a host hands its guest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CertificateTable {
    vcek: Option<Vec<u8>>,
    vlek: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    pub(super) crls: Vec<Vec<u8>>,
}

impl CertificateTable {
    /// Reads a table; an empty one, or one of zeros, holds nothing.
    ///
    /// # Errors
    /// [`TableError`] says which entry is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let mut table = Self::default();
        if bytes.is_empty() {
            return Ok(table);
        }
        if bytes.len() > MAX_TABLE {
            return Err(TableError::TooLong(bytes.len()));
        }
        let entries = bytes.chunks_exact(ENTRY_LEN).take(MAX_ENTRIES + 1);
        for (number, entry) in entries.enumerate() {
            if entry.iter().all(|byte| *byte == 0) {
                return Ok(table);
            }
            let (guid, place) = entry.split_at(16);
            let content = content(bytes, place).ok_or(TableError::Outside(number))?;
            table.take(number, guid, content)?;
        }
        Err(TableError::Endless)
    }

    /// The certificates behind a report, leaf first; the root is the verifier's own.
    pub(super) fn chain(&self, signing_key: SigningKey) -> Vec<Vec<u8>> {
        let leaf = match signing_key {
            SigningKey::Vcek => &self.vcek,
            SigningKey::Vlek => &self.vlek,
            SigningKey::Other => &None,
        };
        match leaf {
            Some(leaf) => [Some(leaf), self.authority.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            None => Vec::new(),
        }
    }

    fn take(&mut self, number: usize, guid: &[u8], content: &[u8]) -> Result<(), TableError> {
        let place = match guid {
            guid if guid == VCEK => &mut self.vcek,
            guid if guid == VLEK => &mut self.vlek,
            guid if guid == ASK => &mut self.authority,
            guid if guid == CRL => {
                self.crls.extend(pem::crls(content));
                return Ok(());
            }
            _ => return Ok(()),
        };
        if place.is_some() {
            return Err(TableError::Repeated(number));
        }
        let first = pem::certificates(content).into_iter().next();
        *place = Some(first.ok_or(TableError::NoCertificate(number))?);
        Ok(())
    }
}

/// The bytes that an entry points to.
fn content<'a>(table: &'a [u8], place: &[u8]) -> Option<&'a [u8]> {
    let number = |bytes: &[u8]| usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok();
    let (offset, length) = place.split_at_checked(4)?;
    let (offset, length) = (number(offset)?, number(length)?);
    table.get(offset..offset.checked_add(length)?)
}

/// Which key signed a report (its flags, bits 2 to 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SigningKey {
    Vcek,
    Vlek,
    Other,
}

impl SigningKey {
    /// What `report` says of itself.
    pub(super) fn of(report: &[u8]) -> Self {
        match report.get(0x48).map(|flags| (flags >> 2) & 7) {
            Some(0) => Self::Vcek,
            Some(1) => Self::Vlek,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table as hosts write it.
    pub(crate) fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut head = Vec::new();
        let mut contents = Vec::new();
        for (guid, content) in entries {
            let offset = (entries.len() + 1) * ENTRY_LEN + contents.len();
            head.extend_from_slice(guid);
            head.extend_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
            head.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
            contents.extend_from_slice(content);
        }
        head.extend_from_slice(&[0; ENTRY_LEN]);
        [head, contents].concat()
    }

    pub(crate) const GUIDS: [[u8; 16]; 4] = [VCEK, VLEK, ASK, CRL];
    const ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();
    const LEAF: &[u8] = &[0x30, 1, 1];
    const AUTHORITY: &[u8] = &[0x30, 1, 2];

    #[test]
    fn a_guid_stands_as_it_is_written() {
        assert_eq!(VCEK[..4], [0x63, 0xda, 0x75, 0x8d]);
        assert_eq!(hex::encode(ASK), "4ab7b379bbac4fe4a02f05aef327c782");
    }

    #[test]
    fn the_leaf_comes_first_and_the_root_is_left_out() {
        let pem = b"-----BEGIN CERTIFICATE-----\nMAED\n-----END CERTIFICATE-----\n";
        let bytes = table(&[
            (ARK, &[0x30, 1, 9]),
            (ASK, AUTHORITY),
            (CRL, &[0x30, 1, 4]),
            (VLEK, pem),
            (VCEK, LEAF),
            ([7; 16], b"whatever"),
        ]);
        let table = CertificateTable::parse(&bytes).unwrap();
        assert_eq!(table.chain(SigningKey::Vcek), [LEAF, AUTHORITY]);
        assert_eq!(table.chain(SigningKey::Vlek), [&[0x30, 1, 3], AUTHORITY]);
        assert!(table.chain(SigningKey::Other).is_empty());
        assert_eq!(table.crls, [[0x30, 1, 4]]);
    }

    #[test]
    fn a_host_may_hand_nothing_or_half() {
        for nothing in [vec![], vec![0; 24], vec![0; 16 * 1024], table(&[])] {
            assert_eq!(
                CertificateTable::parse(&nothing),
                Ok(CertificateTable::default())
            );
        }
        let only = |guid, content| CertificateTable::parse(&table(&[(guid, content)])).unwrap();
        assert_eq!(only(VCEK, LEAF).chain(SigningKey::Vcek), [LEAF]);
        assert!(only(ASK, AUTHORITY).chain(SigningKey::Vcek).is_empty());
        assert!(only(VLEK, LEAF).chain(SigningKey::Vcek).is_empty());
    }

    #[test]
    fn what_a_host_gets_wrong_is_named() {
        let one = table(&[(VCEK, LEAF)]);
        let mut beyond = one.clone();
        beyond[20] += 1;
        let mut wraps = one.clone();
        wraps[16..24].copy_from_slice(&[0xff; 8]);
        let many = vec![([7; 16], LEAF); MAX_ENTRIES];
        let too_many = vec![([7; 16], LEAF); MAX_ENTRIES + 1];
        let cases = [
            ("beyond", beyond, TableError::Outside(0)),
            ("wraps", wraps, TableError::Outside(0)),
            (
                "cut in the entries",
                one[..24].to_vec(),
                TableError::Outside(0),
            ),
            (
                "no end",
                [7; 16].iter().chain(&[0; 8]).copied().collect(),
                TableError::Endless,
            ),
            ("half an entry", vec![0; 23], TableError::Endless),
            ("too many", table(&too_many), TableError::Endless),
            (
                "twice",
                table(&[(ASK, AUTHORITY), (VCEK, LEAF), (VCEK, LEAF)]),
                TableError::Repeated(2),
            ),
            (
                "no certificate",
                table(&[(VCEK, b"x")]),
                TableError::NoCertificate(0),
            ),
            (
                "empty certificate",
                table(&[(VCEK, b"")]),
                TableError::NoCertificate(0),
            ),
            (
                "long",
                vec![0; MAX_TABLE + 1],
                TableError::TooLong(MAX_TABLE + 1),
            ),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(CertificateTable::parse(&bytes), Err(expected), "{name}");
        }
        assert!(CertificateTable::parse(&table(&many)).is_ok());
        assert!(CertificateTable::parse(&vec![0; MAX_TABLE]).is_ok());
    }

    #[test]
    fn a_report_says_which_key_signed_it() {
        let mut report = vec![0; 1184];
        for (flags, expected) in [
            (0, SigningKey::Vcek),
            (0b1_1100, SigningKey::Other),
            (0b100, SigningKey::Vlek),
            (0b111, SigningKey::Vlek),
            (0b11, SigningKey::Vcek),
            (0b1000, SigningKey::Other),
        ] {
            report[0x48] = flags;
            assert_eq!(SigningKey::of(&report), expected, "{flags:b}");
        }
        assert_eq!(SigningKey::of(&[]), SigningKey::Other);
    }

    proptest! {
        #[test]
        fn never_panics(
            guid in prop::sample::select(&GUIDS[..]),
            place in any::<[u8; 8]>(),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            drop(CertificateTable::parse(&rest));
            drop(CertificateTable::parse(&[&guid[..], &place, &rest].concat()));
        }
    }
}
