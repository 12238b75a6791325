//! Whether a node is asked: what requests and probes have shown of it.
//!
//! A node that fails again and again is put out for a while, which doubles each time; a probe that
//! passes lets one request try it, and one that succeeds brings it back. What a node says of itself
//! counts at once: one that asks to be left alone is avoided, and one that nothing can come of is
//! barred. That no more than half of a model's nodes are put out is seen to where they all are known
//! ([`super::nodes::Nodes`]).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    chance,
    config::gateway::{HealthConfig, seconds},
};

/// Parts of the time over which failures are counted.
const PARTS: usize = 6;
/// Probes that must fail in a row.
const FAILED_PROBES: u32 = 3;
/// What breaks within this time is one failure, however many requests it takes along.
const LOST_TOGETHER: Duration = Duration::from_millis(200);
/// Rest after a node was to be put out and could not.
const NOT_OUT_REST: Duration = Duration::from_secs(1);

/// Whether a node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// By one request, which will show.
    OnTrial,
    /// Only where no other can be.
    Avoided,
    /// The same: it failed too often.
    Out,
    /// Not now.
    Barred,
}

/// What a request shows of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Success,
    /// The node, or the way to it, failed.
    Failure,
    /// A connection broke, perhaps one that carried many requests.
    Lost,
    /// Its engine failed, which a caller may have brought about.
    EngineFailure,
}

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: HealthConfig,
    phase: Phase,
    barred_until: Option<Instant>,
    avoided_until: Option<Instant>,
    failures_in_row: u32,
    failed_probes: u32,
    window: Window,
    /// When a connection was last seen to have broken.
    lost_at: Option<Instant>,
    /// How often it was put out since it last stayed well for as long as it may be out.
    times_out: u32,
    back_since: Instant,
    /// Until when it is not asked again whether it may be put out.
    settled_until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    In,
    Out { until: Instant },
    OnTrial { taken: bool },
}

