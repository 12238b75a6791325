//! `GET /v1/nodes/{id}/ohttp-keys`: what a verified node can be sealed to.
//!
//! The list is made of the statement that the evidence vouches for, not of the node's own: nobody
//! between the node and here can add a key to it or take one from it.

use http::{HeaderValue, Response, header::CONTENT_TYPE, request::Parts};

use super::{Shared, json};
use crate::{
    gateway::{body::ReplyBody, error::Error},
    seal::{KEYS_MEDIA_TYPE, encode_key_configs},
};

impl Shared {
    /// Answers with a node's key configurations, of which a caller who requires it gets the
    /// post-quantum ones alone, and one who demands other hardware none.
    pub(super) async fn keys(&self, id: &str, parts: &Parts) -> Result<Response<ReplyBody>, Error> {
        let caller = self.callers.authenticate(&parts.headers).await?;
        let _permit = self.admission.admit(&caller)?;
        self.nodes.settled(self.timeouts.attest).await;
        let node = self.node_within(id, &caller)?;
        let verified = self
            .verified(&node)
            .await
            .map_err(|_| Error::NodeNotFound)?;
        if !caller.wish.hardware().is_of(&verified.node) {
            return Err(Error::NoFittingHardware);
        }
        let now = self.clock.now();
        let mut keys = verified.node.sealing_keys(now);
        keys.retain(|key| !caller.wish.requires_pq() || key.suite.is_post_quantum());
        if keys.is_empty() {
            let requires_pq = caller.wish.requires_pq();
            return Err(if requires_pq {
                Error::NoPostQuantumNode
            } else {
                Error::NodeNotFound
            });
        }
        let list = encode_key_configs(keys.iter().map(|key| (key.key_id, &key.public_key)));
        let mut response = json(list.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(KEYS_MEDIA_TYPE));
        verified.say(headers, now);
        Ok(response)
    }
}
