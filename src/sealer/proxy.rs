//! The way through a forward proxy: a tunnel that it opens when asked by CONNECT (RFC 9110
//! section 9.3.6).
//!
//! Whatever goes through it, TLS to a node among that, has its ends where it would have them without.
//! A name is not resolved here but by the proxy; an address that was checked is asked for as it is.
//! Nothing of a request is sent before the proxy has opened the tunnel.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use http::{
    Request, StatusCode, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
};
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{
    credential::Credential,
    dial::Dialer,
    tls::{Roots, TlsError, to_name},
};
use crate::{
    config::gateway::{NodeUrl, ProxyConfig},
    net::{Connector, Stream},
};

/// Most bytes of the head of a proxy's answer.
const MAX_HEAD: usize = 16 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a proxy led nowhere: nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No connection to it.
    #[error("the proxy {proxy}: connect: {source}")]
    Connect {
        /// The proxy.
        proxy: String,
        /// Why.
        source: BoxError,
    },
    /// It opens no tunnel.
    #[error("the proxy {proxy} answered {status}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// Its status.
        status: StatusCode,
    },
    /// It gave no answer, or none of HTTP.
    #[error("the proxy {proxy}: {source}")]
    Broken {
        /// The proxy.
        proxy: String,
        /// Why.
        source: hyper::Error,
    },
    /// The node's address makes no request.
    #[error("the proxy {proxy}: {source}")]
    Request {
        /// The proxy.
        proxy: String,
        /// Why.
        source: http::Error,
    },
}

/// A forward proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    config: ProxyConfig,
    /// Where connections to it go.
    address: Uri,
    tls: Option<ProxyTls>,
    credential: Option<Credential>,
}

struct ProxyTls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for ProxyTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProxyTls").field(&self.name).finish()
    }
}

impl Proxy {
    /// The proxy of a configuration, with what its files hold.
    ///
    /// # Errors
    /// [`TlsError`] if there is no way to connect to it by TLS, where that is wanted.
    pub(crate) fn new(
        config: &ProxyConfig,
        roots: &Roots,
        credential: Option<Credential>,
    ) -> Result<Self, TlsError> {
        let tls = match config.url.is_https() {
            true => Some(ProxyTls {
                connector: TlsConnector::from(Arc::new(to_name(roots, None)?)),
                name: ServerName::try_from(config.url.host().to_owned())
                    .map_err(|_| TlsError::Name)?,
            }),
            false => None,
        };
        Ok(Self {
            address: Uri::try_from(config.url.to_string()).map_err(|_| TlsError::Name)?,
            config: config.clone(),
            tls,
            credential,
        })
    }

    /// Whether a node is reached without it ([`ProxyConfig::passes_by`]).
    pub(crate) fn passes_by(&self, node: &NodeUrl, addresses: Option<&[SocketAddr]>) -> bool {
        self.config.passes_by(node, addresses)
    }

    /// A tunnel to `target`, a host and a port.
    async fn open(
        &self,
        straight: &mut Connector<Dialer>,
        target: &str,
    ) -> Result<Stream, ProxyError> {
        let connect = |source| ProxyError::Connect {
            proxy: self.name(),
            source,
        };
        let ready = std::future::poll_fn(|cx| straight.poll_ready(cx)).await;
        ready.map_err(connect)?;
        let tcp = straight.call(self.address.clone()).await;
        let tcp = tcp.map_err(connect)?.into_inner();
        let Some(tls) = &self.tls else {
            return self.ask(tcp, target).await;
        };
        let io = tls.connector.connect(tls.name.clone(), tcp).await;
        self.ask(io.map_err(|error| connect(error.into()))?, target)
            .await
    }

    async fn ask<T>(&self, io: T, target: &str) -> Result<Stream, ProxyError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |source| ProxyError::Broken {
            proxy: self.name(),
            source,
        };
        let request = self.request(target).map_err(|source| ProxyError::Request {
            proxy: self.name(),
            source,
        })?;
        let builder = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(io))
            .await;
        let (mut sender, connection) = builder.map_err(broken)?;
        let asking = pin!(async move {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            if !status.is_success() {
                let proxy = self.name();
                return Err(ProxyError::Refused { proxy, status });
            }
            upgrade::on(response).await.map_err(broken)
        });
        let opened = match select(asking, connection.with_upgrades()).await {
            Either::Left((opened, _)) => opened,
            // What it came to is known to whoever asks over it.
            Either::Right((_, asking)) => asking.await,
        };
        Ok(Stream::Tunnel(TokioIo::new(opened?)))
    }

    fn request(&self, target: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::connect(target).header(HOST, target);
        if let Some(credential) = &self.credential {
            request = request.header(PROXY_AUTHORIZATION, credential.to_header()?);
        }
        request.body(Empty::new())
    }

    fn name(&self) -> String {
        self.config.url.to_string()
    }
}

/// Opens connections to one node: straight, or through a proxy.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) straight: Connector<Dialer>,
    pub(super) through: Option<Through>,
}

/// Through which proxy, and where its tunnels end, if not where the node's address says.
#[derive(Clone, Debug)]
pub(super) struct Through {
    pub(super) proxy: Arc<Proxy>,
    pub(super) addresses: Option<Arc<[SocketAddr]>>,
}

impl Through {
    async fn open(
        &self,
        straight: &mut Connector<Dialer>,
        node: &Uri,
    ) -> Result<Stream, ProxyError> {
        let Some(addresses) = self.addresses.as_deref() else {
            return self.proxy.open(straight, &authority(node)).await;
        };
        let mut failed = None;
        for address in addresses {
            match self.proxy.open(straight, &address.to_string()).await {
                Err(error @ ProxyError::Refused { .. }) => failed = Some(error),
                opened => return opened,
            }
        }
        // A node with addresses has one at least; without, its name would be one that nobody checked.
        Err(failed.unwrap_or(ProxyError::Refused {
            proxy: self.proxy.name(),
            status: StatusCode::NOT_FOUND,
        }))
    }
}

/// Host and port, which CONNECT always has.
fn authority(node: &Uri) -> String {
    let own = match node.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    let port = node.port_u16().unwrap_or(own);
    format!("{}:{port}", node.host().unwrap_or_default())
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.straight.poll_ready(cx)
    }

    fn call(&mut self, node: Uri) -> Self::Future {
        let Some(through) = self.through.clone() else {
            return self.straight.call(node);
        };
        let mut straight = self.straight.clone();
        Box::pin(async move {
            let opened = through.open(&mut straight, &node).await?;
            Ok(TokioIo::new(opened))
        })
    }
}

#[cfg(test)]
mod tests;
