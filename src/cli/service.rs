//! The service manager: sockets that it opened, and what it wants to know (sd_listen_fds(3),
//! sd_notify(3)). Without one nothing of this happens.

use std::{env, net::TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::reload::Reload;

/// The name of the socket that callers, or gateways, connect to (`FileDescriptorName=`).
pub(super) const PUBLIC: &str = "public";
/// Most sockets that are looked at.
const MAX_SOCKETS: usize = 16;

/// What is wrong with a socket of the service manager's.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// More than any role listens on.
    #[error("the service manager passes {0} sockets: {MAX_SOCKETS} at most are looked at")]
    Many(usize),
    /// Two have the same name.
    #[error("the service manager passes two sockets named {0:?}")]
    Twice(String),
    /// It is no socket of TCP that listens.
    #[error("the socket {name:?} of the service manager: {message}")]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A socket that this role does not know what to do with.
    #[error(
        "the service manager passes a socket named {0:?}: FileDescriptorName= is one that this \
         role listens on"
    )]
    Unknown(String),
}

/// The sockets that the service manager opened, by their names.
#[derive(Debug, Default)]
pub(super) struct Sockets(Vec<(String, TcpListener)>);

impl Sockets {
    /// Takes those that are meant for this process. A single one without a name that says more is
    /// the public one.
    ///
    /// Once, and before any thread: it takes the variables out of the environment.
    pub(super) fn from_environment() -> Result<Self, SocketError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        if passed.len() > MAX_SOCKETS {
            return Err(SocketError::Many(passed.len()));
        }
        let mut names = names.split(':');
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let given = names.next().unwrap_or_default();
            let unnamed = passed.len() == 1 && (given.is_empty() || given.ends_with(".socket"));
            let name = if unnamed { PUBLIC } else { given }.to_owned();
            let unusable = |message: String| SocketError::Unusable {
                name: name.clone(),
                message,
            };
            let taken = passed.take_tcp_listener(index);
            let Some(socket) = taken.map_err(|error| unusable(error.to_string()))? else {
                continue;
            };
            if !socket_acceptconn(&socket).unwrap_or(false) {
                return Err(unusable(
                    "it does not listen: Accept= must be no".to_owned(),
                ));
            }
            if sockets.iter().any(|(known, _)| *known == name) {
                return Err(SocketError::Twice(name));
            }
            sockets.push((name, socket));
        }
        Ok(Self(sockets))
    }

    /// The socket of this name.
    pub(super) fn take(&mut self, name: &str) -> Option<TcpListener> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Says that the role has taken all that it listens on.
    pub(super) fn finish(self) -> Result<(), SocketError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(SocketError::Unknown(name)),
            None => Ok(()),
        }
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
