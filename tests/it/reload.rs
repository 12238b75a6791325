//! A gateway's configuration and keys, replaced while it serves: all of it or nothing.

use std::{fs, path::PathBuf};

use reqwest::Response;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::harness::{
    CANARY, Engine, KEY, Process, Setup,
    metrics::metric,
    process::sealgate,
    prompt,
    setup::{EventStream, Files, error_of},
    soon,
};

const OTHER: &str = "sk-test-another-key-0123456789abcdef";

fn key(name: &str, key: &str) -> String {
    let digest = hex::encode(Sha256::digest(key));
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n")
}

/// A gateway whose files a test changes.
struct Changing {
    setup: Setup,
    config: PathBuf,
    /// How often what was read was taken, and refused.
    taken: usize,
    refused: usize,
}

impl Changing {
    async fn new(more: &str) -> Self {
        let setup = Setup::with("", more).await;
        let config = setup.dir.path().join("gateway.toml");
        Self {
            setup,
            config,
            taken: 0,
            refused: 0,
        }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    fn keys(&self, text: &str) {
        fs::write(self.setup.dir.path().join("keys.toml"), text).unwrap();
    }

    async fn taken(&mut self) {
        self.taken += 1;
        self.setup.gateway.signal("HUP").await;
        let said = "reloaded kind=\"config\" outcome=\"taken\"";
        self.setup.gateway.logged(said, self.taken).await;
    }

    async fn refused(&mut self) {
        self.refused += 1;
        self.setup.gateway.signal("HUP").await;
        let said = "reloaded kind=\"config\" outcome=\"refused\"";
        self.setup.gateway.logged(said, self.refused).await;
    }

    async fn ask_as(&self, key: &str) -> Response {
        let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
        let request = self
            .setup
            .client
            .post(format!("{}/v1/completions", self.setup.gateway.url));
        let request = request.header("content-type", "application/json");
        soon("a reply", request.bearer_auth(key).body(body).send())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_key_that_is_struck_off_is_refused_at_once_and_others_keep_their_count() {
    let mut gateway = Changing::new("[limits]\nin_flight_per_key = 1\n").await;
    let both = [key("tests", KEY), key("other", OTHER)].concat();
    gateway.keys(&both);
    gateway.taken().await;
    assert_eq!(gateway.ask_as(OTHER).await.status(), 200);
    let feed = gateway.setup.engine.stream();
    let stream = gateway.setup.stream(json!({"prompt": prompt("x")}));
    let (mut stream, ()): (EventStream, ()) = tokio::join!(stream, feed.text("a"));
    assert_eq!(stream.text().await, "a");
    gateway.keys(&key("tests", KEY));
    gateway.taken().await;
    let (status, error) = error_of(gateway.ask_as(OTHER).await).await;
    assert_eq!((status, &error["code"]), (401, &json!("invalid_api_key")));
    // Its place is taken by the stream that began under the file of before.
    let (status, error) = error_of(gateway.ask_as(KEY).await).await;
    assert_eq!((status, &error["code"]), (429, &json!("overloaded")));
    gateway.keys(&key("other", OTHER));
    gateway.taken().await;
    assert_eq!(gateway.ask_as(KEY).await.status(), 401);
    feed.done().await;
    drop(feed);
    let (events, end) = stream.rest().await;
    end.unwrap();
    assert_eq!(events.last().unwrap(), "[DONE]", "what was begun ends well");
    gateway.keys(&both);
    gateway.taken().await;
    for key in [KEY, OTHER] {
        assert_eq!(gateway.ask_as(key).await.status(), 200);
    }
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing_until_it_can() {
    let mut gateway = Changing::new("").await;
    let (good, keys) = (gateway.text(), key("other", OTHER));
    let url = gateway.setup.node.url.clone();
    let cases = [
        ("no TOML", format!("{good}\n[limits"), keys.clone(), "line"),
        (
            "an unknown key",
            format!("{good}\nlimit = 1\n"),
            keys.clone(),
            "limit",
        ),
        (
            "a key out of bounds",
            format!("{good}\n[limits]\nbody_bytes = 99999999\n"),
            keys.clone(),
            "limits.body_bytes",
        ),
        (
            "a node's file that is not there",
            good.replace(&url, &format!("{url}\"\nca_file = \"none.pem")),
            keys.clone(),
            "node.ca_file",
        ),
        (
            "who may ask",
            good.replace("auth = \"keys\"", "auth = \"open\""),
            keys.clone(),
            "auth",
        ),
        (
            "bad keys",
            good.clone(),
            format!("{keys}sha256 = 1\n"),
            "keys.toml",
        ),
        ("a key twice", good.clone(), keys.repeat(2), "keys_file"),
    ];
    for (name, config, keys, said) in cases {
        fs::write(&gateway.config, config).unwrap();
        gateway.keys(&keys);
        gateway.refused().await;
        let log = gateway.setup.gateway.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("configuration not taken"));
        assert!(line.unwrap().contains(said), "{name}: {line:?}");
        assert_eq!(gateway.ask_as(KEY).await.status(), 200, "{name}");
        assert_eq!(gateway.ask_as(OTHER).await.status(), 401, "{name}");
        if name != "who may ask" {
            let output = sealgate().arg("check-config").arg(&gateway.config).output();
            let output = output.await.unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        }
    }
    fs::write(&gateway.config, good).unwrap();
    gateway.keys(&keys);
    gateway.taken().await;
    assert_eq!(gateway.ask_as(KEY).await.status(), 401);
    assert_eq!(gateway.ask_as(OTHER).await.status(), 200);
}

#[tokio::test]
async fn a_change_is_noticed_without_a_signal() {
    let gateway = Changing::new("").await;
    let text = gateway.text();
    let fast = format!("reload_s = 1\n{text}");
    fs::write(&gateway.config, &fast).unwrap();
    let second = Process::start("gateway", &gateway.config).await;
    gateway.keys(&key("other", OTHER));
    second.logged("kind=\"config\" outcome=\"taken\"", 1).await;
    let models = format!("{}/v1/models", second.url);
    for (key, status) in [(KEY, 401), (OTHER, 200)] {
        let asked = gateway.setup.client.get(&models).bearer_auth(key).send();
        assert_eq!(asked.await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn names_limits_and_pages_change_and_what_needs_a_restart_is_named() {
    let mut gateway = Changing::new("").await;
    let more = "[models]\n\"ours\" = \"tiny\"\n[limits]\nbody_bytes = 64\nconnections = 7\n\
                [timeouts]\nhead_ms = 1234\n[cors]\norigins = [\"https://chat.example\"]\n";
    let text = gateway.text();
    fs::write(&gateway.config, format!("{text}{more}")).unwrap();
    gateway.taken().await;
    let log = gateway.setup.gateway.log();
    let named = "keys=\"limits.connections, timeouts.head_ms\"";
    assert!(log.contains(named), "{log}");
    let ours = async {
        loop {
            let body = r#"{"model":"ours","prompt":"x"}"#;
            let request = gateway
                .setup
                .post(body)
                .header("origin", "https://chat.example");
            let reply = request.send().await.unwrap();
            if reply.status() == 200 {
                return reply;
            }
        }
    };
    let reply = soon("the other name is served", ours).await;
    let allowed = &reply.headers()["access-control-allow-origin"];
    assert_eq!(allowed, "https://chat.example");
    let long = json!({"prompt": format!("{CANARY}{}", "x".repeat(64))});
    assert_eq!(gateway.setup.complete(long).await.status(), 413);
}

#[tokio::test]
async fn nodes_come_and_go_and_what_they_were_asked_ends_well() {
    let mut gateway = Changing::new("").await;
    let files = Files {
        dir: gateway.setup.dir,
    };
    let engine = Engine::start().await;
    let second = Process::start("node", &files.node("node-b", &engine, "")).await;
    gateway.setup.dir = files.dir;
    let feed = gateway.setup.engine.stream();
    let stream = gateway.setup.stream(json!({"prompt": prompt("x")}));
    let (mut stream, ()) = tokio::join!(stream, feed.text("a"));
    assert_eq!(stream.text().await, "a");
    let text = gateway.text().replace(&gateway.setup.node.url, &second.url);
    fs::write(&gateway.config, text).unwrap();
    gateway.taken().await;
    let by_second = async {
        loop {
            let reply = gateway.setup.complete(json!({"prompt": prompt("y")})).await;
            let node = reply.headers().get("sealgate-node");
            if node.is_some_and(|node| node == "node-b") {
                return;
            }
        }
    };
    soon("the new node is asked", by_second).await;
    let listed = gateway.setup.get("/v1/nodes").await.text().await.unwrap();
    assert!(!listed.contains("node-a"), "{listed}");
    feed.text("b").await;
    assert_eq!(stream.text().await, "b");
    feed.done().await;
    drop(feed);
    stream.rest().await.1.unwrap();
    let reply = gateway.setup.complete(json!({"prompt": prompt("z")})).await;
    assert_eq!(reply.headers()["sealgate-node"], "node-b");
}

#[tokio::test]
async fn a_node_whose_file_changes_is_attested_anew_and_never_missing() {
    let mut gateway = Changing::new("").await;
    let token = gateway.setup.dir.path().join("node.token");
    fs::write(&token, "one\n").unwrap();
    let url = &gateway.setup.node.url;
    let with_token = format!("url = \"{url}\"\ncredential_file = \"node.token\"");
    let text = gateway
        .text()
        .replace(&format!("url = \"{url}\""), &with_token);
    fs::write(&gateway.config, text).unwrap();
    for text in ["one\n", "two\n"] {
        fs::write(&token, text).unwrap();
        gateway.taken().await;
        for _ in 0..16 {
            let reply = gateway.setup.complete(json!({"prompt": prompt("x")})).await;
            assert_eq!(reply.status(), 200);
        }
    }
    gateway.taken().await;
    let log = gateway.setup.gateway.log();
    let changes = |added, removed| {
        log.matches(&format!("nodes=1 added={added} removed={removed}"))
            .count()
    };
    assert_eq!((changes(1, 1), changes(0, 0)), (2, 1), "{log}");
}

#[tokio::test]
async fn how_nodes_that_stay_are_asked_and_watched_changes_and_metrics_say_what_is_in_force() {
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut gateway = Changing::new(admin).await;
    let page = gateway.setup.gateway.admin.clone();
    let limit = async |name: &str| metric(&page, &format!("sealgate_gateway_{name}"), &[]).await;
    assert_eq!(limit("requests_in_flight_limit").await, 8192.0);
    let text = gateway.text();
    let more = "[selection]\nwarm_up_s = 0\n[health]\nfailures_in_row = 1\n\
                [limits]\nin_flight = 9\nin_flight_per_node = 1\nbodies_bytes = 1048576\n";
    fs::write(&gateway.config, format!("{text}{more}")).unwrap();
    gateway.taken().await;
    let log = gateway.setup.gateway.log();
    assert!(!log.contains("in force after a restart alone"), "{log}");
    assert!(log.contains("nodes=1 added=0 removed=0"), "{log}");
    assert_eq!(limit("requests_in_flight_limit").await, 9.0);
    assert_eq!(limit("bodies_held_limit_bytes").await, 1_048_576.0);
    let feed = gateway.setup.engine.stream();
    let stream = gateway.setup.stream(json!({"prompt": prompt("x")}));
    let (mut stream, ()) = tokio::join!(stream, feed.text("a"));
    assert_eq!(stream.text().await, "a");
    let (status, error) =
        error_of(gateway.setup.complete(json!({"prompt": prompt("y")})).await).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_node_available")));
    fs::write(&gateway.config, text).unwrap();
    gateway.taken().await;
    let reply = gateway.setup.complete(json!({"prompt": prompt("z")})).await;
    assert_eq!(reply.status(), 200);
    feed.done().await;
    drop(feed);
    stream.rest().await.1.unwrap();
}

#[tokio::test]
async fn a_refused_configuration_is_tried_again_until_its_files_are_there() {
    let setup = Setup::with("", "").await;
    let text = fs::read_to_string(setup.dir.path().join("gateway.toml")).unwrap();
    let text = format!("reload_s = 1\n{text}");
    // Not the file, nor the log, of the gateway that runs there.
    let config = setup.dir.path().join("second.toml");
    fs::write(&config, &text).unwrap();
    let gateway = Process::start("gateway", &config).await;
    let keys = setup.dir.path().join("later.toml");
    fs::write(&config, text.replace("keys.toml", "later.toml")).unwrap();
    gateway
        .logged("kind=\"config\" outcome=\"refused\"", 1)
        .await;
    // Half of it: another reason, which is said as well.
    fs::write(&keys, "[[key]]\nname = \"other").unwrap();
    gateway
        .logged("kind=\"config\" outcome=\"refused\"", 2)
        .await;
    fs::write(&keys, key("other", OTHER)).unwrap();
    gateway.logged("kind=\"config\" outcome=\"taken\"", 1).await;
    let models = format!("{}/v1/models", gateway.url);
    for (key, status) in [(KEY, 401), (OTHER, 200)] {
        let asked = setup.client.get(&models).bearer_auth(key).send();
        assert_eq!(asked.await.unwrap().status(), status);
    }
    let log = gateway.log();
    assert_eq!(log.matches("configuration not taken").count(), 2, "{log}");
}
