//! The network on a bad day: a TCP proxy that looks into nothing and does to the bytes what a test
//! tells it to, in each direction and while it runs.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, yield_now},
    time::sleep,
};

use super::soon;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// Bytes of a socket's buffer, of which the kernel takes twice as many.
const BUFFER: u32 = 64 * 1024;

/// What happens to connections, those that are open included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) door: Door,
    /// To whom the proxy stands for.
    pub(crate) forth: Leg,
    /// From there.
    pub(crate) back: Leg,
}

/// What becomes of who connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Door {
    #[default]
    Open,
    /// Nobody listens.
    Refuse,
    /// Is connected, and nothing else ever happens.
    Silent,
}

/// One direction of a connection. Positions count from the connection's first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    /// Before each piece.
    pub(crate) delay: Duration,
    /// Most bytes of a piece, which is written by itself.
    pub(crate) slice: usize,
    /// The position at which the direction stops, and how.
    pub(crate) stop: Option<(usize, Stop)>,
    /// The position of a byte that arrives as another.
    pub(crate) flip: Option<usize>,
}

/// How a direction stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It ends, in order; the other goes on.
    Fin,
    /// The whole connection is reset, for both ends.
    Reset,
    /// Nothing passes and nothing closes, as when the other end is gone without a word.
    Freeze,
}

impl Default for Leg {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            slice: usize::MAX,
            stop: None,
            flip: None,
        }
    }
}

impl Leg {
    /// In pieces of `slice` bytes.
    pub(crate) fn sliced(slice: usize) -> Self {
        Self {
            slice,
            ..Self::default()
        }
    }

    /// Up to this position, and no further.
    pub(crate) fn stopped(at: usize, stop: Stop) -> Self {
        Self {
            stop: Some((at, stop)),
            ..Self::default()
        }
    }

    /// With one byte spoiled.
    pub(crate) fn flipped(at: usize) -> Self {
        Self {
            flip: Some(at),
            ..Self::default()
        }
    }
}

impl Faults {
    /// Both directions alike.
    pub(crate) fn both(leg: Leg) -> Self {
        Self {
            forth: leg,
            back: leg,
            ..Self::default()
        }
    }

    /// The direction back alone.
    pub(crate) fn back(leg: Leg) -> Self {
        Self {
            back: leg,
            ..Self::default()
        }
    }

    /// A door other than an open one.
    pub(crate) fn door(door: Door) -> Self {
        Self {
            door,
            ..Self::default()
        }
    }
}

/// What went through a proxy so far.
#[derive(Debug, Default)]
struct Counts {
    forth: AtomicUsize,
    back: AtomicUsize,
}

/// A proxy on a port of the kernel's choice. Its connections go with it.
pub(crate) struct FaultProxy {
    /// Where it listens, or does not.
    pub(crate) address: SocketAddr,
    faults: watch::Sender<Faults>,
    /// Whether somebody listens there now.
    listens: watch::Receiver<bool>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts one before `target`, an address or the base URL of a process.
    pub(crate) async fn before(target: &str) -> Self {
        let target = target.trim_start_matches("http://").parse().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bound(any).listen(BACKLOG).unwrap();
        let address = listener.local_addr().unwrap();
        let (faults, seen) = watch::channel(Faults::default());
        let (listens_now, listens) = watch::channel(true);
        let counts = Arc::<Counts>::default();
        let counting = Arc::clone(&counts);
        let accepting = tokio::spawn(accept(listener, target, seen, listens_now, counting));
        Self {
            address,
            faults,
            listens,
            counts,
            accepting,
        }
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on; returns once new connections meet it, too.
    pub(crate) async fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
        let wanted = faults.door != Door::Refuse;
        let mut listens = self.listens.clone();
        let there = listens.wait_for(|listens| *listens == wanted);
        soon("the door", there).await.unwrap();
    }

    /// Bytes that came back so far.
    pub(crate) fn bytes_back(&self) -> usize {
        self.counts.back.load(Ordering::Relaxed)
    }

    /// Bytes that went forth so far.
    pub(crate) fn bytes_forth(&self) -> usize {
        self.counts.forth.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    listens: watch::Sender<bool>,
    counts: Arc<Counts>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let refuses = faults.borrow_and_update().door == Door::Refuse;
        if refuses && listener.take().is_some() {
            // Bound and not listening: who connects is refused, and nobody else gets the port.
            let held = bound(address);
            listens.send_replace(false);
            let opens = faults.wait_for(|faults| faults.door != Door::Refuse).await;
            if opens.is_err() {
                return;
            }
            drop(opens);
            listener = Some(held.listen(BACKLOG).unwrap());
        }
        listens.send_replace(true);
        let Some(listening) = &listener else { return };
        let near = tokio::select! {
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = listening.accept() => accepted.unwrap().0,
        };
        let (faults, counts) = (faults.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            // Whatever ends a connection ends it for both; what it was, the ends find out.
            let _ = pass(near, target, faults, &counts).await;
        });
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = narrow().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// A socket whose buffers do not grow: what nobody reads is soon felt by who writes.
fn narrow() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

async fn pass(
    near: TcpStream,
    target: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    counts: &Counts,
) -> io::Result<()> {
    let opens = faults.wait_for(|faults| faults.door != Door::Silent);
    if opens.await.is_err() {
        return Ok(());
    }
    let far = narrow()?.connect(target).await?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let both = tokio::try_join!(
        pump(near_read, far_write, &counts.forth, faults.clone(), |it| it
            .forth),
        pump(far_read, near_write, &counts.back, faults, |it| it.back),
    );
    both.map(drop)
}

/// Lets one direction pass until it ends; gives its halves back so that neither closes early.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    count: &AtomicUsize,
    mut faults: watch::Receiver<Faults>,
    leg: fn(&Faults) -> Leg,
) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let leg = leg(&faults.borrow_and_update());
        let room = match leg.stop {
            Some((at, stop)) if passed >= at => match stop {
                Stop::Fin => break,
                Stop::Reset => {
                    from.as_ref().set_zero_linger()?;
                    to.as_ref().set_zero_linger()?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Stop::Freeze => match faults.changed().await {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            },
            Some((at, _)) => buffer.len().min(at - passed),
            None => buffer.len(),
        };
        let read = tokio::select! {
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            read = from.read(&mut buffer[..room]) => read?,
        };
        if read == 0 {
            break;
        }
        if let Some(at) = leg.flip.and_then(|at| at.checked_sub(passed))
            && at < read
        {
            buffer[at] ^= 0x10;
        }
        for piece in buffer[..read].chunks(leg.slice) {
            if !leg.delay.is_zero() {
                sleep(leg.delay).await;
            }
            to.write_all(piece).await?;
            count.fetch_add(piece.len(), Ordering::Relaxed);
            // Whoever reads on this thread reads each piece by itself.
            yield_now().await;
        }
        passed += read;
    }
    let _ = to.shutdown().await;
    Ok((from, to))
}
