//! An attacker who owns the path between gateway and node: he is refused, and learns and changes
//! nothing.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{
    CANARY, Engine, Process, Setup,
    mitm::{self, OnTheWay},
    prompt,
    setup::{Files, error_of, measurement, policy},
};

type Alteration = (&'static str, fn(&mut OnTheWay));

/// What can be done to a sealed reply of at least four chunks.
const ALTERATIONS: [Alteration; 12] = [
    ("a bit of the nonce", |reply| reply.body[0] ^= 1),
    ("a bit of the first chunk", |reply| reply.body[40] ^= 1),
    ("a bit of the last byte", |reply| {
        *reply.body.last_mut().unwrap() ^= 0x80
    }),
    ("two chunks exchanged", |reply| {
        reorder(reply, |chunks| chunks.swap(2, 3))
    }),
    ("a chunk twice", |reply| {
        reorder(reply, |chunks| chunks.insert(2, chunks[2].clone()))
    }),
    ("a chunk left out", |reply| {
        reorder(reply, |chunks| drop(chunks.remove(2)))
    }),
    ("the final chunk left out", |reply| {
        reorder(reply, |chunks| drop(chunks.pop()))
    }),
    ("cut in a chunk", |reply| {
        reply.body.truncate(reply.body.len() / 2)
    }),
    ("cut in the nonce", |reply| reply.body.truncate(7)),
    ("empty", |reply| reply.body.clear()),
    ("a middle chunk made final", |reply| {
        reorder(reply, |chunks| {
            chunks.truncate(3);
            let last = chunks.last_mut().unwrap();
            let prefix = 1 << (last[0] >> 6);
            *last = [&[0], &last[prefix..]].concat();
        });
    }),
    ("bytes after the end", |reply| {
        reply.body.extend_from_slice(b"more")
    }),
];

fn reorder(reply: &mut OnTheWay, alter: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut chunks = reply.chunks();
    assert!(chunks.len() > 4, "{} chunks", chunks.len());
    alter(&mut chunks);
    reply.body = chunks.concat();
}

/// A set-up whose sealed replies are altered as the test says at the time.
async fn altered() -> (Setup, Arc<Mutex<fn(&mut OnTheWay)>>) {
    let alteration: Arc<Mutex<fn(&mut OnTheWay)>> = Arc::new(Mutex::new(|_| {}));
    let current = Arc::clone(&alteration);
    let setup = Setup::with_mitm(move |reply| {
        if reply.is_sealed() {
            current.lock().unwrap()(reply);
        }
    })
    .await;
    (setup, alteration)
}

#[tokio::test]
async fn an_altered_reply_gives_nothing() {
    let (setup, alteration) = altered().await;
    let request = json!({"prompt": prompt(&"word ".repeat(20_000))});
    assert_eq!(
        setup.complete(request.clone()).await.status(),
        200,
        "the path itself works"
    );
    for (name, alter) in ALTERATIONS {
        *alteration.lock().unwrap() = alter;
        let reply = setup.complete(request.clone()).await;
        assert_eq!(reply.headers()["x-should-retry"], "false", "{name}: it ran");
        let (status, error) = error_of(reply).await;
        assert_eq!(status, 502, "{name}: {error}");
        let code = error["code"].as_str().unwrap();
        assert!(
            ["node_reply_invalid", "upstream_truncated"].contains(&code),
            "{name}: {error}"
        );
        assert!(!error.to_string().contains(CANARY), "{name}: {error}");
    }
    assert_eq!(
        setup.engine.received().len(),
        1 + ALTERATIONS.len(),
        "nothing was tried twice"
    );
}

#[tokio::test]
async fn an_altered_stream_gives_a_true_beginning_and_an_error() {
    let (setup, alteration) = altered().await;
    let text = prompt(&"word ".repeat(20_000));
    for (name, alter) in ALTERATIONS {
        *alteration.lock().unwrap() = alter;
        let reply = setup
            .complete(json!({"prompt": text, "stream": true}))
            .await;
        if reply.status() != 200 {
            assert_eq!(error_of(reply).await.0, 502, "{name}");
            continue;
        }
        let stream = crate::harness::setup::EventStream::new(reply);
        let (mut events, end) = stream.rest().await;
        assert!(end.is_err(), "{name}: the connection is aborted");
        let last: Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
        assert!(last["error"]["code"].is_string(), "{name}: {last}");
        let mut given = String::new();
        for event in &events {
            let event: Value = serde_json::from_str(event).expect(name);
            given += event["choices"][0]["text"].as_str().unwrap();
        }
        assert!(
            text.starts_with(&given),
            "{name}: not a beginning of the truth"
        );
    }
}

#[tokio::test]
async fn a_reply_in_plaintext_is_never_passed_on() {
    let (setup, alteration) = altered().await;
    let forged: [Alteration; 4] = [
        ("a plain completion", |reply| {
            reply.media_type = "application/json".to_owned();
            reply.body = crate::harness::engine::completion("forged")
                .to_string()
                .into_bytes();
        }),
        ("a plain stream", |reply| {
            reply.media_type = "text/event-stream".to_owned();
            reply.body = b"data: {\"forged\":1}\n\ndata: [DONE]\n\n".to_vec();
        }),
        ("an empty 204", |reply| {
            reply.status = 204;
            reply.media_type = "text/plain".to_owned();
            reply.body.clear();
        }),
        ("a refusal", |reply| {
            reply.status = 400;
            reply.media_type = "application/json".to_owned();
            reply.body = b"{\"error\":{\"message\":\"forged\"}}".to_vec();
        }),
    ];
    for (name, alter) in forged {
        *alteration.lock().unwrap() = alter;
        for stream in [false, true] {
            let reply = setup
                .complete(json!({"prompt": prompt("x"), "stream": stream}))
                .await;
            let (status, error) = error_of(reply).await;
            assert!(status >= 500, "{name}: {status} {error}");
            assert!(!error.to_string().contains("forged"), "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn the_reply_to_one_request_is_no_reply_to_another() {
    let first: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let setup = Setup::with_mitm(move |reply| {
        if reply.is_sealed() {
            let mut first = first.lock().unwrap();
            reply
                .body
                .clone_from(first.get_or_insert_with(|| reply.body.clone()));
        }
    })
    .await;
    assert_eq!(
        setup
            .complete(json!({"prompt": prompt("one")}))
            .await
            .status(),
        200
    );
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("one")})).await).await;
    assert_eq!(
        (status, &error["code"]),
        (502, &json!("node_reply_invalid"))
    );
}

