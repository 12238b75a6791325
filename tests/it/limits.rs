//! What keys are held to: requests and tokens in a minute, requests at once, budgets; and what they cost.

use std::path::PathBuf;

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    harness::{
        Engine, Process,
        engine::{Reply, completion},
        setup::{EventStream, Files, error_of},
        soon,
    },
    store::{command, shown},
};

/// Tokens that a completion of the engine has.
const USED: u64 = 5;

/// A gateway with a store, and a node.
struct Limited {
    gateway: Process,
    config: PathBuf,
    text: String,
    engine: Engine,
    client: reqwest::Client,
    _node: Process,
    files: Files,
}

impl Limited {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(store: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        files.write("secret", &"s".repeat(48));
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let text = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[store]\npoll_ms = 50\n{store}\n\
             [[node]]\nurl = \"{}\"\n",
            node.url
        );
        let config = files.write("gateway.toml", &text);
        Self {
            gateway: Process::start("gateway", &config).await,
            config,
            text,
            engine,
            client: reqwest::Client::new(),
            _node: node,
            files,
        }
    }

    async fn key(&self, name: &str, limits: &[&str]) -> String {
        let rest = [&["--name", name, "--json"], limits].concat();
        shown(&command(&self.config, &["keys", "create"], &rest).await)
    }

    async fn ask(&self, key: &str, body: &Value) -> Response {
        self.ask_at(&self.gateway.url, key, body).await
    }

    async fn ask_at(&self, gateway: &str, key: &str, body: &Value) -> Response {
        let request = self.client.post(format!("{gateway}/v1/completions"));
        request.bearer_auth(key).json(body).send().await.unwrap()
    }

    /// Asks until it is let in; it is refused with this code until then.
    async fn until_let_in(&self, key: &str, body: &Value, code: &str) -> Response {
        let asking = async {
            loop {
                let response = self.ask(key, body).await;
                if response.status().is_success() {
                    return response;
                }
                assert_eq!(error_of(response).await.1["code"], code);
            }
        };
        soon("the request is let in", asking).await
    }

    async fn refused(&self, key: &str, body: &Value) -> (u16, String) {
        let (status, error) = error_of(self.ask(key, body).await).await;
        (status, error["code"].as_str().unwrap().to_owned())
    }

    async fn usage(&self, key: &str) -> Value {
        let rest = ["--by", "key", "--key", key, "--json"];
        let usage = command(&self.config, &["usage"], &rest).await;
        let usage: Value = serde_json::from_str(&usage).unwrap();
        usage["usage"][0].clone()
    }
}

fn body(max_tokens: u64) -> Value {
    json!({"model": "tiny", "prompt": "say", "max_tokens": max_tokens})
}

/// Tokens that a body is taken for before it is asked.
fn prompt_of(body: &Value) -> u64 {
    let bytes = serde_json::to_vec(body).unwrap().len();
    u64::try_from(bytes.div_ceil(4)).unwrap()
}

