//! Chance where nothing secret hangs on it: which node, how long a rest.
//!
//! In a simulation it follows from the seed.

use rand::{
    RngExt as _,
    distr::uniform::{SampleRange, SampleUniform},
};

/// One of a range, each as likely as the others.
pub(crate) fn draw<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    #[cfg(test)]
    if let Some(mut seeded) = seeded::take() {
        let drawn = seeded.random_range(range);
        seeded::put(Some(seeded));
        return drawn;
    }
    rand::rng().random_range(range)
}

#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;

    thread_local! {
        static RNG: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    pub(crate) fn take() -> Option<StdRng> {
        RNG.take()
    }

    /// What this thread draws from.
    pub(crate) fn put(rng: Option<StdRng>) {
        RNG.set(rng);
    }
}
