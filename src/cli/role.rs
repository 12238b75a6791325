//! `sealgate gateway` and `sealgate node`: from a file to a served role, and its orderly end.

use std::{error::Error, io, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{check_config, hardening, service, terminal};
use crate::{
    clock::Clock,
    config::{self, Loaded, gateway::GatewayConfig, node::NodeConfig},
    gateway::Gateway,
    node::Node,
    reload::Reload,
};

/// Exit code after a second signal: the role ended without finishing its work.
const ENDED_BY_SIGNAL: i32 = 130;

/// Longest wait for work on other threads once a role has ended.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Serves the gateway that `path` configures until a signal ends it.
pub(super) fn gateway(path: &Path) -> ExitCode {
    let sockets = service::sockets();
    with_runtime(async {
        // Before anything that takes time: unhandled, the signal ends the process.
        let hangup = signal(SignalKind::hangup())?;
        let config: Loaded<GatewayConfig> = config::load(path)?;
        lock_memory_if(config.value.lock_memory)?;
        let read = Clone::clone(&config);
        let gateway = Gateway::bind_to(sockets?, config, Clock::system()).await;
        let gateway = gateway.map_err(|error| check_config::named(&read, &error))?;
        reload_on_signal(hangup, gateway.reload());
        let shutdown = shutdown_on_signal()?;
        ready("gateway", gateway.is_https(), gateway.address());
        administered("gateway", gateway.admin_is_https(), gateway.admin_address());
        gateway.serve(shutdown).await;
        Ok(())
    })
}

/// Serves the node that `path` configures until a signal ends it.
pub(super) fn node(path: &Path) -> ExitCode {
    let sockets = service::sockets();
    with_runtime(async {
        let hangup = signal(SignalKind::hangup())?;
        let config: Loaded<NodeConfig> = config::load(path)?;
        lock_memory_if(config.value.lock_memory)?;
        let node = Node::bind_to(sockets?, config, Clock::system()).await?;
        reload_on_signal(hangup, node.reload());
        let shutdown = shutdown_on_signal()?;
        ready("node", node.is_https(), node.address());
        administered("node", node.admin_is_https(), node.admin_address());
        node.serve(shutdown).await;
        Ok(())
    })
}

fn lock_memory_if(wanted: bool) -> Result<(), hardening::HardeningError> {
    if wanted {
        hardening::lock_memory()
    } else {
        Ok(())
    }
}

/// The line that tells a script or a person that the port is open, and which; a service manager is
/// told, too.
fn ready(role: &str, is_https: bool, address: SocketAddr) {
    let scheme = scheme(is_https);
    terminal::say(format_args!(
        "sealgate {role} listening on {scheme}://{address}"
    ));
    service::ready();
}

/// The same of the admin listener, if there is one.
fn administered(role: &str, is_https: bool, address: Option<SocketAddr>) {
    if let Some(address) = address {
        let scheme = scheme(is_https);
        terminal::say(format_args!(
            "sealgate {role} admin listening on {scheme}://{address}"
        ));
    }
}

fn scheme(is_https: bool) -> &'static str {
    if is_https { "https" } else { "http" }
}

/// Runs a role to its end. This is `main`'s level: errors of all steps meet here and are shown.
pub(super) fn with_runtime(role: impl Future<Output = Result<(), Box<dyn Error>>>) -> ExitCode {
    if let Err(error) = hardening::rule_out_dumps() {
        return terminal::fail(error);
    }
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
        tracing::info!("told to stop: what is open may finish, a second signal ends at once");
        service::stopping();
        token.cancel();
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(ENDED_BY_SIGNAL);
    });
    Ok(shutdown)
}

/// Has a role read its files again on every SIGHUP.
fn reload_on_signal(mut hangup: Signal, files: Reload) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            service::reload(&files).await;
        }
    });
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
