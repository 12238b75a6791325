//! What of a configuration only a start changes.

use std::net::SocketAddr;

use crate::config::gateway::GatewayConfig;

/// What only a start changes, by key.
pub(super) fn fixed(config: &GatewayConfig, address: SocketAddr) -> Vec<(&'static str, String)> {
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    let asked = config.listen;
    let any_port = asked.port() == 0 && asked.ip() == address.ip();
    let listen = if any_port { address } else { config.listen };
    vec![
        ("listen", listen.to_string()),
        ("tls", format!("{:?}", config.tls)),
        ("lock_memory", config.lock_memory.to_string()),
        ("admin", format!("{:?}", config.admin)),
        ("auth", format!("{:?}", config.auth)),
        ("store", format!("{:?}", config.store())),
        ("policy", format!("{:?}", config.policy)),
        ("bundle", format!("{:?}", config.bundle)),
        ("reattest_s", config.reattest_s.to_string()),
        ("reload_s", config.reload_s.to_string()),
        ("archive", format!("{:?}", config.archive)),
        ("announce", format!("{:?}", config.announce)),
        ("attestation", format!("{:?}", config.attestation)),
        ("locks", format!("{:?}", config.locks)),
        ("limits.connections", limits.connections.to_string()),
        (
            "limits.idle_connections_per_node",
            limits.idle_connections_per_node.to_string(),
        ),
        ("timeouts.head_ms", timeouts.head_ms.to_string()),
        (
            "timeouts.idle_connection_ms",
            timeouts.idle_connection_ms.to_string(),
        ),
        ("timeouts.write_ms", timeouts.write_ms.to_string()),
        ("timeouts.connect_ms", timeouts.connect_ms.to_string()),
        ("timeouts.attest_ms", timeouts.attest_ms.to_string()),
        (
            "timeouts.shutdown_delay_ms",
            timeouts.shutdown_delay_ms.to_string(),
        ),
        ("timeouts.drain_ms", timeouts.drain_ms.to_string()),
    ]
}

pub(super) fn fixed_value(fixed: &[(&'static str, String)], key: &str) -> String {
    let value = fixed.iter().find(|(name, _)| *name == key);
    value.map(|(_, value)| value.clone()).unwrap_or_default()
}
