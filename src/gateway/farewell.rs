//! The end of a gateway that is told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How far the gateway's end has come. One value: where no delay is asked for, nobody who has seen
/// the gateway not ready is served any more.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

const SERVING: u8 = 0;
const LEAVING: u8 = 1;
const DRAINING: u8 = 2;

impl Phase {
    /// Whether callers should go elsewhere, though they may still be served.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.load(Ordering::Relaxed) > SERVING
    }

    /// Whether no new work is taken.
    pub(super) fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DRAINING
    }
}

/// How long a gateway that was told to stop goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    /// With new work, so that whoever sends it can notice.
    pub(super) delay: Duration,
    /// With open requests, after that.
    pub(super) drain: Duration,
}

impl Farewell {
    /// Once told to stop (`shutdown`): not ready at once; after the delay no new work, and connections
    /// are `closing`; after the drain what is left of requests is `cut`.
    pub(super) async fn say(
        self,
        phase: Arc<Phase>,
        shutdown: CancellationToken,
        closing: CancellationToken,
        cut: CancellationToken,
    ) {
        shutdown.cancelled().await;
        if !self.delay.is_zero() {
            phase.0.store(LEAVING, Ordering::Relaxed);
            sleep(self.delay).await;
        }
        tracing::info!("draining: no new requests, streams may finish");
        phase.0.store(DRAINING, Ordering::Relaxed);
        closing.cancel();
        sleep(self.drain).await;
        cut.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Context, task::Waker};

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_sees_an_unready_gateway_take_work_unless_a_delay_is_asked_for() {
        let drain = Duration::from_secs(30);
        for delay in [Duration::ZERO, Duration::from_secs(5)] {
            let phase = Arc::new(Phase::default());
            let [shutdown, closing, cut] = [(); 3].map(|()| CancellationToken::new());
            let farewell = Farewell { delay, drain };
            let said = farewell.say(
                Arc::clone(&phase),
                shutdown.clone(),
                closing.clone(),
                cut.clone(),
            );
            let mut said = pin!(said);
            let mut look = || {
                let _ = said.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                let phase = (phase.is_leaving(), phase.is_draining());
                (phase, closing.is_cancelled(), cut.is_cancelled())
            };
            assert_eq!(look(), ((false, false), false, false));
            shutdown.cancel();
            let drains = delay.is_zero();
            assert_eq!(look(), ((true, drains), drains, false), "{delay:?}");
            advance(delay).await;
            assert_eq!(look(), ((true, true), true, false), "{delay:?}");
            advance(drain).await;
            assert_eq!(look(), ((true, true), true, true), "{delay:?}");
        }
    }
}
