//! The service manager: sockets that it opened, and what it wants to know (sd_listen_fds(3),
//! sd_notify(3)). Without one nothing of this happens.

use std::env;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::{listener::Sockets, reload::Reload};

/// The name of the socket that callers, or gateways, connect to (`FileDescriptorName=`).
const PUBLIC: &str = "public";
/// The name of the one for whoever operates the role.
const ADMIN: &str = "admin";
/// Most sockets that are looked at.
const MAX_SOCKETS: usize = 16;

/// What is wrong with a socket of the service manager's.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// More than any role listens on.
    #[error("the service manager passes {0} sockets: {MAX_SOCKETS} at most are looked at")]
    Many(usize),
    /// Two are for the same listener.
    #[error(
        "the service manager passes two sockets for the {0} listener: FileDescriptorName= tells \
         {PUBLIC} and {ADMIN} apart"
    )]
    Twice(&'static str),
    /// It is no socket of TCP that listens.
    #[error("the socket {name:?} of the service manager: {message}")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// It is for no listener.
    #[error(
        "the service manager passes a socket named {0:?}: FileDescriptorName= is {PUBLIC} or \
         {ADMIN}"
    )]
    Unknown(String),
}

/// Takes the sockets that are meant for this process. One without a name that says more is the public
/// one.
///
/// Once, and before any thread: it takes the variables out of the environment.
pub(super) fn sockets() -> Result<Sockets, SocketError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    if passed.len() > MAX_SOCKETS {
        return Err(SocketError::Many(passed.len()));
    }
    let mut names = names.split(':');
    let mut sockets = Sockets::default();
    for index in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let taken = passed.take_tcp_listener(index);
        let taken = taken.map_err(|error| unusable(name, error.to_string()))?;
        let Some(socket) = taken else { continue };
        if !socket_acceptconn(&socket).unwrap_or(false) {
            let message = "it does not listen: Accept= must be no".to_owned();
            return Err(unusable(name, message));
        }
        let (what, place) = match name {
            ADMIN => (ADMIN, &mut sockets.admin),
            // The name of the unit is what systemd gives where none is set.
            PUBLIC | "" => (PUBLIC, &mut sockets.public),
            unit if unit.ends_with(".socket") => (PUBLIC, &mut sockets.public),
            other => return Err(SocketError::Unknown(other.to_owned())),
        };
        if place.replace(socket).is_some() {
            return Err(SocketError::Twice(what));
        }
    }
    Ok(sockets)
}

fn unusable(name: &str, message: String) -> SocketError {
    SocketError::Unusable {
        name: name.to_owned(),
        message,
    }
}

/// Says that the role listens, and from now on that it lives, as often as that is wanted.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        // A runtime whose threads all hang ticks no more.
        let mut ticks = interval((patience / 2).max(std::time::Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

/// Says that the role was told to stop.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Has files read again, and says when that begins and when it is done.
pub(super) async fn reload(reload: &Reload) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    reload.now().await;
    tell(&[NotifyState::Ready]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
