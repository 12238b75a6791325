//! Keys and usage in a store: made by the command line, used through a gateway, counted whatever happens.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{
    Engine, Process,
    engine::{Reply, completion},
    process::sealgate,
    prompt,
    setup::{EventStream, Files, error_of},
    soon,
};

mod fleet;
mod reports;

/// Of the admin listener, in the file `token`.
const TOKEN: &str = "0123456789abcdef-token";

/// A gateway with a store, and a node.
struct Stored {
    gateway: Process,
    config: PathBuf,
    engine: Engine,
    client: reqwest::Client,
    _node: Process,
    _files: Files,
}

/// The `[store]` keys of a database that nobody else has: SQLite, and PostgreSQL where the environment has a
/// URL of one (`tests/store/run.sh`).
pub(crate) async fn databases() -> Vec<String> {
    let sqlite = "url = \"sqlite:sealgate.db\"\n".to_owned();
    let Ok(base) = std::env::var("SEALGATE_TEST_POSTGRES") else {
        return vec![sqlite];
    };
    let schema = format!("it_{}", hex::encode(rand::random::<[u8; 8]>()));
    let pool = sqlx::PgPool::connect(&base).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::query(statement).execute(&pool).await.unwrap();
    let url = format!("{base}?options[search_path]={schema}");
    vec![
        sqlite,
        format!("url = \"{url}\"\nsecret_file = \"secret\"\n"),
    ]
}

impl Stored {
    async fn start(database: &str) -> Self {
        Self::with(database, "").await
    }

    /// The same with tables appended to the gateway's configuration.
    async fn with(database: &str, more: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let text = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n\
             [store]\n{database}poll_ms = 50\nwaiting = 16\n[limits]\nin_flight = 16\n\
             [[node]]\nurl = \"{}\"\n{more}",
            node.url
        );
        files.write("secret", &hex::encode([7; 32]));
        files.write("token", TOKEN);
        let config = files.write("gateway.toml", &text);
        Self {
            gateway: Process::start("gateway", &config).await,
            config,
            engine,
            client: reqwest::Client::new(),
            _node: node,
            _files: files,
        }
    }

    async fn complete(&self, key: &str, mut members: Value) -> reqwest::Response {
        members["model"] = json!("tiny");
        members["prompt"] = json!(prompt("store"));
        let url = format!("{}/v1/completions", self.gateway.url);
        let request = self.client.post(url).bearer_auth(key).json(&members);
        request.send().await.unwrap()
    }

    /// Asks until the answer has this status.
    async fn until(&self, key: &str, status: u16) {
        let asking = async {
            while self.complete(key, json!({})).await.status() != status {
                tokio::task::yield_now().await;
            }
        };
        soon("the status changes", asking).await;
    }

    /// The receipt of a request, once it is checked.
    async fn receipt(&self, key: &str, id: &str) -> Value {
        let url = format!("{}/v1/receipts/{id}", self.gateway.url);
        let asking = async {
            loop {
                let asked = self.client.get(&url).bearer_auth(key).send();
                let reply = asked.await.unwrap();
                if reply.status() == 200 {
                    return reply.json().await.unwrap();
                }
            }
        };
        soon("the receipt is there", asking).await
    }

    /// The sums of all usage, once there are so many requests.
    async fn usage(&self, requests: u64) -> Value {
        until_counted(&self.config, requests).await
    }
}

/// The sums of a store's usage, once there are so many requests.
pub(crate) async fn until_counted(config: &Path, requests: u64) -> Value {
    let looking = async {
        loop {
            let usage = command(config, &["usage"], &["--by", "key,model", "--json"]).await;
            let usage: Value = serde_json::from_str(&usage).unwrap();
            let rows = usage["usage"].as_array().unwrap();
            let all = rows.iter().map(|row| row["requests"].as_u64().unwrap());
            if all.sum::<u64>() >= requests {
                return usage["usage"].clone();
            }
        }
    };
    soon("usage is written", looking).await
}

