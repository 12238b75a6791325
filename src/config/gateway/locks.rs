//! How many locks there are, and for how long.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use serde::Deserialize;

/// What locks on nodes hold at most (`POST /v1/nodes/lock`).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocksConfig {
    /// Locks at once with one API key.
    pub per_key: NonZeroUsize,
    /// Locks at once in all.
    pub total: NonZeroUsize,
    /// Most tokens that a lock may be taken for.
    pub max_num_tokens: NonZeroU64,
    /// Longest time that a lock waits for its request, in seconds.
    pub max_timeout_s: NonZeroU32,
}

impl Default for LocksConfig {
    fn default() -> Self {
        Self {
            per_key: NonZeroUsize::MIN.saturating_add(1023),
            total: NonZeroUsize::MIN.saturating_add(8191),
            max_num_tokens: NonZeroU64::MIN.saturating_add((1 << 20) - 1),
            max_timeout_s: NonZeroU32::MIN.saturating_add(59),
        }
    }
}
