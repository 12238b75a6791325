use std::future::Ready;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::{clock::Clock, config::tls::TlsFiles, tls::Keeper};

const LIMITS: Limits = Limits {
    connections: 2,
    head_timeout: Duration::from_millis(100),
    idle_timeout: Duration::from_millis(100),
    write_timeout: Duration::from_millis(100),
    shutdown_timeout: Duration::from_secs(5),
};

fn hello(_: Request<Incoming>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    std::future::ready(Ok(Response::new(Full::from("hello"))))
}

async fn start() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    start_with(LIMITS).await
}

async fn start_with(limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = serve_connections(listener, service_fn(hello), limits, shutdown.clone());
    (address, shutdown, tokio::spawn(server))
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head_and_holds_up_no_other() {
    let files = TlsFiles {
        table: "tls",
        pair: None,
        clients: None,
    };
    let keeper = Keeper::start(files, "localhost", Clock::system()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = Listener::new(tcp, Some(keeper.tls()));
    let patient = Limits {
        head_timeout: Duration::from_secs(2),
        ..LIMITS
    };
    let server = serve_connections(listener, service_fn(hello), patient, <_>::default());
    tokio::spawn(server);
    let silent = tokio::spawn(async move { exchange(address, b"").await });
    let in_clear = exchange(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!in_clear.ends_with(b"hello"), "TLS alone is spoken");
    assert!(!silent.is_finished(), "the silent one has not held it up");
    let half = exchange(address, &[0x16, 3, 1, 2, 0, 1]).await;
    assert!(!half.ends_with(b"hello"));
    silent.await.unwrap();
}

async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut reply))
        .await
        .unwrap();
    reply
}

#[tokio::test]
async fn a_peer_that_holds_a_connection_open_is_closed() {
    let (address, ..) = start().await;
    let cases: [(&str, &[u8]); 5] = [
        ("nothing sent", b""),
        ("part of the HTTP/2 preface", b"PRI * HT"),
        ("part of a head", b"GET / HTTP/1.1\r\nhost: a\r\n"),
        (
            "an idle HTTP/2 connection",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
        ("idle after a request", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ];
    for (name, bytes) in cases {
        let reply = exchange(address, bytes).await;
        assert_eq!(
            reply.ends_with(b"hello"),
            name == "idle after a request",
            "{name}"
        );
    }
}

/// A body that gives its frames at once, and then nothing for ever.
struct Frames(usize);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Pending;
        };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024])))))
    }
}

#[tokio::test]
async fn a_peer_that_leaves_one_reply_unread_is_closed() {
    let patient = Limits {
        head_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        ..LIMITS
    };
    let cases = [
        (1, false, false),
        (usize::MAX, false, true),
        // A neighbour that is read shows that the peer is there.
        (usize::MAX, true, false),
    ];
    for (frames, reads_another, closes) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(move |_: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(Frames(frames))))
        });
        let server = serve_connections(listener, service, patient, CancellationToken::new());
        tokio::spawn(server);
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(2048)
                .handshake::<_, Full<Bytes>>(io)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let request = || {
            let request = Request::get(format!("http://{address}/"));
            request.body(Full::<Bytes>::default()).unwrap()
        };
        let _unread = sender.send_request(request()).await.unwrap();
        if reads_another {
            let mut another = sender.send_request(request()).await.unwrap();
            tokio::spawn(async move { while another.frame().await.is_some() {} });
        }
        let patience = Duration::from_secs(if closes { 5 } else { 1 });
        let closed = timeout(patience, connection).await.is_ok();
        assert_eq!(closed, closes, "{frames} {reads_another}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (address, ..) = start().await;
    let fields = "a: b\r\n".repeat(MAX_HEAD_FIELDS);
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    assert!(
        exchange(address, many.as_bytes())
            .await
            .starts_with(b"HTTP/1.1 431")
    );
}

#[tokio::test]
async fn connections_past_the_limit_are_closed_at_once() {
    let (address, ..) = start().await;
    let mut held = Vec::new();
    for _ in 0..LIMITS.connections {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_ends() {
    let (address, shutdown, server) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    stream.read_u8().await.unwrap();
    shutdown.cancel();
    server.await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"hello"));
}

#[tokio::test]
async fn a_request_that_was_on_its_way_at_shutdown_is_answered() {
    let patient = Limits {
        head_timeout: Duration::from_secs(60),
        ..LIMITS
    };
    let (address, shutdown, server) = start_with(patient).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Both are accepted once a third is refused.
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
    shutdown.cancel();
    tokio::task::yield_now().await;
    let asked = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(asked).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.ends_with("hello"), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_fails_the_write() {
    let (near, _far) = tokio::io::duplex(16);
    let mut stream = std::pin::pin!(WriteTimeout::new(near, Duration::from_secs(60)));
    let error = stream.write_all(&[0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