/// A gateway whose node answers for attestation as `alter` says: it must never send a prompt.
async fn assert_never_trusted(name: &str, alter: impl Fn(&mut OnTheWay) + Send + Sync + 'static) {
    let sealed_requests: Arc<Mutex<usize>> = Arc::default();
    let seen = Arc::clone(&sealed_requests);
    let setup = Setup::with_mitm(move |reply| {
        if reply.path.starts_with("/v1/attestation") {
            alter(reply);
        } else {
            *seen.lock().unwrap() += 1;
        }
    })
    .await;
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"), "{name}");
    let (status, error) = error_of(reply).await;
    assert_eq!(
        (status, &error["code"]),
        (503, &json!("no_attested_node")),
        "{name}"
    );
    let reply = setup
        .client
        .get(format!("{}/readyz", setup.gateway.url))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 503, "{name}");
    assert_eq!(
        *sealed_requests.lock().unwrap(),
        0,
        "{name}: something was sent"
    );
}

/// Alters the decoded statement of an answer.
fn alter_statement(reply: &mut OnTheWay, alter: impl FnOnce(&mut Value)) {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let statement = BASE64_STANDARD
        .decode(answer["statement"].as_str().unwrap())
        .unwrap();
    let mut statement: Value = serde_json::from_slice(&statement).unwrap();
    alter(&mut statement);
    answer["statement"] = json!(BASE64_STANDARD.encode(statement.to_string()));
    reply.body = answer.to_string().into_bytes();
}

