//! `GET /v1/nodes/{id}/attestation`: what a node showed, or shows to a nonce of the caller's.
//!
//! It is the node's answer byte for byte, so that whoever gets it can judge it without this gateway.

use std::sync::Arc;

use attestation::Nonce;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::ACCEPT, request::Parts};
use http_body_util::Full;
use tokio::time::timeout;

use super::{Shared, json};
use crate::{
    gateway::{
        attest::{self, AttestError},
        body::ReplyBody,
        error::{Error, NodeFailure},
        metrics::Shed,
        node::{Node, Verified},
    },
    openai::RequestError,
    sealer::ExchangeError,
};

impl Shared {
    /// Answers with the evidence that the gateway judged last, or with fresh one.
    pub(super) async fn attestation(
        &self,
        id: &str,
        parts: &Parts,
    ) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let _permit = self.admission.admit(&caller)?;
        let nonce = nonce(parts.uri.query())?;
        self.nodes.settled(self.timeouts.attest).await;
        let node = self.node_of(id)?;
        let verified = self
            .verified(&node)
            .await
            .map_err(|_| Error::NodeNotFound)?;
        let evidence = match nonce {
            None => verified.evidence.bytes.clone(),
            Some(nonce) => self.ask_for_evidence(&node, &verified, &nonce).await?,
        };
        Ok(json(evidence))
    }

    async fn ask_for_evidence(
        &self,
        node: &Node,
        verified: &Arc<Verified>,
        nonce: &Nonce,
    ) -> Result<Bytes, Error> {
        // Each question is work for the node's processor: few at once, and none waits.
        let _one_of_few = self.questions.try_acquire().map_err(|_| {
            self.metrics.shed(Shed::Questions);
            Error::Overloaded
        })?;
        let request = Request::get(format!("/v1/attestation?nonce={nonce}"))
            .header(ACCEPT, "application/json")
            .body(Full::default());
        let asking = async {
            let request = request.map_err(ExchangeError::from)?;
            let response = self.send_once(node, verified, request).await?;
            if response.status() != StatusCode::OK {
                return Err(NodeFailure::from(ExchangeError::Unexpected("no evidence")));
            }
            let body = response.into_body();
            attest::read(body)
                .await
                .map_err(|error| broken(error).into())
        };
        let asked = timeout(self.timeouts.attest, asking).await;
        Ok(asked.unwrap_or(Err(ExchangeError::FirstByteTimeout.into()))?)
    }
}

fn broken(error: AttestError) -> ExchangeError {
    match error {
        AttestError::Broken(error) => ExchangeError::Broken(error),
        _ => ExchangeError::Unexpected("evidence of more bytes than an answer may have"),
    }
}

/// The nonce in a query, if there is one.
fn nonce(query: Option<&str>) -> Result<Option<Nonce>, Error> {
    let pairs = query.unwrap_or_default().split('&');
    let mut nonces = pairs.filter_map(|pair| pair.strip_prefix("nonce="));
    let parsed = match (nonces.next(), nonces.next()) {
        (None, _) => return Ok(None),
        (Some(nonce), None) => nonce.parse().ok(),
        _ => None,
    };
    let wrong = RequestError::Invalid {
        param: Some("nonce".into()),
        expected: "64 hex digits, once",
    };
    parsed.map(Some).ok_or(wrong.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_64_hex_digits_once() {
        let good = "ab".repeat(32);
        let with = |text: &str| format!("nonce={text}");
        for query in [with(&good), format!("a=b&nonce={good}")] {
            let found = nonce(Some(&query)).unwrap().unwrap();
            assert_eq!(found.to_string(), good, "{query}");
        }
        for query in [None, Some(""), Some("other=1"), Some("nonces=1")] {
            assert!(nonce(query).unwrap().is_none(), "{query:?}");
        }
        let twice = format!("nonce={good}&nonce={good}");
        for query in [with(""), with("ab"), with(&good.replace('a', "g")), twice] {
            assert!(nonce(Some(&query)).is_err(), "{query}");
        }
    }
}
