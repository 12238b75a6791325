//! Intel's provisioning certification service, version 4: what a TDX quote's appraisal needs, in one
//! file.
//!
//! Issuers' chains come in header fields, and the signed parts of a body are kept as they came, for
//! their signatures are over their very bytes.

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Client, FetchError, File, below, named};

/// The service's address.
pub const BASE: &str = "https://api.trustedservices.intel.com";
/// Where the root's revocation list lies.
pub const ROOT_BASE: &str = "https://certificates.trustedservices.intel.com";

/// Intel's collateral for a platform, as appraisals read it.
#[derive(Serialize)]
struct Collateral {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
}

#[derive(Deserialize)]
struct TcbAnswer<'a> {
    #[serde(borrow, rename = "tcbInfo")]
    info: &'a RawValue,
    signature: String,
}

#[derive(Deserialize)]
struct QeAnswer<'a> {
    #[serde(borrow, rename = "enclaveIdentity")]
    identity: &'a RawValue,
    signature: String,
}

/// The collateral of the platforms of one family (`fmspc`, 12 hex digits) whose keys were certified
/// by `ca` (`platform` or `processor`).
///
/// # Errors
/// [`FetchError`] for the first part that cannot be had.
pub async fn fetch(
    client: &Client,
    base: &str,
    root_base: &str,
    fmspc: &str,
    ca: &str,
) -> Result<File, FetchError> {
    let tcb_address = below(base, &format!("/tdx/certification/v4/tcb?fmspc={fmspc}"));
    let tcb = client.get(&tcb_address).await?;
    let tcb_answer: TcbAnswer<'_> = json(&tcb.content, &tcb_address)?;
    let qe_address = below(base, "/tdx/certification/v4/qe/identity");
    let qe = client.get(&qe_address).await?;
    let qe_answer: QeAnswer<'_> = json(&qe.content, &qe_address)?;
    let crl_address = below(
        base,
        &format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
    );
    let crl = client.get(&crl_address).await?;
    let root_crl = client.get(&below(root_base, "/IntelSGXRootCA.der")).await?;
    let collateral = Collateral {
        pck_crl_issuer_chain: chain(&crl.headers, "sgx-pck-crl-issuer-chain", &crl_address)?,
        root_ca_crl: hex::encode(&root_crl.content),
        pck_crl: hex::encode(&crl.content),
        tcb_info_issuer_chain: chain(&tcb.headers, "tcb-info-issuer-chain", &tcb_address)?,
        tcb_info: tcb_answer.info.get().to_owned(),
        tcb_info_signature: tcb_answer.signature,
        qe_identity_issuer_chain: chain(
            &qe.headers,
            "sgx-enclave-identity-issuer-chain",
            &qe_address,
        )?,
        qe_identity: qe_answer.identity.get().to_owned(),
        qe_identity_signature: qe_answer.signature,
    };
    let content = serde_json::to_vec(&collateral);
    let content = content.map_err(|_| wrong(&tcb_address, "cannot be written as JSON"))?;
    Ok(named(
        format!("intel-{fmspc}-{ca}.json"),
        content,
        tcb_address,
    ))
}

fn json<'a, T: Deserialize<'a>>(content: &'a Bytes, address: &str) -> Result<T, FetchError> {
    serde_json::from_slice(content).map_err(|_| wrong(address, "not the JSON of this service"))
}

/// An issuers' chain: PEM, percent-encoded.
fn chain(headers: &HeaderMap, name: &str, address: &str) -> Result<String, FetchError> {
    let value = headers.get(name).map(http::HeaderValue::as_bytes);
    let decoded = value.and_then(percent_decoded);
    decoded.ok_or_else(|| wrong(address, "no issuers' chain in its header field"))
}

fn percent_decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.extend(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn wrong(address: &str, what: &'static str) -> FetchError {
    FetchError::Answer {
        address: address.to_owned(),
        what,
    }
}
