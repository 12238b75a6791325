//! Connections that the roles open and take: the system's, or in tests those of a simulated network.
//!
//! A test that simulates a network does so for its thread, so that nothing of it is handed through
//! the roles; a program that is shipped has the system's connections alone.

use std::{
    io,
    net::{self, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::upgrade::Upgraded;
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tower_service::Service;

#[cfg(test)]
use crate::simulation::network::{Arrivals, Network, Pipe};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens connections to a URI's host and port.
#[derive(Clone, Debug)]
pub(crate) struct Connector<R> {
    tcp: HttpConnector<R>,
    #[cfg(test)]
    simulated: Option<Network>,
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// One of the system's.
    Tcp(TcpStream),
    /// One through a proxy.
    Tunnel(TokioIo<Upgraded>),
    /// One of a simulated network's.
    #[cfg(test)]
    Simulated(Pipe),
}

/// Where connections arrive.
#[derive(Debug)]
pub(crate) enum Acceptor {
    /// A port of the system's.
    Tcp(TcpListener),
    /// One of a simulated network's.
    #[cfg(test)]
    Simulated(Arrivals),
}

impl Acceptor {
    /// Listens on `address`, or takes a socket that listens already.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn bind(
        socket: Option<net::TcpListener>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(network) = Network::of_this_thread() {
            return Ok(Self::Simulated(network.listen(address)));
        }
        let Some(socket) = socket else {
            return Ok(Self::Tcp(TcpListener::bind(address).await?));
        };
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(socket)?))
    }

    /// The address that it has.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr(),
            #[cfg(test)]
            Self::Simulated(arrivals) => Ok(arrivals.address),
        }
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, peer) = tcp.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "set TCP_NODELAY");
                }
                Ok((Stream::Tcp(stream), peer))
            }
            #[cfg(test)]
            Self::Simulated(arrivals) => {
                let (pipe, peer) = arrivals.accept().await?;
                Ok((Stream::Simulated(pipe), peer))
            }
        }
    }
}

impl<R> Connector<R> {
    /// The system's connections, as `tcp` opens them.
    pub(crate) fn new(tcp: HttpConnector<R>) -> Self {
        Self {
            tcp,
            #[cfg(test)]
            simulated: Network::of_this_thread(),
        }
    }
}

impl<R> Service<Uri> for Connector<R>
where
    HttpConnector<R>: Service<Uri, Response = TokioIo<TcpStream>>,
    <HttpConnector<R> as Service<Uri>>::Error: Into<BoxError> + Send,
    <HttpConnector<R> as Service<Uri>>::Future: Send + 'static,
{
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        #[cfg(test)]
        if let Some(network) = &self.simulated {
            let network = network.clone();
            return Box::pin(async move {
                let pipe = network.connect(&uri).await?;
                Ok(TokioIo::new(Stream::Simulated(pipe)))
            });
        }
        let connecting = self.tcp.call(uri);
        Box::pin(async move {
            let io = connecting.await.map_err(Into::into)?;
            Ok(TokioIo::new(Stream::Tcp(io.into_inner())))
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tcp(tcp) => tcp.connected(),
            Self::Tunnel(_) => Connected::new(),
            #[cfg(test)]
            Self::Simulated(_) => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_read(cx, buf),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_write(cx, buf),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_write_vectored(cx, bufs),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tunnel(tunnel) => tunnel.is_write_vectored(),
            #[cfg(test)]
            Self::Simulated(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tunnel(tunnel) => Pin::new(tunnel).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
