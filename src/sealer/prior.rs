//! What a node without TLS speaks: found out by connecting, before anything is asked.
//!
//! HTTP/2 with prior knowledge begins with a SETTINGS frame from either side (RFC 9113 sections 3.3 and
//! 3.4). A peer that sends one speaks it; from one that does anything else nothing was asked yet, so
//! that it can be asked over HTTP/1.1, and no request is ever there twice.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::sync::oneshot;

/// Length of a frame's head (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;
/// The type of a SETTINGS frame, and its flag of an acknowledgement (RFC 9113 section 6.5).
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// A protocol that a node without TLS was found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One request at a time on a connection.
    Http1,
    /// Many.
    Http2,
}

/// What is known of that so far.
#[derive(Debug, Default)]
pub(crate) struct Spoken(Mutex<Option<Protocol>>);

impl Spoken {
    pub(crate) fn get(&self) -> Option<Protocol> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, found: Option<Protocol>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Why no connection of HTTP/2 came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotHttp2 {
    /// The other end speaks, and something else.
    #[error("the node speaks no HTTP/2 on this connection")]
    Otherwise,
    /// It ended the connection without a word.
    #[error("the node ended the connection before it spoke HTTP/2")]
    Ended,
}

/// A connection of which it is not known yet what the other end speaks.
pub(super) struct Proving<T> {
    io: T,
    /// The first bytes that came.
    head: Vec<u8>,
    /// Where the proof is awaited; nobody any more once it is there.
    proof: Option<oneshot::Sender<Result<(), NotHttp2>>>,
}

/// Resolves once the other end has shown what it speaks.
pub(super) struct Proof(oneshot::Receiver<Result<(), NotHttp2>>);

impl Proof {
    /// # Errors
    /// [`NotHttp2`].
    pub(super) async fn given(self) -> Result<(), NotHttp2> {
        // Whoever drives the connection drops it at its end.
        self.0.await.unwrap_or(Err(NotHttp2::Ended))
    }
}

impl<T> Proving<T> {
    pub(super) fn new(io: T) -> (Self, Proof) {
        let (proof, awaited) = oneshot::channel();
        let proving = Self {
            io,
            head: Vec::with_capacity(FRAME_HEAD),
            proof: Some(proof),
        };
        (proving, Proof(awaited))
    }

    /// Looks at what came.
    fn look(&mut self, came: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(came);
        let shown = match may_begin_http2(&self.head) {
            true if self.head.len() < FRAME_HEAD => return Ok(()),
            true => Ok(()),
            false => Err(NotHttp2::Otherwise),
        };
        if let Some(proof) = self.proof.take() {
            // Whoever waited may have left.
            let _ = proof.send(shown);
        }
        shown.map_err(io::Error::other)
    }
}

/// Whether these can be the first bytes of a SETTINGS frame that acknowledges nothing.
fn may_begin_http2(head: &[u8]) -> bool {
    head.iter().enumerate().all(|(at, byte)| match at {
        // No longer than a frame may be that nobody has agreed on, and of no stream.
        0 | 5..=8 => *byte == 0,
        3 => *byte == SETTINGS,
        4 => byte & ACK == 0,
        _ => true,
    })
}

impl<T: Read + Unpin> Read for Proving<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.proof.is_none() || buf.remaining() == 0 {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let mut piece = [0; FRAME_HEAD];
        let missing = FRAME_HEAD.saturating_sub(this.head.len());
        let room = piece.get_mut(..missing.min(buf.remaining()));
        let mut read = ReadBuf::new(room.unwrap_or_default());
        ready!(Pin::new(&mut this.io).poll_read(cx, read.unfilled()))?;
        this.look(read.filled())?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Proving<T> {
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

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const WHOLE: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

    #[tokio::test]
    async fn only_a_settings_frame_is_a_proof() {
        use NotHttp2::{Ended, Otherwise};
        let cases: [(&str, &[u8], Result<(), NotHttp2>); 10] = [
            ("settings", WHOLE, Ok(())),
            ("empty settings", b"\0\0\0\x04\0\0\0\0\0", Ok(())),
            (
                "an answer of HTTP/1.1",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                Err(Otherwise),
            ),
            ("a short one", b"HTTP", Err(Otherwise)),
            (
                "an acknowledgement",
                b"\0\0\0\x04\x01\0\0\0\0",
                Err(Otherwise),
            ),
            ("a GOAWAY frame", b"\0\0\x08\x07\0\0\0\0\0", Err(Otherwise)),
            (
                "settings of a stream",
                b"\0\0\0\x04\0\0\0\0\x01",
                Err(Otherwise),
            ),
            (
                "settings beyond all bounds",
                b"\x01\0\0\x04\0\0\0\0\0",
                Err(Otherwise),
            ),
            (
                "an alert of TLS",
                b"\x15\x03\x01\0\x02\x02\x16",
                Err(Otherwise),
            ),
            ("half a frame's head", b"\0\0\x06\x04", Err(Ended)),
        ];
        for (name, said, expected) in cases {
            for piece in [1, 4, 64] {
                let (near, mut far) = duplex(piece);
                let (proving, proof) = Proving::new(TokioIo::new(near));
                let reading = async {
                    let mut all = Vec::new();
                    let mut near = TokioIo::new(proving);
                    let read = near.read_to_end(&mut all).await;
                    drop(near);
                    (read.is_ok(), all)
                };
                let speaking = async {
                    // Nobody reads on what is no HTTP/2.
                    let _ = far.write_all(said).await;
                    drop(far);
                };
                let ((is_read, all), ()) = tokio::join!(reading, speaking);
                assert_eq!(proof.given().await, expected, "{name} by {piece}");
                assert_eq!(is_read, expected != Err(Otherwise), "{name}");
                assert!(!is_read || all == said, "{name}: nothing is lost");
            }
        }
        let (near, far) = duplex(64);
        let (proving, proof) = Proving::new(TokioIo::new(near));
        drop((proving, far));
        assert_eq!(proof.given().await, Err(Ended));
    }
}
