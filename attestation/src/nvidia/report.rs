//! The report of a GPU or switch: an SPDM 1.1 `GET_MEASUREMENTS` request and the response to it
//! (DMTF DSP0274 section 10.11), as NVIDIA's driver hands them out.
//!
//! Read strictly and borrowed from the bytes received. Nothing is verified here.

/// Longest report, in bytes; genuine ones have 2,100 to 4,300.
pub const MAX_REPORT: usize = 16 * 1024;

/// Version 1.1, `GET_MEASUREMENTS`, signature wanted, all measurements.
const REQUEST: [u8; 4] = [0x11, 0xe0, 0x01, 0xff];
/// Version 1.1, `MEASUREMENTS`, both parameters zero.
const RESPONSE: [u8; 4] = [0x11, 0x60, 0x00, 0x00];
/// The certificate slot that request and response are about.
const SLOT: [u8; 1] = [0];
/// The measurement specification: DMTF.
const DMTF: [u8; 1] = [1];
/// Type and length that stand before a DMTF measurement's value.
const VALUE_HEADER: u16 = 3;
const SIGNATURE_LEN: usize = 96;
/// Most opaque records; genuine reports have under 40.
const MAX_RECORDS: usize = 256;

/// A report, parsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report<'a> {
    /// The nonce of the request.
    pub nonce: &'a [u8; 32],
    /// By rising index.
    pub measurements: Vec<Measurement<'a>>,
    /// What the device drew for its response.
    pub responder_nonce: &'a [u8; 32],
    /// The records of the opaque data, in order; no type twice.
    pub opaque: Vec<OpaqueRecord<'a>>,
    /// Request and response up to the signature: what the device signed.
    pub signed: &'a [u8],
    /// r and s, big-endian, 48 bytes each.
    pub signature: &'a [u8; SIGNATURE_LEN],
}

/// One measurement block (DSP0274 table 45).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measurement<'a> {
    /// The index, from 1.
    pub index: u8,
    /// What kind of thing was measured.
    pub kind: u8,
    /// The digest.
    pub value: &'a [u8],
}

/// One record of the opaque data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpaqueRecord<'a> {
    /// NVIDIA's number for what it holds.
    pub kind: u16,
    /// The content.
    pub value: &'a [u8],
}

/// Why bytes are no report.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// Longer than [`MAX_REPORT`].
    #[error("report of {len} bytes exceeds the limit of {MAX_REPORT}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It ends inside the part named.
    #[error("ends inside the {0}")]
    Truncated(&'static str),
    /// Bytes that can have one value only have another.
    #[error("the {0} is not that of a signed SPDM 1.1 report of all measurements")]
    Unexpected(&'static str),
    /// The measurement record and the blocks in it disagree about their lengths or number.
    #[error("the measurement blocks do not fill their record")]
    Blocks,
    /// Measurement indexes do not rise.
    #[error("measurement index {0} is zero or out of order")]
    Index(u8),
    /// More opaque records than any device has.
    #[error("more than {MAX_RECORDS} opaque records")]
    TooManyRecords,
    /// An opaque record twice.
    #[error("opaque record {0} appears twice")]
    DuplicateRecord(u16),
    /// Bytes after the signature.
    #[error("{0} bytes after the signature")]
    Trailing(usize),
}

impl<'a> Report<'a> {
    /// Reads a report: request and response, nothing after them.
    ///
    /// # Errors
    /// If it is not exactly that.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        if bytes.len() > MAX_REPORT {
            return Err(ReportError::TooLong { len: bytes.len() });
        }
        let mut rest = bytes;
        expect(&mut rest, REQUEST, "request")?;
        let nonce = take(&mut rest, "request")?;
        expect(&mut rest, SLOT, "request")?;

        expect(&mut rest, RESPONSE, "response")?;
        let [blocks] = *take(&mut rest, "response")?;
        let [low, middle, high] = *take(&mut rest, "response")?;
        let len = u32::from_le_bytes([low, middle, high, 0]);
        let len = usize::try_from(len).map_err(|_| ReportError::Blocks)?;
        let record = slice(&mut rest, len, "measurement record")?;
        let responder_nonce = take(&mut rest, "responder nonce")?;
        let len = u16::from_le_bytes(*take(&mut rest, "opaque data")?);
        let opaque = slice(&mut rest, len.into(), "opaque data")?;
        let signed = bytes.strip_suffix(rest).unwrap_or_default();
        let signature = take(&mut rest, "signature")?;
        if !rest.is_empty() {
            return Err(ReportError::Trailing(rest.len()));
        }
        Ok(Self {
            nonce,
            measurements: measurements(record, blocks)?,
            responder_nonce,
            opaque: records(opaque)?,
            signed,
            signature,
        })
    }

    /// The measurement at an index.
    pub fn measurement(&self, index: u8) -> Option<&'a [u8]> {
        let mut all = self.measurements.iter();
        all.find(|it| it.index == index).map(|it| it.value)
    }

    /// The content of an opaque record.
    pub fn record(&self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self.opaque.iter();
        all.find(|it| it.kind == kind).map(|it| it.value)
    }
}

