//! NVIDIA's services: manifests by id, and the state of certificates (OCSP).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Ask, Bearer, Client, FetchError, File, below, named};

/// The address of the service for manifests.
pub const RIM_BASE: &str = "https://rim.attestation.nvidia.com";
/// The address of the OCSP responder.
pub const OCSP_BASE: &str = "https://ocsp.ndis.nvidia.com";

#[derive(Deserialize)]
struct RimAnswer {
    id: String,
    rim: String,
}

/// The manifest of an id, such as `NV_GPU_DRIVER_GH100_550.90.07`; `bearer` is for
/// those who have a key.
///
/// # Errors
/// [`FetchError`] if it cannot be had.
pub async fn fetch_rim(
    client: &Client,
    base: &str,
    id: &str,
    bearer: Option<&Bearer>,
) -> Result<File, FetchError> {
    let address = below(base, &format!("/v1/rim/{id}"));
    let answer = client
        .ask(&Ask {
            method: Method::GET,
            address: &address,
            content: None,
            bearer,
        })
        .await?;
    let wrong = |what| FetchError::Answer {
        address: address.clone(),
        what,
    };
    let answer: RimAnswer = serde_json::from_slice(&answer.content)
        .map_err(|_| wrong("not the JSON of this service"))?;
    if answer.id != id {
        return Err(wrong("an answer for another id"));
    }
    let xml = BASE64_STANDARD.decode(answer.rim);
    let xml = xml.map_err(|_| wrong("a manifest that is not base64"))?;
    Ok(named(format!("{id}.xml"), xml, address))
}

/// The responder's answer to a request in DER (RFC 6960 appendix A.1).
///
/// # Errors
/// [`FetchError`] if it cannot be had.
pub async fn fetch_ocsp(client: &Client, base: &str, request: Vec<u8>) -> Result<File, FetchError> {
    let name = hex::encode(Sha256::digest(&request));
    let address = below(base, "/");
    let answer = client
        .ask(&Ask {
            method: Method::POST,
            address: &address,
            content: Some((Bytes::from(request), "application/ocsp-request")),
            bearer: None,
        })
        .await?;
    let name = format!("ocsp-{}.der", name.get(..16).unwrap_or_default());
    Ok(named(name, answer.content, address))
}
