//! Two gateways of one database hold a key to one limit, within the error that docs/operating.md states
//! ("Limits and budgets").

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{command, databases, shown, until_counted};
use crate::harness::{
    Engine, Process,
    engine::{Reply, completion},
    setup::{EventStream, Files},
    soon,
};

/// Tokens that a completion of the engine has.
const USED: u64 = 5;

/// Two gateways before one node.
struct Fleet {
    gateways: [Process; 2],
    config: PathBuf,
    engine: Engine,
    client: reqwest::Client,
    _node: Process,
    files: Files,
}

impl Fleet {
    async fn start(database: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        files.write("secret", &hex::encode([7; 32]));
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        let text = |journal: &str| {
            format!(
                "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[store]\n{database}\
                 journal = \"{journal}\"\npoll_ms = 50\nsync_ms = 50\n[[node]]\nurl = \"{}\"\n",
                node.url
            )
        };
        let config = files.write("gateway.toml", &text("first"));
        let second = files.write("second.toml", &text("second"));
        let first = Process::start("gateway", &config).await;
        Self {
            gateways: [first, Process::start("gateway", &second).await],
            config,
            engine,
            client: reqwest::Client::new(),
            _node: node,
            files,
        }
    }

    /// Over PostgreSQL, where the environment names one: over SQLite nothing is shared.
    async fn sharing() -> Option<Self> {
        let all = databases().await;
        let postgres = all.iter().find(|it| it.contains("postgres"))?;
        Some(Self::start(postgres).await)
    }

    async fn key(&self, limits: &[&str]) -> String {
        let rest = [&["--name", "team", "--json"], limits].concat();
        shown(&command(&self.config, &["keys", "create"], &rest).await)
    }

    async fn ask(&self, gateway: usize, key: &str, body: &Value) -> reqwest::Response {
        let url = format!("{}/v1/completions", self.gateways[gateway].url);
        let request = self.client.post(url).bearer_auth(key).json(body);
        request.send().await.unwrap()
    }

    /// Asks a gateway until it refuses with this status, and says how many it let in.
    async fn until_refused(&self, gateway: usize, key: &str, status: u16) -> u64 {
        let asking = async {
            let mut let_in = 0;
            loop {
                self.engine.reply(Reply::Json(200, completion("a")));
                let reply = self.ask(gateway, key, &body(9)).await;
                if reply.status().as_u16() == status {
                    return let_in;
                }
                assert_eq!(reply.status(), 200);
                reply.bytes().await.unwrap();
                let_in += 1;
            }
        };
        soon("the limit is used up", asking).await
    }
}

fn body(max_tokens: u64) -> Value {
    json!({"model": "tiny", "prompt": "say", "max_tokens": max_tokens})
}

fn stream() -> Value {
    json!({"model": "tiny", "prompt": "say", "max_tokens": 9, "stream": true})
}

#[tokio::test]
async fn requests_at_once_count_at_both() {
    let Some(fleet) = Fleet::sharing().await else {
        return;
    };
    let key = fleet.key(&["--in-flight", "1"]).await;
    let feed = fleet.engine.stream();
    feed.text("x").await;
    let mut events = EventStream::new(fleet.ask(0, &key, &stream()).await);
    assert_eq!(events.text().await, "x");
    fleet.until_refused(1, &key, 429).await;
    drop(events);
    feed.abandoned().await;
    let asking = async {
        loop {
            fleet.engine.reply(Reply::Json(200, completion("a")));
            if fleet.ask(1, &key, &body(9)).await.status() == 200 {
                return;
            }
        }
    };
    soon("the place is free at the other", asking).await;
}