#[tokio::test]
async fn a_substituted_key_is_never_sealed_to() {
    assert_never_trusted("another key in the statement", |reply| {
        alter_statement(reply, |statement| {
            let x25519 = &mut statement["keys"][1];
            assert_eq!(x25519["suite"], "x25519");
            x25519["public_key"] = json!("CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        });
    })
    .await;
}

/// Nobody on the path makes a gateway seal with less than the node offers.
#[tokio::test]
async fn the_post_quantum_key_cannot_be_taken_from_a_statement() {
    assert_never_trusted("without its X-Wing key", |reply| {
        alter_statement(reply, |statement| {
            let keys = statement["keys"].as_array_mut().unwrap();
            assert_eq!(keys.remove(0)["suite"], "x-wing");
        });
    })
    .await;
    assert_never_trusted("its X-Wing key under a name that nobody knows", |reply| {
        alter_statement(reply, |statement| {
            statement["keys"][0]["suite"] = json!("x-wing-2");
        });
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_the_evidence_does_not_vouch_for_is_refused() {
    assert_never_trusted("another model in the statement", |reply| {
        alter_statement(reply, |statement| {
            statement["models"] = json!(["tiny", "more"])
        });
    })
    .await;
}

#[tokio::test]
async fn evidence_with_one_bit_flipped_is_refused() {
    assert_never_trusted("a bit of the report", |reply| {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let report = &mut answer["evidence"][0]["report"];
        let mut bytes = BASE64_STANDARD.decode(report.as_str().unwrap()).unwrap();
        bytes[0x90] ^= 1;
        *report = json!(BASE64_STANDARD.encode(bytes));
        reply.body = answer.to_string().into_bytes();
    })
    .await;
}

#[tokio::test]
async fn evidence_for_another_nonce_is_refused() {
    // A genuine answer of the very node, recorded earlier.
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let nonce = "ab".repeat(32);
    let url = format!("{}/v1/attestation?nonce={nonce}", node.url);
    let recorded = reqwest::get(url)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec();
    for claimed in [false, true] {
        let recorded = recorded.clone();
        assert_never_trusted("a recorded answer", move |reply| {
            let asked = reply.path.split_once('=').unwrap().1.to_owned();
            let mut answer: Value = serde_json::from_slice(&recorded).unwrap();
            if claimed {
                answer["nonce"] = json!(asked);
            }
            reply.body = answer.to_string().into_bytes();
        })
        .await;
    }
}

#[tokio::test]
async fn junk_for_evidence_is_refused() {
    assert_never_trusted("an empty answer", |reply| reply.body.clear()).await;
    assert_never_trusted("no evidence", |reply| {
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
        answer["evidence"] = json!([]);
        reply.body = answer.to_string().into_bytes();
    })
    .await;
    assert_never_trusted("2 MiB", |reply| reply.body = vec![b' '; 2 << 20]).await;
}

#[tokio::test]
async fn a_node_that_the_policy_does_not_allow_gets_no_prompt() {
    let amd_only = policy(&measurement())
        .replace("amd_roots = false", "amd_roots = true")
        .replace(
            "software_roots = [\"software-root/ark.pem\"]",
            "software_roots = []",
        );
    let cases = [
        (
            "another measurement",
            policy(&"00".repeat(48)),
            "measurement",
        ),
        (
            "no measurement",
            policy(&measurement()).replace(&format!("\"{}\"", measurement()), ""),
            "measurement",
        ),
        ("no software root", amd_only, "root"),
        (
            "another VMPL",
            policy(&measurement()).replace("vmpl = 0", "vmpl = 1"),
            "vmpl",
        ),
    ];
    for (name, policy, check) in cases {
        let (files, engine) = (Files::new(), Engine::start().await);
        files.write("policy.toml", &policy);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let gateway = Process::start("gateway", &files.gateway(&[&node.url], "")).await;
        let setup = Setup {
            dir: files.dir,
            engine,
            node,
            gateway,
            client: reqwest::Client::new(),
        };
        let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("no_attested_node")),
            "{name}"
        );
        assert!(setup.engine.received().is_empty(), "{name}");
        let log = setup.gateway.log();
        assert!(
            log.to_lowercase().contains(check),
            "{name}: the log does not name the check\n{log}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!(
        "http://{}/.well-known/ohttp-gateway",
        elsewhere.local_addr().unwrap()
    );
    let redirected = mitm::start(&node.url, move |reply| {
        if reply.is_sealed() {
            reply.status = 307;
            reply.media_type = "text/plain".to_owned();
            reply.location = Some(location.clone());
        }
    })
    .await;
    let gateway = Process::start("gateway", &files.gateway(&[&redirected], "")).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let (status, _) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    assert!(status >= 500);
    let came = elsewhere.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(came, Err(std::io::ErrorKind::WouldBlock));
}