fn measurements(mut record: &[u8], blocks: u8) -> Result<Vec<Measurement<'_>>, ReportError> {
    let mut found: Vec<Measurement<'_>> = Vec::with_capacity(blocks.into());
    for _ in 0..blocks {
        let [index] = *take(&mut record, "measurement blocks")?;
        if index <= found.last().map_or(0, |last| last.index) {
            return Err(ReportError::Index(index));
        }
        expect(&mut record, DMTF, "measurement specification")?;
        let size = u16::from_le_bytes(*take(&mut record, "measurement blocks")?);
        let [kind] = *take(&mut record, "measurement blocks")?;
        let len = u16::from_le_bytes(*take(&mut record, "measurement blocks")?);
        if size.checked_sub(VALUE_HEADER) != Some(len) {
            return Err(ReportError::Blocks);
        }
        let value = slice(&mut record, len.into(), "measurement blocks")?;
        found.push(Measurement { index, kind, value });
    }
    record
        .is_empty()
        .then_some(found)
        .ok_or(ReportError::Blocks)
}

fn records(mut opaque: &[u8]) -> Result<Vec<OpaqueRecord<'_>>, ReportError> {
    let mut found: Vec<OpaqueRecord<'_>> = Vec::new();
    while !opaque.is_empty() {
        let kind = u16::from_le_bytes(*take(&mut opaque, "opaque records")?);
        let len = u16::from_le_bytes(*take(&mut opaque, "opaque records")?);
        let value = slice(&mut opaque, len.into(), "opaque records")?;
        if found.len() >= MAX_RECORDS {
            return Err(ReportError::TooManyRecords);
        }
        if found.iter().any(|it| it.kind == kind) {
            return Err(ReportError::DuplicateRecord(kind));
        }
        found.push(OpaqueRecord { kind, value });
    }
    Ok(found)
}

fn take<'a, const N: usize>(
    rest: &mut &'a [u8],
    part: &'static str,
) -> Result<&'a [u8; N], ReportError> {
    let (taken, after) = rest
        .split_first_chunk()
        .ok_or(ReportError::Truncated(part))?;
    *rest = after;
    Ok(taken)
}

fn slice<'a>(rest: &mut &'a [u8], len: usize, part: &'static str) -> Result<&'a [u8], ReportError> {
    let (taken, after) = rest
        .split_at_checked(len)
        .ok_or(ReportError::Truncated(part))?;
    *rest = after;
    Ok(taken)
}

fn expect<const N: usize>(
    rest: &mut &[u8],
    expected: [u8; N],
    part: &'static str,
) -> Result<(), ReportError> {
    let found = take::<N>(rest, part)?;
    (*found == expected)
        .then_some(())
        .ok_or(ReportError::Unexpected(part))
}