/// Gateways whose shares are in the database, whether others count them still or not.
async fn telling(database: &str) -> i64 {
    let pool = sqlx::PgPool::connect(database.split('"').nth(1).unwrap()).await;
    let count = "SELECT COUNT(DISTINCT gateway_id) FROM share";
    sqlx::query_scalar(count)
        .fetch_one(&pool.unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn who_stops_takes_back_what_he_told_and_who_was_killed_when_he_is_there_again() {
    let all = databases().await;
    let Some(database) = all.iter().find(|it| it.contains("postgres")) else {
        return;
    };
    let mut fleet = Fleet::start(database).await;
    let key = fleet.key(&["--requests-per-minute", "50"]).await;
    for gateway in [0, 1] {
        fleet.engine.reply(Reply::Json(200, completion("a")));
        assert_eq!(fleet.ask(gateway, &key, &body(9)).await.status(), 200);
    }
    soon("both have told", async {
        while telling(database).await < 2 {}
    })
    .await;
    fleet.gateways[0].kill().await;
    assert_eq!(telling(database).await, 2);
    fleet.gateways[1].terminate().await;
    fleet.gateways[1].ended().await;
    assert_eq!(telling(database).await, 1, "it has gone in good order");
    // Nothing is told by this one yet: its key was not used since.
    fleet.gateways[0] = Process::start("gateway", &fleet.config).await;
    assert_eq!(telling(database).await, 0);
}

#[tokio::test]
async fn requests_of_a_minute_count_at_both() {
    let Some(fleet) = Fleet::sharing().await else {
        return;
    };
    let key = fleet.key(&["--requests-per-minute", "100"]).await;
    let first = fleet.until_refused(0, &key, 429).await;
    let second = fleet.until_refused(1, &key, 429).await;
    assert!(first >= 100, "{first}");
    // By itself it would have let in as many again.
    assert!(second < 100, "{first}, {second}");
}

#[tokio::test]
async fn tokens_of_a_minute_count_at_both() {
    let Some(fleet) = Fleet::sharing().await else {
        return;
    };
    let limit = 400;
    let key = fleet
        .key(&["--tokens-per-minute", &limit.to_string()])
        .await;
    let first = fleet.until_refused(0, &key, 429).await;
    let second = fleet.until_refused(1, &key, 429).await;
    // What a request may use has to fit, and is more than it does use.
    assert!(first * USED > limit / 2, "{first}");
    assert!(second < first, "{first}, {second}");
    assert!((first + second) * USED < 2 * limit, "{first}, {second}");
}

#[tokio::test]
async fn a_budget_is_exact_once_requests_have_ended_whichever_gateway_had_them() {
    for database in databases().await {
        let fleet = Fleet::start(&database).await;
        let budget = 400;
        let key = fleet
            .key(&["--budget-tokens", &format!("ever={budget}")])
            .await;
        let (first, second) = tokio::join!(
            fleet.until_refused(0, &key, 402),
            fleet.until_refused(1, &key, 402)
        );
        let usage = until_counted(&fleet.config, first + second).await;
        let charged = usage[0]["charged_tokens"].as_u64().unwrap();
        assert_eq!(charged, (first + second) * USED, "{database}: {usage}");
        // What both let in while they did not know of each other is beyond it at most.
        assert!(charged < 2 * budget, "{database}: {usage}");
        let path = fleet.files.dir.path().join("sealgate.db");
        let (spent, rows) = sums(&database, &path).await;
        assert_eq!((spent, rows), (charged, charged), "{database}");
        // Once all is settled nothing is held any more: what is left is given out to the last of it, by either.
        let (third, fourth) = (
            fleet.until_refused(0, &key, 402).await,
            fleet.until_refused(1, &key, 402).await,
        );
        let requests = first + second + third + fourth;
        until_counted(&fleet.config, requests).await;
        let (spent, rows) = sums(&database, &path).await;
        assert_eq!(
            (spent, rows),
            (requests * USED, requests * USED),
            "{database}"
        );
        assert!(spent < 2 * budget, "{database}: {spent}");
    }
}

/// What the database says that was spent, and what its rows of usage come to.
async fn sums(database: &str, sqlite: &std::path::Path) -> (u64, u64) {
    let spent = "SELECT CAST(SUM(tokens) AS BIGINT) FROM spend WHERE period = 'ever'";
    let rows = "SELECT CAST(SUM(COALESCE(prompt_tokens + completion_tokens, charged_tokens, 0)) AS BIGINT) \
                FROM usage_row";
    let url = database.split('"').nth(1).unwrap();
    let (spent, rows): (i64, i64) = if url.starts_with("sqlite:") {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sqlite);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let one = sqlx::query_scalar(spent).fetch_one(&pool).await.unwrap();
        (
            one,
            sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap(),
        )
    } else {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        let one = sqlx::query_scalar(spent).fetch_one(&pool).await.unwrap();
        (
            one,
            sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap(),
        )
    };
    (spent.try_into().unwrap(), rows.try_into().unwrap())
}
