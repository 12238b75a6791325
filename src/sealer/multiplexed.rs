//! HTTP/2 connections to one node, each for many requests at once.
//!
//! A task of its own drives each: it answers pings while nobody reads, and asks for some, so that a
//! connection whose other end is gone is found within a bound. Windows are such that a reply which
//! nobody reads holds up no other, and holds no more than its own.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    rt::{Read, Write},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::{
    prior::{NotHttp2, Proving},
    upstream::SendError,
};

/// Most requests at once on one connection: as many as servers usually take, if not fewer.
pub(super) const MAX_STREAMS: usize = 100;
/// Bytes that a node may send ahead for one reply, and for all on a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// A connection whose other end is gone is found within the sum of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a connection waits for its next request: shorter than a node keeps one.
const MAX_IDLE_TIME: Duration = Duration::from_secs(20);
/// Most bytes of one frame: a body of 64 KiB in one costs less than in four.
const MAX_FRAME: u32 = 64 * 1024;
/// Most bytes of a reply's head.
const MAX_HEAD: u32 = 32 * 1024;

/// A request, unsent or to be sent.
type Sealed = Request<Full<Bytes>>;

/// The connections to one node.
#[derive(Debug, Default)]
pub(super) struct Multiplexed {
    connections: Mutex<Vec<Connection>>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Requests at once that the other end takes, as far as it has said so.
    most: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Whether it was seen to break, which the sender may not know yet.
    is_broken: Arc<AtomicBool>,
    /// When the last of its requests ended.
    idle_since: Arc<Mutex<Instant>>,
}

/// A request's place on a connection.
#[must_use]
#[derive(Debug)]
pub(super) struct Place {
    connection: Connection,
    /// Whether the connection has served another before.
    reused: bool,
}

impl Multiplexed {
    /// A place on a connection that is there.
    pub(super) fn place(&self) -> Option<Place> {
        let mut connections = self.lock();
        // Where one was idle for long, the node may be closing it.
        connections.retain(|connection| !connection.is_closed() && !connection.is_old());
        connections.iter().find_map(|it| it.place(true))
    }

