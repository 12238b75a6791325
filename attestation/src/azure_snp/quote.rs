//! A TPM's quote: `TPMS_ATTEST` (TPM 2.0 library, part 2, section 10.12), big-endian.

use crate::azure_snp::reader::Reader;

/// `TPM_GENERATED_VALUE`: only a TPM begins what it signs with it.
const MAGIC: [u8; 4] = [0xff, 0x54, 0x43, 0x47];
/// `TPM_ST_ATTEST_QUOTE`.
const QUOTE: [u8; 2] = [0x80, 0x18];
/// `TPM_ALG_SHA256`.
const SHA_256: [u8; 2] = [0x00, 0x0b];
/// Longest name of a key: an algorithm and a digest of SHA-512.
const MAX_NAME: usize = 66;
/// Longest extra data: a digest of SHA-512.
const MAX_EXTRA_DATA: usize = 64;
/// Clock, reset and restart counts, which nothing is compared with.
const CLOCK_LEN: usize = 16;
const FIRMWARE_VERSION_LEN: usize = 8;

/// What a quote says. Nothing about it is verified.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Quote<'a> {
    /// What whoever asked gave.
    pub(super) extra_data: &'a [u8],
    /// A bit for each register, PCR0 the lowest of the first byte.
    selection: [u8; 3],
    /// SHA-256 over the values of the registers that are selected, in their order.
    pub(super) pcr_digest: &'a [u8; 32],
}

/// Why bytes are no quote.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuoteError {
    /// The bytes end within a field.
    #[error("ends early")]
    Truncated,
    /// A field with another value or length than it must have.
    #[error("{0} is another")]
    Field(&'static str),
    /// No register is selected.
    #[error("no register")]
    NoRegister,
    /// Bytes after the last field.
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

impl<'a> Quote<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let mut reader = Reader::new(bytes);
        is("magic", take(&mut reader)? == &MAGIC)?;
        is("type", take(&mut reader)? == &QUOTE)?;
        sized(&mut reader, "signer's name", MAX_NAME)?;
        let extra_data = sized(&mut reader, "extra data", MAX_EXTRA_DATA)?;
        take::<CLOCK_LEN>(&mut reader)?;
        let safe = take::<1>(&mut reader)?;
        is("clock's safety", matches!(safe, [0 | 1]))?;
        take::<FIRMWARE_VERSION_LEN>(&mut reader)?;
        is("number of banks", take(&mut reader)? == &[0, 0, 0, 1])?;
        is("bank", take(&mut reader)? == &SHA_256)?;
        is("selection's length", take(&mut reader)? == &[3])?;
        let selection = *take(&mut reader)?;
        let digest = sized(&mut reader, "digest", 32)?;
        let pcr_digest = digest.try_into();
        let quote = Self {
            extra_data,
            selection,
            pcr_digest: pcr_digest.map_err(|_| QuoteError::Field("digest"))?,
        };
        match reader.rest().len() {
            0 => {}
            len => return Err(QuoteError::Trailing(len)),
        }
        match selection {
            [0, 0, 0] => Err(QuoteError::NoRegister),
            _ => Ok(quote),
        }
    }

    /// The numbers of the registers that are selected, in their order.
    pub(super) fn selected(&self) -> impl Iterator<Item = usize> {
        let [low, middle, high] = self.selection;
        let bits = u32::from_le_bytes([low, middle, high, 0]);
        (0_usize..24).filter(move |at| bits >> at & 1 == 1)
    }
}

fn is(field: &'static str, as_it_must: bool) -> Result<(), QuoteError> {
    as_it_must.then_some(()).ok_or(QuoteError::Field(field))
}

fn take<'a, const N: usize>(reader: &mut Reader<'a>) -> Result<&'a [u8; N], QuoteError> {
    reader.array().ok_or(QuoteError::Truncated)
}

/// A `TPM2B`: two bytes of length, then as many.
fn sized<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
    most: usize,
) -> Result<&'a [u8], QuoteError> {
    let len = usize::from(u16::from_be_bytes(*take(reader)?));
    is(field, len <= most)?;
    reader.slice(len).ok_or(QuoteError::Truncated)
}
