//! Metrics: what is counted, and the page that a scraper reads.
//!
//! Nothing here is global. A role keeps each number at the place that knows it, and its [`Source`]
//! reads them all when somebody asks; what can be read from the truth, as a semaphore's permits, is
//! not counted a second time. A label's value is a word of this program's own, or a name that the
//! operator or a verified node gave: nothing of a request, a key or a prompt gets here.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

mod histogram;
mod page;
mod process;

pub use self::{
    histogram::{Histogram, SECONDS},
    page::{Accepts, Exposition, Family, Format, Kind, Page, Row, Series, Source},
    process::FAMILIES as PROCESS,
};

#[cfg(test)]
pub(crate) mod documented;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of what is told apart by `N` words of this program, for what happens seldom or beside
/// slow work: a lock is taken for each.
///
/// Words are `'static`, so that there are no more than the program has.
#[derive(Debug)]
pub struct Tally<const N: usize>(Mutex<BTreeMap<[&'static str; N], u64>>);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<const N: usize> Tally<N> {
    /// One more of this.
    pub fn inc(&self, words: [&'static str; N]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(words).or_default();
        *count = count.saturating_add(1);
    }

    /// Everything so far, in the order of the words.
    #[must_use]
    pub fn counts(&self) -> Vec<([&'static str; N], u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(words, count)| (*words, *count))
            .collect()
    }
}
