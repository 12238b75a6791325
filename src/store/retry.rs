//! Work for the database that is tried until it is done.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use crate::telemetry::metrics::Counter;

/// How long the database may take for one try.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How work is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry<'a> {
    /// Whose it is, for the program's log.
    pub(crate) of: &'static str,
    /// Counts the tries that failed.
    pub(crate) failed: &'a Counter,
    /// After this there is one more try.
    pub(crate) stop: &'a CancellationToken,
}

impl Retry<'_> {
    /// What comes of `work`, however often that has to be tried; nothing if it was given up because of the
    /// stop. An error that another try does not help is a result of the work.
    pub(crate) async fn until_done<T, F>(&self, mut work: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut wait = FIRST_WAIT;
        loop {
            let was_stopped = self.stop.is_cancelled();
            let error = match timeout(WRITE_TIMEOUT, work()).await {
                Ok(Ok(done)) => return Some(done),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            self.failed.inc();
            // Said once for a time that the database is away.
            if wait == FIRST_WAIT {
                tracing::error!(error, "{} waits for the database", self.of);
            }
            if was_stopped {
                return None;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
            wait = wait.saturating_mul(2).min(LAST_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_tried_until_it_is_done_and_once_more_after_a_stop() {
        for (stops_after, fails, done, tries) in [
            (u32::MAX, 0, true, 1),
            (u32::MAX, 20, true, 21),
            // Told to stop in the first try: that one counts as begun before.
            (1, u32::MAX, false, 2),
            (3, 3, true, 4),
        ] {
            let (failed, stop) = (Counter::default(), CancellationToken::new());
            let tried = Cell::new(0_u32);
            let retry = Retry {
                of: "a test",
                failed: &failed,
                stop: &stop,
            };
            let work = || {
                tried.set(tried.get() + 1);
                if tried.get() >= stops_after {
                    stop.cancel();
                }
                let is_done = tried.get() > fails;
                async move { is_done.then_some(()).ok_or(StoreError::Unreadable("a")) }
            };
            let came = retry.until_done(work).await;
            assert_eq!((came.is_some(), tried.get()), (done, tries));
            let expected = tries - u32::from(done);
            assert_eq!(failed.get(), u64::from(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_is_one_that_failed() {
        let (failed, stop) = (Counter::default(), CancellationToken::new());
        stop.cancel();
        let retry = Retry {
            of: "a test",
            failed: &failed,
            stop: &stop,
        };
        let hanging = || std::future::pending::<Result<(), StoreError>>();
        assert_eq!(retry.until_done(hanging).await, None);
        assert_eq!(failed.get(), 1);
    }
}
