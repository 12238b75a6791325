use std::{
    future::Ready,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
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
        (1, None, false),
        (usize::MAX, None, true),
        // A neighbour that is read shows that the peer is there.
        (usize::MAX, Some("/read"), false),
        // One that waits for its answer is not cut off with it.
        (usize::MAX, Some("/wait"), false),
    ];
    for (frames, neighbour, closes) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(move |request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Frames(frames)))
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
        let request = |path: &str| {
            let request = Request::get(format!("http://{address}{path}"));
            request.body(Full::<Bytes>::default()).unwrap()
        };
        let _unread = sender.send_request(request("/")).await.unwrap();
        let another = neighbour.map(|path| sender.send_request(request(path)));
        let _another = another.map(|another| {
            tokio::spawn(async move {
                let mut another = another.await.unwrap();
                while another.frame().await.is_some() {}
            })
        });
        let patience = Duration::from_secs(if closes { 5 } else { 1 });
        let closed = timeout(patience, connection).await.is_ok();
        assert_eq!(closed, closes, "{frames} {neighbour:?}");
    }
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// What arrives until a stream has begun to be answered; its end, if the connection ends before.
async fn answered(peer: &mut TcpStream, stream: u8) -> bool {
    loop {
        let mut head = [0; 9];
        if peer.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        peer.read_exact(&mut payload).await.unwrap();
        if (head[3], head[8]) == (HEADERS, stream) {
            return true;
        }
    }
}

const HEADERS: u8 = 1;

#[tokio::test]
async fn callers_who_leave_together_end_nobody_elses_reply() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go, gone) = tokio::sync::watch::channel(false);
    let service = service_fn(move |_: Request<Incoming>| {
        let mut gone = gone.clone();
        async move {
            let _ = gone.wait_for(|go| *go).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
        }
    });
    let patient = Limits {
        head_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        ..LIMITS
    };
    tokio::spawn(serve_connections(
        listener,
        service,
        patient,
        CancellationToken::new(),
    ));
    let mut peer = TcpStream::connect(address).await.unwrap();
    // `GET http://a/` by HPACK's static table; the end of the head and of the stream.
    let request = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let mut begins = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begins.extend(frame(4, 0, 0, &[]));
    begins.extend(frame(HEADERS, 5, 1, &request));
    // All in one write: they are reset before anybody has taken them in.
    for stream in (3..203).step_by(2) {
        begins.extend(frame(HEADERS, 5, stream, &request));
        begins.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
    }
    peer.write_all(&begins).await.unwrap();
    go.send_replace(true);
    let answered = timeout(Duration::from_secs(10), answered(&mut peer, 1));
    assert!(answered.await.unwrap());
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
