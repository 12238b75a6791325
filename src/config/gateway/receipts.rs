//! `[receipts]`: what nodes sign of their replies, and what becomes of it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A text that is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("receipts are `off`, `on` or `required`")]
pub struct UnknownReceiptMode;

impl FromStr for ReceiptMode {
    type Err = UnknownReceiptMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::On),
            "required" => Ok(Self::Required),
            _ => Err(UnknownReceiptMode),
        }
    }
}
