//! What holds for a plain request holds for one that is sealed to the gateway: what its key may do,
//! what it may cost, and what it agreed to.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    attested_gateway::{OHTTP, OWN, bearer, post, sealed, send, statement, with_key},
    harness::{
        Engine, KEY, Process, Reply, Setup,
        metrics::until_metric,
        prompt,
        setup::{Files, error_of},
        soon,
    },
    node::{Inner, Opened},
    slow::begun,
};

const NARROW: &str = "sk-test-narrow-0123456789abcdef";
const CAREFUL: &str = "sk-test-careful-0123456789abcdef";
const MEDIA_TYPE: &str = "message/ohttp-chunked-req";

fn key(name: &str, key: &str, more: &str) -> String {
    let digest = hex::encode(Sha256::digest(key));
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{more}")
}

fn bearer_of(key: &str) -> &'static str {
    Box::leak(format!("Bearer {key}").into_boxed_str())
}

fn asked() -> Value {
    json!({"model": "tiny", "prompt": prompt("x")})
}

fn problem(opened: &Opened) -> (u16, String) {
    let kind = opened.json()["type"].as_str().unwrap().to_owned();
    let kind = kind.rsplit(':').next().unwrap().to_owned();
    (opened.status, kind)
}

/// Two nodes of other regions, neither with X-Wing, and keys that may do less.
async fn restricted() -> (Setup, Process, Engine) {
    let (files, engine, other) = (Files::new(), Engine::start().await, Engine::start().await);
    let classical = "[keys]\nsuites = [\"x25519\"]\n";
    let node = Process::start("node", &files.node("node-a", &engine, classical)).await;
    let second = Process::start("node", &files.node("node-b", &other, classical)).await;
    let keys = [
        key("tests", KEY, ""),
        key("narrow", NARROW, "models = [\"other\"]\n"),
        key("careful", CAREFUL, "require_pq = true\n"),
    ];
    files.write("keys.toml", &keys.concat());
    let labels = "region = \"us\"\ntags = [\"large\"]\n";
    let config = files.gateway(&[&node.url, &second.url], &format!("{labels}{OWN}"));
    let text = std::fs::read_to_string(&config).unwrap();
    let first = format!("url = \"{}\"\n", node.url);
    let text = text.replace(&first, &format!("{first}region = \"eu\"\n"));
    std::fs::write(&config, text).unwrap();
    let gateway = Process::start("gateway", &config).await;
    let setup = Setup {
        gateway,
        dir: files.dir,
        engine,
        node,
        client: reqwest::Client::new(),
    };
    (setup, second, other)
}

#[tokio::test]
async fn what_a_key_and_its_request_are_held_to_is_the_same_under_the_seal() {
    let (setup, _second, other) = restricted().await;
    let (digest, _) = statement(&setup.gateway.url).await;
    type Fields = &'static [(&'static str, &'static str)];
    let cases: [(&str, Fields, u16, &str); 4] = [
        (NARROW, &[], 403, "model_not_allowed"),
        (CAREFUL, &[], 503, "no_attested_node"),
        (
            KEY,
            &[("sealgate-region", "nowhere")],
            400,
            "invalid_request",
        ),
        (KEY, &[("sealgate-tags", "small")], 400, "invalid_request"),
    ];
    for (key, fields, status, code) in cases {
        let mut plain = setup.post(asked().to_string());
        if key != KEY {
            let url = format!("{}/v1/completions", setup.gateway.url);
            let request = setup.client.post(url).bearer_auth(key);
            let request = request.header("content-type", "application/json");
            plain = request.body(asked().to_string());
        }
        for (name, value) in fields {
            plain = plain.header(*name, *value);
        }
        let (plain_status, plain) = error_of(plain.send().await.unwrap()).await;
        assert_eq!((plain_status, &plain["code"]), (status, &json!(code)));
        let mut inner = with_key(Inner::new(&digest, &asked()), bearer_of(key));
        inner.more.extend(fields);
        let opened = post(&setup, &inner).await;
        assert_eq!((opened.status, &opened.json()["error"]), (status, &plain));
    }
    assert!(setup.engine.received().is_empty() && other.received().is_empty());
    for (field, engine) in [
        (("sealgate-region", "eu"), &setup.engine),
        (("sealgate-region", "us"), &other),
        (("sealgate-tags", "large"), &other),
    ] {
        let before = engine.received().len();
        for _ in 0..4 {
            let mut inner = with_key(Inner::new(&digest, &asked()), bearer());
            inner.more.push(field);
            assert_eq!(post(&setup, &inner).await.status, 200, "{field:?}");
        }
        assert_eq!(engine.received().len(), before + 4, "{field:?}");
    }
}

