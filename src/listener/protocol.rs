//! Which HTTP a connection speaks: its first bytes say so, and are given on.
//!
//! They are given on in one read with what follows. hyper asks for 8 KiB more each time that a head is
//! not whole yet, and doubles its buffer for it: a head in two reads costs an open stream 8 KiB.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client begins with that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Or anything else: HTTP/1.1 has an answer for it.
    Http1,
    Http2,
}

/// A stream whose first bytes are known, and not given on yet.
#[derive(Debug)]
pub(super) struct Begun<T> {
    stream: T,
    first: [u8; PREFACE.len()],
    given: usize,
    read: usize,
    /// What ended the stream behind bytes that were given on.
    failed: Option<io::Error>,
}

impl<T: AsyncRead + Unpin> Begun<T> {
    /// Reads as far as the protocol is known.
    ///
    /// # Errors
    /// The stream's.
    pub(super) async fn read(stream: T) -> io::Result<(Protocol, Self)> {
        let mut begun = Self {
            stream,
            first: [0; PREFACE.len()],
            given: 0,
            read: 0,
            failed: None,
        };
        while let Some((_, room)) = begun.first.split_at_mut_checked(begun.read) {
            if room.is_empty() {
                return Ok((Protocol::Http2, begun));
            }
            let read = begun.stream.read(room).await?;
            begun.read += read;
            if read == 0 || !PREFACE.starts_with(begun.unread()) {
                break;
            }
        }
        Ok((Protocol::Http1, begun))
    }

    /// What was read and not given on.
    fn unread(&self) -> &[u8] {
        self.first.get(self.given..self.read).unwrap_or_default()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Begun<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        let unread = this.unread();
        let given = unread.len().min(buf.remaining());
        if given == 0 {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        buf.put_slice(unread.get(..given).unwrap_or_default());
        this.given += given;
        if let Poll::Ready(Err(error)) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            this.failed = Some(error);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Begun<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio_util::io::StreamReader;

    use super::*;

    /// Gives one part with each read.
    fn parts(parts: Vec<io::Result<Bytes>>) -> impl AsyncRead + Unpin {
        StreamReader::new(stream::iter(parts))
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_however_they_come_and_none_is_lost() {
        let h2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04";
        let cases: [(&[u8], Protocol); 8] = [
            (b"GET / HTTP/1.1\r\n\r\n", Protocol::Http1),
            (
                b"POST / HTTP/1.1\r\n\r\nbody and more of it",
                Protocol::Http1,
            ),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", Protocol::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Protocol::Http1),
            (b"PRI", Protocol::Http1),
            (b"", Protocol::Http1),
            (PREFACE, Protocol::Http2),
            (h2, Protocol::Http2),
        ];
        for (bytes, expected) in cases {
            for size in [1, 2, 5, 23, 24, 25, 100] {
                let chunks = bytes.chunks(size).map(|it| Ok(Bytes::copy_from_slice(it)));
                let stream = parts(chunks.collect());
                let (protocol, mut begun) = Begun::read(stream).await.unwrap();
                assert_eq!(protocol, expected, "{bytes:?} by {size}");
                let mut all = Vec::new();
                begun.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, bytes, "by {size}");
            }
        }
    }

    #[tokio::test]
    async fn one_read_gives_all_that_is_there() {
        let head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\n\r\n";
        let stream = parts(vec![Ok(head.into()), Ok("later".into())]);
        let (_, mut begun) = Begun::read(stream).await.unwrap();
        let mut buf = [0; 8192];
        let read = begun.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], head.as_bytes());
        let read = begun.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], b"later");
    }

    #[tokio::test]
    async fn a_failure_is_told_after_the_bytes_before_it() {
        let broken = Err(io::ErrorKind::ConnectionReset.into());
        let stream = parts(vec![Ok("POST".into()), broken]);
        let (_, mut begun) = Begun::read(stream).await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(begun.read(&mut buf).await.unwrap(), 4);
        let error = begun.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
