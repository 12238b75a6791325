//! A network in memory, with the faults of a real one: delays, cuts, resets, half-open connections,
//! slices of any size, hosts that are gone. All of it follows from one seed.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Uri;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
        duplex, split,
    },
    sync::mpsc,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::chance::seeded;

/// Bytes on the way in each half of a connection.
const ON_THE_WAY: usize = 16 * 1024;

/// Connections that wait to be accepted; more are refused.
const BACKLOG: usize = 1024;

thread_local! {
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// A network of hosts by their addresses.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<Inner>>);

struct Inner {
    rng: StdRng,
    hosts: HashMap<SocketAddr, Host>,
    next_port: u16,
}

struct Host {
    arrivals: mpsc::Sender<(Pipe, SocketAddr)>,
    faults: Faults,
    /// Ends every connection to it.
    down: CancellationToken,
}

/// What goes wrong on the way to one host, each as a part of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) refused: f64,
    /// Connections that never come up.
    pub(crate) lost: f64,
    /// Connections that end after some bytes.
    pub(crate) cut: f64,
    /// Those on which nothing arrives any more after some bytes.
    pub(crate) frozen: f64,
    /// Longest delay of a piece.
    pub(crate) delay: Duration,
    /// Longest piece; all that there is for 0.
    pub(crate) slice: usize,
}

/// Where connections to a host arrive.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) address: SocketAddr,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<(Pipe, SocketAddr)>>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    io: DuplexStream,
    /// Whether its end is an error.
    is_reset: Arc<AtomicBool>,
}

/// How one connection goes.
struct Fate {
    after: usize,
    what: What,
    delay: Duration,
    slice: usize,
    rng: StdRng,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Well,
    Closed,
    Reset,
    Frozen,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// A network whose faults follow from `seed`; this thread's until it is dropped by the next.
    pub(crate) fn begin(seed: u64) -> Self {
        let network = Self(Arc::new(Mutex::new(Inner {
            rng: StdRng::seed_from_u64(seed),
            hosts: HashMap::new(),
            next_port: 0,
        })));
        NETWORK.set(Some(network.clone()));
        seeded::put(Some(StdRng::seed_from_u64(seed)));
        network
    }

    /// Ends this thread's.
    pub(crate) fn end() {
        NETWORK.set(None);
        seeded::put(None);
    }

    pub(crate) fn of_this_thread() -> Option<Self> {
        NETWORK.with_borrow(Clone::clone)
    }

    /// Listens in place of whoever did.
    pub(crate) fn listen(&self, address: SocketAddr) -> Arrivals {
        let (arrivals, receiver) = mpsc::channel(BACKLOG);
        let mut inner = self.0.lock().unwrap();
        let address = inner.free(address);
        let faults = inner.hosts.get(&address).map(|host| host.faults);
        let host = Host {
            arrivals,
            faults: faults.unwrap_or_default(),
            down: CancellationToken::new(),
        };
        if let Some(before) = inner.hosts.insert(address, host) {
            before.down.cancel();
        }
        Arrivals {
            address,
            arrivals: tokio::sync::Mutex::new(receiver),
        }
    }

    /// What goes wrong from now on with new connections to a host.
    pub(crate) fn set_faults(&self, address: SocketAddr, faults: Faults) {
        if let Some(host) = self.0.lock().unwrap().hosts.get_mut(&address) {
            host.faults = faults;
        }
    }

    /// Cuts every connection to a host, and lets none come up any more.
    pub(crate) fn take_down(&self, address: SocketAddr) {
        if let Some(host) = self.0.lock().unwrap().hosts.get_mut(&address) {
            host.down.cancel();
            host.arrivals = mpsc::channel(BACKLOG).0;
        }
    }

    /// Connects to the host of a URI.
    pub(crate) async fn connect(&self, uri: &Uri) -> io::Result<Pipe> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let address: SocketAddr = uri
            .authority()
            .and_then(|authority| authority.as_str().parse().ok())
            .ok_or_else(refused)?;
        let (fate, wait, lost, is_refused) = {
            let mut inner = self.0.lock().unwrap();
            let faults = inner.hosts.get(&address).ok_or_else(refused)?.faults;
            let rng = &mut inner.rng;
            let fate = Fate::draw(rng, &faults);
            let wait = duration(rng, faults.delay);
            (
                fate,
                wait,
                rng.random_bool(faults.lost),
                rng.random_bool(faults.refused),
            )
        };
        sleep(wait).await;
        if lost {
            std::future::pending::<()>().await;
        }
        if is_refused {
            return Err(refused());
        }
        let inner = self.0.lock().unwrap();
        let host = inner.hosts.get(&address).ok_or_else(refused)?;
        let (near, far) = wire(fate, host.down.clone());
        let from = SocketAddr::from(([10, 9, 9, 9], 1));
        host.arrivals.try_send((far, from)).map_err(|_| refused())?;
        Ok(near)
    }
}

