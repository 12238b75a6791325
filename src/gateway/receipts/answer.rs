//! `GET /v1/receipts/{id}`: a receipt for whoever made the request, by itself or with all that it
//! rests on.

use attestation::time::to_rfc3339;
use http::{Response, request::Parts};
use serde::Serialize;

use super::{KeptReceipt, keep::Unreached, rests_on};
use crate::{
    gateway::{Shared, body::ReplyBody, error::Error, routes::json},
    openai::RequestError,
};

/// The path, without the id.
pub(in crate::gateway) const RECEIPTS: &str = "/v1/receipts/{id}";

/// What is said of a receipt.
#[derive(Serialize)]
struct Object<'a> {
    request_id: String,
    receipt: &'a str,
    salts: Option<&'a str>,
    node: &'a str,
    statement: &'a str,
    evidence: &'a str,
    nonce: String,
    policy: &'a str,
    bundle: Option<&'a str>,
    asked_at: String,
    appraised_at: String,
    checked_at: String,
}

impl<'a> Object<'a> {
    fn of(kept: &'a KeptReceipt) -> Self {
        Self {
            request_id: kept.request_id.to_string(),
            receipt: &kept.jws,
            salts: kept.salts.as_deref(),
            node: &kept.node,
            statement: &kept.statement,
            evidence: &kept.evidence,
            nonce: kept.nonce.to_string(),
            policy: &kept.policy,
            bundle: kept.bundle.as_deref(),
            asked_at: to_rfc3339(kept.asked_at),
            appraised_at: to_rfc3339(kept.appraised_at),
            checked_at: to_rfc3339(kept.at),
        }
    }
}

impl Shared {
    /// Answers for the receipt of one request.
    ///
    /// # Errors
    /// [`Error::ReceiptNotFound`] for any but the caller's own, [`Error::EvidenceNotArchived`].
    pub(in crate::gateway) async fn receipt(
        &self,
        id: &str,
        parts: &Parts,
    ) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let bundled = bundled(parts.uri.query())?;
        let id = id.parse().map_err(|_| Error::ReceiptNotFound)?;
        let found = self.receipts.sink.find(id, &caller.id).await;
        let found = found.map_err(|Unreached| Error::StoreUnavailable)?;
        let kept = found.ok_or(Error::ReceiptNotFound)?;
        if bundled {
            let bundle = rests_on::bundle(&self.receipts, &kept).await?;
            // It is long, and as long in memory as whoever reads it takes.
            let mut room = self.admission.body_room();
            room.grow_to(bundle.len())?;
            return Ok(json(bundle.into()).map(|body| body.in_room(room)));
        }
        // Strings always have a JSON form.
        let object = serde_json::to_vec(&Object::of(&kept)).unwrap_or_default();
        Ok(json(object.into()))
    }
}

/// Whether a query asks for all that a receipt rests on.
///
/// # Errors
/// [`Error::Request`] for another query.
fn bundled(query: Option<&str>) -> Result<bool, Error> {
    match query {
        None | Some("") => Ok(false),
        Some("bundle=1") => Ok(true),
        Some(_) => Err(Error::Request(RequestError::Invalid {
            param: Some("bundle".to_owned().into()),
            expected: "`1`, or nothing",
        })),
    }
}
