//! How an engine stands by what it answers to questions about its health.
//!
//! An engine that has been well and fails three times in a row is dead: requests are refused at once.
//! When it answers again, one request at a time tries it, until one is answered or it has been well
//! for a while. An engine that has not been well yet may be on its way: requests try it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine_metrics::Load;

/// Failures in a row after which an engine is dead.
const FAILURES: u32 = 3;
/// Good answers in a row after which one that was dead is trusted without a trial.
const ANSWERS: u32 = 3;

/// What is known of an engine's health.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    standing: Standing,
    /// Of the last answers, those in a row that were bad, or good.
    failures: u32,
    answers: u32,
    load: Load,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    New,
    Well,
    Dead,
    /// It answers again.
    Back {
        tried: bool,
    },
}

/// The engine is dead, or another request tries whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead;

/// What a request learns of its engine, which counts if it tries one that was dead.
#[must_use]
#[derive(Debug)]
pub(super) struct Try(Option<Arc<Health>>);

impl Health {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It gave a good answer; says whether that is news.
    pub(super) fn answered(&self) -> bool {
        let mut known = self.known();
        let news = known.failures > 0 || known.standing == Standing::New;
        known.failures = 0;
        known.answers = known.answers.saturating_add(1);
        known.standing = match known.standing {
            Standing::New | Standing::Well => Standing::Well,
            Standing::Dead => Standing::Back { tried: false },
            Standing::Back { .. } if known.answers >= ANSWERS => Standing::Well,
            back @ Standing::Back { .. } => back,
        };
        news
    }

    /// It gave none, or a bad one; says whether it is dead from now on.
    pub(super) fn failed(&self) -> bool {
        let mut known = self.known();
        known.answers = 0;
        known.failures = known.failures.saturating_add(1);
        known.load = Load::default();
        let dies = match known.standing {
            Standing::New | Standing::Dead => false,
            Standing::Well => known.failures >= FAILURES,
            Standing::Back { .. } => true,
        };
        if dies {
            known.standing = Standing::Dead;
        }
        dies
    }

    /// Its last answer was none or a bad one.
    pub(super) fn is_failing(&self) -> bool {
        self.known().failures > 0
    }

    /// No request reaches it.
    pub(super) fn is_dead(&self) -> bool {
        self.known().standing == Standing::Dead
    }

    /// It has answered, and is not dead.
    pub(super) fn is_well(&self) -> bool {
        matches!(
            self.known().standing,
            Standing::Well | Standing::Back { .. }
        )
    }

    /// Lets a request to the engine.
    ///
    /// # Errors
    /// [`Dead`] if none may go there now.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Try, Dead> {
        let mut known = self.known();
        match &mut known.standing {
            Standing::New | Standing::Well => Ok(Try(None)),
            Standing::Dead | Standing::Back { tried: true } => Err(Dead),
            Standing::Back { tried } => {
                *tried = true;
                Ok(Try(Some(Arc::clone(self))))
            }
        }
    }

    /// What it last said of its load.
    pub(super) fn load(&self) -> Load {
        self.known().load
    }

    /// It says this of its load.
    pub(super) fn is_loaded(&self, load: Load) {
        self.known().load = load;
    }
}

impl Try {
    /// The engine answered the request, or did not.
    pub(super) fn ends(mut self, answered: bool) {
        let Some(health) = self.0.take() else { return };
        let mut known = health.known();
        if matches!(known.standing, Standing::Back { .. }) {
            known.standing = if answered {
                Standing::Well
            } else {
                Standing::Dead
            };
        }
    }
}

impl Drop for Try {
    /// Nobody waited for the answer: the next one tries.
    fn drop(&mut self) {
        let Some(health) = self.0.take() else { return };
        if let Standing::Back { tried } = &mut health.known().standing {
            *tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that was well, died, and answers again.
    fn back() -> Arc<Health> {
        let health = Arc::new(Health::default());
        health.answered();
        for dies in [false, false, true] {
            assert!(!health.is_dead());
            assert_eq!(health.failed(), dies);
        }
        assert_eq!(health.admit().unwrap_err(), Dead);
        assert!(health.answered());
        health
    }

    #[test]
    fn three_failures_in_a_row_put_out_an_engine_that_was_well() {
        let health = Arc::new(Health::default());
        for _ in 0..9 {
            assert!(!health.failed(), "it may be on its way");
        }
        assert!(health.admit().is_ok() && !health.is_well());
        health.answered();
        for _ in 0..9 {
            assert!(!health.failed() && !health.failed());
            health.answered();
        }
        assert!(health.admit().is_ok() && health.is_well());
        back();
    }

    #[test]
    fn one_request_at_a_time_tries_an_engine_that_is_back() {
        let health = back();
        let first = health.admit().unwrap();
        assert_eq!(health.admit().unwrap_err(), Dead);
        drop(first);
        let second = health.admit().unwrap();
        second.ends(false);
        assert!(health.is_dead());
        health.answered();
        let third = health.admit().unwrap();
        third.ends(true);
        assert!(health.admit().is_ok() && health.admit().is_ok());
    }

    #[test]
    fn an_engine_that_stays_back_needs_no_trial_and_one_that_fails_again_is_dead() {
        let health = back();
        let long = health.admit().unwrap();
        assert!(health.admit().is_err());
        assert!(!health.answered() && !health.answered());
        assert!(health.admit().is_ok(), "it answers while a long one runs");
        drop(long);
        let health = back();
        assert!(health.failed() && health.is_dead());
    }

    #[test]
    fn what_it_said_of_its_load_ends_with_its_health() {
        let health = Health::default();
        let load = Load {
            waiting: Some(1),
            ..Load::default()
        };
        health.is_loaded(load);
        assert_eq!(health.load(), load);
        health.failed();
        assert_eq!(health.load(), Load::default());
    }
}