    /// A place on a fresh connection over `io`.
    ///
    /// # Errors
    /// If the other end does not speak HTTP/2: nothing was sent.
    pub(super) async fn open<T>(&self, io: T) -> Result<Place, hyper::Error>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        Ok(self.take_in(Connection::begin(io).await?))
    }

    /// The same where nobody has agreed on HTTP/2: once the other end has shown that it speaks it.
    ///
    /// # Errors
    /// [`NotHttp2`]: nothing was sent.
    pub(super) async fn open_proved<T>(&self, io: T) -> Result<Place, NotHttp2>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (io, proof) = Proving::new(io);
        let connection = Connection::begin(io).await;
        let connection = connection.map_err(|_| NotHttp2::Ended)?;
        proof.given().await?;
        Ok(self.take_in(connection))
    }

    fn take_in(&self, connection: Connection) -> Place {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        self.lock().push(connection.clone());
        Place {
            connection,
            reused: false,
        }
    }

    /// Lets connections go that are closed, or have waited too long.
    pub(super) fn sweep(&self) {
        let stays = |it: &mut Connection| !it.is_closed() && !it.is_old();
        self.lock().retain_mut(stays);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Begins to speak HTTP/2.
    async fn begin<T>(io: T) -> Result<Self, hyper::Error>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_frame_size(MAX_FRAME)
            // Callers who leave are no fault of the node, however many: what it sends for them
            // meanwhile is dropped, and ends nobody else's reply.
            .max_concurrent_reset_streams(MAX_STREAMS * 2)
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await?;
        let most = Arc::new(AtomicUsize::new(MAX_STREAMS));
        let seen = Arc::clone(&most);
        tokio::spawn(async move {
            let mut driver = pin!(driver);
            // It is driven on with each request, too.
            let driving = poll_fn(|cx| {
                let polled = driver.as_mut().poll(cx);
                if polled.is_pending() {
                    seen.store(driver.current_max_send_streams(), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = driving.await {
                tracing::debug!(%error, "connection to a node ended");
            }
        });
        Ok(Self {
            sender,
            most,
            requests: Arc::default(),
            is_broken: Arc::default(),
            idle_since: Arc::new(Mutex::new(Instant::now())),
        })
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.is_broken.load(Ordering::Relaxed)
    }

    fn is_old(&self) -> bool {
        let since = *self
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.requests.load(Ordering::Relaxed) == 0 && since.elapsed() >= MAX_IDLE_TIME
    }

    fn place(&self, reused: bool) -> Option<Place> {
        // More could wait within the connection, where nobody sees to them; so could those that the
        // other end does not take at once.
        let most = MAX_STREAMS.min(self.most.load(Ordering::Relaxed));
        let one_more = |now: usize| (now < most).then_some(now.saturating_add(1));
        let order = Ordering::Relaxed;
        self.requests.fetch_update(order, order, one_more).ok()?;
        Some(Place {
            connection: self.clone(),
            reused,
        })
    }
}

impl Place {
    /// Sends a request, whose URI is whole, and waits for the head of the reply.
    ///
    /// # Errors
    /// [`SendError`], with the request where it can be sent elsewhere since nothing of it was.
    pub(super) async fn send(
        &mut self,
        request: Sealed,
    ) -> Result<Response<Incoming>, (SendError, Option<Box<Sealed>>)> {
        let answered = self.connection.sender.try_send_request(request).await;
        answered.map_err(|mut failed| {
            let unsent = failed.take_message();
            let error = failed.into_error();
            match unsent {
                Some(unsent) => (SendError::NotSent(error), Some(Box::new(unsent))),
                None if was_refused(&error) => (SendError::NotSent(error), None),
                None => {
                    let reused = self.reused;
                    // The same request over a fresh one must not meet it again.
                    let is_its_own = h2_of(&error).is_some_and(h2::Error::is_reset);
                    let is_broken = &self.connection.is_broken;
                    is_broken.fetch_or(!is_its_own, Ordering::Relaxed);
                    (
                        SendError::Broken {
                            reused,
                            source: error,
                        },
                        None,
                    )
                }
            }
        })
    }
}

/// Whether the node says that it did nothing with the request (RFC 9113 section 8.7).
fn was_refused(error: &hyper::Error) -> bool {
    h2_of(error)
        .is_some_and(|cause| cause.is_remote() && cause.reason() == Some(Reason::REFUSED_STREAM))
}

/// What HTTP/2 itself says of a failure.
fn h2_of(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

impl Drop for Place {
    fn drop(&mut self) {
        let since = self.connection.idle_since.lock();
        *since.unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{DuplexStream, duplex},
        sync::oneshot,
        time::timeout,
    };

    use super::*;

    type Server = h2::server::Connection<DuplexStream, Bytes>;

    fn request() -> Sealed {
        let request = Request::post("http://node/path");
        request.body(Full::from("sealed")).unwrap()
    }

    /// Two ends of a connection.
    async fn connected(all: &Multiplexed) -> (Place, Server) {
        let (near, far) = duplex(64 * 1024);
        let (place, server) =
            tokio::join!(all.open(TokioIo::new(near)), h2::server::handshake(far));
        (place.unwrap(), server.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_carries_so_many_and_no_more() {
        let all = Multiplexed::default();
        let (first, _server) = connected(&all).await;
        let more: Vec<_> = std::iter::from_fn(|| all.place()).collect();
        assert_eq!(more.len(), MAX_STREAMS - 1);
        drop(more);
        let (second, _other) = connected(&all).await;
        drop(first);
        tokio::time::advance(MAX_IDLE_TIME / 2).await;
        let place = all.place().unwrap();
        assert!(place.reused);
        drop((place, second));
        tokio::time::advance(MAX_IDLE_TIME / 2).await;
        all.sweep();
        assert_eq!(all.lock().len(), 2, "neither has waited for so long");
        tokio::time::advance(MAX_IDLE_TIME / 2).await;
        assert!(all.place().is_none());
        assert_eq!(all.lock().len(), 0);
    }

    #[tokio::test]
    async fn what_the_other_end_does_not_take_at_once_does_not_wait_in_the_connection() {
        let all = Multiplexed::default();
        let (near, far) = duplex(64 * 1024);
        let mut builder = h2::server::Builder::new();
        let serving = builder.max_concurrent_streams(3).handshake::<_, Bytes>(far);
        let (place, server) = tokio::join!(all.open(TokioIo::new(near)), serving);
        let (mut place, mut server) = (place.unwrap(), server.unwrap());
        tokio::spawn(async move {
            while let Some(asked) = server.accept().await {
                let (_, mut respond) = asked.unwrap();
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
        for _ in 0..2 {
            place.send(request()).await.unwrap();
        }
        let more: Vec<_> = std::iter::from_fn(|| all.place()).collect();
        assert_eq!(more.len(), 2, "beside the one that is there");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_gone_without_a_word_is_found() {
        let all = Multiplexed::default();
        let (mut place, server) = connected(&all).await;
        let begun = Instant::now();
        // The server is there, and nobody drives it.
        let failed = place.send(request()).await.unwrap_err();
        assert!(
            matches!(failed, (SendError::Broken { .. }, None)),
            "{failed:?}"
        );
        assert!(
            begun.elapsed() <= Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        assert!(all.place().is_none(), "nobody else meets it");
        drop(server);
    }

    #[tokio::test]
    async fn a_refused_request_was_not_worked_on_and_another_reset_may_have_been() {
        for (reason, not_sent) in [
            (Reason::REFUSED_STREAM, true),
            (Reason::INTERNAL_ERROR, false),
        ] {
            let all = Multiplexed::default();
            let (mut place, mut server) = connected(&all).await;
            let serving = async {
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_reset(reason);
                server.accept().await
            };
            let failed = tokio::select! {
                sent = place.send(request()) => sent.unwrap_err(),
                _ = serving => unreachable!(),
            };
            let is_not_sent = matches!(failed.0, SendError::NotSent(_));
            assert_eq!(
                (is_not_sent, failed.1.is_some()),
                (not_sent, false),
                "{reason}"
            );
            assert!(all.place().is_some(), "others go on");
        }
    }

    #[tokio::test]
    async fn who_leaves_takes_his_request_along_and_no_other() {
        let all = Multiplexed::default();
        let (mut place, mut server) = connected(&all).await;
        let mut other = all.place().unwrap();
        let (reset, was_reset) = oneshot::channel();
        tokio::spawn(async move {
            let head = || Response::new(());
            let (_, mut first) = server.accept().await.unwrap().unwrap();
            let mut body = first.send_response(head(), false).unwrap();
            tokio::spawn(async move {
                let reason = poll_fn(|cx| body.poll_reset(cx)).await;
                reset.send(reason.unwrap()).unwrap();
            });
            let (_, mut second) = server.accept().await.unwrap().unwrap();
            let mut body = second.send_response(head(), false).unwrap();
            body.send_data(Bytes::from_static(b"reply"), true).unwrap();
            server.accept().await
        });
        let response = place.send(request()).await.unwrap();
        drop((response, place));
        let reply = other.send(request()).await.unwrap();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "reply");
        let patience = Duration::from_secs(20);
        let reason = timeout(patience, was_reset).await.unwrap().unwrap();
        assert_eq!(reason, Reason::CANCEL);
    }
}
