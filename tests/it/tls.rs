//! TLS: before the gateway, before nodes, and with someone on the path.

use rustls::{NamedGroup, server::ParsedCertificate};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Engine, Process, Setup,
    metrics::metric,
    process::sealgate,
    prompt,
    setup::{Files, error_of},
    tls::{Authority, Identity, Middle},
};

/// `[tls]` with files of these names.
fn table(certificate: &str, key: &str) -> String {
    format!("[tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
}

fn write(files: &Files, name: &str, identity: &Identity) {
    files.write(&format!("{name}.pem"), &identity.certificate);
    files.write(&format!("{name}.key"), &identity.key);
}

/// Node, and gateway with TLS by `identity` and `more` in its table.
async fn with_tls(identity: &Identity, more: &str) -> Setup {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    write(&files, "gateway", identity);
    let tls = table("gateway.pem", "gateway.key");
    let config = files.gateway(&[&node.url], &format!("{tls}{more}"));
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("reload_s = 1\n{text}")).unwrap();
    finish(files, engine, node, &config).await
}

async fn finish(files: Files, engine: Engine, node: Process, config: &std::path::Path) -> Setup {
    let gateway = Process::start("gateway", config).await;
    Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    }
}

#[tokio::test]
async fn callers_connect_by_tls_in_either_protocol() {
    let authority = Authority::new();
    let setup = with_tls(&authority.issue(), "").await;
    let url = setup.gateway.url.clone();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    for h2 in [false, true] {
        let reply = authority.get(&format!("{url}/v1/models"), None, h2).await;
        let reply = reply.unwrap();
        assert_eq!(reply.status(), 200, "{h2}");
        let http2 = reply.version() == http::Version::HTTP_2;
        assert_eq!(http2, h2);
    }
    let address = url.trim_start_matches("https://");
    let group = authority.group_at(address).await;
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let stranger = Authority::new();
    let reply = stranger.get(&format!("{url}/health"), None, true).await;
    assert!(reply.unwrap_err().is_connect());
    let plain = url.replace("https", "http");
    assert!(reqwest::get(format!("{plain}/health")).await.is_err());
}

#[tokio::test]
async fn certificates_are_replaced_while_the_gateway_serves_and_bad_ones_are_not_taken() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(), authority.issue());
    let setup = with_tls(&first, "").await;
    let address = setup.gateway.url.trim_start_matches("https://").to_owned();
    let write = |name: &str, text: &str| std::fs::write(setup.dir.path().join(name), text);
    assert_eq!(authority.shown_at(&address).await, first.der());
    // The key of the second with the certificate of the first.
    write("gateway.key", &second.key).unwrap();
    setup.gateway.signal("HUP").await;
    setup.gateway.logged("tls not taken", 1).await;
    assert_eq!(authority.shown_at(&address).await, first.der());
    write("gateway.pem", &second.certificate).unwrap();
    setup.gateway.logged("tls in force", 1).await;
    assert_eq!(authority.shown_at(&address).await, second.der());
    write("gateway.pem", "no certificate").unwrap();
    setup.gateway.logged("tls not taken", 2).await;
    assert_eq!(authority.shown_at(&address).await, second.der());
}

