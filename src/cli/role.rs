//! `sealgate gateway` and `sealgate node`: from a file to a served role, and its orderly end.

use std::{io, path::Path, process::ExitCode, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{check_config, terminal};
use crate::{clock::Clock, config, gateway::Gateway, node::Node, reload::Reload};

/// Exit code after a second signal: the role ended without finishing its work.
const ENDED_BY_SIGNAL: i32 = 130;

/// Longest wait for work on other threads once a role has ended.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Serves the gateway that `path` configures until a signal ends it.
pub(super) fn gateway(path: &Path) -> ExitCode {
    with_runtime(async {
        // Before anything that takes time: unhandled, the signal ends the process.
        let hangup = signal(SignalKind::hangup())?;
        let config = config::load(path)?;
        let read = Clone::clone(&config);
        let gateway = Gateway::bind(config, Clock::system()).await;
        let gateway = gateway.map_err(|error| check_config::named(&read, &error))?;
        reload_on_signal(hangup, gateway.reload());
        ready("gateway", gateway.is_https(), gateway.address());
        gateway.serve(shutdown_on_signal()?).await;
        Ok(())
    })
}

/// Serves the node that `path` configures until a signal ends it.
pub(super) fn node(path: &Path) -> ExitCode {
    with_runtime(async {
        let hangup = signal(SignalKind::hangup())?;
        let config = config::load(path)?;
        let node = Node::bind(config, Clock::system()).await?;
        reload_on_signal(hangup, node.reload());
        ready("node", node.is_https(), node.address());
        node.serve(shutdown_on_signal()?).await;
        Ok(())
    })
}

/// The line that tells a script or a person that the port is open, and which.
fn ready(role: &str, is_https: bool, address: std::net::SocketAddr) {
    let scheme = if is_https { "https" } else { "http" };
    terminal::say(format_args!(
        "sealgate {role} listening on {scheme}://{address}"
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
    let ended = runtime.block_on(role);
    // Work that cannot be cut off, as on a disk that hangs, must not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    match ended {
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

/// Has a role read its files again on every SIGHUP.
fn reload_on_signal(mut hangup: Signal, reload: Reload) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.now().await;
        }
    });
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
