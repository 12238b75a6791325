//! Which addresses a connection may go to: those that a name has now, or those that were checked.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

use super::{prior::Spoken, proxy::Proxy};

/// How a node is reached, where not straight and by its name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Route<'a> {
    /// The addresses that connections are held to.
    pub(crate) addresses: Option<&'a Arc<[SocketAddr]>>,
    /// The proxy that leads there.
    pub(crate) proxy: Option<&'a Arc<Proxy>>,
    /// What it speaks without TLS, to be found out or found out before; HTTP/1.1 if left out.
    pub(crate) spoken: Option<&'a Arc<Spoken>>,
}

/// Answers for a connection what its host's name means.
#[derive(Clone, Debug)]
pub(crate) enum Dialer {
    /// What the system says each time.
    System(GaiResolver),
    /// The same addresses each time, so that whoever may change a name's meaning changes nothing.
    Pinned(Arc<[SocketAddr]>),
}

impl Dialer {
    /// The system's answers, or only these addresses.
    pub(crate) fn new(addresses: Option<&Arc<[SocketAddr]>>) -> Self {
        match addresses {
            None => Self::System(GaiResolver::new()),
            Some(addresses) => Self::Pinned(Arc::clone(addresses)),
        }
    }
}

impl Service<Name> for Dialer {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::System(system) => system.poll_ready(cx),
            Self::Pinned(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, name: Name) -> Self::Future {
        match self {
            Self::System(system) => {
                let asking = system.call(name);
                Box::pin(async move { Ok(asking.await?.collect::<Vec<_>>().into_iter()) })
            }
            Self::Pinned(addresses) => {
                let addresses = Vec::from(&**addresses);
                Box::pin(std::future::ready(Ok(addresses.into_iter())))
            }
        }
    }
}
