//! `[padding]`: the pace of replies whose asker wants padding `paced` (docs/wire.md, "Hiding lengths").

use std::{num::NonZeroU8, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use super::{Millis, NodeConfig};
use crate::config::{ConfigError, Loaded};

/// What a tick may be: a shorter one costs more than it gives, with a longer one nobody can read along.
const TICK_MS: RangeInclusive<u128> = 20..=1000;
/// Most steps from one power of two to the next.
const MAX_STEPS: u8 = 16;

/// When paced replies go out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaddingConfig {
    /// Between two chunks of a paced stream, each with 512 bytes; 20 to 1,000.
    pub tick_ms: Millis,
    /// How many numbers of chunks a stream can have from above a power of two to the next, itself included;
    /// 1 to 16. With 1 it has a power of two, and ends up to twice as late as its content; with
    /// more it ends sooner, and tells more of its length.
    pub steps_per_doubling: NonZeroU8,
}

impl Default for PaddingConfig {
    fn default() -> Self {
        Self {
            tick_ms: Millis::from_millis(40),
            steps_per_doubling: NonZeroU8::MIN,
        }
    }
}

pub(super) fn check(config: &Loaded<NodeConfig>) -> Result<(), ConfigError> {
    let padding = &config.value.padding;
    if !TICK_MS.contains(&padding.tick_ms.duration().as_millis()) {
        return Err(config.invalid("padding.tick_ms", "a tick is 20 to 1000 milliseconds"));
    }
    if padding.steps_per_doubling.get() > MAX_STEPS {
        return Err(config.invalid("padding.steps_per_doubling", "at most 16 steps"));
    }
    Ok(())
}