impl Health {
    pub(super) fn new(config: HealthConfig) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                config,
                phase: Phase::In,
                barred_until: None,
                avoided_until: None,
                failures_in_row: 0,
                failed_probes: 0,
                window: Window::new(seconds(config.window_s), now),
                lost_at: None,
                times_out: 0,
                back_since: now,
                settled_until: now,
            }),
        }
    }

    /// How the node is judged now.
    pub(super) fn config(&self) -> HealthConfig {
        self.lock().config
    }

    /// Judges it so from now on; a node that is out stays out as long as was said.
    pub(super) fn set_config(&self, config: HealthConfig) {
        let mut state = self.lock();
        if state.config.window_s != config.window_s {
            state.window = Window::new(seconds(config.window_s), Instant::now());
        }
        state.config = config;
    }

    pub(super) fn standing(&self) -> Standing {
        self.lock().standing(Instant::now())
    }

    /// Prefers other nodes for a while.
    pub(super) fn avoid(&self, time: Duration) {
        let mut state = self.lock();
        state.avoided_until = state.avoided_until.max(Instant::now().checked_add(time));
    }

    /// Gives the node no request for a while.
    pub(super) fn bar(&self, time: Duration) {
        let mut state = self.lock();
        state.barred_until = state.barred_until.max(Instant::now().checked_add(time));
    }

    /// Forgets what was of a node that is another now.
    pub(super) fn begin_anew(&self) {
        let mut state = self.lock();
        state.barred_until = None;
        state.avoided_until = None;
        state.failures_in_row = 0;
        state.failed_probes = 0;
        state.times_out = 0;
        state.window = Window::new(seconds(state.config.window_s), Instant::now());
        if state.phase != Phase::In {
            state.phase = Phase::OnTrial { taken: false };
        }
    }

    /// Whether it counts as out, on trial as well.
    pub(super) fn is_out(&self) -> bool {
        self.lock().phase != Phase::In
    }

    /// Takes the one place of a node on trial; whoever has it gives it back, or says what it showed.
    pub(super) fn begin_trial(&self) -> bool {
        let mut state = self.lock();
        let free = state.phase == Phase::OnTrial { taken: false };
        if free {
            state.phase = Phase::OnTrial { taken: true };
        }
        free
    }

    /// The trial showed nothing: another request may.
    pub(super) fn give_up_trial(&self) {
        let mut state = self.lock();
        if state.phase == (Phase::OnTrial { taken: true }) {
            state.phase = Phase::OnTrial { taken: false };
        }
    }

    /// A reply has begun. Says whether that ends a trial well.
    pub(super) fn began(&self) -> bool {
        let mut state = self.lock();
        let on_trial = matches!(state.phase, Phase::OnTrial { .. });
        if on_trial {
            state.come_back();
        }
        on_trial
    }

    /// Takes in what a request showed, and says whether the node should be put out.
    pub(super) fn note(&self, shown: Shown) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if shown == Shown::Lost {
            let at = state.lost_at.replace(now);
            if at.is_some_and(|at| now.saturating_duration_since(at) < LOST_TOGETHER) {
                return false;
            }
        }
        state.window.count(shown == Shown::Success, now);
        match shown {
            Shown::Success => {
                state.failures_in_row = 0;
                return false;
            }
            Shown::Failure | Shown::Lost => {
                state.failures_in_row = state.failures_in_row.saturating_add(1)
            }
            // Whoever sends what breaks an engine must not put out a node with a few requests.
            Shown::EngineFailure => {}
        }
        match state.phase {
            Phase::Out { .. } => false,
            // It counts as out already.
            Phase::OnTrial { .. } => {
                state.put_out(now);
                false
            }
            Phase::In => now >= state.settled_until && state.is_failing(now),
        }
    }

    /// Takes in what a probe showed, and says whether the node should be put out.
    pub(super) fn probed(&self, alive: bool) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if alive {
            state.failed_probes = 0;
            if matches!(state.phase, Phase::Out { until } if until <= now) {
                state.phase = Phase::OnTrial { taken: false };
            }
            return false;
        }
        state.failed_probes = state.failed_probes.saturating_add(1);
        match state.phase {
            Phase::Out { until } if now < until => false,
            Phase::Out { .. } | Phase::OnTrial { .. } => {
                state.put_out(now);
                false
            }
            Phase::In => now >= state.settled_until && state.failed_probes >= FAILED_PROBES,
        }
    }

    /// When a node that is out may be probed for its return.
    pub(super) fn out_until(&self) -> Option<Instant> {
        match self.lock().phase {
            Phase::Out { until } => Some(until),
            Phase::In | Phase::OnTrial { .. } => None,
        }
    }

    /// Puts the node out, and says for how long.
    pub(super) fn put_out(&self) -> Duration {
        self.lock().put_out(Instant::now())
    }

    /// Leaves the node in, since too many others are out.
    pub(super) fn leave_in(&self) {
        self.lock().settled_until = Instant::now() + NOT_OUT_REST;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn standing(&self, now: Instant) -> Standing {
        let holds = |until: Option<Instant>| until.is_some_and(|until| now < until);
        match self.phase {
            _ if holds(self.barred_until) => Standing::Barred,
            Phase::Out { .. } | Phase::OnTrial { taken: true } => Standing::Out,
            _ if holds(self.avoided_until) => Standing::Avoided,
            Phase::OnTrial { taken: false } => Standing::OnTrial,
            Phase::In => Standing::Good,
        }
    }

    fn put_out(&mut self, now: Instant) -> Duration {
        let (first, longest) = (seconds(self.config.out_s), seconds(self.config.max_out_s));
        let was_in = now.saturating_duration_since(self.back_since);
        if self.phase == Phase::In && was_in > longest {
            self.times_out = 0;
        }
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.times_out));
        // Gateways that saw the same failure must not come back in one instant.
        let jitter = chance::draw(0.8..=1.0);
        let time = doubled.min(longest).mul_f64(jitter);
        self.times_out = self.times_out.saturating_add(1);
        self.failures_in_row = 0;
        self.phase = Phase::Out {
            until: now.checked_add(time).unwrap_or(now),
        };
        time
    }

    fn come_back(&mut self) {
        let now = Instant::now();
        self.phase = Phase::In;
        self.back_since = now;
        self.failures_in_row = 0;
        self.failed_probes = 0;
        self.window = Window::new(seconds(self.config.window_s), now);
    }

    fn is_failing(&mut self, now: Instant) -> bool {
        let config = self.config;
        let (good, bad) = self.window.counted(now);
        let all = good.saturating_add(bad);
        let percent = u64::from(good).saturating_mul(100);
        let least = u64::from(all).saturating_mul(config.success_percent.into());
        self.failures_in_row >= config.failures_in_row.get()
            || (all >= config.min_requests.get() && percent < least)
    }
}

/// Successes and failures of a while, in parts that end one by one.
#[derive(Debug)]
struct Window {
    part: Duration,
    begun: Instant,
    /// The part that goes on, counted from the beginning.
    now: u64,
    counts: [(u32, u32); PARTS],
}

impl Window {
    fn new(time: Duration, now: Instant) -> Self {
        Self {
            part: (time / PARTS as u32).max(Duration::from_millis(1)),
            begun: now,
            now: 0,
            counts: <_>::default(),
        }
    }

    fn count(&mut self, good: bool, now: Instant) {
        self.turn(now);
        let place = self.place(self.now);
        if let Some(count) = self.counts.get_mut(place) {
            let counter = if good { &mut count.0 } else { &mut count.1 };
            *counter = counter.saturating_add(1);
        }
    }

    fn counted(&mut self, now: Instant) -> (u32, u32) {
        self.turn(now);
        let add = |sum: (u32, u32), count: &(u32, u32)| {
            (sum.0.saturating_add(count.0), sum.1.saturating_add(count.1))
        };
        self.counts.iter().fold((0, 0), add)
    }

    /// Empties the parts that have ended since.
    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.begun).as_nanos();
        let part = u64::try_from(elapsed / self.part.as_nanos()).unwrap_or(u64::MAX);
        let ended = part.saturating_sub(self.now).min(PARTS as u64);
        for back in 0..ended {
            let place = self.place(part.saturating_sub(back));
            if let Some(count) = self.counts.get_mut(place) {
                *count = (0, 0);
            }
        }
        self.now = self.now.max(part);
    }

    fn place(&self, part: u64) -> usize {
        usize::try_from(part % PARTS as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
