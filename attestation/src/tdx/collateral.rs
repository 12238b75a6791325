//! Intel's collateral for a platform: TCB info, QE identity, revocation lists and who signed them.
//!
//! A piece is one JSON object (`docs/wire.md`, "Collateral"). Here it is read, and one is chosen that
//! is for this platform and in date; its signatures are verified when the quote is.

use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::QuoteCollateralV3;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, pem};
use x509_cert::name::Name;

use crate::certificate::Certificate;
use crate::check::Checks;
use crate::input::Input;
use crate::json::{self, JsonError};
use crate::tdx::chain::Certificates;
use crate::time::{from_rfc3339, to_rfc3339};

/// Longest piece, in bytes; real ones have under 20,000, most of it revocation lists.
pub const MAX_TDX_COLLATERAL: usize = 256 * 1024;

const PEM_END: &str = "-----END CERTIFICATE-----";

/// The TCB info of TDX platforms; that of SGX has another.
const TDX: &str = "TDX";

/// Why a piece is no collateral.
#[derive(Debug, thiserror::Error)]
enum CollateralError {
    #[error("{len} bytes exceed the limit of {MAX_TDX_COLLATERAL}")]
    TooLong { len: usize },
    #[error("{0}")]
    Json(#[from] JsonError),
    #[error("`{0}` is not {1}")]
    Member(&'static str, &'static str),
}

/// A piece of collateral, read; nothing about it is verified.
struct Piece {
    /// What it is for: `TDX`.
    id: String,
    fmspc: [u8; 6],
    /// The number of its TCB info, which rises with every TCB recovery.
    evaluation_number: u64,
    /// Who issued the platform's certificate and signs its revocation list.
    issuer: Name,
    /// When the last of its parts begins.
    from: SystemTime,
    /// When the first of its parts ends.
    to: SystemTime,
    collateral: QuoteCollateralV3,
}

/// Chooses a piece that is for the platform and in date: the newest of the verifier's own or, where
/// it has none, of the node's.
pub(crate) fn choose(
    checks: &mut Checks,
    input: &Input<'_>,
    certificates: &Certificates,
) -> Option<QuoteCollateralV3> {
    let expected = format!(
        "a piece for TDX, FMSPC {}, the authority of the certificate, and {}",
        hex::encode(certificates.fmspc),
        to_rfc3339(input.now)
    );
    let mut misfits = Vec::new();
    let mut chosen: Option<(usize, Piece)> = None;
    let own = input.bundle.collateral().tdx.len();
    for (number, bytes) in (1..).zip(input.collateral(|collateral| &collateral.tdx)) {
        // What the node sends could be old on purpose: it counts only where we have nothing.
        let have = chosen.as_ref().is_some_and(|(of, _)| *of <= own);
        if number > own && have {
            break;
        }
        match fitting(bytes, certificates, input.now) {
            Ok(piece) if chosen.as_ref().is_none_or(|(_, it)| piece.is_newer(it)) => {
                chosen = Some((number, piece));
            }
            Ok(_) => {}
            Err(misfit) => misfits.push(format!("piece {number}: {misfit}")),
        }
    }
    let seen = match (&chosen, misfits.as_slice()) {
        (Some((number, piece)), _) => format!(
            "piece {number}, {} to {}",
            to_rfc3339(piece.from),
            to_rfc3339(piece.to)
        ),
        (None, []) => "none".to_owned(),
        (None, misfits) => misfits.join("; "),
    };
    checks.record("collateral", chosen.is_some(), expected, seen);
    chosen.map(|(_, piece)| piece.collateral)
}

/// The root's revocation list in a piece, and that of a platform's authority, DER; nothing about
/// them is verified. Those that cannot be read are left out.
pub(super) fn lists(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.len() > MAX_TDX_COLLATERAL {
        return Vec::new();
    }
    let Ok(mut members) = json::object(bytes) else {
        return Vec::new();
    };
    let lists = ["root_ca_crl", "pck_crl"].map(|member| {
        let text = members.string(member).ok()?;
        from_hex(member, &text).ok()
    });
    lists.into_iter().flatten().collect()
}

/// Who signed TCB info and QE identity, as the piece says; `None` if one of them cannot be read.
pub(super) fn signers(collateral: &QuoteCollateralV3) -> Option<[Certificate; 2]> {
    Some([
        first_certificate(&collateral.tcb_info_issuer_chain)?,
        first_certificate(&collateral.qe_identity_issuer_chain)?,
    ])
}

fn first_certificate(chain: &str) -> Option<Certificate> {
    let block = chain.split_inclusive(PEM_END).next()?;
    let (_, der) = pem::decode_vec(block.trim_start().as_bytes()).ok()?;
    Certificate::parse(&der).ok()
}

/// The number of a piece's TCB info, as it says; nothing is verified.
pub(crate) fn evaluation_number(bytes: &[u8]) -> Option<u32> {
    let piece = Piece::parse(bytes).ok()?;
    u32::try_from(piece.evaluation_number).ok()
}

/// Reads a piece; what does not fit is said in words.
fn fitting(bytes: &[u8], certificates: &Certificates, now: SystemTime) -> Result<Piece, String> {
    let piece = Piece::parse(bytes).map_err(|error| error.to_string())?;
    if piece.id != TDX {
        return Err(format!("TCB info for {}", piece.id));
    }
    if piece.fmspc != certificates.fmspc {
        return Err(format!("FMSPC {}", hex::encode(piece.fmspc)));
    }
    if piece.issuer != *certificates.leaf.issuer() {
        return Err(format!("revocation list of {}", piece.issuer));
    }
    if now < piece.from {
        return Err(format!("begins {}", to_rfc3339(piece.from)));
    }
    if piece.to <= now {
        return Err(format!("ended {}", to_rfc3339(piece.to)));
    }
    Ok(piece)
}

impl Piece {
    fn is_newer(&self, other: &Self) -> bool {
        (self.evaluation_number, self.from) > (other.evaluation_number, other.from)
    }

