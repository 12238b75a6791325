//! The paravisor's report: a header, the processor's report, and the runtime data that it covers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::azure_snp::reader::Reader;
use crate::json::{self, Json, JsonError, Members};
use crate::sev_snp::REPORT_LEN;

/// Longest report of the paravisor, in bytes; those recorded have 2,600.
const MAX_HCL_REPORT: usize = 16 * 1024;
const MAGIC: [u8; 4] = *b"HCLA";
const VERSION: u32 = 1;
/// The header's request type: attestation.
const ATTESTATION: u32 = 2;
/// Of the header before the processor's report, in bytes.
const HEADER_LEN: u32 = 32;
/// Of the header before the runtime data, in bytes.
const RUNTIME_HEADER_LEN: u32 = 20;
/// The runtime header's report type.
const SEV_SNP: u32 = 2;
/// The runtime header's hash: SHA-256.
const SHA_256: u32 = 1;

/// The name of the vTPM's attestation key in the runtime data.
const KEY_ID: &str = "HCLAkPub";
/// 65537.
const EXPONENT: &str = "AQAB";

/// The modulus of an RSA key of 2048 bits.
pub(super) type Modulus = [u8; 256];

/// The parts of a paravisor's report. Nothing about them is verified.
#[derive(Debug)]
pub(super) struct HclReport<'a> {
    /// The processor's report.
    pub(super) report: &'a [u8],
    /// JSON, whose SHA-256 is in the report data.
    pub(super) runtime_data: &'a [u8],
}

/// Why bytes are no paravisor's report, or its runtime data names no key.
#[derive(Debug, thiserror::Error)]
pub enum HclError {
    /// Longer than any that a vTPM holds.
    #[error("{0} bytes")]
    TooLong(usize),
    /// The bytes end within a part.
    #[error("ends early")]
    Truncated,
    /// A field with another value than it must have.
    #[error("{0} is another")]
    Field(&'static str),
    /// Bytes after the runtime data that are not zero.
    #[error("bytes set after the runtime data")]
    Padding,
    /// Runtime data that is not the JSON it must be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not exactly one attestation key.
    #[error("{0} keys of that name")]
    Keys(usize),
    /// A key of another form than RSA with 2048 bits and exponent 65537, for signing.
    #[error("`{0}` of the key is another")]
    Key(&'static str),
}

impl<'a> HclReport<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        if bytes.len() > MAX_HCL_REPORT {
            return Err(HclError::TooLong(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let magic = reader.array().ok_or(HclError::Truncated)?;
        is("magic", *magic == MAGIC)?;
        is("version", number(&mut reader)? == VERSION)?;
        let size = number(&mut reader)?;
        is("request type", number(&mut reader)? == ATTESTATION)?;
        is("status", number(&mut reader)? == 0)?;
        let reserved = reader.array::<12>().ok_or(HclError::Truncated)?;
        is("reserved part", *reserved == [0; 12])?;
        let report = reader.slice(REPORT_LEN).ok_or(HclError::Truncated)?;

        let runtime_size = number(&mut reader)?;
        is("runtime version", number(&mut reader)? == VERSION)?;
        is("report type", number(&mut reader)? == SEV_SNP)?;
        is("hash", number(&mut reader)? == SHA_256)?;
        let len = number(&mut reader)?;
        let with_header = len.checked_add(RUNTIME_HEADER_LEN);
        is("runtime size", with_header == Some(runtime_size))?;
        let report_len = u32::try_from(REPORT_LEN).ok();
        let all = report_len
            .and_then(|report_len| report_len.checked_add(HEADER_LEN))
            .and_then(|before| before.checked_add(runtime_size));
        is("size", all == Some(size))?;
        let len = usize::try_from(len).map_err(|_| HclError::Truncated)?;
        let runtime_data = reader.slice(len).ok_or(HclError::Truncated)?;
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(HclError::Padding);
        }
        Ok(Self {
            report,
            runtime_data,
        })
    }
}

fn is(field: &'static str, as_it_must: bool) -> Result<(), HclError> {
    as_it_must.then_some(()).ok_or(HclError::Field(field))
}

fn number(reader: &mut Reader<'_>) -> Result<u32, HclError> {
    let bytes = reader.array().ok_or(HclError::Truncated)?;
    Ok(u32::from_le_bytes(*bytes))
}

/// The modulus of the vTPM's attestation key, a JWK (RFC 7517) among the runtime data's keys.
pub(super) fn attestation_key(runtime_data: &[u8]) -> Result<Modulus, HclError> {
    let keys = json::object(runtime_data)?.array("keys")?;
    let mut named = Vec::new();
    for key in keys {
        let mut key = key.into_members("keys")?;
        if key.string("kid")? == KEY_ID {
            named.push(key);
        }
    }
    match <[Members; 1]>::try_from(named) {
        Ok([key]) => modulus(key),
        Err(named) => Err(HclError::Keys(named.len())),
    }
}

fn modulus(mut key: Members) -> Result<Modulus, HclError> {
    let is = |member, as_it_must: bool| as_it_must.then_some(()).ok_or(HclError::Key(member));
    is("kty", key.string("kty")? == "RSA")?;
    let operations = key.array("key_ops")?;
    let signs = matches!(&operations[..], [Json::String(operation)] if operation == "sign");
    is("key_ops", signs)?;
    is("e", key.string("e")? == EXPONENT)?;
    let n = URL_SAFE_NO_PAD.decode(key.string("n")?);
    let n = n.ok().and_then(|n| Modulus::try_from(n).ok());
    // The highest bit tells 2048 bits from fewer.
    n.filter(|n| n.first().is_some_and(|byte| byte & 0x80 != 0))
        .ok_or(HclError::Key("n"))
}