/// What a command prints that works on a configuration.
pub(crate) async fn command(config: &Path, name: &[&str], rest: &[&str]) -> String {
    let mut command = sealgate();
    command.args(name).arg("--config").arg(config).args(rest);
    let output = command.output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name:?} {rest:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn created(config: &Path, name: &str) -> String {
    shown(&command(config, &["keys", "create"], &["--name", name, "--json"]).await)
}

pub(crate) fn shown(output: &str) -> String {
    let output: Value = serde_json::from_str(output).unwrap();
    output["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_works_from_its_making_to_its_revocation_and_through_a_rotation() {
    for database in databases().await {
        let stored = Stored::start(&database).await;
        let unknown = stored.complete("sk-sealgate-unknown", json!({})).await;
        assert_eq!(unknown.status(), 401);
        let first = created(&stored.config, "team").await;
        assert_eq!(
            stored.complete(&first, json!({})).await.status(),
            200,
            "at once"
        );

        let rotate = ["team", "--json", "--overlap", "1h"];
        let second = shown(&command(&stored.config, &["keys", "rotate"], &rotate).await);
        for key in [&first, &second] {
            assert_eq!(stored.complete(key, json!({})).await.status(), 200);
        }
        let rotate = ["team", "--json", "--overlap", "0m"];
        let third = shown(&command(&stored.config, &["keys", "rotate"], &rotate).await);
        stored.until(&second, 401).await;
        assert_eq!(stored.complete(&third, json!({})).await.status(), 200);
        assert_eq!(stored.complete(&first, json!({})).await.status(), 401);

        let list = command(&stored.config, &["keys", "list"], &["--json"]).await;
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["keys"][0]["name"], "team");
        assert_eq!(list["keys"][0]["secrets"], 1);
        command(&stored.config, &["keys", "revoke"], &["team"]).await;
        stored.until(&third, 401).await;
        let list = command(&stored.config, &["keys", "list"], &[]).await;
        assert!(!list.contains("team"), "{list}");
        let log = stored.gateway.log();
        for key in [&first, &second, &third] {
            assert!(!list.contains(key.as_str()) && !log.contains(key.as_str()));
        }
    }
}

#[tokio::test]
async fn every_ending_is_counted_once_and_what_nobody_counted_is_not_nought() {
    for database in databases().await {
        let stored = Stored::start(&database).await;
        let key = created(&stored.config, "team").await;
        // Whole, with 3 and 2 tokens.
        stored.engine.reply(Reply::Json(200, completion("a")));
        assert_eq!(stored.complete(&key, json!({})).await.status(), 200);
        // The engine's own refusal, which has no usage.
        stored
            .engine
            .reply(Reply::Json(400, json!({"error": {"message": "no"}})));
        assert_eq!(stored.complete(&key, json!({})).await.status(), 400);
        // An engine that fails.
        stored.engine.reply(Reply::Json(500, json!({})));
        let failed = stored.complete(&key, json!({})).await;
        assert_eq!(error_of(failed).await.1["code"], "engine_error");
        // A caller who leaves.
        let feed = stored.engine.stream();
        feed.text("x").await;
        let mut events = EventStream::new(stored.complete(&key, json!({"stream": true})).await);
        assert_eq!(events.text().await, "x");
        drop(events);
        feed.abandoned().await;
        // What the body says is refused before anybody is asked, and is no usage.
        let refused = stored.complete(&key, json!({"max_tokens": -1})).await;
        assert_eq!(refused.status(), 400);

        let usage = stored.usage(4).await;
        let [row] = usage.as_array().unwrap().as_slice() else {
            panic!("{usage}")
        };
        let told = [
            "key",
            "model",
            "requests",
            "prompt_tokens",
            "completion_tokens",
            "cost",
        ];
        let told = told.map(|name| row[name].clone());
        assert_eq!(
            told[..3],
            [json!("team"), json!("tiny"), json!(4)],
            "{usage}"
        );
        assert_eq!(told[3..5], [json!(3), json!(2)], "{usage}");
        assert!(told[5].is_null(), "the model has no price: {usage}");
        assert_eq!(row["uncounted"], 3, "{usage}");
    }
}

#[tokio::test]
async fn what_a_killed_gateway_had_let_in_is_counted_by_the_next_one() {
    for database in databases().await {
        let mut stored = Stored::start(&database).await;
        let key = created(&stored.config, "team").await;
        let feed = stored.engine.stream();
        feed.text("x").await;
        let mut events = EventStream::new(stored.complete(&key, json!({"stream": true})).await);
        assert_eq!(events.text().await, "x");
        stored.engine.reply(Reply::Json(200, completion("a")));
        let whole = stored.complete(&key, json!({})).await;
        assert_eq!(whole.status(), 200);
        whole.bytes().await.unwrap();
        stored.gateway.kill().await;

        stored.gateway = Process::start("gateway", &stored.config).await;
        let usage = stored.usage(2).await;
        let row = &usage[0];
        assert_eq!(
            (&row["requests"], &row["uncounted"]),
            (&json!(2), &json!(1)),
            "{usage}"
        );
        assert_eq!(row["completion_tokens"], 2, "{usage}");
        assert_eq!(stored.complete(&key, json!({})).await.status(), 200);
    }
}

#[tokio::test]
async fn a_receipt_outlives_the_gateway_and_stays_with_its_key() {
    for database in databases().await {
        let mut stored = Stored::with(&database, "[receipts]\nmode = \"on\"\n").await;
        let (mine, other) = (
            created(&stored.config, "mine").await,
            created(&stored.config, "other").await,
        );
        let reply = stored.complete(&mine, json!({})).await;
        assert_eq!(reply.headers()["sealgate-receipt"], "yes");
        let id = reply.headers()["x-request-id"].to_str().unwrap().to_owned();
        reply.bytes().await.unwrap();
        let receipt = stored.receipt(&mine, &id).await;
        stored.gateway.terminate().await;
        assert!(stored.gateway.ended().await.success());
        stored.gateway = Process::start("gateway", &stored.config).await;
        assert_eq!(stored.receipt(&mine, &id).await, receipt);
        let url = format!("{}/v1/receipts/{id}", stored.gateway.url);
        // Another key, and one of the name of the key that made it.
        command(&stored.config, &["keys", "revoke"], &["mine"]).await;
        let of_the_name = created(&stored.config, "mine").await;
        for key in [other, of_the_name] {
            let asked = stored.client.get(&url).bearer_auth(key).send();
            assert_eq!(asked.await.unwrap().status(), 404);
        }
        // A key of its own mind.
        let args = ["--name", "none", "--receipts", "off", "--json"];
        let none = shown(&command(&stored.config, &["keys", "create"], &args).await);
        let reply = stored.complete(&none, json!({})).await;
        assert!(!reply.headers().contains_key("sealgate-receipt"));
    }
}

/// Does something in the store's database, past the gateway.
async fn execute(stored: &Stored, database: &str, statement: &'static str) {
    if database.contains("sqlite:") {
        let path = stored._files.dir.path().join("sealgate.db");
        let url = format!("sqlite:{}", path.display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
    } else {
        let url = database.split('"').nth(1).unwrap();
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_whole_reply_has_its_required_receipt_also_where_the_gateway_is_killed_after_it() {
    for database in databases().await {
        let required = "[receipts]\nmode = \"required\"\ncontent = true\n";
        let mut stored = Stored::with(&database, required).await;
        let key = created(&stored.config, "mine").await;
        stored.until(&key, 200).await;
        execute(
            &stored,
            &database,
            "ALTER TABLE receipt RENAME TO elsewhere",
        )
        .await;
        let mut ids = Vec::new();
        for stream in [false, true] {
            let feed = stream.then(|| stored.engine.stream());
            let fed = async {
                if let Some(feed) = &feed {
                    feed.text("a").await;
                    feed.done().await;
                }
            };
            let asking = stored.complete(&key, json!({"stream": stream}));
            let (reply, ()) = tokio::join!(asking, fed);
            assert_eq!(reply.status(), 200);
            let id = reply.headers()["x-request-id"].to_str().unwrap().to_owned();
            let text = reply.text().await.unwrap();
            assert_eq!(text.contains("[DONE]"), stream, "{text}");
            ids.push(id);
        }
        stored.gateway.kill().await;
        execute(
            &stored,
            &database,
            "ALTER TABLE elsewhere RENAME TO receipt",
        )
        .await;
        stored.gateway = Process::start("gateway", &stored.config).await;
        // Two at least: that of the first request may be with them.
        let said = "journal: found what was not in the store yet what=\"receipts\" rows=";
        stored.gateway.logged(said, 1).await;
        for id in ids {
            // At once: what was found is written before anybody is served.
            let url = format!("{}/v1/receipts/{id}", stored.gateway.url);
            let asked = stored.client.get(&url).bearer_auth(&key).send();
            let reply = asked.await.unwrap();
            assert_eq!(reply.status(), 200);
            let receipt: Value = reply.json().await.unwrap();
            assert!(receipt["salts"].is_string(), "{receipt}");
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_stops_the_start_and_says_why() {
    let files = Files::new();
    let rest = "policy = \"policy.toml\"\n[[node]]\nurl = \"http://127.0.0.1:1\"\n";
    let cases = [
        (
            "[store]\nurl = \"sqlite:no/such/folder/a.db\"\n",
            "no such file",
        ),
        (
            "[store]\nurl = \"postgres://u:p@127.0.0.1/d\"\n",
            "password_file",
        ),
        (
            "[store]\nurl = \"postgres://u@127.0.0.1/d\"\n",
            "store.secret_file",
        ),
        ("[store]\nurl = \"mysql://u@127.0.0.1/d\"\n", "sqlite:FILE"),
        ("[store]\nsecret_file = \"short\"\n", "32 to 4096 bytes"),
        (
            "[store]\njournal = \"no/such/folder/journal\"\n",
            "store.journal",
        ),
        (
            "[store]\njournal = \"sealgate.secret\"\n",
            "store.secret_file",
        ),
        ("[store]\njournal = \"notes\"\n", "it is no journal"),
        ("[store]\nurl = \"sqlite:notes\"\n", "database: "),
        ("[store]\n", "keys_file"),
    ];
    files.write("short", "guess me");
    let notes = "what was written down ".repeat(400);
    let notes_file = files.write("notes", &notes);
    for (store, named) in cases {
        let keys = if named == "keys_file" {
            "keys_file = \"keys.toml\"\n"
        } else {
            ""
        };
        let text = format!("listen = \"127.0.0.1:0\"\n{keys}{rest}{store}");
        let config = files.write("gateway.toml", &text);
        let mut command = sealgate();
        command.arg("gateway").arg("--config").arg(&config);
        let output = command.output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{store}");
        assert!(error.contains(named), "{store}: {error}");
        assert_eq!(std::fs::read_to_string(&notes_file).unwrap(), notes);
    }
}

#[tokio::test]
async fn more_in_flight_than_the_journal_has_places_for_takes_a_restart() {
    let stored = Stored::start("url = \"sqlite:sealgate.db\"\n").await;
    let text = std::fs::read_to_string(&stored.config).unwrap();
    let reload = async |in_flight: u32, outcome: &str, times: usize| {
        let changed = text.replace("in_flight = 16", &format!("in_flight = {in_flight}"));
        std::fs::write(&stored.config, changed).unwrap();
        stored.gateway.signal("HUP").await;
        let said = format!("kind=\"config\" outcome=\"{outcome}\"");
        stored.gateway.logged(&said, times).await;
    };
    reload(17, "refused", 1).await;
    let why = "limits.in_flight: the journal has 32 places";
    stored.gateway.logged(why, 1).await;
    reload(8, "taken", 1).await;
    // What was in force at the start has its places.
    reload(16, "taken", 2).await;
    let key = created(&stored.config, "team").await;
    assert_eq!(stored.complete(&key, json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_key_demands_a_tee_and_a_gpu_and_verified_evidence_decides() {
    let stored = Stored::start("url = \"sqlite:sealgate.db\"\n").await;
    // The node's evidence is of SEV-SNP, by a software root, and shows no GPU.
    let cases: [(&str, &[&str], u16); 4] = [
        ("snp", &["--tee", "tdx", "--tee", "sev-snp"], 200),
        ("tdx", &["--tee", "tdx"], 503),
        ("gpu", &["--require-gpu"], 503),
        ("both", &["--tee", "sev-snp", "--require-gpu"], 503),
    ];
    for (name, demands, status) in cases {
        let rest = [&["--name", name, "--json"], demands].concat();
        let key = shown(&command(&stored.config, &["keys", "create"], &rest).await);
        let reply = stored.complete(&key, json!({})).await;
        assert_eq!(reply.status(), status, "{name}");
        if status == 503 {
            let (_, error) = error_of(reply).await;
            assert_eq!(error["code"], "no_attested_node", "{name}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("`require_gpu`"), "{name}: {message}");
        }
    }
    assert_eq!(stored.engine.received().len(), 1);
    let list = command(&stored.config, &["keys", "list"], &[]).await;
    for shown in ["sev-snp,tdx ", "sev-snp+gpu ", " +gpu "] {
        assert!(list.contains(shown), "{shown}: {list}");
    }
    let mut wrong = sealgate();
    wrong.args(["keys", "create", "--name", "a", "--tee", "sgx", "--config"]);
    let output = wrong.arg(&stored.config).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("sev-snp, tdx or nitro"), "{error}");
}
