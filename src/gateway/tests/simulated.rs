//! A gateway on a simulated network, and what it holds.

use std::sync::Arc;

use crate::{
    clock::Clock,
    config::{Loaded, gateway::GatewayConfig},
    gateway::{Gateway, Shared},
};

/// What a gateway holds now.
pub(crate) struct Gauges(Arc<Shared>);

/// A gateway that listens, without a test of the verifier, which takes long.
pub(crate) async fn bind(config: Loaded<GatewayConfig>, clock: Clock) -> (Gateway, Gauges) {
    let gateway = Gateway::bind_with(<_>::default(), config, clock, || Ok(<_>::default()))
        .await
        .unwrap();
    let gauges = Gauges(Arc::clone(&gateway.shared));
    (gateway, gauges)
}

impl Gauges {
    pub(crate) fn held(&self) -> Vec<(&'static str, usize)> {
        let Self(shared) = self;
        let nodes = shared.nodes.all();
        let with_nodes = nodes.iter().map(|node| node.in_flight()).sum::<u32>();
        vec![
            ("the gateway's places", shared.admission.in_flight()),
            ("its retries", shared.admission.retries_in_flight()),
            ("its room for bodies", shared.admission.bodies_bytes()),
            ("places with its nodes", with_nodes as usize),
        ]
    }

    /// Requests that went to nodes.
    pub(crate) fn tries(&self) -> usize {
        self.0.metrics.tries.get() as usize
    }
}
