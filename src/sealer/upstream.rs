//! Connections to one node: HTTP/2 where TLS agrees on it, or a node without TLS shows that it speaks it;
//! HTTP/1.1 otherwise. Pooled, no redirects.
//!
//! A connection of HTTP/1.1 is driven by whoever uses it: no task of its own, no channel between. So a burst
//! of chunks costs no wake per chunk, what the caller does not read is not read here, and dropping
//! a reply closes its connection at once, which is how a node learns that the asker is gone.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service as _;

use super::{
    dial::{Dialer, Route},
    multiplexed::{Multiplexed, Place},
    prior::{NotHttp2, Protocol, Spoken},
    proxy::{Dial, ProxyError, Through},
    tls::is_other_key,
};
use crate::{
    config::gateway::NodeUrl,
    net::{Connector, Stream},
};

/// Longest time that a connection waits for its next request: shorter than a node keeps one.
const MAX_IDLE_TIME: Duration = Duration::from_secs(20);
/// A peer that is gone without a word is found within about this.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE_RETRIES: u32 = 2;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Connection = http1::Connection<MaybeHttpsStream<TokioIo<Stream>>, Full<Bytes>>;

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("connect: {0}")]
    Connect(BoxError),
    /// No connection in time: nothing was sent.
    #[error("connect: timed out")]
    ConnectTimeout,
    /// The proxy led nowhere: nothing was sent.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The connection ended at another certificate than the evidence names: nothing was sent.
    #[error("connect: another certificate than the evidence names")]
    OtherCertificate,
    /// The connection took no request: nothing was sent.
    #[error("connection closed before the request: {0}")]
    NotSent(hyper::Error),
    /// The connection failed after the request may have arrived.
    #[error("connection failed before the response: {source}")]
    Broken {
        /// Whether the connection had served a request before.
        reused: bool,
        /// Why.
        source: hyper::Error,
    },
}

