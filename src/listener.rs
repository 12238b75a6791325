//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them, with a bound on everything a peer
//! could otherwise hold open.
//!
//! A TLS handshake is the connection's own business: it holds up no other, counts as a connection, and
//! has the time of a head.
//!
//! A peer that sends nothing, sends its head slowly, stays idle, or stops reading is closed: hyper
//! times heads only once a timer is set and the protocol is known, so the time before the first
//! request and between requests is watched here. On HTTP/2 a peer can stop reading one reply and
//! leave the connection well: its window stays shut and no write ever waits, so what each reply has
//! given and nobody took is watched, too.

use std::{convert::Infallible, error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use crate::{
    net::{Acceptor, Stream},
    tls::Tls,
};

mod activity;
mod counts;
mod protocol;
mod sockets;
mod tracked;
mod write_timeout;

use self::{
    activity::{Activity, Overdue},
    protocol::{Begun, Protocol},
    tracked::Tracked,
    write_timeout::WriteTimeout,
};
pub use self::{counts::ConnectionCounts, sockets::Sockets};

/// Most bytes of one header list on HTTP/2; on HTTP/1.1 a head must fit `MAX_BUFFER_BYTES`.
pub const MAX_HEAD_BYTES: u32 = 32 * 1024;
/// Most fields of one request head.
pub const MAX_HEAD_FIELDS: usize = 100;
/// Most bytes that are read ahead or wait to be written on one connection.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Most streams at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Bytes a peer may send ahead on one HTTP/2 stream, and on a whole connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Most bytes of one HTTP/2 frame: a body of 64 KiB in one costs less than in four.
const MAX_FRAME: u32 = 64 * 1024;
/// An HTTP/2 peer that is gone without a word is found within the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Rest after the system refused to accept, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the last bytes of a connection that is told to close, and for the first of one that was
/// made just before.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What the connections of one listener may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; one more is closed as soon as it is accepted.
    pub connections: usize,
    /// Longest time for a request head to arrive whole; on HTTP/1.1 also between two requests.
    pub head_timeout: Duration,
    /// Longest time that a connection stays open without a request.
    pub idle_timeout: Duration,
    /// Longest time that written bytes may wait for the peer to read; twice as long at most for
    /// one of several replies on an HTTP/2 connection, which then closes as a whole.
    pub write_timeout: Duration,
    /// Time for requests on connections of before to end once the listener shuts down.
    pub shutdown_timeout: Duration,
}

/// Where connections come from, and whether they are TLS.
#[derive(Debug)]
pub struct Listener {
    from: Acceptor,
    tls: Option<Tls>,
}

impl Listener {
    /// TLS, if any, on what comes to `tcp`.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Option<Tls>) -> Self {
        Self::on(Acceptor::Tcp(tcp), tls)
    }

    pub(crate) fn on(from: Acceptor, tls: Option<Tls>) -> Self {
        Self { from, tls }
    }
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self::new(tcp, None)
    }
}

/// The address a request came from, among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Serves `service` on every connection until `shutdown`. Then connections without a request close, and
/// the others once theirs has ended; whoever connects then is answered, once, and told to go. It ends
/// when no connection of before is left, or after `limits.shutdown_timeout`, and cuts what is left.
///
/// An `axum::Router` goes in through `hyper_util::service::TowerToHyperService::new(router)`.
pub async fn serve_connections<S, B>(
    listener: impl Into<Listener>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_counted(listener, service, limits, shutdown, Arc::default()).await;
}

/// The same, with the connections counted.
pub async fn serve_counted<S, B>(
    listener: impl Into<Listener>,
    service: S,
    limits: Limits,
    shutdown: CancellationToken,
    counts: Arc<ConnectionCounts>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = limits.connections.min(Semaphore::MAX_PERMITS);
    let doorway = Doorway {
        listener: listener.into(),
        builders: Arc::new(Builders::new(&limits)),
        places: Arc::new(Semaphore::new(places)),
        limits,
        service,
        counts,
        shutdown: shutdown.clone(),
        cut: CancellationToken::new(),
    };
    let (early, late) = (TaskTracker::new(), TaskTracker::new());
    // Accepting first: who has connected already is not left out by chance.
    tokio::select! {
        biased;
        () = doorway.accept(&early, &shutdown) => {}
        () = shutdown.cancelled() => {}
    }
    early.close();
    let over = CancellationToken::new();
    let drained = timeout(limits.shutdown_timeout, early.wait());
    tokio::select! {
        biased;
        () = doorway.accept(&late, &over) => {}
        _ = drained => {}
    }
    // Closed first: whoever comes now is refused, and does not wait for nothing.
    let Doorway { cut, listener, .. } = doorway;
    drop(listener);
    over.cancel();
    late.close();
    if early.is_empty() {
        let _ = timeout(CLOSE_GRACE, late.wait()).await;
    }
    cut.cancel();
    early.wait().await;
    late.wait().await;
}

