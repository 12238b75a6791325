//! A node on a simulated network, and what it holds.

use std::sync::Arc;

use crate::{
    clock::Clock,
    config::{Loaded, node::NodeConfig},
    node::{Node, State, buffered::Buffered, places},
};

/// What a node holds now.
pub(crate) struct Gauges(Arc<State>);

/// A node that listens.
pub(crate) async fn bind(config: Loaded<NodeConfig>, clock: Clock) -> (Node, Gauges) {
    let node = Node::bind(config, clock).await.unwrap();
    let gauges = Gauges(Arc::clone(&node.state));
    (node, gauges)
}

impl Gauges {
    pub(crate) fn held(&self) -> Vec<(&'static str, usize)> {
        let Self(state) = self;
        // One that drains takes all places to itself.
        let drains = state.draining.is_cancelled();
        let places = places(&state.config) - state.requests.available_permits();
        let room = Buffered::shared(state.config.limits.buffered_bytes.get()).available_permits()
            - state.buffered.available_permits();
        let engines = state
            .models
            .engines()
            .iter()
            .map(|engine| engine.places.held())
            .sum();
        vec![
            ("a node's places", if drains { 0 } else { places }),
            ("its room for requests", room),
            ("places with its engines", engines),
        ]
    }
}