/// The way to one node, with its idle connections.
#[derive(Debug)]
pub(crate) struct Channel {
    connector: HttpsConnector<Dial>,
    target: Uri,
    host: HeaderValue,
    connect_timeout: Duration,
    max_idle: usize,
    /// What is spoken without TLS; HTTP/1.1 if nobody is to find out.
    spoken: Option<Arc<Spoken>>,
    /// Held by whoever opens a connection that others can share.
    opening: tokio::sync::Mutex<()>,
    /// Connections that carry one request at a time, and wait for the next; the latest last.
    idle: Mutex<Vec<Idle>>,
    /// Those that carry many.
    multiplexed: Multiplexed,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl Channel {
    /// The way to `url` by `route`; `tls` says whom an `https` connection must end at.
    ///
    /// # Errors
    /// If the address makes no URI, which a [`NodeUrl`] always does.
    pub(crate) fn new(
        url: &NodeUrl,
        route: Route<'_>,
        tls: ClientConfig,
        connect_timeout: Duration,
        max_idle: usize,
    ) -> Result<Self, http::Error> {
        let through = route.proxy.map(|proxy| Through {
            proxy: Arc::clone(proxy),
            addresses: route.addresses.cloned(),
        });
        // What is dialled then is the proxy.
        let addresses = route.addresses.filter(|_| through.is_none());
        let mut http = HttpConnector::new_with_resolver(Dialer::new(addresses));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEPALIVE));
        http.set_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL));
        http.set_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
        http.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Dial {
                straight: Connector::new(http),
                through,
            });
        let target = Uri::builder()
            .scheme(if url.is_https() { "https" } else { "http" })
            .authority(url.authority().clone())
            .path_and_query("/")
            .build()?;
        Ok(Self {
            connector,
            target,
            host: HeaderValue::from_str(url.authority().as_str())?,
            connect_timeout,
            max_idle,
            spoken: route.spoken.filter(|_| !url.is_https()).cloned(),
            opening: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            multiplexed: Multiplexed::default(),
        })
    }

    /// Sends `request`, whose URI is a path, over an idle connection or a fresh one.
    ///
    /// # Errors
    /// [`SendError`] says whether anything was sent.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<NodeBody>, SendError> {
        let mut request = request;
        loop {
            let sent = if let Some(place) = self.multiplexed.place() {
                self.exchange_beside(place, request).await
            } else if let Some(link) = self.take_idle() {
                self.exchange(link, request, true).await
            } else {
                let way = self.way().await?;
                return self.send_over(way, request).await;
            };
            match sent {
                Ok(response) => return Ok(response),
                // That connection is gone; the next may not be.
                Err((_, Some(unsent))) => request = *unsent,
                Err((error, None)) => return Err(error),
            }
        }
    }

    /// Sends `request` over a fresh connection.
    ///
    /// # Errors
    /// As for [`Channel::send`].
    pub(crate) async fn send_afresh(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<NodeBody>, SendError> {
        let way = self.connect(Instant::now() + self.connect_timeout).await?;
        self.send_over(way, request).await
    }

    async fn send_over(
        self: &Arc<Self>,
        way: Way,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<NodeBody>, SendError> {
        let sent = match way {
            Way::One(link) => self.exchange(link, request, false).await,
            Way::Many(place) => self.exchange_beside(place, request).await,
        };
        sent.map_err(|(error, _)| error)
    }

    /// Closes the connections that waited too long or that the node closed.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|idle| idle.since.elapsed() < MAX_IDLE_TIME && idle.link.is_alive());
        drop(idle);
        self.multiplexed.sweep();
    }

    /// A connection for one more request. One that somebody opens just now is waited for, where it can
    /// carry both.
    async fn way(&self) -> Result<Way, SendError> {
        let deadline = Instant::now() + self.connect_timeout;
        if self.known() != Some(Protocol::Http2) {
            return self.connect(deadline).await;
        }
        let turn = timeout_at(deadline, self.opening.lock()).await;
        let _turn = turn.map_err(|_| SendError::ConnectTimeout)?;
        match self.multiplexed.place() {
            Some(place) => Ok(Way::Many(place)),
            None => self.connect(deadline).await,
        }
    }

    /// What a node without TLS is known to speak.
    fn known(&self) -> Option<Protocol> {
        self.spoken.as_ref().and_then(|spoken| spoken.get())
    }

    /// A place on a connection of HTTP/2 to a node without TLS, unless it speaks HTTP/1.1. Nothing is
    /// asked before that is known, so a second connection makes no second request.
    async fn find_out(&self) -> Result<Option<Place>, BoxError> {
        let Some(spoken) = &self.spoken else {
            return Ok(None);
        };
        let known = spoken.get();
        if known == Some(Protocol::Http1) {
            return Ok(None);
        }
        let io = self.connector.clone().call(self.target.clone()).await?;
        let opening = self.multiplexed.open_proved(io);
        let opened = match known {
            Some(_) => opening.await,
            // What says nothing may still answer to HTTP/1.1; one that spoke HTTP/2 hangs.
            None => match timeout(self.connect_timeout / 2, opening).await {
                Ok(opened) => opened,
                Err(_) => return Ok(None),
            },
        };
        match opened {
            Ok(place) => {
                spoken.set(Some(Protocol::Http2));
                Ok(Some(place))
            }
            Err(NotHttp2::Otherwise) => {
                spoken.set(Some(Protocol::Http1));
                Ok(None)
            }
            // It may be gone, or be something that ends what it does not understand.
            Err(NotHttp2::Ended) => Ok(None),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Way, SendError> {
        let connecting = async {
            if let Some(place) = self.find_out().await? {
                return Ok(Way::Many(place));
            }
            let io = self.connector.clone().call(self.target.clone()).await?;
            if io.connected().is_negotiated_h2() {
                return Ok(Way::Many(self.multiplexed.open(io).await?));
            }
            let (sender, connection) = http1::handshake(io).await?;
            Ok::<_, BoxError>(Way::One(Link {
                sender,
                connection: Some(Box::pin(connection)),
            }))
        };
        match timeout_at(deadline, connecting).await {
            Ok(Err(error)) if is_other_key(&*error) => Err(SendError::OtherCertificate),
            Ok(linked) => linked.map_err(|error| match error.downcast() {
                Ok(proxy) => SendError::Proxy(*proxy),
                Err(error) => SendError::Connect(error),
            }),
            Err(_) => Err(SendError::ConnectTimeout),
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        mut link: Link,
        mut request: Request<Full<Bytes>>,
        reused: bool,
    ) -> Result<Response<NodeBody>, (SendError, Option<Box<Request<Full<Bytes>>>>)> {
        request.headers_mut().insert(HOST, self.host.clone());
        let mut response = std::pin::pin!(link.sender.try_send_request(request));
        let connection = &mut link.connection;
        let answered = std::future::poll_fn(|cx| {
            drive(connection, cx);
            response.as_mut().poll(cx)
        })
        .await;
        match answered {
            Ok(response) => {
                if let Some(spoken) = self.spoken.as_ref().filter(|it| it.get().is_none()) {
                    spoken.set(Some(Protocol::Http1));
                }
                Ok(response.map(|incoming| NodeBody {
                    incoming,
                    link: Some(link),
                    _place: None,
                    channel: Arc::clone(self),
                }))
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => Err((
                    SendError::NotSent(failed.into_error()),
                    Some(Box::new(unsent)),
                )),
                None => Err((
                    SendError::Broken {
                        reused,
                        source: failed.into_error(),
                    },
                    None,
                )),
            },
        }
    }

    /// The same beside other requests on the connection.
    async fn exchange_beside(
        self: &Arc<Self>,
        mut place: Place,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<NodeBody>, (SendError, Option<Box<Request<Full<Bytes>>>>)> {
        let path = request.uri().path_and_query().cloned();
        let mut whole = self.target.clone().into_parts();
        whole.path_and_query = path.clone();
        if let Ok(whole) = Uri::from_parts(whole) {
            *request.uri_mut() = whole;
        }
        request.headers_mut().remove(HOST);
        match place.send(request).await {
            Ok(response) => Ok(response.map(|incoming| NodeBody {
                incoming,
                link: None,
                _place: Some(place),
                channel: Arc::clone(self),
            })),
            Err((error, unsent)) => {
                let unsent = unsent.map(|mut unsent| {
                    *unsent.uri_mut() = path.map_or_else(Uri::default, Uri::from);
                    unsent
                });
                Err((error, unsent))
            }
        }
    }

    fn take_idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { mut link, since }) = idle.pop() {
            if since.elapsed() >= MAX_IDLE_TIME {
                // All that lie below are older.
                idle.clear();
            } else if link.is_alive() {
                return Some(link);
            }
        }
        None
    }

    fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max_idle {
            idle.push(Idle {
                link,
                since: Instant::now(),
            });
        }
    }
}

/// A fresh connection, as far as one request needs it.
enum Way {
    One(Link),
    Many(Place),
}

/// One connection.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it ended.
    connection: Option<Pin<Box<Connection>>>,
}

