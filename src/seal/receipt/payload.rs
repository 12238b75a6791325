//! A receipt's payload as JSON: members in one order, no blanks, no escapes that need not be. So
//! whatever it says has one text, and any other is refused.

use attestation::StatementDigest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Commitment, Commitments, MAX_NAME, MAX_USAGE, Receipt, ReceiptError};

/// The members, in their order.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    request_id: String,
    statement: String,
    key_id: u8,
    path: String,
    model: String,
    status: u16,
    usage: Option<Box<RawValue>>,
    iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<String>,
}

/// # Errors
/// [`ReceiptError::Member`] for what no reader would take.
pub(super) fn to_json(receipt: &Receipt) -> Result<Vec<u8>, ReceiptError> {
    check(receipt)?;
    let usage = receipt.usage.clone().map(RawValue::from_string);
    let commitment = |which: fn(&Commitments) -> &Commitment| {
        let content = receipt.content.as_ref();
        content.map(|content| URL_SAFE_NO_PAD.encode(which(content).as_bytes()))
    };
    let payload = Payload {
        request_id: hex::encode(receipt.request_id),
        statement: receipt.statement.to_string(),
        key_id: receipt.key_id,
        path: receipt.path.clone(),
        model: receipt.model.clone(),
        status: receipt.status,
        usage: usage
            .transpose()
            .map_err(|_| ReceiptError::Member("usage"))?,
        iat: receipt.iat,
        request: commitment(|content| &content.request),
        response: commitment(|content| &content.response),
    };
    serde_json::to_vec(&payload).map_err(|_| ReceiptError::Payload)
}

/// # Errors
/// [`ReceiptError`] unless it is the one text of what it says.
pub(super) fn from_json(text: &[u8]) -> Result<Receipt, ReceiptError> {
    let payload: Payload = serde_json::from_slice(text).map_err(|_| ReceiptError::Payload)?;
    let receipt = Receipt {
        request_id: request_id(&payload.request_id)?,
        statement: statement(&payload.statement)?,
        key_id: payload.key_id,
        path: payload.path,
        model: payload.model,
        status: payload.status,
        usage: payload.usage.map(|usage| usage.get().to_owned()),
        iat: payload.iat,
        content: match (payload.request, payload.response) {
            (Some(request), Some(response)) => Some(Commitments {
                request: commitment(&request, "request")?,
                response: commitment(&response, "response")?,
            }),
            (None, None) => None,
            _ => return Err(ReceiptError::Payload),
        },
    };
    if to_json(&receipt)? == text {
        Ok(receipt)
    } else {
        Err(ReceiptError::Payload)
    }
}

fn check(receipt: &Receipt) -> Result<(), ReceiptError> {
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let is_usage = |text: &str| {
        text.len() <= MAX_USAGE
            && text.starts_with('{')
            && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let members = [
        ("path", is_name(&receipt.path)),
        ("model", is_name(&receipt.model)),
        ("status", (200..=599).contains(&receipt.status)),
        ("usage", receipt.usage.as_deref().is_none_or(is_usage)),
    ];
    match members.iter().find(|(_, is_good)| !is_good) {
        Some((name, _)) => Err(ReceiptError::Member(name)),
        None => Ok(()),
    }
}

fn request_id(text: &str) -> Result<[u8; 16], ReceiptError> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).map_err(|_| ReceiptError::Member("request_id"))?;
    Ok(id)
}

fn statement(text: &str) -> Result<StatementDigest, ReceiptError> {
    text.parse().map_err(|_| ReceiptError::Member("statement"))
}

fn commitment(text: &str, name: &'static str) -> Result<Commitment, ReceiptError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .map(Commitment::from)
        .ok_or(ReceiptError::Member(name))
}
