//! What works beside the requests: the nodes kept, files read again, and what has a time swept.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    announce::{self, Desk},
    archive,
    attest::Attester,
    keep::Keeper,
    keeping::Keeping,
    node::Node,
    probe, reconfigure,
    reconfigure::Reconfigurer,
    rules::Reloader,
    self_test,
    shared::Shared,
};
use crate::reload::Reload;

/// Between two looks for idle connections that have waited too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What works beside the requests.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) attester: Attester,
    pub(super) reloader: Reloader,
    pub(super) reload: Reload,
    pub(super) reload_every: Duration,
    pub(super) self_test: self_test::Test,
    pub(super) archive_ended: Option<archive::Ended>,
    pub(super) keeping: Option<Box<Keeping>>,
}

impl Beside {
    /// Starts a task for each node and each other thing, all of which end with `stop`; the archive
    /// ends after them.
    pub(super) fn start(
        self,
        shared: &Arc<Shared>,
        reconfigurer: Reconfigurer,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Option<archive::Ended> {
        let attester = Arc::new(self.attester);
        let keepers = Keepers {
            attester: Arc::clone(&attester),
            shared: Arc::clone(shared),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        for node in shared.nodes.all().iter() {
            keepers.keep(node);
        }
        let reconfiguring = reconfigurer.run(keepers, self.reload.asked(), self.reload_every);
        tasks.spawn(until(stop.clone(), reconfiguring));
        if let Some(orders) = shared.desk.as_deref().and_then(Desk::take_orders) {
            let (stop, tasks) = (stop.clone(), tasks.clone());
            let serving = announce::serve(
                orders,
                attester,
                Arc::clone(shared),
                stop.clone(),
                tasks.clone(),
            );
            tasks.spawn(until(stop, serving));
        }
        let locks = Arc::clone(shared);
        let expiring = async move { locks.locks.expire().await };
        tasks.spawn(until(stop.clone(), expiring));
        let nodes = Arc::clone(shared);
        let current = async move { nodes.nodes.keep_current(nodes.clock).await };
        tasks.spawn(until(stop.clone(), current));
        let reloading = self.reloader.run(self.reload.asked(), self.reload_every);
        tasks.spawn(until(stop.clone(), reloading));
        let testing = self_test::daily(self.self_test, shared.halted.clone());
        tasks.spawn(until(stop.clone(), testing));
        self.archive_ended
    }
}

/// Works until `stop`.
pub(super) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Has nodes kept, each by a task of its own.
pub(super) struct Keepers {
    attester: Arc<Attester>,
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Keepers {
    pub(super) fn keep(&self, node: &Arc<Node>) {
        let (attester, shared) = (Arc::clone(&self.attester), Arc::clone(&self.shared));
        let keeping = keep(attester, shared, Arc::clone(node));
        self.tasks.spawn(until(self.stop.clone(), keeping));
    }
}

/// Keeps a node appraised, and watches its health, until the verifier is not to be relied on, or the configuration names it no
/// more and its last request has ended.
async fn keep(attester: Arc<Attester>, shared: Arc<Shared>, node: Arc<Node>) {
    tokio::select! {
        biased;
        () = Keeper::new(&attester, &shared.nodes, &node).run() => {}
        () = probe::watch(&shared.nodes, &node) => {}
        () = reconfigure::let_go(&node) => {}
        () = shared.halted.cancelled() => {}
    }
}

/// Closes connections to nodes that nobody used for a while.
pub(super) async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        for verified in shared.nodes.all().iter().flat_map(|node| node.held()) {
            verified.channel.sweep();
        }
    }
}