#[tokio::test]
async fn a_key_is_told_when_it_may_ask_again() {
    let limited = Limited::start().await;
    let key = limited.key("team", &["--requests-per-minute", "2"]).await;
    let other = limited.key("other", &[]).await;
    for left in ["1", "0"] {
        limited.engine.reply(Reply::Json(200, completion("a")));
        let reply = limited.ask(&key, &body(9)).await;
        assert_eq!(reply.status(), 200);
        let said = |what: &str| reply.headers()[format!("x-ratelimit-{what}-requests")].clone();
        assert_eq!(
            (said("limit"), said("remaining")),
            (2.into(), left.parse().unwrap())
        );
        assert!(said("reset").to_str().unwrap().ends_with('s'));
        assert!(!reply.headers().contains_key("x-ratelimit-limit-tokens"));
    }
    let refused = limited.ask(&key, &body(9)).await;
    assert_eq!(refused.headers()["x-ratelimit-remaining-requests"], "0");
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    assert!((1..=120).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    let (status, error) = error_of(refused).await;
    assert_eq!((status, &error["code"]), (429, &json!("rate_limited")));
    limited.engine.reply(Reply::Json(200, completion("a")));
    assert_eq!(limited.ask(&other, &body(9)).await.status(), 200);
    assert_eq!(limited.engine.received().len(), 3, "nobody else was asked");
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once() {
    let limited = Limited::start().await;
    let key = limited.key("team", &["--in-flight", "1"]).await;
    let feed = limited.engine.stream();
    feed.text("x").await;
    let mut stream = body(9);
    stream["stream"] = json!(true);
    let mut events = EventStream::new(limited.ask(&key, &stream).await);
    assert_eq!(events.text().await, "x");
    let refused = limited.refused(&key, &body(9)).await;
    assert_eq!(refused, (429, "rate_limited".to_owned()));
    drop(events);
    feed.abandoned().await;
    limited.engine.reply(Reply::Json(200, completion("a")));
    limited.until_let_in(&key, &body(9), "rate_limited").await;
}

#[tokio::test]
async fn a_budget_holds_what_a_request_may_use_and_then_what_it_did() {
    let mut limited = Limited::start().await;
    let body = body(60);
    let most = prompt_of(&body) + 60;
    let budget = format!("ever={}", most + USED);
    let key = limited.key("team", &["--budget-tokens", &budget]).await;
    for _ in 0..2 {
        limited.engine.reply(Reply::Json(200, completion("a")));
        // Only once the first is settled is there room for the second.
        let reply = limited.until_let_in(&key, &body, "budget_exceeded").await;
        reply.bytes().await.unwrap();
    }
    let used_up = (402, "budget_exceeded".to_owned());
    assert_eq!(limited.refused(&key, &body).await, used_up);

    // Another process knows it from the store.
    limited.gateway.terminate().await;
    limited.gateway.ended().await;
    limited.gateway = Process::start("gateway", &limited.config).await;
    assert_eq!(limited.refused(&key, &body).await, used_up);
    assert_eq!(limited.engine.received().len(), 2);
    let usage = limited.usage("team").await;
    assert_eq!(
        (&usage["requests"], &usage["prompt_tokens"]),
        (&json!(2), &json!(6))
    );
}

#[tokio::test]
async fn who_leaves_gives_back_what_he_held_and_is_charged_what_was_seen() {
    let limited = Limited::start().await;
    let mut stream = body(60);
    stream["stream"] = json!(true);
    let prompt = prompt_of(&stream);
    let body = body(60);
    let most = prompt_of(&body) + 60;
    // Room for one of them; and after the stream for two, if its event was free.
    let budget = format!("ever={}", prompt + most + USED);
    let key = limited.key("team", &["--budget-tokens", &budget]).await;
    let feed = limited.engine.stream();
    feed.text("x").await;
    let mut events = EventStream::new(limited.ask(&key, &stream).await);
    assert_eq!(events.text().await, "x");
    let used_up = (402, "budget_exceeded".to_owned());
    assert_eq!(limited.refused(&key, &body).await, used_up);
    drop(events);
    feed.abandoned().await;
    limited.engine.reply(Reply::Json(200, completion("a")));
    let reply = limited.until_let_in(&key, &body, "budget_exceeded").await;
    reply.bytes().await.unwrap();
    assert_eq!(limited.refused(&key, &body).await, used_up);
    let counting = async { while limited.usage("team").await["requests"] != json!(2) {} };
    soon("both are written", counting).await;
    let usage = limited.usage("team").await;
    assert_eq!(
        usage["uncounted"], 1,
        "what was charged is no count: {usage}"
    );
    assert_eq!(limited.refused(&key, &body).await, used_up);
}

#[tokio::test]
async fn who_leaves_before_the_engine_counted_is_charged_his_prompt_too() {
    const EVENTS: u64 = 70;
    let limited = Limited::start().await;
    let key = limited
        .key("team", &["--budget-tokens", "ever=100000"])
        .await;
    let mut stream = body(100);
    stream["stream"] = json!(true);
    stream["prompt"] = json!("word ".repeat(200));
    let feed = limited.engine.stream();
    feed.text("x").await;
    let mut events = EventStream::new(limited.ask(&key, &stream).await);
    assert_eq!(events.text().await, "x");
    // More than the node waits for until it says how many there were.
    for _ in 1..EVENTS {
        feed.text("x").await;
        assert_eq!(events.text().await, "x");
    }
    drop(events);
    feed.abandoned().await;
    let counting = async { while limited.usage("team").await["requests"] != json!(1) {} };
    soon("it is written", counting).await;
    let usage = limited.usage("team").await;
    let charged = prompt_of(&stream) + EVENTS;
    assert_eq!(usage["charged_tokens"], json!(charged), "{usage}");
    assert_eq!(usage["uncounted"], 1, "no count has a prompt of 0: {usage}");
}

#[tokio::test]
async fn models_have_prices_that_change_while_the_gateway_serves_and_budgets_of_money_need_one() {
    let limited = Limited::start().await;
    let key = limited.key("team", &["--budget-money", "day=0.004"]).await;
    let refused = limited.refused(&key, &body(2)).await;
    assert_eq!(refused, (403, "model_not_allowed".to_owned()));
    let priced = format!(
        "{}[prices.tiny]\nprompt = \"0\"\ncompletion = \"1000\"\n",
        limited.text
    );
    limited.files.write("gateway.toml", &priced);
    limited.gateway.signal("HUP").await;
    for _ in 0..2 {
        limited.engine.reply(Reply::Json(200, completion("a")));
        let reply = soon("there is a price", async {
            loop {
                let reply = limited.ask(&key, &body(2)).await;
                if reply.status().is_success() {
                    return reply;
                }
            }
        });
        reply.await.bytes().await.unwrap();
    }
    let used_up = (402, "budget_exceeded".to_owned());
    assert_eq!(limited.refused(&key, &body(2)).await, used_up);
    let counting = async { while limited.usage("team").await["requests"] != json!(2) {} };
    soon("both are written", counting).await;
    assert_eq!(limited.usage("team").await["cost"], "0.004");
}

#[tokio::test]
async fn more_tokens_than_were_allowed_are_not_billed() {
    let limited = Limited::start().await;
    let key = limited.key("team", &[]).await;
    limited.engine.reply(Reply::Json(200, completion("a")));
    let reply = limited.ask(&key, &body(1)).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(
        reply["usage"]["completion_tokens"], 2,
        "it is given on as it came"
    );
    let counting = async { while limited.usage("team").await["requests"] != json!(1) {} };
    soon("it is written", counting).await;
    let usage = limited.usage("team").await;
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(3), &json!(1))
    );
    limited
        .gateway
        .logged("more tokens than there can be", 1)
        .await;
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let files = Files::new();
    let config = files.write(
        "gateway.toml",
        "policy = \"policy.toml\"\n[[node]]\nurl = \"http://127.0.0.1:1\"\n",
    );
    let cases: [(&[&str], &str); 6] = [
        (&["--requests-per-minute", "0"], "requests-per-minute"),
        (&["--budget-tokens", "week=5"], "day, month or ever"),
        (&["--budget-tokens", "day"], "day=1000"),
        (&["--budget-money", "day=1e3"], "decimal number"),
        (&["--budget-money", "day=-1"], "decimal number"),
        (
            &["--budget-tokens", "day=5", "--budget-tokens", "day=6"],
            "twice",
        ),
    ];
    for (args, named) in cases {
        let mut command = crate::harness::process::sealgate();
        command.args(["keys", "create", "--name", "a", "--config"]);
        let output = command.arg(&config).args(args).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(named),
            "{args:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
