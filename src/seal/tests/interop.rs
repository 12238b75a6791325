//! Against the published `ohttp` and `bhttp` crates, in both directions.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bhttp::{Message, Mode, StatusCode};
use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use ohttp::{
    ClientRequest, KeyConfig, Server, SymmetricSuite,
    hpke::{Aead as PeerAead, Kdf, Kem},
};

use super::*;
use crate::seal::Tick;

const CONTENT: &[u8] = b"{\"model\":\"m\",\"prompt\":\"a prompt\"}";
const ANSWER: &[u8] = b"{\"choices\":[]}";
const WAYS: [(Mode, bool); 4] = [
    (Mode::KnownLength, false),
    (Mode::KnownLength, true),
    (Mode::IndeterminateLength, false),
    (Mode::IndeterminateLength, true),
];

/// Gives one byte a read if told to, everything otherwise.
struct Source<'a> {
    bytes: &'a [u8],
    dribble: bool,
}

impl AsyncRead for Source<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = if self.dribble { 1 } else { usize::MAX };
        let len = out.len().min(self.bytes.len()).min(most);
        out[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
        Poll::Ready(Ok(len))
    }
}

/// Keeps what a peer writes where the test can read it meanwhile.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn pieces(bytes: &[u8], dribble: bool) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(if dribble { 1 } else { bytes.len() })
}

fn peer_message(mut message: Message, content: &[u8], mode: Mode) -> Vec<u8> {
    message.put_header("content-type", "application/json");
    message.write_content(content);
    message.put_trailer("sealgate-usage", "{}");
    let mut bytes = Vec::new();
    message.write_bhttp(mode, &mut bytes).unwrap();
    bytes
}

fn peer_request(mode: Mode) -> Vec<u8> {
    let [method, scheme, authority, path] =
        ["POST", "https", "node.example", "/v1/completions"].map(|text| text.as_bytes().to_vec());
    peer_message(
        Message::request(method, scheme, authority, path),
        CONTENT,
        mode,
    )
}

fn peer_response(mode: Mode) -> Vec<u8> {
    peer_message(Message::response(StatusCode::OK), ANSWER, mode)
}

const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream")];
const USAGE: [(&str, &str); 1] = [("sealgate-usage", "{}")];

/// The same stream at ticks, some of them before its status is known.
fn paced_reply(sealer: ReplySealer) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut sealer = sealer.into_paced(std::num::NonZeroUsize::MIN).unwrap();
    for tick in 1.. {
        if tick == 4 {
            sealer.begin(200, &EVENTS).unwrap();
            sealer.push(b"data: {}\n\ndata: [DONE]\n\n").unwrap();
            sealer.end(&USAGE).unwrap();
        }
        match sealer.tick().unwrap() {
            Tick::Chunk(bytes, next) => {
                reply.extend_from_slice(&bytes);
                sealer = next;
            }
            Tick::Last(bytes) => {
                reply.extend_from_slice(&bytes);
                assert_eq!(tick, 4, "a power of two");
                break;
            }
        }
    }
    reply
}

#[tokio::test]
async fn its_client_reaches_our_node_and_reads_our_reply() {
    let both = |way| [(way, false), (way, true)];
    for ((mode, dribble), is_paced) in WAYS.into_iter().flat_map(both) {
        let node = Node::new();
        let list = crate::seal::encode_key_configs([(KEY_ID, &node.public_key)]);
        let client = ClientRequest::from_encoded_config_list(&list).unwrap();
        let sink = Sink::default();
        let mut request = client.encapsulate_stream(sink.clone()).unwrap();
        for part in peer_request(mode).chunks(20) {
            request.write_all(part).await.unwrap();
        }
        request.close().await.unwrap();

        let body = sink.take();
        let (opened, sealer) = node.open(pieces(&body, dribble)).unwrap();
        assert_eq!(body[6], 1, "its only AEAD of ours is AES-128-GCM");
        assert_eq!(
            (opened.method.as_str(), opened.path.as_str()),
            ("POST", "/v1/completions")
        );
        assert_eq!(opened.fields.get("content-type"), Some("application/json"));
        assert_eq!(opened.content, CONTENT);

        let reply = if is_paced {
            paced_reply(sealer)
        } else {
            let mut stream = sealer.into_stream(200, &EVENTS, Padding::Bucket).unwrap();
            let mut reply = stream.chunk(b"data: {}\n\n").unwrap().to_vec();
            reply.extend_from_slice(&stream.finish(b"data: [DONE]\n\n", &USAGE).unwrap());
            reply
        };
        let mut response = request
            .response(Source {
                bytes: &reply,
                dribble,
            })
            .unwrap();
        let mut plaintext = Vec::new();
        response.read_to_end(&mut plaintext).await.unwrap();
        let message = Message::read_bhttp(&mut Cursor::new(plaintext)).unwrap();
        assert_eq!(message.control().status(), Some(StatusCode::OK));
        let content: Vec<u8> = message
            .content()
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !line.starts_with(b":"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(content, b"data: {}\n\ndata: [DONE]\n\n");
        assert_eq!(message.trailer().get(b"sealgate-usage"), Some(&b"{}"[..]));
    }
}

#[tokio::test]
async fn our_sealer_reaches_its_server_and_reads_its_reply() {
    for (mode, dribble) in WAYS {
        let suites = vec![SymmetricSuite::new(Kdf::HkdfSha256, PeerAead::Aes128Gcm)];
        let config = KeyConfig::new(9, Kem::X25519Sha256, suites).unwrap();
        let public_key: [u8; 32] = config.encode().unwrap()[3..35].try_into().unwrap();
        let recipient = Recipient {
            key_id: 9,
            public_key: &public_key,
            suite: Suite::X25519(Aead::Aes128Gcm),
        };
        let content = [b'x'; 20_000];
        let (body, opener) =
            seal_to(recipient, &HEAD, &content, Padding::Bucket, &mut rng()).unwrap();

        let server = Server::new(config).unwrap();
        let mut request = server.decapsulate_stream(Source {
            bytes: &body,
            dribble,
        });
        let mut plaintext = Vec::new();
        request.read_to_end(&mut plaintext).await.unwrap();
        assert_eq!(plaintext.len(), 32 * 1024);
        let message = Message::read_bhttp(&mut Cursor::new(plaintext)).unwrap();
        assert_eq!(message.control().path(), Some(HEAD.path.as_bytes()));
        assert_eq!(
            message.header().get(b"content-type"),
            Some(&b"application/json"[..])
        );
        assert_eq!(message.content(), content);

        let sink = Sink::default();
        let mut response = request.response(sink.clone()).unwrap();
        for part in peer_response(mode).chunks(7) {
            response.write_all(part).await.unwrap();
        }
        response.close().await.unwrap();
        let reply = sink.take();
        let (head, content, trailers) = read_reply(opener, pieces(&reply, dribble)).complete();
        assert_eq!(head.content_type.as_deref(), Some("application/json"));
        assert_eq!(content, ANSWER);
        assert_eq!(trailers.usage.as_deref(), Some("{}"));
    }
}
