//! Nodes that are reached through a forward proxy.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{
    Engine, KEY, Process, Setup,
    forward::{Answer, Forward},
    process::sealgate,
    prompt,
    setup::{EventStream, Files, error_of},
    soon,
    tls::Authority,
};

/// What the proxy of the tests wants to see, and the file that holds it.
const LOGIN: &str = "sealgate:pass-7c1e word";
const WANTED: &str = "proxy-authorization: Basic c2VhbGdhdGU6cGFzcy03YzFlIHdvcmQ=";

/// Names that only the proxy knows.
const A: &str = "http://node-a.test:8090";
const B: &str = "http://node-b.test:8090";

/// A node beside its engine.
async fn node(files: &Files, name: &str, more: &str) -> (Engine, Process) {
    let engine = Engine::start().await;
    let node = Process::start("node", &files.node(name, &engine, more)).await;
    (engine, node)
}

/// A gateway's configuration with `top` before its tables.
fn config(files: &Files, urls: &[&str], top: &str, more: &str) -> PathBuf {
    let config = files.gateway(urls, more);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{top}{text}")).unwrap();
    config
}

async fn finish(files: Files, (engine, node): (Engine, Process), config: &Path) -> Setup {
    Setup {
        gateway: Process::start("gateway", config).await,
        dir: files.dir,
        engine,
        node,
        client: reqwest::Client::new(),
    }
}

fn proxy(forward: &Forward, more: &str) -> String {
    format!("[proxy]\nurl = \"{}\"\n{more}\n", forward.url)
}

