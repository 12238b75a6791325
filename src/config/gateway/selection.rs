//! How nodes share the requests, and when one is put out.

use std::{
    collections::HashSet,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::GatewayConfig;
use crate::config::{ConfigError, Loaded};

/// Most different regions and tags of a configuration: each has a bit, and one bit is left.
pub const MAX_LABELS: usize = 63;

/// Longest of the times that are counted in seconds.
const MAX_SECONDS: u64 = 24 * 60 * 60;

/// How nodes share the requests.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionConfig {
    /// How much a node's price counts against how busy it is: 0 for not at all; with 1 a node of
    /// double the price gets a request where another is twice as busy.
    pub price_weight: Ratio,
    /// Seconds until a node that is new, or back, gets its whole share.
    pub warm_up_s: WarmUp,
}

/// A number from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// The number 1.
    pub const ONE: Self = Self(1.0);

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    pub(super) fn one() -> Self {
        Self::ONE
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if (0.0..=100.0).contains(&number) {
            return Ok(Self(number));
        }
        Err(de::Error::custom("expected a number from 0 to 100"))
    }
}

/// Seconds until a new node gets its whole share; 30 unless told otherwise.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct WarmUp(u16);

impl WarmUp {
    /// The time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self(30)
    }
}

/// When a node that fails is put out, and how it comes back. At most half of the nodes of a model
/// are out.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Failures in a row that put a node out.
    pub failures_in_row: NonZeroU32,
    /// The part of its requests that must succeed, in percent.
    pub success_percent: u8,
    /// Seconds over which they are counted.
    pub window_s: NonZeroU64,
    /// Requests in that time without which the part tells nothing.
    pub min_requests: NonZeroU32,
    /// Seconds that a node is out for the first time; doubled each time after that.
    pub out_s: NonZeroU64,
    /// Longest time that it is out, in seconds.
    pub max_out_s: NonZeroU64,
    /// Seconds between two looks at a node's `/readyz`.
    pub probe_s: NonZeroU64,
    /// Longest time for an answer to that, in milliseconds.
    pub probe_timeout_ms: NonZeroU64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        let few = |number: u32| NonZeroU32::MIN.saturating_add(number - 1);
        let many = |number: u64| NonZeroU64::MIN.saturating_add(number - 1);
        Self {
            failures_in_row: few(5),
            success_percent: 50,
            window_s: many(30),
            min_requests: few(10),
            out_s: many(10),
            max_out_s: many(300),
            probe_s: many(10),
            probe_timeout_ms: many(3000),
        }
    }
}

/// The time that a number of seconds means.
#[must_use]
pub const fn seconds(value: NonZeroU64) -> Duration {
    Duration::from_secs(value.get())
}

/// A region or a tag: 1 to 64 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The label in its text, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let legal = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_one = (1..=64).contains(&text.len()) && text.bytes().all(legal);
        is_one.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text)
            .ok_or_else(|| de::Error::custom("a region or tag is 1 to 64 of a-z, 0-9 and -"))
    }
}

/// Checks what no single key can say.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let value = &config.value;
    let zero = |ratio: Ratio| ratio.get() == 0.0;
    if value.nodes.iter().any(|node| zero(node.weight)) {
        return Err(config.invalid(
            "node.weight",
            "above 0: leave a node out to give it nothing",
        ));
    }
    if value.nodes.iter().any(|node| zero(node.price)) {
        return Err(config.invalid("node.price", "above 0: prices are compared by their ratio"));
    }
    if value.health.success_percent > 100 {
        return Err(config.invalid("health.success_percent", "at most 100"));
    }
    let health = &value.health;
    let times = [
        ("health.window_s", health.window_s),
        ("health.out_s", health.out_s),
        ("health.max_out_s", health.max_out_s),
        ("health.probe_s", health.probe_s),
    ];
    if let Some((key, _)) = times.iter().find(|(_, time)| time.get() > MAX_SECONDS) {
        return Err(config.invalid(key, format!("at most {MAX_SECONDS}: a day")));
    }
    if value.health.max_out_s < value.health.out_s {
        return Err(config.invalid("health.max_out_s", "at least health.out_s"));
    }
    let mut labels = HashSet::new();
    for node in &value.nodes {
        labels.extend(node.region.iter().map(|region| ("region", region)));
        labels.extend(node.tags.iter().map(|tag| ("tag", tag)));
    }
    if labels.len() > MAX_LABELS {
        let message = format!("at most {MAX_LABELS} different regions and tags in all");
        return Err(config.invalid("node.tags", message));
    }
    Ok(())
}