#[tokio::test]
async fn callers_show_certificates_where_they_are_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (known, unknown) = (authority.issue(), stranger.issue());
    let cases = [
        ("required", Some(&known), true),
        ("required", Some(&unknown), false),
        ("required", None, false),
        ("optional", Some(&known), true),
        ("optional", Some(&unknown), false),
        ("optional", None, true),
    ];
    for auth in ["required", "optional"] {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        write(&files, "gateway", &known);
        files.write("callers.pem", &authority.pem);
        let tls = table("gateway.pem", "gateway.key");
        let clients = format!("client_ca_file = \"callers.pem\"\nclient_auth = \"{auth}\"\n");
        let config = files.gateway(&[&node.url], &format!("{tls}{clients}"));
        let setup = finish(files, engine, node, &config).await;
        for (_, identity, expected) in cases.iter().filter(|(of, ..)| *of == auth) {
            for h2 in [false, true] {
                let url = format!("{}/health", setup.gateway.url);
                let reply = authority.get(&url, *identity, h2).await;
                assert_eq!(reply.is_ok(), *expected, "{auth} {h2} {reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_vouches_for_the_key_that_its_connections_end_at() {
    let mut setup = Setup::with("[tls]\n", "").await;
    assert!(setup.node.url.starts_with("https://"));
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    // It makes another key when it starts again.
    let port = setup.node.url.rsplit_once(':').unwrap().1.to_owned();
    let config = setup.dir.path().join("node-a.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    std::fs::write(&config, text).unwrap();
    setup.node.kill().await;
    setup.node = Process::start("node", &config).await;
    let reply = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    assert_eq!(setup.engine.received().len(), 2);
}

#[tokio::test]
async fn requests_to_a_node_with_tls_share_a_connection() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let table = "[tls]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let node = Process::start("node", &files.node("node-a", &engine, table)).await;
    let config = files.gateway(&[&node.url], "");
    let setup = finish(files, engine, node, &config).await;
    // The first finds the connection that the others share.
    let first = setup.complete(json!({"prompt": prompt("first")})).await;
    assert_eq!(first.status(), 200);
    let feeds: Vec<_> = (0..16).map(|_| setup.engine.stream()).collect();
    let ask = |i: usize| setup.complete(json!({"prompt": prompt(&i.to_string()), "stream": true}));
    let asking = futures_util::future::join_all((0..16).map(ask));
    let held = async {
        setup.engine.arrived(17).await;
        let open = metric(&setup.node.admin, "sealgate_node_connections_open", &[]).await;
        // One of HTTP/1.1 may be left on which it was attested.
        assert!(open <= 2.0, "{open}");
        for feed in &feeds {
            feed.text("word").await;
            feed.done().await;
        }
    };
    let (replies, ()) = tokio::join!(asking, held);
    for reply in replies {
        assert_eq!(reply.status(), 200);
        assert!(reply.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_man_in_the_middle_with_another_certificate() {
    let authority = Authority::new();
    let (files, engine) = (Files::new(), Engine::start().await);
    write(&files, "node", &authority.issue());
    let tls = table("node.pem", "node.key");
    let node = Process::start("node", &files.node("node-a", &engine, &tls)).await;
    let address = node.url.trim_start_matches("https://").to_owned();
    // He even has a certificate of the same authority.
    let (own, far) = (authority.issue(), authority.trusted(None));
    let middle = Middle::start(address, &own, far).await;
    files.write("ca.pem", &authority.pem);
    let config = files.gateway(&[&middle.url], "ca_file = \"ca.pem\"\n");
    let setup = finish(files, engine, node, &config).await;
    assert_eq!(setup.get("/v1/models").await.status(), 200, "it attests");
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_node_available")));
    let heard = String::from_utf8(middle.heard.lock().unwrap().clone()).unwrap();
    let asked: Vec<_> = heard.lines().filter(|l| l.contains(" HTTP/1.1")).collect();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|line| line.starts_with("GET /v1/attestation?nonce=")),
        "{asked:?}"
    );
    assert_eq!(setup.engine.received().len(), 0);
}

#[tokio::test]
async fn a_node_takes_another_certificate_and_says_so_in_its_statement() {
    let authority = Authority::new();
    let (files, engine) = (Files::new(), Engine::start().await);
    let (first, second) = (authority.issue(), authority.issue());
    write(&files, "node", &first);
    let tls = table("node.pem", "node.key");
    let node = Process::start("node", &files.node("node-a", &engine, &tls)).await;
    let address = node.url.trim_start_matches("https://").to_owned();
    for (identity, taken) in [(&first, 0), (&second, 1)] {
        write(&files, "node", identity);
        if taken > 0 {
            node.signal("HUP").await;
            node.logged("tls in force", taken).await;
        }
        assert_eq!(authority.shown_at(&address).await, identity.der());
        let group = authority.group_at(&address).await;
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let url = format!("{}/v1/attestation?nonce={}", node.url, "00".repeat(32));
        let answer = authority.get(&url, None, false).await.unwrap();
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        let statement = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            answer["statement"].as_str().unwrap(),
        );
        let statement: Value = serde_json::from_slice(&statement.unwrap()).unwrap();
        let der = identity.der();
        let spki = ParsedCertificate::try_from(&der).unwrap();
        let spki = Sha256::digest(spki.subject_public_key_info().as_ref());
        assert_eq!(statement["tls_spki_sha256"], hex::encode(spki));
    }
}

#[tokio::test]
async fn a_node_that_asks_for_certificates_is_reached_with_one_alone() {
    let authority = Authority::new();
    let (files, engine) = (Files::new(), Engine::start().await);
    files.write("gateways.pem", &authority.pem);
    let tls = "[tls]\nclient_ca_file = \"gateways.pem\"\n";
    let node = Process::start("node", &files.node("node-a", &engine, tls)).await;
    write(&files, "own", &authority.issue());
    write(&files, "other", &Authority::new().issue());
    let shown = |name: &str| {
        format!("client_certificate_file = \"{name}.pem\"\nclient_key_file = \"{name}.key\"\n")
    };
    let fast = "[timeouts]\nattest_ms = 1000\n";
    let mut setup = {
        let config = files.gateway(&[&node.url], &format!("{}{fast}", shown("own")));
        finish(files, engine, node, &config).await
    };
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    for more in [String::new(), shown("other")] {
        let files = Files { dir: setup.dir };
        let config = files.gateway(&[&setup.node.url], &format!("{more}{fast}"));
        setup = finish(files, setup.engine, setup.node, &config).await;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        let (status, error) = error_of(reply).await;
        let seen = (status, error["code"].as_str().unwrap());
        assert_eq!(seen, (503, "no_attested_node"), "{more}");
    }
    assert_eq!(setup.engine.received().len(), 1);
}

#[tokio::test]
async fn check_config_looks_at_certificates_and_keys() {
    let authority = Authority::new();
    let files = Files::new();
    write(&files, "own", &authority.issue());
    write(&files, "other", &authority.issue());
    let past = authority.issue_with(|params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    write(&files, "past", &past);
    files.write("empty.pem", "");
    let cases = [
        (table("own.pem", "own.key"), true, "nothing wrong"),
        (table("past.pem", "past.key"), true, "has ended"),
        (table("own.pem", "other.key"), false, "tls.key_file"),
        (table("own.pem", "own.pem"), false, "tls.key_file"),
        (table("empty.pem", "own.key"), false, "tls.certificate_file"),
        (table("own.pem", "none.key"), false, "tls.key_file"),
        (
            table("own.pem", "own.key") + "client_ca_file = \"empty.pem\"\n",
            false,
            "tls.client_ca_file",
        ),
        (
            table("own.pem", "own.key") + "client_auth = \"required\"\n",
            false,
            "tls.client_ca_file",
        ),
        (
            "client_key_file = \"own.key\"\n".to_owned(),
            false,
            "node.client_certificate_file",
        ),
    ];
    for (more, right, said) in cases {
        let config = files.gateway(&["https://127.0.0.1:1"], &more);
        let output = sealgate().arg("check-config").arg(config).output();
        let output = output.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.success(), right, "{more}: {text}");
        assert!(text.contains(said), "{more}: {text}");
    }
}