    fn parse(bytes: &[u8]) -> Result<Self, CollateralError> {
        if bytes.len() > MAX_TDX_COLLATERAL {
            return Err(CollateralError::TooLong { len: bytes.len() });
        }
        let mut members = json::object(bytes)?;
        let collateral = QuoteCollateralV3 {
            pck_crl_issuer_chain: members.string("pck_crl_issuer_chain")?,
            root_ca_crl: from_hex("root_ca_crl", &members.string("root_ca_crl")?)?,
            pck_crl: from_hex("pck_crl", &members.string("pck_crl")?)?,
            tcb_info_issuer_chain: members.string("tcb_info_issuer_chain")?,
            tcb_info: members.string("tcb_info")?,
            tcb_info_signature: from_hex(
                "tcb_info_signature",
                &members.string("tcb_info_signature")?,
            )?,
            qe_identity_issuer_chain: members.string("qe_identity_issuer_chain")?,
            qe_identity: members.string("qe_identity")?,
            qe_identity_signature: from_hex(
                "qe_identity_signature",
                &members.string("qe_identity_signature")?,
            )?,
            // The platform's certificates come from its quote alone.
            pck_certificate_chain: None,
        };
        let mut tcb_info = json::object(collateral.tcb_info.as_bytes())?;
        let mut qe_identity = json::object(collateral.qe_identity.as_bytes())?;
        let (root_crl, _) = read_crl("root_ca_crl", &collateral.root_ca_crl)?;
        let (pck_crl, issuer) = read_crl("pck_crl", &collateral.pck_crl)?;
        let windows = [
            window(&mut tcb_info)?,
            window(&mut qe_identity)?,
            root_crl,
            pck_crl,
        ];
        let [from, to] = windows
            .into_iter()
            .fold([UNIX_EPOCH, windows[0][1]], |[from, to], [begin, end]| {
                [from.max(begin), to.min(end)]
            });
        let mut fmspc = [0; 6];
        hex::decode_to_slice(tcb_info.string("fmspc")?, &mut fmspc)
            .map_err(|_| CollateralError::Member("fmspc", "12 hex digits"))?;
        Ok(Self {
            id: tcb_info.string("id")?,
            fmspc,
            evaluation_number: tcb_info.unsigned("tcbEvaluationDataNumber")?,
            issuer,
            from,
            to,
            collateral,
        })
    }
}

/// Lower-case hex, as everywhere in answers.
fn from_hex(member: &'static str, text: &str) -> Result<Vec<u8>, CollateralError> {
    let error = CollateralError::Member(member, "lower-case hex");
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(error);
    }
    hex::decode(text).map_err(|_| error)
}

/// `issueDate` and `nextUpdate` of what Intel signs as JSON.
fn window(signed: &mut json::Members) -> Result<[SystemTime; 2], CollateralError> {
    let mut time = |member| {
        let text = signed.string(member)?;
        from_rfc3339(&text).ok_or(CollateralError::Member(member, "a time in UTC"))
    };
    Ok([time("issueDate")?, time("nextUpdate")?])
}

/// Dates and issuer of a revocation list.
fn read_crl(member: &'static str, der: &[u8]) -> Result<([SystemTime; 2], Name), CollateralError> {
    let error = |expected| CollateralError::Member(member, expected);
    let list = CertificateList::<Rfc5280>::from_der(der)
        .map_err(|_| error("a DER certificate revocation list"))?
        .tbs_cert_list;
    let to = list.next_update.ok_or(error("a list with an end"))?;
    let dates = [list.this_update, to].map(|time| time.to_system_time());
    Ok((dates, list.issuer))
}
