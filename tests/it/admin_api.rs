//! The admin API of a gateway: keys, usage and the audit log, for whoever has the admin token.

use std::path::PathBuf;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Engine, Process, prompt, setup::Files, soon},
    store::databases,
};

const TOKEN: &str = "0123456789abcdef-token";

/// A gateway with a store and an admin token, and a node.
struct Managed {
    gateway: Process,
    config: PathBuf,
    client: reqwest::Client,
    _engine: Engine,
    _node: Process,
    _files: Files,
}

impl Managed {
    async fn start() -> Self {
        Self::with("[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n").await
    }

    /// Over each database.
    async fn over_all() -> Vec<Self> {
        let mut all = Vec::new();
        for database in databases().await {
            let admin = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
            all.push(Self::over(&database, admin).await);
        }
        all
    }

    /// With other tables in the configuration.
    async fn with(tables: &str) -> Self {
        Self::over("", tables).await
    }

    async fn over(database: &str, tables: &str) -> Self {
        let (files, engine) = (Files::new(), Engine::start().await);
        files.write("token", TOKEN);
        files.write("secret", &hex::encode([7; 32]));
        let node = Process::start("node", &files.node("node-a", &engine, "")).await;
        // Nobody looks for keys that changed while the test goes on.
        let text = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n\
             [store]\n{database}poll_ms = 3600000\n{tables}[[node]]\nurl = \"{}\"\n",
            node.url
        );
        let config = files.write("gateway.toml", &text);
        Self {
            gateway: Process::start("gateway", &config).await,
            config,
            client: reqwest::Client::new(),
            _files: files,
            _engine: engine,
            _node: node,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.gateway.admin);
        self.client.request(method, url).bearer_auth(TOKEN)
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
        response.json().await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(Method::POST, path).json(&body);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// A key whose time is over.
    async fn make_expired(&self, name: &str) {
        let (_, made) = self.post("/admin/keys", json!({ "name": name })).await;
        assert_eq!(made["name"], name);
        let file = self.config.with_file_name("sealgate.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let statement = "UPDATE api_key SET expires_at = created_at WHERE name = $1";
        let done = sqlx::query(statement).bind(name).execute(&pool).await;
        assert_eq!(done.unwrap().rows_affected(), 1);
        pool.close().await;
    }

    async fn complete(&self, key: &str) -> StatusCode {
        let url = format!("{}/v1/completions", self.gateway.url);
        let body = json!({ "model": "tiny", "prompt": prompt("admin") });
        let request = self.client.post(url).bearer_auth(key).json(&body);
        request.send().await.unwrap().status()
    }
}

#[tokio::test]
async fn a_key_is_in_force_with_the_answer_that_shows_it_and_out_of_it_with_the_one_that_revokes_it()
 {
    for managed in Managed::over_all().await {
        a_key_comes_and_goes(managed).await;
    }
}

async fn a_key_comes_and_goes(managed: Managed) {
    let body = json!({
        "name": "team/a",
        "owner": "Team A",
        "expires_at": "2099-01-01T00:00:00Z",
        "terms": { "models": ["tiny"] },
    });
    let (status, made) = managed.post("/admin/keys", body.clone()).await;
    assert_eq!(status, 201, "{made}");
    let first = made["key"].as_str().unwrap().to_owned();
    assert_eq!(managed.complete(&first).await, 200);
    let (status, again) = managed.post("/admin/keys", body).await;
    assert_eq!(
        (status.as_u16(), &again["error"]["code"]),
        (409, &json!("key_exists"))
    );

    let listed = managed.get("/admin/keys").await;
    assert_eq!(listed["keys"][0]["name"], "team/a");
    assert_eq!(listed["keys"][0]["terms"], json!({ "models": ["tiny"] }));
    assert_eq!(listed["keys"][0]["id"], made["id"]);

    let rotate = "/admin/keys/team%2Fa/rotate";
    let (status, turned) = managed.post(rotate, json!({ "overlap_s": 3600 })).await;
    assert_eq!(status, 200, "{turned}");
    let second = turned["key"].as_str().unwrap().to_owned();
    for key in [&first, &second] {
        assert_eq!(managed.complete(key).await, 200);
    }
    let (_, turned) = managed.post(rotate, json!({ "overlap_s": 0 })).await;
    let third = turned["key"].as_str().unwrap().to_owned();
    for (key, status) in [(&first, 401), (&second, 401), (&third, 200)] {
        assert_eq!(managed.complete(key).await, status);
    }
    let revoke = managed.request(Method::DELETE, "/admin/keys/team%2Fa");
    let revoked = revoke.send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    assert_eq!(managed.complete(&third).await, 401);
    assert_eq!(managed.get("/admin/keys").await, json!({ "keys": [] }));
    let all = managed.get("/admin/keys?all=true").await;
    assert_eq!(all["keys"][0]["state"], "revoked");

    // All of it is in the log, and none of the secrets.
    let log = managed.get("/admin/audit?limit=1000").await;
    let entries = log["audit"].as_array().unwrap();
    let events = ["key.created", "key.rotated", "key.rotated", "key.revoked"];
    let of_keys = entries
        .iter()
        .filter(|it| it["event"].as_str().unwrap().starts_with("key."));
    let of_keys: Vec<_> = of_keys.collect();
    assert_eq!(of_keys.len(), events.len(), "{log}");
    for (entry, event) in of_keys.iter().zip(events) {
        assert_eq!(entry["event"], event);
        assert!(
            entry["actor"]
                .as_str()
                .unwrap()
                .starts_with("admin-api of gateway ")
        );
        assert_eq!(entry["subject"], "team/a");
    }
    let said = managed.gateway.log();
    for key in [&first, &second, &third] {
        assert!(!log.to_string().contains(key.as_str()) && !said.contains(key.as_str()));
        assert!(!all.to_string().contains(key.as_str()));
    }
    let page = managed.get("/admin/audit?after=1&limit=1").await;
    assert_eq!(
        (&page["audit"][0]["seq"], &page["next"]),
        (&json!(2), &json!(2))
    );
    let verified = managed.get("/admin/audit/verify").await;
    assert_eq!(
        (&verified["whole"], &verified["flaw"]),
        (&json!(true), &Value::Null)
    );
    let kept = format!("/admin/audit/verify?head={}", "ab".repeat(32));
    assert_eq!(managed.get(&kept).await["whole"], false);
}

#[tokio::test]
async fn usage_is_told_as_the_command_tells_it() {
    for managed in Managed::over_all().await {
        usage_is_told(managed).await;
    }
}

async fn usage_is_told(managed: Managed) {
    let (_, made) = managed.post("/admin/keys", json!({ "name": "team" })).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(managed.complete(key).await, 200);
    let counted = async {
        loop {
            let usage = managed.get("/admin/usage?by=key,model&key=team").await;
            if usage["usage"][0]["requests"] == 1 {
                return usage;
            }
        }
    };
    let told = soon("usage is written", counted).await;
    let mut command = crate::harness::process::sealgate();
    command
        .args(["usage", "--json", "--key", "team", "--config"])
        .arg(&managed.config);
    let output = command.output().await.unwrap();
    let by_command: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, by_command);
    let csv = managed.request(Method::GET, "/admin/usage?by=key&format=csv");
    let csv = csv.send().await.unwrap();
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
    let text = csv.text().await.unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("key,key_id,requests,")
            && lines[1].starts_with(&format!("team,{},1,", made["id"].as_str().unwrap())),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_and_changes_nothing() {
    let managed = Managed::start().await;
    let (_, stays) = managed
        .post("/admin/keys", json!({ "name": "stays" }))
        .await;
    managed.make_expired("over").await;
    let before = managed.get("/admin/keys?all=true").await;
    let cases = [
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"other\": 1}",
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"name\": \"b\"}",
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"terms\": {\"other\": 1}}",
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\"} x",
            400,
            "invalid_json",
        ),
        ("POST", "/admin/keys", "", 400, "invalid_json"),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"two words\"}",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"owner\": \"\"}",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"expires_at\": \"1999-01-01T00:00:00Z\"}",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/keys",
            "{\"name\": \"a\", \"expires_at\": \"soon\"}",
            400,
            "invalid_request",
        ),
        ("POST", "/admin/keys/b/rotate", "{}", 404, "key_not_found"),
        (
            "POST",
            "/admin/keys/b/rotate",
            "{\"overlap_s\": -1}",
            400,
            "invalid_json",
        ),
        ("DELETE", "/admin/keys/b", "", 404, "key_not_found"),
        ("GET", "/admin/keys?every=true", "", 400, "invalid_request"),
        // A parameter that does nothing is not passed over where it could have been meant.
        (
            "POST",
            "/admin/keys?dry_run=true",
            "{\"name\": \"c\"}",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/admin/keys/stays/rotate?overlap_s=0",
            "{}",
            400,
            "invalid_request",
        ),
        (
            "DELETE",
            "/admin/keys/stays?dry_run=true",
            "",
            400,
            "invalid_request",
        ),
        ("GET", "/openapi.json?v=2", "", 400, "invalid_request"),
        ("POST", "/admin/keys/over/rotate", "{}", 409, "key_expired"),
        ("GET", "/admin/usage?by=owner", "", 400, "invalid_request"),
        ("GET", "/admin/usage?by=key,key", "", 400, "invalid_request"),
        (
            "GET",
            "/admin/usage?since=yesterday",
            "",
            400,
            "invalid_request",
        ),
        ("GET", "/admin/audit?limit=1001", "", 400, "invalid_request"),
        (
            "GET",
            "/admin/audit/verify?head=ab",
            "",
            400,
            "invalid_request",
        ),
        ("PUT", "/admin/keys", "{}", 405, "method_not_allowed"),
        ("GET", "/admin/keys/b", "", 405, "method_not_allowed"),
        ("GET", "/admin/other", "", 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let mut request = managed.request(method.parse().unwrap(), path);
        if !body.is_empty() {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path} {body}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(
            error["error"]["code"], code,
            "{method} {path} {body}: {error}"
        );
    }
    let large = managed
        .request(Method::POST, "/admin/keys")
        .header("content-type", "application/json");
    let large = large.body(" ".repeat(65 * 1024)).send().await.unwrap();
    assert_eq!(large.status(), 413);
    assert_eq!(managed.get("/admin/keys?all=true").await, before);
    assert_eq!(managed.complete(stays["key"].as_str().unwrap()).await, 200);
    let document = managed.get("/openapi.json").await;
    assert!(document["paths"]["/admin/keys"]["post"].is_object());
    // None of it is where callers are.
    for path in ["/admin/keys", "/admin/audit"] {
        let url = format!("{}{path}", managed.gateway.url);
        let asked = managed
            .client
            .get(url)
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap();
        assert!(matches!(asked.status().as_u16(), 401 | 404), "{path}");
    }
}