/// Where connections come in.
struct Doorway<S> {
    listener: Listener,
    builders: Arc<Builders>,
    places: Arc<Semaphore>,
    limits: Limits,
    service: S,
    counts: Arc<ConnectionCounts>,
    shutdown: CancellationToken,
    /// Ends connections whatever they do.
    cut: CancellationToken,
}

impl<S, B> Doorway<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Accepts connections, which close after their requests once `leave` is set; never ends.
    async fn accept(&self, tasks: &TaskTracker, leave: &CancellationToken) {
        loop {
            let (stream, peer) = match self.listener.from.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.counts.refuse();
                tracing::warn!(limit = self.limits.connections, "connection limit reached");
                continue;
            };
            let accepted = Accepted {
                stream,
                peer,
                tls: self.listener.tls.clone(),
                shutdown: self.shutdown.clone(),
                leave: leave.child_token(),
            };
            let (builders, service) = (Arc::clone(&self.builders), self.service.clone());
            let (limits, cut) = (self.limits, self.cut.clone());
            let open = self.counts.accept();
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = serve_one(&builders, accepted, service, limits) => {}
                    () = cut.cancelled() => {}
                }
                drop((place, open));
            });
        }
    }
}

/// How connections of each protocol are served.
struct Builders {
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
}

impl Builders {
    fn new(limits: &Limits) -> Self {
        let builder = http_builder(limits);
        Self {
            http1: builder.clone().http1_only(),
            http2: builder.http2_only(),
        }
    }

    fn of(&self, protocol: Protocol) -> &Builder<TokioExecutor> {
        match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        }
    }
}

fn http_builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(MAX_HEAD_FIELDS)
        .max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        // One gateway's connection carries many callers: that some leave at once ends nobody else's
        // reply. What a peer can reset unseen is bounded by its streams.
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A connection that nothing was read from yet.
struct Accepted {
    stream: Stream,
    peer: SocketAddr,
    tls: Option<Tls>,
    /// Set once the listener shuts down.
    shutdown: CancellationToken,
    /// Set once this connection is to close after its requests.
    leave: CancellationToken,
}

/// Boxed, so that a connection without TLS does not keep its room.
type MaybeTls = Either<Stream, Box<TlsStream<Stream>>>;

impl Accepted {
    /// Takes the connection as far as its first request: through the handshake where it is TLS.
    async fn begin(stream: Stream, tls: Option<Tls>) -> io::Result<(Protocol, Begun<MaybeTls>)> {
        let stream = match tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(Box::new(tls.acceptor().accept(stream).await?)),
        };
        Begun::read(stream).await
    }
}

async fn serve_one<S, B>(builders: &Builders, accepted: Accepted, service: S, limits: Limits)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = Arc::new(Activity::new());
    let Accepted {
        stream,
        peer,
        tls,
        shutdown,
        leave,
    } = accepted;
    let beginning = Box::pin(Accepted::begin(stream, tls));
    let (protocol, stream) = tokio::select! {
        biased;
        begun = timeout(limits.head_timeout, beginning) => match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return tracing::debug!(%error, "before the first request"),
            Err(_) => return tracing::debug!("no first request in time"),
        },
        () = activity.until_leave(&leave) => return,
    };
    let io = TokioIo::new(WriteTimeout::new(stream, limits.write_timeout));
    let tracked = Tracked {
        service,
        peer: Peer(peer),
        activity: Arc::clone(&activity),
        shutdown,
        leave: leave.clone(),
    };
    let serving = builders.of(protocol).serve_connection(io, tracked);
    let mut connection = std::pin::pin!(serving);
    let idle = activity.idle(&limits);
    let overdue = tokio::select! {
        biased;
        result = connection.as_mut() => return ended(result),
        overdue = idle => Some(overdue),
        () = activity.until_leave(&leave) => None,
    };
    connection.as_mut().graceful_shutdown();
    let given_up = async {
        match overdue {
            None => std::future::pending().await,
            Some(Overdue::Taking) => sleep(CLOSE_GRACE).await,
            // A request may have met the close on its way: that one is served.
            Some(Overdue::Request) => activity.until_at_rest().await,
        }
    };
    tokio::select! {
        biased;
        result = connection => ended(result),
        () = given_up => {}
    }
}

/// The end of a connection is the peer's business: resets and cut heads are everyday events.
fn ended(result: Result<(), Box<dyn Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