impl Link {
    /// Looks whether the node closed an idle connection; nobody is woken for it.
    fn is_alive(&mut self) -> bool {
        drive(
            &mut self.connection,
            &mut Context::from_waker(Waker::noop()),
        );
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Lets the connection read and write; its errors come to light in the response or its body.
fn drive(connection: &mut Option<Pin<Box<Connection>>>, cx: &mut Context<'_>) {
    if connection
        .as_mut()
        .is_some_and(|it| it.as_mut().poll(cx).is_ready())
    {
        *connection = None;
    }
}

/// The body of a node's response, with the connection that it comes over.
#[derive(Debug)]
pub(crate) struct NodeBody {
    incoming: Incoming,
    link: Option<Link>,
    /// On a connection that carries others, too.
    _place: Option<Place>,
    channel: Arc<Channel>,
}

impl NodeBody {
    /// How many bytes are still to come, where the node says so.
    pub(crate) fn left(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next bytes, or `None` at the end, where the connection goes back to the pool.
    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if let Poll::Ready(data) = self.poll_incoming(cx) {
            return Poll::Ready(data);
        }
        if let Some(link) = &mut self.link {
            drive(&mut link.connection, cx);
        }
        self.poll_incoming(cx)
    }

    /// As [`NodeBody::poll_data`].
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_data(cx)).await
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    if let Some(mut link) = self.link.take()
                        && link.is_alive()
                    {
                        self.channel.keep(link);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}
