//! `[streams]`: how event streams look to callers.

use std::{num::NonZeroUsize, ops::RangeInclusive, time::Duration};

use serde::Deserialize;

use super::GatewayConfig;
use crate::config::{ConfigError, Loaded};

/// What lengths of events may be made multiples of.
const UNIT: RangeInclusive<usize> = 16..=4096;
/// Longest that an event may wait for others.
const MAX_COALESCE_MS: u64 = 1000;

/// How event streams look to callers, whatever the padding is on the way to the node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Whether events get an `obfuscation` member of random letters, as OpenAI's have it, that levels
    /// their lengths, where a request does not say (`stream_options.include_obfuscation`).
    pub obfuscation: bool,
    /// The lengths of events become multiples of so many bytes then, 16 to 4,096.
    pub obfuscation_unit_bytes: NonZeroUsize,
    /// How long an event may wait for others, to leave in one piece with them, at most 1,000; 0 for not
    /// at all.
    pub coalesce_ms: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            obfuscation: false,
            obfuscation_unit_bytes: NonZeroUsize::MIN.saturating_add(255),
            coalesce_ms: 0,
        }
    }
}

impl StreamsConfig {
    /// How long an event may wait for others.
    #[must_use]
    pub const fn coalesce(&self) -> Duration {
        Duration::from_millis(self.coalesce_ms)
    }
}

pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let streams = &config.value.streams;
    if !UNIT.contains(&streams.obfuscation_unit_bytes.get()) {
        return Err(config.invalid("streams.obfuscation_unit_bytes", "16 to 4096"));
    }
    if streams.coalesce_ms > MAX_COALESCE_MS {
        return Err(config.invalid("streams.coalesce_ms", "at most 1000"));
    }
    Ok(())
}
