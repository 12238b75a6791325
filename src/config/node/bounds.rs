//! `[limits]` and `[timeouts]`: what a node holds, and how long it waits, at most.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What the node holds at most.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once.
    pub connections: NonZeroUsize,
    /// Sealed requests at once, from their first byte to the last of the reply.
    pub requests: NonZeroUsize,
    /// Bytes of one request's content.
    pub body_bytes: NonZeroU32,
    /// Bytes of all requests that have arrived and not yet reached an engine.
    pub buffered_bytes: NonZeroUsize,
    /// Bytes of a request's body that must come in each second, see `timeouts.slow_body_ms`; 0 for
    /// none.
    pub min_body_bytes_per_s: u32,
    /// Requests that the replay table remembers, about 100 bytes each; a request is remembered
    /// for about 120 seconds. Without a credential one address may hold a quarter.
    pub replay_entries: NonZeroUsize,
    /// Requests that the replay table of each dialect remembers, about 100 bytes each; a request is
    /// remembered until its key ends. Without a credential one address may hold a quarter.
    pub dialect_replay_entries: NonZeroUsize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        Self {
            connections: one.saturating_add(8 * 1024 - 1),
            requests: one.saturating_add(4 * 1024 - 1),
            body_bytes: NonZeroU32::MIN.saturating_add(16 * 1024 * 1024 - 1),
            buffered_bytes: one.saturating_add(512 * 1024 * 1024 - 1),
            min_body_bytes_per_s: 1024,
            replay_entries: one.saturating_add(2 * 1024 * 1024 - 1),
            dialect_replay_entries: one.saturating_add(2 * 1024 * 1024 - 1),
        }
    }
}

/// How long the node waits at most. There is no total time for a reply.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// For a request head, and on HTTP/1.1 for the next request.
    pub head_ms: Millis,
    /// For the next request on an HTTP/2 connection.
    pub idle_ms: Millis,
    /// For the next bytes of a request's body.
    pub body_idle_ms: Millis,
    /// For a request's whole body.
    pub body_ms: Millis,
    /// That a request's body may fall behind `limits.min_body_bytes_per_s`.
    pub slow_body_ms: Millis,
    /// For the peer to read what is written.
    pub write_ms: Millis,
    /// For a connection to an engine.
    pub engine_connect_ms: Millis,
    /// For the head of an engine's reply, which comes when a unary reply is whole.
    pub engine_first_byte_ms: Millis,
    /// For the next bytes of an engine's reply.
    pub engine_idle_ms: Millis,
    /// For open requests to end once the node is told to stop.
    pub drain_ms: Millis,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            head_ms: Millis::from_secs(30),
            idle_ms: Millis::from_secs(90),
            body_idle_ms: Millis::from_secs(15),
            body_ms: Millis::from_secs(300),
            slow_body_ms: Millis::from_secs(10),
            write_ms: Millis::from_secs(60),
            engine_connect_ms: Millis::from_secs(5),
            engine_first_byte_ms: Millis::from_secs(600),
            engine_idle_ms: Millis::from_secs(120),
            drain_ms: Millis::from_secs(600),
        }
    }
}

/// A time to wait, in milliseconds; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Millis(NonZeroU64);

impl Millis {
    /// So many seconds; at least a millisecond.
    pub(super) const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// So many milliseconds; at least one.
    pub(super) const fn from_millis(millis: u64) -> Self {
        match NonZeroU64::new(millis) {
            Some(millis) => Self(millis),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The time to wait.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}
