//! `[padding]`: the pace of replies whose asker wants padding `paced` (docs/wire.md, "Hiding lengths").

use std::{
    num::{NonZeroU8, NonZeroU16},
    ops::RangeInclusive,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Millis, NodeConfig};
use crate::{
    config::{ConfigError, Loaded},
    seal::MAX_INFORMATIONAL,
};

/// What a tick may be: a shorter one costs more than it gives, with a longer one nobody can read along.
const TICK_MS: RangeInclusive<u128> = 20..=1000;
/// Most steps from one power of two to the next.
const MAX_STEPS: u8 = 16;
/// Short answers end 1.3 s after acceptance at the earliest.
const LEAST_CHUNKS: NonZeroU16 = NonZeroU16::MIN.saturating_add(31);
/// Longest least.
const MAX_LEAST_CHUNKS: u16 = 4096;

/// Ticks that can pass before a stream's status is known, with some to spare.
const MAX_WAIT_TICKS: usize = MAX_INFORMATIONAL / 16 * 15;

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
    /// The least number of chunks that a paced stream has, or the next that it can have; 1 to 4,096. All
    /// answers that fit are alike; the end of a shorter one is late by what is missing.
    pub least_chunks: NonZeroU16,
}

impl Default for PaddingConfig {
    fn default() -> Self {
        Self {
            tick_ms: Millis::from_millis(40),
            steps_per_doubling: NonZeroU8::MIN,
            least_chunks: LEAST_CHUNKS,
        }
    }
}

impl PaddingConfig {
    /// Checks it, in the table of that name, for streams whose status may not be known for so long,
    /// by the settings that say so.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key that breaks a rule.
    pub(in crate::config) fn check<T>(
        &self,
        config: &Loaded<T>,
        table: &str,
        (wait, waits): (Duration, &str),
    ) -> Result<(), ConfigError> {
        let invalid =
            |key: &str, message: String| Err(config.invalid(&format!("{table}.{key}"), message));
        let tick = self.tick_ms.duration();
        if !TICK_MS.contains(&tick.as_millis()) {
            return invalid("tick_ms", "a tick is 20 to 1000 milliseconds".to_owned());
        }
        if self.steps_per_doubling.get() > MAX_STEPS {
            return invalid("steps_per_doubling", "at most 16 steps".to_owned());
        }
        if self.least_chunks.get() > MAX_LEAST_CHUNKS {
            return invalid("least_chunks", "at most 4096 chunks".to_owned());
        }
        let hidden = tick.saturating_mul(u32::try_from(MAX_WAIT_TICKS).unwrap_or(u32::MAX));
        if wait > hidden {
            let message = format!(
                "a stream may wait {} s for its answer ({waits}), and such ticks hide {} s at most: \
                 set a longer tick or shorter waits",
                wait.as_secs(),
                hidden.as_secs()
            );
            return invalid("tick_ms", message);
        }
        Ok(())
    }
}

/// Checks a node's.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key that breaks a rule.
pub(super) fn check(config: &Loaded<NodeConfig>) -> Result<(), ConfigError> {
    let waits = "engine.queue_ms, and twice timeouts.engine_first_byte_ms";
    let wait = longest_wait(&config.value);
    let padding = &config.value.padding;
    padding.check(config, "padding", (wait, waits))
}

/// How long a stream's status may not be known: in the queue, until the engine's head, and until its
/// first event.
fn longest_wait(config: &NodeConfig) -> Duration {
    let queue = config.engines.iter().map(|it| it.queue_ms.duration()).max();
    let first_byte = config.timeouts.engine_first_byte_ms.duration();
    queue
        .unwrap_or_default()
        .saturating_add(first_byte.saturating_mul(2))
}
