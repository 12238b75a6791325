//! Whose credential a node gets, and whose it never does: all that goes to the node is recorded as it
//! travels, and looked at again as the node opened it.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use attestation::Policy;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
};

use super::{
    fake::{Asked, FakeNode},
    fleet::keyed,
    harness::Running,
};
use crate::{
    client::{Client, Reply},
    clock::Clock,
};

const CALLERS: &str = "sk-caller-0123456789abcdef0123456789abcdef";
const NODES: &str = "node-token-0123456789abcdef";
const UNARY: &str = r#"{"model":"m","prompt":"x"}"#;

/// The wire before a node, and all bytes that went over it towards the node.
struct Tap {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let recorded: Arc<Mutex<Vec<u8>>> = Arc::default();
        let recording = Arc::clone(&recorded);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(node).await.unwrap();
                let recording = Arc::clone(&recording);
                tokio::spawn(async move {
                    let (mut from, mut back) = near.into_split();
                    let (mut replies, mut to) = far.into_split();
                    tokio::spawn(async move { copy(&mut replies, &mut back).await });
                    let mut buffer = [0; 4096];
                    while let Ok(len @ 1..) = from.read(&mut buffer).await {
                        recording.lock().unwrap().extend_from_slice(&buffer[..len]);
                        if to.write_all(&buffer[..len]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, recorded }
    }
}

/// All that the node opened.
#[derive(Clone, Default)]
struct Inside(Arc<Mutex<Vec<Kept>>>);

/// The credential in a request, and all of it as one text.
type Kept = (Option<String>, Vec<u8>);

impl Inside {
    fn keep(&self, asked: &Asked) {
        let request = &asked.request;
        let mut all = format!("{} {}\n", request.method, request.path).into_bytes();
        for (name, value) in request.fields.iter() {
            all.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        all.extend_from_slice(&request.content);
        let opened = (asked.field("authorization"), all);
        self.0.lock().unwrap().push(opened);
    }
}

async fn gateway(node: SocketAddr, credential: &str) -> (TempDir, Running) {
    let dir = keyed("");
    let digest = hex::encode(Sha256::digest(CALLERS));
    let keys = format!("[[key]]\nname = \"caller\"\nsha256 = \"{digest}\"\n");
    fs::write(dir.path().join("keys.toml"), keys).unwrap();
    fs::write(dir.path().join("token"), NODES).unwrap();
    let rest =
        format!("keys_file = \"keys.toml\"\n[[node]]\nurl = \"http://{node}\"\n{credential}");
    let gateway = Running::start_in(dir.path(), &[], &rest, Clock::system()).await;
    gateway.until_ready().await;
    (dir, gateway)
}

/// The key in the forms in which it could travel.
fn forms(key: &str) -> Vec<Vec<u8>> {
    let digest = Sha256::digest(key);
    vec![
        key.into(),
        hex::encode(key).into(),
        // Wherever it begins in what is encoded, twelve digits of its middle are the same.
        BASE64_STANDARD.encode(key)[12..24].into(),
        digest.to_vec(),
        hex::encode(digest).into(),
    ]
}

fn assert_is_not_in(all: &[u8], key: &str, what: &str) {
    for form in forms(key) {
        let is_there = all.windows(form.len()).any(|part| part == form);
        assert!(!is_there, "{what}: {}", String::from_utf8_lossy(&form));
    }
}

#[tokio::test]
async fn a_node_gets_the_gateways_credential_under_the_seal_and_never_the_callers_key() {
    let given = "credential_file = \"token\"\n";
    for (credential, expected) in [(given, Some(format!("Bearer {NODES}"))), ("", None)] {
        let node = FakeNode::start("one").await;
        let (tap, inside) = (Tap::start(node.address).await, Inside::default());
        let keeping = inside.clone();
        node.play(move |asked| {
            keeping.keep(&asked);
            async { asked.json(200, "{}") }
        });
        let (dir, gateway) = gateway(tap.address, credential).await;
        for (path, body) in [
            ("/v1/completions", UNARY),
            (
                "/v1/chat/completions",
                r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
            ),
            ("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
            (
                "/v1/completions",
                r#"{"model":"m","prompt":"x","user":"u","cache_salt":"s"}"#,
            ),
        ] {
            let got = gateway.post_as(CALLERS, path, body).await;
            assert_eq!(got.status, 200, "{path}: {got:?}");
        }
        // What a caller seals for himself is carried: his key for the gateway ends there.
        let policy = fs::read_to_string(dir.path().join("policy.toml")).unwrap();
        let mut read = |name: &str| fs::read(dir.path().join(name));
        let policy = Policy::from_toml(&policy, &mut read).unwrap();
        let url = format!("http://{}", gateway.address);
        let client = Client::at_gateway(&url, policy).api_key(CALLERS);
        let channel = client.build().unwrap().verify("m").await.unwrap();
        let reply = channel
            .request(crate::openai::Endpoint::Completions, UNARY)
            .await;
        assert!(matches!(reply, Ok(Reply::Whole(_))), "{reply:?}");

        let opened = inside.0.lock().unwrap();
        let (carried, sealed_here) = opened.split_last().unwrap();
        assert_eq!(sealed_here.len(), 4);
        for (authorization, all) in sealed_here {
            assert_eq!(authorization, &expected);
            assert_is_not_in(all, CALLERS, "inside");
        }
        assert_eq!(carried.0, None, "the gateway cannot look into it");
        assert_is_not_in(&carried.1, CALLERS, "carried");
        // HTTP/2 packs heads, so that they are looked at as they arrived; bodies are as they were sent.
        let (heads, recorded) = (node.heads(), tap.recorded.lock().unwrap());
        let holds = |all: &[u8], text: &[u8]| all.windows(text.len()).any(|part| part == text);
        assert!(holds(&heads, b"/.well-known/ohttp-gateway\n"), "recorded");
        assert!(
            holds(&recorded, &[0, 0x20, 0, 1, 0, 2]),
            "the head of what is sealed"
        );
        for (what, all) in [("in a head", &heads), ("on the wire", &*recorded)] {
            assert_is_not_in(all, CALLERS, what);
            assert_is_not_in(all, NODES, what);
        }
    }
}
