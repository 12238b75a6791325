//! `sealgate gateway` and `sealgate node`: from a file to a served role, and its orderly end.

use std::{io, path::Path, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::terminal;
use crate::{
    clock::Clock,
    config,
    gateway::{Gateway, Reload},
    node::Node,
};

/// Exit code after a second signal: the role ended without finishing its work.
const ENDED_BY_SIGNAL: i32 = 130;

/// Serves the gateway that `path` configures until a signal ends it.
pub(super) fn gateway(path: &Path) -> ExitCode {
    with_runtime(async {
        let config = config::load(path)?;
        let gateway = Gateway::bind(config, Clock::system()).await?;
        reload_on_signal(gateway.reload())?;
        ready("gateway", gateway.address());
        gateway.serve(shutdown_on_signal()?).await;
        Ok(())
    })
}

/// Serves the node that `path` configures until a signal ends it.
pub(super) fn node(path: &Path) -> ExitCode {
    with_runtime(async {
        let config = config::load(path)?;
        let node = Node::bind(config, Clock::system()).await?;
        ready("node", node.address());
        node.serve(shutdown_on_signal()?).await;
        Ok(())
    })
}

/// The line that tells a script or a person that the port is open, and which.
fn ready(role: &str, address: std::net::SocketAddr) {
    terminal::say(format_args!(
        "sealgate {role} listening on http://{address}"
    ));
}

/// Runs a role to its end. This is `main`'s level: errors of all steps meet here and are shown.
pub(super) fn with_runtime(
    role: impl Future<Output = Result<(), Box<dyn std::error::Error>>>,
) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return terminal::fail(error),
    };
    match runtime.block_on(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal::fail(error),
    }
}

/// A token that the first SIGTERM or SIGINT cancels; the second ends the process at once.
pub(super) fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("draining: streams may finish, a second signal ends at once");
        token.cancel();
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(ENDED_BY_SIGNAL);
    });
    Ok(shutdown)
}

/// Has a gateway read its policy again on every SIGHUP.
fn reload_on_signal(reload: Reload) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.now();
        }
    });
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