#[tokio::test]
async fn nobody_is_an_administrator_without_the_token() {
    let managed = Managed::start().await;
    let url = format!("{}/admin/keys", managed.gateway.admin);
    let body = json!({ "name": "a" });
    let wrong = managed.client.post(&url).json(&body);
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    let wrong = managed
        .client
        .post(&url)
        .bearer_auth("0123456789abcdeX-token")
        .json(&body);
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    assert_eq!(managed.get("/admin/keys").await, json!({ "keys": [] }));
    drop(managed);

    let open = Managed::with("[admin]\nlisten = \"127.0.0.1:0\"\n").await;
    for path in [
        "/admin/keys",
        "/admin/usage",
        "/admin/audit",
        "/openapi.json",
    ] {
        let refused = open.request(Method::GET, path).send().await.unwrap();
        assert_eq!(refused.status(), 403, "{path}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["code"], "admin_token_required");
        assert!(
            error["error"]["message"]
                .as_str()
                .unwrap()
                .contains("admin.token_file")
        );
    }
    let health = open.request(Method::GET, "/health").send().await.unwrap();
    assert_eq!(health.status(), 200);
    drop(open);

    // A gateway whose keys are in a file says so.
    let (files, engine) = (Files::new(), Engine::start().await);
    files.write("token", TOKEN);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let table = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    let gateway = Process::start("gateway", &files.gateway(&[&node.url], table)).await;
    let url = format!("{}/admin/keys", gateway.admin);
    let refused = reqwest::Client::new()
        .get(url)
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 409);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "no_store");
    drop(gateway);

    // One that asks for no key makes none, and neither does the command.
    let open = "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\nauth = \"open\"\n[store]\n";
    let config = files.write(
        "open.toml",
        &format!("{open}[[node]]\nurl = \"{}\"\n{table}", node.url),
    );
    let gateway = Process::start("gateway", &config).await;
    let url = format!("{}/admin/keys", gateway.admin);
    let make = reqwest::Client::new().post(url).bearer_auth(TOKEN);
    let refused = make.json(&json!({ "name": "a" })).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "keys_not_in_store");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("auth is open")
    );
    for (name, rest) in [
        ("create", ["--name", "a"].as_slice()),
        ("rotate", &["a"]),
        ("revoke", &["a"]),
    ] {
        let mut command = crate::harness::process::sealgate();
        command
            .args(["keys", name])
            .args(rest)
            .arg("--config")
            .arg(&config);
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("auth is open"), "{name}: {error}");
    }
}