#[tokio::test]
async fn the_key_under_the_seal_counts_and_none_outside() {
    let setup = Setup::with("", OWN).await;
    let (digest, _) = statement(&setup.gateway.url).await;
    for (inside, outside, status) in [
        (None, bearer(), 401),
        (Some("Bearer sk-other"), bearer(), 401),
        (Some(bearer()), "Bearer sk-other", 200),
    ] {
        let mut inner = Inner::new(&digest, &asked());
        inner.more.extend(inside.map(|key| ("authorization", key)));
        let (request, open) = sealed(&setup, &inner).await;
        let reply = setup
            .client
            .post(format!("{}{OHTTP}", setup.gateway.url))
            .header("content-type", MEDIA_TYPE)
            .header("authorization", outside)
            .body(request);
        let reply = reply.send().await.unwrap();
        assert_eq!(reply.status(), 200, "outside all are alike");
        let opened = open(&reply.bytes().await.unwrap()).await;
        assert_eq!(opened.status, status, "{inside:?}");
        if status == 401 {
            assert_eq!(problem(&opened), (401, "credential".to_owned()));
        }
    }
    assert_eq!(setup.engine.received().len(), 1);
}

#[tokio::test]
async fn a_whole_reply_whose_node_dies_is_an_error_under_the_seal() {
    let mut setup = Setup::with("", OWN).await;
    let (digest, _) = statement(&setup.gateway.url).await;
    setup.engine.reply(Reply::Hang);
    let inner = with_key(Inner::new(&digest, &asked()), bearer());
    let (request, open) = sealed(&setup, &inner).await;
    let asking = setup
        .client
        .post(format!("{}{OHTTP}", setup.gateway.url))
        .header("content-type", MEDIA_TYPE)
        .body(request)
        .send();
    let dying = async {
        setup.engine.arrived(1).await;
        setup.node.kill().await;
    };
    let (reply, ()) = tokio::join!(soon("a reply", asking), dying);
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 200);
    let opened = open(&reply.bytes().await.unwrap()).await;
    let error = &opened.json()["error"];
    assert_eq!(
        (opened.status, &error["code"]),
        (502, &json!("upstream_truncated"))
    );
}

#[tokio::test]
async fn what_is_refused_outside_the_seal_holds_no_place() {
    // A quarter of all places is for those who are not known yet, a quarter of it for one address.
    for (in_flight, places) in [(4, 1), (32, 2)] {
        let more = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n\
             [limits]\nbody_bytes = 1024\nin_flight = {in_flight}\n{OWN}"
        );
        let setup = Setup::with("", &more).await;
        let (digest, _) = statement(&setup.gateway.url).await;
        let good = async || {
            let inner = with_key(Inner::new(&digest, &asked()), bearer());
            sealed(&setup, &inner).await
        };
        let outside = async |body: Vec<u8>| {
            let url = format!("{}{OHTTP}", setup.gateway.url);
            let request = setup.client.post(url).header("content-type", MEDIA_TYPE);
            let reply = soon("a reply", request.body(body).send()).await.unwrap();
            let kind = reply.headers()["content-type"].to_str().unwrap().to_owned();
            (reply.status().as_u16(), kind)
        };
        let refused = |status| (status, "application/problem+json".to_owned());
        let long = json!({"model": "tiny", "prompt": prompt(&"x".repeat(1024))});
        let long = with_key(Inner::new(&digest, &long), bearer());
        for _ in 0..=places {
            let (long, _) = sealed(&setup, &long).await;
            assert_eq!(outside(long).await, refused(413), "once opened");
            assert_eq!(outside(vec![0; 300_000]).await, refused(413), "by its head");
        }
        let mut slow = Vec::new();
        for held in 1..=places {
            slow.push(begun(&setup.gateway.url, OHTTP, MEDIA_TYPE, 4096).await);
            let name = "sealgate_gateway_bodies_held_bytes";
            let held = f64::from(held) * 1024.0;
            until_metric(&setup.gateway.admin, name, &[], held).await;
        }
        assert_eq!(outside(good().await.0).await, refused(429));
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "who is known has his own places");
        drop(slow);
        let free = async { while outside(good().await.0).await == refused(429) {} };
        soon("places are free again", free).await;
        let (request, open) = good().await;
        assert_eq!(open(&send(&setup, request).await).await.status, 200);
    }
}

