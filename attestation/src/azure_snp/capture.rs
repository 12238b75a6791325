//! A capture: the JSON in which report, certificate and quote are kept together.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::digest::from_hex;
use crate::json::{self, Json, JsonError};

/// Longest capture, in bytes; those of version 1 have about 8 KiB.
pub const MAX_CAPTURE: usize = 64 * 1024;
/// Registers of a TPM's bank.
const PCRS: usize = 24;
const VERSION: u64 = 1;

/// What a capture holds. Nothing about it is verified.
pub(super) struct Capture {
    /// The paravisor's report from the vTPM's index 0x01400001.
    pub(super) hcl_report: Vec<u8>,
    /// DER; where it is left out, the certificate comes from collateral.
    pub(super) vcek: Option<Vec<u8>>,
    /// `TPMS_ATTEST`, as the vTPM signed it.
    pub(super) message: Vec<u8>,
    /// RSA of 2048 bits.
    pub(super) signature: [u8; 256],
    /// Values of the SHA-256 bank's registers, from PCR0 on.
    pub(super) pcrs: Option<Vec<[u8; 32]>>,
}

/// Why bytes are no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Longer than [`MAX_CAPTURE`].
    #[error("{0} bytes")]
    TooLong(usize),
    /// Not the JSON that a capture is.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Another version than 1.
    #[error("version {0}")]
    Version(u64),
    /// Text that does not encode what it must.
    #[error("`{member}` is not {form}")]
    Encoding {
        /// The member's name.
        member: &'static str,
        /// What it must be.
        form: &'static str,
    },
    /// More registers than a TPM has.
    #[error("{0} registers")]
    Pcrs(usize),
    /// A member that captures do not have.
    #[error("an unknown member")]
    Unknown,
}

impl Capture {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CaptureError> {
        if bytes.len() > MAX_CAPTURE {
            return Err(CaptureError::TooLong(bytes.len()));
        }
        let mut members = json::object(bytes)?;
        let version = members.unsigned("version")?;
        if version != VERSION {
            return Err(CaptureError::Version(version));
        }
        let hcl_report = base64("hcl_report", &members.string("hcl_report")?)?;
        let vcek = members
            .optional("vcek")
            .map(|json| base64("vcek", &json.into_string("vcek")?));
        let mut quote = members.members("tpm_quote")?;
        let message = hex_bytes("message", &quote.string("message")?)?;
        let signature = digits("signature", &quote.string("signature")?)?;
        let pcrs = quote.optional("pcrs").map(pcrs);
        if !members.is_empty() || !quote.is_empty() {
            return Err(CaptureError::Unknown);
        }
        Ok(Self {
            hcl_report,
            vcek: vcek.transpose()?,
            message,
            signature,
            pcrs: pcrs.transpose()?,
        })
    }
}

fn pcrs(json: Json) -> Result<Vec<[u8; 32]>, CaptureError> {
    let values = json.into_array("pcrs")?;
    if values.len() > PCRS {
        return Err(CaptureError::Pcrs(values.len()));
    }
    let value = |json: Json| digits("pcrs", &json.into_string("pcrs")?);
    values.into_iter().map(value).collect()
}

fn base64(member: &'static str, text: &str) -> Result<Vec<u8>, CaptureError> {
    let form = "base64url with padding";
    let decoded = URL_SAFE.decode(text);
    decoded.map_err(|_| CaptureError::Encoding { member, form })
}

fn digits<const N: usize>(member: &'static str, text: &str) -> Result<[u8; N], CaptureError> {
    let form = "lower-case hex of its length";
    from_hex(text).map_err(|_| CaptureError::Encoding { member, form })
}

fn hex_bytes(member: &'static str, text: &str) -> Result<Vec<u8>, CaptureError> {
    let form = "lower-case hex";
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let decoded = hex::decode(text).ok().filter(|_| lower);
    decoded.ok_or(CaptureError::Encoding { member, form })
}
