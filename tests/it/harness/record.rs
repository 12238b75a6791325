//! A relay between gateway and node that keeps every byte, and what an eavesdropper reads of them: how
//! long the pieces are in which requests and replies travel.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What a client of HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;

/// A relay that listens.
pub(crate) struct Recorder {
    /// Where it listens.
    pub(crate) url: String,
    connections: Connections,
}

/// What went there and what came back, of each connection.
type Connections = Arc<Mutex<Vec<Arc<Mutex<[Vec<u8>; 2]>>>>>;

/// The lengths of the frames of one request's body and of its reply's, or of their chunks in HTTP/1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) there: Vec<usize>,
    pub(crate) back: Vec<usize>,
}

impl Recorder {
    /// Starts one before the node at `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let far = url.rsplit_once('/').unwrap().1.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Connections::default();
        let kept = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&far).await else {
                    continue;
                };
                let passed = Arc::<Mutex<[Vec<u8>; 2]>>::default();
                kept.lock().unwrap().push(Arc::clone(&passed));
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(pass(near_in, far_out, Arc::clone(&passed), 0));
                tokio::spawn(pass(far_in, near_out, passed, 1));
            }
        });
        Self { url, connections }
    }

    /// What a sealed request and its reply looked like, of all so far, in their order.
    pub(crate) fn exchanges(&self) -> Vec<Lengths> {
        let connections = self.connections.lock().unwrap();
        let mut all = Vec::new();
        for passed in connections.iter() {
            let [there, back] = &*passed.lock().unwrap();
            let Some(there) = there.strip_prefix(PREFACE) else {
                let pairs = http_1_bodies(there).into_iter().zip(http_1_bodies(back));
                let exchanges = pairs.map(|(there, back)| Lengths { there, back });
                all.extend(exchanges.filter(|it| !it.there.is_empty()));
                continue;
            };
            let mut streams = BTreeMap::<u32, Lengths>::new();
            for (stream, len) in data_frames(there) {
                streams.entry(stream).or_default().there.push(len);
            }
            for (stream, len) in data_frames(back) {
                streams.entry(stream).or_default().back.push(len);
            }
            // Who asks for evidence sends no body.
            all.extend(streams.into_values().filter(|it| !it.there.is_empty()));
        }
        all
    }

    /// The last of them.
    pub(crate) fn last(&self) -> Lengths {
        self.exchanges().pop().expect("an exchange")
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: Arc<Mutex<[Vec<u8>; 2]>>,
    direction: usize,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        // Kept first: who has read it can look it up.
        passed.lock().unwrap()[direction].extend_from_slice(&piece[..len]);
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The streams and lengths of the DATA frames that have something in them (RFC 9113 section 4.1). Where
/// TCP cuts what it carries says nothing of them.
fn data_frames(mut bytes: &[u8]) -> Vec<(u32, usize)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        if head[3] == DATA && len > 0 {
            frames.push((stream, len));
        }
        bytes = rest.get(len..).unwrap_or_default();
    }
    frames
}

/// The lengths of the chunks of each message's body, one after the other, as far as they have come
/// (RFC 9112 sections 6 and 7.1). A body with a length is one.
fn http_1_bodies(mut bytes: &[u8]) -> Vec<Vec<usize>> {
    let mut bodies = Vec::new();
    while let Some(head) = through(&mut bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let mut body = Vec::new();
        if value("transfer-encoding: chunked").is_some() {
            while let Some(size) = through(&mut bytes, b"\r\n") {
                let size = std::str::from_utf8(size).unwrap().trim_end();
                let size = usize::from_str_radix(size, 16).unwrap();
                bytes = bytes.get(size + 2..).unwrap_or_default();
                if size == 0 {
                    break;
                }
                body.push(size);
            }
        } else if let Some(len @ 1..) = value("content-length: ").map(|it| it.parse().unwrap()) {
            body.push(len);
            bytes = bytes.get(len..).unwrap_or_default();
        }
        bodies.push(body);
    }
    bodies
}

/// Takes what comes up to `end`, which is taken too; `None` if it does not come.
fn through<'a>(bytes: &mut &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(end.len()).position(|it| it == end)? + end.len();
    let (taken, rest) = bytes.split_at(at);
    *bytes = rest;
    Some(taken)
}