/// That the gateway never wrote down the proxy's credential.
fn keeps_the_secret(gateway: &Process) {
    let log = gateway.log();
    for secret in ["pass-7c1e", "c2VhbGdhdGU6cGFzcy03YzFlIHdvcmQ"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn evidence_requests_and_streams_go_through_a_proxy_and_never_straight() {
    let authority = Authority::new();
    let identity = authority.issue();
    for (by_tls, node_tls) in [
        (false, ""),
        (false, "[tls]\n"),
        (true, ""),
        (true, "[tls]\n"),
    ] {
        let files = Files::new();
        let (engine, node) = node(&files, "node-a", node_tls).await;
        let scheme = if node_tls.is_empty() { "http" } else { "https" };
        let url = format!("{scheme}://node-a.test:8090");
        let identity = by_tls.then_some(&identity);
        let forward = Forward::start(&[(&url, &node.url)], Some(WANTED), identity).await;
        files.write("login", &format!("{LOGIN}\n"));
        files.write("proxy-ca.pem", &authority.pem);
        let ca = if by_tls {
            "ca_file = \"proxy-ca.pem\""
        } else {
            ""
        };
        let table = proxy(&forward, &format!("credential_file = \"login\"\n{ca}"));
        let config = config(&files, &[&url], "", &table);
        let setup = finish(files, (engine, node), &config).await;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
        let feed = setup.engine.stream();
        let mut events = {
            let streaming = setup.stream(json!({"prompt": prompt("y")}));
            let feeding = feed.text("word");
            tokio::join!(streaming, feeding).0
        };
        assert_eq!(events.text().await, "word");
        feed.done().await;
        ended(events).await;
        let targets = forward.targets();
        // Evidence comes over a connection of its own.
        assert!(targets.len() >= 2, "{targets:?}");
        assert!(
            targets.iter().all(|it| it == "node-a.test:8090"),
            "{targets:?}"
        );
        keeps_the_secret(&setup.gateway);
    }
}

async fn ended(events: EventStream) {
    let (_, end) = soon("the end", events.rest()).await;
    end.unwrap();
}

#[tokio::test]
async fn a_credential_that_the_proxy_does_not_take_is_replaced_while_the_gateway_serves() {
    let files = Files::new();
    let node = node(&files, "node-a", "").await;
    let forward = Forward::start(&[(A, &node.1.url)], Some(WANTED), None).await;
    let login = files.write("login", "sealgate:pass-7c1e wrong");
    let table = proxy(&forward, "credential_file = \"login\"");
    let more = format!("{table}[timeouts]\nattest_ms = 1000\n");
    let config = config(&files, &[A], "reload_s = 1\n", &more);
    let setup = finish(files, node, &config).await;
    let said = format!("the proxy {} answered 407", forward.url);
    setup.gateway.logged(&said, 1).await;
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    let seen = (status, error["code"].as_str().unwrap());
    assert_eq!(seen, (503, "no_attested_node"));
    std::fs::write(login, LOGIN).unwrap();
    setup.gateway.logged("node verified", 1).await;
    let reply = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    keeps_the_secret(&setup.gateway);
}

#[tokio::test]
async fn a_tunnel_that_is_refused_leads_to_another_node_and_else_to_503() {
    let files = Files::new();
    let (engine, one) = node(&files, "node-a", "").await;
    let (other_engine, other) = node(&files, "node-b", "").await;
    let places = [(A, &*one.url), (B, &*other.url)];
    let forward = Forward::start(&places, None, None).await;
    // A tunnel for each request: what was sent into one that is cut may have run.
    let more = format!(
        "{}[limits]\nidle_connections_per_node = 0\n",
        proxy(&forward, "")
    );
    let config = config(&files, &[A, B], "", &more);
    let setup = finish(files, (engine, one), &config).await;
    setup.gateway.logged("node verified", 2).await;
    forward.answer(A, Answer::Refuse(403));
    for i in 0..8 {
        let reply = setup
            .complete(json!({"prompt": prompt(&i.to_string())}))
            .await;
        assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    }
    assert_eq!(setup.engine.received().len(), 0);
    assert_eq!(other_engine.received().len(), 8);
    forward.answer(B, Answer::Refuse(502));
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    let seen = (status, error["code"].as_str().unwrap());
    assert_eq!(seen, (503, "no_node_available"));
    let said = |status: &str| format!("the proxy {} answered {status}", forward.url);
    for status in ["403", "502"] {
        setup.gateway.logged(&said(status), 1).await;
    }
    drop(other);
}

#[tokio::test]
async fn a_proxy_that_hangs_holds_a_request_no_longer_than_a_connection_may_take() {
    let files = Files::new();
    let node = node(&files, "node-a", "").await;
    let forward = Forward::start(&[(A, &node.1.url)], None, None).await;
    let more = "[limits]\nidle_connections_per_node = 0\n[timeouts]\nconnect_ms = 300\n";
    let more = format!("{}{more}", proxy(&forward, ""));
    let config = config(&files, &[A], "", &more);
    let setup = finish(files, node, &config).await;
    setup.gateway.logged("node verified", 1).await;
    forward.answer(A, Answer::Silence);
    let asked = soon("an answer", setup.complete(json!({"prompt": prompt("x")})));
    let (status, error) = error_of(asked.await).await;
    let seen = (status, error["code"].as_str().unwrap());
    assert_eq!(seen, (503, "no_node_available"));
    setup.gateway.logged("connect: timed out", 1).await;
    assert_eq!(setup.engine.received().len(), 0);
}

#[tokio::test]
async fn nodes_are_reached_straight_where_the_configuration_says_so() {
    let files = Files::new();
    let node = node(&files, "node-a", "").await;
    let forward = Forward::start(&[], None, None).await;
    // The last table is the one that the lines before the proxy's belong to.
    let more = format!(
        "proxy = false\n{}",
        proxy(&forward, "no_proxy = [\".inside.test\"]")
    );
    let urls = [
        &*node.1.url,
        "http://node.inside.test:1",
        A,
        "http://own.test:1",
    ];
    let config = config(&files, &urls, "", &more);
    let setup = finish(files, node, &config).await;
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    let failed = |url: &str, why: &str| {
        let log = setup.gateway.log();
        log.lines()
            .any(|line| line.contains(url) && line.contains(why))
    };
    let answered = format!("the proxy {} answered 502", forward.url);
    let expected = [
        ("http://node.inside.test:1", "connect: "),
        (A, &answered),
        ("http://own.test:1", "connect: "),
    ];
    let all_failed = async {
        while !expected.iter().all(|(url, why)| failed(url, why)) {
            tokio::task::yield_now().await;
        }
    };
    soon("what cannot be reached", all_failed).await;
    let targets = forward.targets();
    assert!(
        targets.iter().all(|it| it == "node-a.test:8090"),
        "{targets:?}"
    );
}

#[tokio::test]
async fn a_node_that_announces_itself_is_asked_for_at_the_address_that_was_checked() {
    const FAR: &str = "http://203.0.113.7:8090";
    let files = Files::new();
    let (engine, first) = node(&files, "node-a", "").await;
    let (other_engine, other) = node(&files, "node-b", "").await;
    let forward = Forward::start(&[(FAR, &other.url)], None, None).await;
    let announce = "[announce]\nallow = [\"203.0.113.0/24\"]\nallow_http = true\n\
                    allow_private = true\n";
    let more = format!("{}{announce}", proxy(&forward, ""));
    let config = config(&files, &[&first.url], "", &more);
    let setup = finish(files, (engine, first), &config).await;
    let url = format!("{}/v1/nodes", setup.gateway.url);
    let body = json!({"data": {"public_address": FAR}});
    let joined = setup.client.post(url).bearer_auth(KEY).json(&body).send();
    assert_eq!(
        joined.await.unwrap().status(),
        200,
        "{}",
        setup.gateway.log()
    );
    let asking = async {
        while other_engine.received().is_empty() {
            let reply = setup.complete(json!({"prompt": prompt("x")})).await;
            assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
        }
    };
    soon("a request to the node that joined", asking).await;
    let targets = forward.targets();
    assert!(
        targets.iter().all(|it| it == "203.0.113.7:8090"),
        "{targets:?}"
    );
    drop(other);
}

#[tokio::test]
async fn check_config_looks_at_the_proxy_and_its_files() {
    let files = Files::new();
    files.write("login", LOGIN);
    files.write("none", "nobody");
    files.write("ca.pem", &Authority::new().pem);
    files.write("empty.pem", "");
    let https = "url = \"https://proxy.test:3129\"\n";
    let cases = [
        (
            format!("{https}ca_file = \"ca.pem\"\ncredential_file = \"login\""),
            "nothing wrong",
        ),
        (
            format!("{https}no_proxy = [\"a.test\", \".b.test\", \"10.0.0.0/8\"]"),
            "nothing wrong",
        ),
        (
            format!("{https}no_proxy = [\"*.b.test\"]"),
            "a host name (node.example)",
        ),
        (format!("{https}ca_file = \"empty.pem\""), "proxy.ca_file"),
        (format!("{https}ca_file = \"missing.pem\""), "proxy.ca_file"),
        (
            format!("{https}credential_file = \"none\""),
            "proxy.credential_file",
        ),
        (
            format!("{https}credential_file = \"missing\""),
            "proxy.credential_file",
        ),
        (
            "url = \"http://proxy.test:3128\"\nca_file = \"ca.pem\"".to_owned(),
            "proxy.ca_file",
        ),
        (
            "url = \"http://proxy.test\"".to_owned(),
            "a host and a port",
        ),
        (
            "url = \"http://sealgate:pass-7c1e@proxy.test:3128\"".to_owned(),
            "holds no user and password",
        ),
        (
            "url = [\"http://sealgate:pass-7c1e@proxy.test:3128\"]".to_owned(),
            "expected a string",
        ),
    ];
    for (table, said) in cases {
        let config = config(&files, &[A], "", &format!("[proxy]\n{table}\n"));
        checked(&config, None, said).await;
    }
    // Where it does not belong, and so where the parser shows the value.
    let wrong = "http://sealgate:pass-7c1e@proxy.test:3128";
    let top = config(&files, &[A], &format!("proxy = \"{wrong}\"\n"), "");
    checked(&top, None, "expected").await;
    let of_node = config(
        &files,
        &[],
        "",
        &format!("[[node]]\nurl = \"{A}\"\nproxy = \"{wrong}\"\n"),
    );
    checked(&of_node, None, "expected").await;
    let variable = config(&files, &[A], "", "");
    checked(&variable, Some(wrong), "SEALGATE_PROXY").await;
}

/// Has a configuration checked, perhaps under a variable, and looks at what is said of it.
async fn checked(config: &Path, variable: Option<&str>, said: &str) {
    let mut command = sealgate();
    if let Some(value) = variable {
        command.env("SEALGATE_PROXY", value);
    }
    let output = command.arg("check-config").arg(config).output();
    let output = output.await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let passes = said == "nothing wrong";
    assert_eq!(output.status.success(), passes, "{said}: {text}");
    assert!(text.contains(said), "{said}: {text}");
    assert!(!text.contains("pass-7c1e"), "{said}: {text}");
}

/// Another authority's proxy learns neither the credential nor whom it should lead to.
#[tokio::test]
async fn a_proxy_that_is_another_is_asked_for_nothing() {
    let files = Files::new();
    let node = node(&files, "node-a", "").await;
    let identity = Authority::new().issue();
    let forward = Forward::start(&[(A, &node.1.url)], None, Some(&identity)).await;
    files.write("login", LOGIN);
    files.write("proxy-ca.pem", &Authority::new().pem);
    let table = proxy(
        &forward,
        "ca_file = \"proxy-ca.pem\"\ncredential_file = \"login\"",
    );
    let more = format!("{table}[timeouts]\nattest_ms = 1000\n");
    let config = config(&files, &[A], "", &more);
    let setup = finish(files, node, &config).await;
    let said = format!("the proxy {}: connect", forward.url);
    setup.gateway.logged(&said, 1).await;
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    let seen = (status, error["code"].as_str().unwrap());
    assert_eq!(seen, (503, "no_attested_node"));
    assert_eq!(forward.targets(), [""; 0], "{}", setup.gateway.log());
    keeps_the_secret(&setup.gateway);
}

/// A change that leads nowhere takes no node out that is reached as it was.
#[tokio::test]
async fn a_proxy_that_refuses_after_a_change_takes_nothing_away() {
    let files = Files::new();
    let node = node(&files, "node-a", "").await;
    let forward = Forward::start(&[(A, &node.1.url)], Some(WANTED), None).await;
    let login = files.write("login", LOGIN);
    let table = proxy(&forward, "credential_file = \"login\"");
    let more = format!("{table}[timeouts]\nattest_ms = 100\n");
    let config = config(&files, &[A], "reload_s = 1\n", &more);
    let setup = finish(files, node, &config).await;
    setup.gateway.logged("node verified", 1).await;
    std::fs::write(&login, "sealgate:pass-7c1e wrong").unwrap();
    // Seen to fail more than once: longer than an appraisal may take.
    setup.gateway.logged("answered 407", 2).await;
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    std::fs::write(&login, LOGIN).unwrap();
    setup.gateway.logged("node verified", 2).await;
    let reply = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    keeps_the_secret(&setup.gateway);
}
