//! The verifier's standing self-test: at start, and then daily. A gateway whose verifier accepts
//! what it must not seals to nobody.

use std::time::Duration;

use attestation::{SelfTest, SelfTestFailure};
use rand::RngExt as _;
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

/// Longest time between two tests; up to a tenth less, so that a fleet does not test in step.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The test that is run.
pub(super) type Test = fn() -> Result<SelfTest, SelfTestFailure>;

/// Why the verifier is not relied on.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// It did what it must not.
    #[error(transparent)]
    Failed(#[from] SelfTestFailure),
    /// It did not come to an end.
    #[error("the verifier panicked")]
    Panicked,
}

/// Runs `test` once.
///
/// # Errors
/// [`SelfTestError`] if the verifier is not to be relied on.
pub(super) async fn run(test: Test) -> Result<(), SelfTestError> {
    let made = spawn_blocking(test).await;
    let SelfTest { accepted, refused } = made.map_err(|_| SelfTestError::Panicked)??;
    tracing::info!(accepted, refused, "self-test passed");
    Ok(())
}

/// Runs `test` daily; when it fails, cancels `halted` and ends.
pub(super) async fn daily(test: Test, halted: CancellationToken) {
    loop {
        let share = rand::rng().random_range(0.9..=1.0);
        sleep(INTERVAL.mul_f64(share)).await;
        if let Err(error) = run(test).await {
            tracing::error!(
                %error,
                "self-test failed: no node counts as verified until a restart that passes"
            );
            halted.cancel();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    const FAILURE: SelfTestFailure = SelfTestFailure::Accepted {
        sample: "a sample",
        change: "a forged signature",
    };

    #[tokio::test(start_paused = true)]
    async fn it_is_run_daily_and_its_failure_halts() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let fails_on_the_third_day = || match RUNS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Ok(SelfTest::default()),
            _ => Err(FAILURE),
        };
        let (start, halted) = (Instant::now(), CancellationToken::new());
        daily(fails_on_the_third_day, halted.clone()).await;
        assert!(halted.is_cancelled());
        assert_eq!(RUNS.load(Ordering::Relaxed), 3);
        let days = start.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
        assert!((2.7..=3.01).contains(&days), "{days}");
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let error = run(|| panic!("on purpose")).await.unwrap_err();
        assert!(matches!(error, SelfTestError::Panicked));
        assert!(run(attestation::self_test).await.is_ok());
    }
}