impl Inner {
    /// The same address with a port of its own where it has none.
    fn free(&mut self, mut address: SocketAddr) -> SocketAddr {
        if address.port() == 0 {
            self.next_port += 1;
            address.set_port(self.next_port);
        }
        address
    }
}

impl Arrivals {
    pub(crate) async fn accept(&self) -> io::Result<(Pipe, SocketAddr)> {
        match self.arrivals.lock().await.recv().await {
            Some(arrived) => Ok(arrived),
            // The host is down; nobody connects any more.
            None => std::future::pending().await,
        }
    }
}

impl Fate {
    fn draw(rng: &mut StdRng, faults: &Faults) -> Self {
        let what = if rng.random_bool(faults.cut) {
            if rng.random_bool(0.5) {
                What::Reset
            } else {
                What::Closed
            }
        } else if rng.random_bool(faults.frozen) {
            What::Frozen
        } else {
            What::Well
        };
        Self {
            after: rng.random_range(0..8192),
            what,
            delay: faults.delay,
            slice: faults.slice,
            rng: StdRng::seed_from_u64(rng.random()),
        }
    }
}

fn duration(rng: &mut StdRng, most: Duration) -> Duration {
    most.mul_f64(rng.random_range(0.0..=1.0))
}

/// Two ends, and the way between them.
fn wire(mut fate: Fate, down: CancellationToken) -> (Pipe, Pipe) {
    let is_reset = Arc::new(AtomicBool::new(false));
    let end = || {
        let (outer, inner) = duplex(ON_THE_WAY);
        let pipe = Pipe {
            io: outer,
            is_reset: Arc::clone(&is_reset),
        };
        (pipe, inner)
    };
    let ((near, from_near), (far, from_far)) = (end(), end());
    let ((near_out, near_in), (far_out, far_in)) = (split(from_near), split(from_far));
    let cut = CancellationToken::new();
    let passed = Arc::new(AtomicUsize::new(0));
    let (after, what, delay, slice) = (fate.after, fate.what, fate.delay, fate.slice);
    let half = |rng: &mut StdRng| Half {
        after,
        what,
        delay,
        slice,
        rng: StdRng::seed_from_u64(rng.random()),
        passed: Arc::clone(&passed),
        is_reset: Arc::clone(&is_reset),
        cut: cut.clone(),
    };
    let there = half(&mut fate.rng);
    let back = half(&mut fate.rng);
    tokio::spawn(async move {
        let both = async {
            tokio::join!(there.carry(near_out, far_in), back.carry(far_out, near_in));
        };
        tokio::select! {
            biased;
            () = both => {}
            () = cut.cancelled() => {}
            () = down.cancelled() => is_reset.store(true, Ordering::Relaxed),
        }
    });
    (near, far)
}

/// One direction of a connection.
struct Half {
    after: usize,
    what: What,
    delay: Duration,
    slice: usize,
    rng: StdRng,
    /// Bytes that went either way.
    passed: Arc<AtomicUsize>,
    is_reset: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl Half {
    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut piece = vec![0; ON_THE_WAY];
        loop {
            let most = match self.slice {
                0 => piece.len(),
                most => self.rng.random_range(1..=most),
            };
            let read = match from.read(&mut piece[..most]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let passed = self.passed.fetch_add(read, Ordering::Relaxed) + read;
            if self.what != What::Well && passed > self.after {
                if self.what == What::Frozen {
                    std::future::pending::<()>().await;
                }
                let is_reset = self.what == What::Reset;
                self.is_reset.store(is_reset, Ordering::Relaxed);
                self.cut.cancel();
                return;
            }
            let wait = duration(&mut self.rng, self.delay);
            if !wait.is_zero() {
                sleep(wait).await;
            }
            if to.write_all(&piece[..read]).await.is_err() {
                // Nobody is there any more: the sender learns it by what it sends next.
                self.is_reset.store(true, Ordering::Relaxed);
                self.cut.cancel();
                return;
            }
        }
        let _ = to.shutdown().await;
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let ended = buf.filled().len() == before && buf.remaining() > 0;
        if ended && self.is_reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
