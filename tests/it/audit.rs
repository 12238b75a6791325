//! The audit log: what a gateway and the command line say in it, and what is told of one that somebody
//! changed.

use std::path::Path;

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, sqlite::SqliteConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use crate::{
    harness::{Engine, Process, process::sealgate, setup::Files},
    store::databases,
};

/// What a command prints that works on a configuration, and its exit code.
async fn command(config: &Path, name: &[&str], rest: &[&str]) -> (i32, String) {
    let mut command = sealgate();
    command.args(name).arg("--config").arg(config).args(rest);
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap(), text)
}

async fn listed(config: &Path) -> Vec<Value> {
    let (code, text) = command(config, &["audit", "list"], &["--json"]).await;
    assert_eq!(code, 0, "{text}");
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The entries of an event.
fn of<'a>(entries: &'a [Value], event: &str) -> Vec<&'a Value> {
    let found = entries.iter().filter(|entry| entry["event"] == event);
    found.collect()
}

/// Does something to a database, whose keys in the configuration are `database`.
async fn execute(files: &Files, database: &str, statements: &[&'static str]) {
    if let Some(url) = database.strip_prefix("url = \"postgres") {
        let url = format!("postgres{}", url.split('"').next().unwrap());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for statement in statements {
            let at = if statement.starts_with("DROP TRIGGER") {
                " ON audit"
            } else {
                ""
            };
            let statement = sqlx::AssertSqlSafe(format!("{statement}{at}"));
            sqlx::query(statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        return;
    }
    let options = SqliteConnectOptions::new().filename(files.dir.path().join("sealgate.db"));
    let mut connection = options.connect().await.unwrap();
    for statement in statements {
        sqlx::query(*statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_happens_is_in_the_log_and_what_is_done_to_the_log_is_told() {
    for database in databases().await {
        what_happens_is_told(&database).await;
    }
}

async fn what_happens_is_told(database: &str) {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let text = format!(
        "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n\
         [store]\n{database}[store.audit]\nhead_file = \"head.json\"\n[[node]]\nurl = \"{}\"\n",
        node.url
    );
    files.write("secret", &hex::encode([7; 32]));
    let config = files.write("gateway.toml", &text);
    let mut gateway = Process::start("gateway", &config).await;
    gateway.logged("node verified", 1).await;
    let (code, key) = command(&config, &["keys", "create"], &["--name", "team"]).await;
    assert_eq!(code, 0, "{key}");
    let key = key.lines().next().unwrap().to_owned();

    let policy = std::fs::read_to_string(files.dir.path().join("policy.toml")).unwrap();
    files.write("policy.toml", "version = 99\n");
    gateway.signal("HUP").await;
    gateway.logged("policy not taken", 1).await;
    files.write("policy.toml", &format!("{policy}# another one\n"));
    gateway.signal("HUP").await;
    gateway.logged("policy in force", 1).await;
    files.write("gateway.toml", &text.replace("[[node]]", "[[nodes]]"));
    gateway.signal("HUP").await;
    gateway.logged("configuration not taken", 1).await;
    let other = "[[node]]\nurl = \"http://127.0.0.1:9\"\n";
    files.write("gateway.toml", &format!("{text}{other}"));
    gateway.signal("HUP").await;
    gateway.logged("added=1", 1).await;
    gateway.terminate().await;
    assert!(gateway.ended().await.success());

    let entries = listed(&config).await;
    for (event, actor, at_least) in [
        ("gateway.started", "gateway ", 1),
        ("appraisal.accepted", "gateway ", 2),
        ("key.created", "cli ", 1),
        ("policy.refused", "gateway ", 1),
        ("policy.in_force", "gateway ", 1),
        ("config.refused", "gateway ", 1),
        ("config.in_force", "gateway ", 1),
        ("node.added", "gateway ", 1),
        ("gateway.stopped", "gateway ", 1),
    ] {
        let found = of(&entries, event);
        assert!(found.len() >= at_least, "{event}: {entries:#?}");
        for entry in found {
            assert!(
                entry["actor"].as_str().unwrap().starts_with(actor),
                "{entry}"
            );
        }
    }
    assert_eq!(of(&entries, "config.in_force").len(), 1, "{entries:#?}");
    let appraised = of(&entries, "appraisal.accepted")[0];
    assert_eq!(appraised["subject"], node.url.as_str());
    assert_eq!(appraised["detail"]["node_id"], "node-a");
    for digest in ["evidence", "policy"] {
        let digest = appraised["detail"][digest].as_str().unwrap();
        assert_eq!(digest.len(), 64, "{appraised}");
    }
    let numbers: Vec<_> = entries
        .iter()
        .map(|it| it["seq"].as_u64().unwrap())
        .collect();
    let all: Vec<_> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, all);
    let (_, text) = command(&config, &["audit", "list"], &["--json"]).await;
    assert!(!text.contains(&key) && !text.contains("sk-sealgate-"));

    let head = files.dir.path().join("head.json");
    let head = head.to_str().unwrap();
    let kept: Value = serde_json::from_slice(&std::fs::read(head).unwrap()).unwrap();
    let last = entries.last().unwrap();
    assert_eq!((&kept["seq"], &kept["hash"]), (&last["seq"], &last["hash"]));
    let verify = &["audit", "verify"];
    let (code, text) = command(&config, verify, &["--head-file", head]).await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = command(&config, verify, &["--head", &"0".repeat(64)]).await;
    assert_eq!(code, 0, "the beginning is of every log: {text}");
    let (code, _) = command(&config, verify, &["--head-file", "/nowhere"]).await;
    assert_eq!(code, 2);

    // The end is cut off, with what the log itself says of its end.
    execute(
        &files,
        database,
        &[
            "DROP TRIGGER audit_is_not_shortened",
            "DELETE FROM audit WHERE seq = (SELECT seq FROM audit_head)",
            "UPDATE audit_head SET (seq, hash) = \
             (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1)",
        ],
    )
    .await;
    let (code, text) = command(&config, verify, &[]).await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = command(&config, verify, &["--json", "--head-file", head]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["whole"]), (1, &Value::Bool(false)), "{told}");
    assert_eq!(told["flaw"]["seq"], last["seq"]);
    // An entry is changed.
    execute(
        &files,
        database,
        &[
            "DROP TRIGGER audit_is_not_changed",
            "UPDATE audit SET actor = 'somebody else' WHERE seq = 2",
        ],
    )
    .await;
    let (code, text) = command(&config, verify, &[]).await;
    assert_eq!(code, 1);
    assert!(text.contains("entry 2: it was changed"), "{text}");
    // And what is no number, where the database takes it: the log is broken, and was read.
    if database.contains("sqlite") {
        execute(
            &files,
            database,
            &["UPDATE audit SET seq = 'two' WHERE seq = 2"],
        )
        .await;
        let (code, text) = command(&config, verify, &[]).await;
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("entry 2: it is missing"), "{text}");
    }
}

/// A server on this machine that takes what is posted: where it is, and what comes.
async fn receiver() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/heads", listener.local_addr().unwrap());
    let (got, coming) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = String::new();
            while !request.ends_with("}\n") {
                let mut bytes = [0; 1024];
                let n = tcp.read(&mut bytes).await.unwrap();
                assert_ne!(n, 0, "{request}");
                request.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            got.send(request).await.unwrap();
        }
    });
    (url, coming)
}

