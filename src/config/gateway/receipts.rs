//! `[receipts]`: what nodes sign of their replies, and what becomes of it.

use serde::Deserialize;

/// Which receipts are asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptsConfig {
    /// Whether nodes are asked for receipts, and whether replies without a good one count.
    pub mode: ReceiptMode,
    /// Whether a receipt is to prove prompt and answer, too, for whoever keeps them.
    pub content: bool,
}

/// Whether receipts are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiptMode {
    /// Not at all.
    #[default]
    Off,
    /// They are checked beside the request, and kept if they are good.
    On,
    /// A reply without a good one is none.
    Required,
}
