//! What a key's requests may be, wherever the key is kept.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::gateway::{KeyConfig, Label, ReceiptMode};
use crate::seal::Padding;

/// What a key's requests may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyTerms {
    /// The models that it may ask; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<String>>,
    /// The regions that its requests may go to; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<Label>>,
    /// Tags that a node must have to get its requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Label>,
    /// Whether its requests may only be sealed with X-Wing.
    #[serde(skip_serializing_if = "is_false")]
    pub require_pq: bool,
    /// How its requests and their replies are padded, unless a request says so itself; left out, as the
    /// gateway's are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Whether nodes are asked for receipts; left out, as the gateway's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ReceiptMode>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<&KeyConfig> for KeyTerms {
    fn from(key: &KeyConfig) -> Self {
        Self {
            models: key.models.as_ref().map(|it| it.iter().cloned().collect()),
            regions: key.regions.clone(),
            tags: key.tags.clone(),
            require_pq: key.require_pq,
            padding: key.padding,
            receipts: None,
        }
    }
}