#[tokio::test]
async fn another_configuration_is_agreed_to_anew() {
    let setup = Setup::with("", OWN).await;
    let (before, said) = statement(&setup.gateway.url).await;
    let inner = |digest: &str| with_key(Inner::new(digest, &asked()), bearer());
    let (request, open) = sealed(&setup, &inner(&before)).await;
    let file = setup.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[models]\nours = \"tiny\"\n")).unwrap();
    setup.gateway.signal("HUP").await;
    let taken = "reloaded kind=\"config\" outcome=\"taken\"";
    setup.gateway.logged(taken, 1).await;
    let opened = open(&send(&setup, request).await).await;
    assert_eq!(problem(&opened), (409, "statement".to_owned()));
    assert!(setup.engine.received().is_empty());
    let (after, now) = statement(&setup.gateway.url).await;
    assert_ne!(now["config_sha256"], said["config_sha256"]);
    assert_eq!(post(&setup, &inner(&after)).await.status, 200);
}

#[tokio::test]
async fn who_takes_one_id_twice_is_counted_twice() {
    let setup = Setup::with("", OWN).await;
    let config = setup.dir.path().join("gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("keys_file = \"keys.toml\"\n", "");
    let stored = setup.dir.path().join("stored.toml");
    std::fs::write(&stored, format!("{text}[store]\n")).unwrap();
    let mut setup = setup;
    setup.gateway = Process::start("gateway", &stored).await;
    let key = crate::store::created(&stored, "team").await;
    let (digest, _) = statement(&setup.gateway.url).await;
    // All of them have one id.
    for _ in 0..2 {
        let inner = with_key(Inner::new(&digest, &asked()), bearer_of(&key));
        assert_eq!(post(&setup, &inner).await.status, 200);
    }
    crate::store::until_counted(&stored, 2).await;
}

#[tokio::test]
async fn one_key_or_one_address_cannot_fill_the_replay_table() {
    let own = format!("{OWN}replay_entries = 8\n");
    let setup = Setup::with("", &own).await;
    let both = [key("tests", KEY, ""), key("other", NARROW, "")].concat();
    std::fs::write(setup.dir.path().join("keys.toml"), both).unwrap();
    setup.gateway.signal("HUP").await;
    let taken = "reloaded kind=\"config\" outcome=\"taken\"";
    setup.gateway.logged(taken, 1).await;
    let (digest, _) = statement(&setup.gateway.url).await;
    let ask = async |key: &str, caller| {
        let mut inner = with_key(Inner::new(&digest, &asked()), bearer_of(key));
        // Whatever he calls himself, his key is who he is.
        inner.more.push(("sealgate-caller", caller));
        post(&setup, &inner).await
    };
    let names = [
        "0123456789abcdef0123456789abcdef",
        "123456789abcdef0123456789abcdef0",
        "23456789abcdef0123456789abcdef01",
    ];
    for name in &names[..2] {
        assert_eq!(ask(KEY, name).await.status, 200);
    }
    let full = ask(KEY, names[2]).await;
    assert_eq!(problem(&full), (503, "overloaded".to_owned()));
    assert_eq!(ask(NARROW, names[0]).await.status, 200);
    assert_eq!(setup.engine.received().len(), 3);

    let text = std::fs::read_to_string(setup.dir.path().join("gateway.toml")).unwrap();
    let keys = "auth = \"keys\"\nkeys_file = \"keys.toml\"\n";
    let config = setup.dir.path().join("open.toml");
    std::fs::write(&config, text.replace(keys, "auth = \"open\"\n")).unwrap();
    let mut open = setup;
    open.gateway = Process::start("gateway", &config).await;
    let (digest, _) = statement(&open.gateway.url).await;
    for (address, status) in [(1, 200), (1, 200), (1, 503), (2, 200)] {
        let from = std::net::IpAddr::from([127, 0, 0, address]);
        let client = reqwest::Client::builder().local_address(from);
        open.client = client.build().unwrap();
        let opened = post(&open, &Inner::new(&digest, &asked())).await;
        assert_eq!(opened.status, status, "{address}");
    }
}