#[tokio::test]
async fn the_head_is_posted_regularly_and_when_the_gateway_stops() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let (url, mut coming) = receiver().await;
    files.write("token", "a-token");
    let text = format!(
        "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n\
         [store.audit]\nhead_url = \"{url}\"\nhead_token_file = \"token\"\nhead_every_s = 1\n\
         [proxy]\nurl = \"http://127.0.0.1:9\"\ncredential_file = \"login\"\n\
         [[node]]\nurl = \"{}\"\n",
        node.url
    );
    files.write("login", "user:one");
    let config = files.write("gateway.toml", &text);
    let mut gateway = Process::start("gateway", &config).await;
    for _ in 0..2 {
        let request = coming.recv().await.unwrap();
        assert!(request.starts_with("POST /heads HTTP/1.1\r\n"), "{request}");
        let lower = request.to_ascii_lowercase();
        assert!(
            lower.contains("authorization: bearer a-token\r\n"),
            "{request}"
        );
    }
    // Nothing but what lies in a file of the configuration is another.
    files.write("login", "user:two");
    gateway.signal("HUP").await;
    gateway.logged("configuration in force", 1).await;
    gateway.terminate().await;
    assert!(gateway.ended().await.success());
    let mut last = String::new();
    while let Ok(request) = coming.try_recv() {
        last = request;
    }
    let (_, body) = last.split_once("\r\n\r\n").unwrap();
    let posted: Value = serde_json::from_str(body).unwrap();
    let entries = listed(&config).await;
    let end = entries.last().unwrap();
    assert_eq!(end["event"], "gateway.stopped");
    assert_eq!(
        (&posted["seq"], &posted["hash"]),
        (&end["seq"], &end["hash"])
    );
    let taken = of(&entries, "config.in_force");
    assert_eq!(taken.len(), 1, "{entries:#?}");
    let login = files.dir.path().join("login");
    assert_eq!(taken[0]["detail"]["files"], json!([login]));
}
