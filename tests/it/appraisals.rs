//! The life of an appraisal: the policy changes while the gateway serves, and what was judged is kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::harness::{
    Engine, KEY, Process, Reply, Setup,
    process::sealgate,
    prompt,
    setup::{Files, error_of, measurement, policy},
    soon,
};

/// A measurement that no node of these tests has.
fn another() -> String {
    "00".repeat(48)
}

/// Puts a policy in the place of the one in force, as an editor does, and says so.
async fn put_in_force(setup: &Setup, text: &str) {
    let unfinished = setup.dir.path().join("policy.toml.new");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, setup.dir.path().join("policy.toml")).unwrap();
    setup.gateway.signal("HUP").await;
}

/// Asks until the gateway is ready, or is not.
async fn until_ready(setup: &Setup, ready: bool) {
    let asking = async {
        while (setup.get("/readyz").await.status() == 200) != ready {
            tokio::task::yield_now().await;
        }
    };
    soon("readiness changes", asking).await;
}

/// Looks at the gateway's log until it says so.
async fn until_logged(setup: &Setup, text: &str) {
    let looking = async {
        while !setup.gateway.log().contains(text) {
            setup.get("/health").await;
        }
    };
    soon(text, looking).await;
}

#[tokio::test]
async fn a_node_that_a_new_policy_refuses_is_dropped_with_its_requests_and_comes_back() {
    let setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("true ").await;
    });
    assert_eq!(stream.text().await, "true ");
    setup.engine.reply(Reply::Hang);
    let pending = tokio::spawn(
        setup
            .post(json!({"model": "tiny", "prompt": prompt("y")}).to_string())
            .send(),
    );
    setup.engine.arrived(2).await;

    put_in_force(&setup, &policy(&another())).await;
    let (events, end) = soon("the stream ends", stream.rest()).await;
    assert!(end.is_err(), "the connection is aborted");
    assert_eq!(events.len(), 1, "one error event and no [DONE]: {events:?}");
    let last: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(last["error"]["code"], "upstream_truncated");
    let pending = soon("the pending request ends", pending)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        pending.headers()["x-should-retry"],
        "false",
        "it may have run"
    );
    let (status, error) = error_of(pending).await;
    assert_eq!(
        (status, &error["code"]),
        (502, &json!("upstream_truncated"))
    );
    setup.engine.idle().await;
    feed.abandoned().await;

    until_ready(&setup, false).await;
    let refused = setup.complete(json!({"prompt": prompt("z")})).await;
    let (status, error) = error_of(refused).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_attested_node")));
    assert_eq!(setup.engine.received().len(), 2, "nothing more was sent");
    let log = setup.gateway.log();
    assert!(
        log.contains("node dropped: it does not pass the policy"),
        "{log}"
    );

    put_in_force(&setup, &policy(&measurement())).await;
    until_ready(&setup, true).await;
    assert_eq!(
        setup
            .complete(json!({"prompt": prompt("z")}))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_stream_goes_on_under_a_new_policy_that_its_node_passes() {
    let setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let wider = policy(&measurement()).replace("measurements = [", "measurements = [\n");
    put_in_force(&setup, &wider).await;
    until_logged(&setup, "policy in force").await;
    let digest = digest_in_force(&setup);
    let judged = async {
        let lines = |log: String| log.matches(&format!("policy=\"{digest}\"")).count();
        while lines(setup.gateway.log()) < 2 {
            setup.get("/health").await;
        }
    };
    soon("the node is judged by it", judged).await;
    feed.text("b").await;
    feed.done().await;
    drop(feed);
    assert_eq!(stream.text().await, "b");
    let (events, end) = stream.rest().await;
    assert!(end.is_ok());
    assert_eq!(events.last().unwrap(), "[DONE]");
}

/// The digest of the policy that was put in force last.
fn digest_in_force(setup: &Setup) -> String {
    let log = setup.gateway.log();
    let line = log.lines().rfind(|line| line.contains("policy in force"));
    let (_, after) = line.unwrap().split_once("policy=\"").unwrap();
    after.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_broken_policy_changes_nothing() {
    let setup = Setup::start().await;
    let broken = [
        ("no TOML", "version = ".to_owned()),
        ("nothing", String::new()),
        (
            "a root that is not there",
            policy(&measurement()).replace("ark.pem", "none.pem"),
        ),
        (
            "an unknown key",
            format!("measurement = 1\n{}", policy(&another())),
        ),
    ];
    for (i, (name, text)) in broken.into_iter().enumerate() {
        put_in_force(&setup, &text).await;
        let looking = async {
            let told = |log: String| log.matches("policy not taken").count();
            while told(setup.gateway.log()) <= i {
                setup.get("/health").await;
            }
        };
        soon(name, looking).await;
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200, "{name}");
    }
    assert!(
        setup.gateway.log().contains("none.pem"),
        "the reason is logged"
    );
}

#[tokio::test]
async fn a_changed_policy_is_noticed_without_a_signal() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let config = files.gateway(&[&node.url], "");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("reload_s = 1\n{text}")).unwrap();
    let setup = Setup {
        engine,
        node,
        gateway: Process::start("gateway", &config).await,
        client: reqwest::Client::new(),
        dir: files.dir,
    };
    until_ready(&setup, true).await;
    let policy_file = setup.dir.path().join("policy.toml");
    fs::write(&policy_file, policy(&another())).unwrap();
    until_ready(&setup, false).await;
}

/// The lines of an archive, once there are `count` of them.
async fn lines(setup: &Setup, count: usize) -> Vec<Value> {
    let log = setup.dir.path().join("archive/appraisals.jsonl");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let reading = async {
        while read().lines().count() < count {
            setup.get("/health").await;
        }
    };
    soon("verdicts are archived", reading).await;
    read()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Runs `sealgate verify` as somebody does who has the archive alone.
async fn verify(archive: &Path, line: &Value) -> (Option<i32>, String) {
    let text = |member: &str| line[member].as_str().unwrap().to_owned();
    let evidence = archive
        .join("evidence")
        .join(format!("{}.json", text("evidence")));
    let policy: PathBuf = archive
        .join("policies")
        .join(text("policy"))
        .join("policy.toml");
    let mut command = sealgate();
    command
        .arg("verify")
        .arg(evidence)
        .arg("--policy")
        .arg(policy);
    command.args(["--at", &text("at"), "--nonce", &text("nonce")]);
    let output = command.output().await.unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn what_was_judged_can_be_judged_again_from_the_archive() {
    let setup = Setup::with("", "[archive]\ndir = \"archive\"\nrequired = true\n").await;
    until_ready(&setup, true).await;
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200);
    let accepted = lines(&setup, 1).await.remove(0);
    assert_eq!(accepted["verdict"], "accepted", "{accepted}");
    assert_eq!(accepted["node"], setup.node.url);
    assert_eq!(accepted["node_id"], "node-a");
    assert_eq!(accepted["check"], Value::Null);

    put_in_force(&setup, &policy(&another())).await;
    until_ready(&setup, false).await;
    // What was kept was judged again, and then the node was asked.
    let all = lines(&setup, 3).await;
    assert_eq!(all[0], accepted);
    for refused in &all[1..3] {
        assert_eq!(refused["verdict"], "refused", "{refused}");
        assert_eq!(refused["check"], "measurement");
        assert_ne!(refused["policy"], accepted["policy"]);
    }
    assert_eq!(all[1]["evidence"], accepted["evidence"]);
    assert_ne!(all[2]["evidence"], accepted["evidence"]);

    // Long after the gateway, its policy and the root are gone.
    let archive = setup.dir.path().join("archive");
    fs::remove_dir_all(setup.dir.path().join("software-root")).unwrap();
    fs::remove_file(setup.dir.path().join("policy.toml")).unwrap();
    let (code, output) = verify(&archive, &accepted).await;
    assert_eq!(code, Some(0), "{output}");
    for refused in &all[1..3] {
        let (code, output) = verify(&archive, refused).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("measurement"), "{output}");
    }
    let mut under = accepted.clone();
    under["at"] = json!("2020-01-01T00:00:00Z");
    assert_eq!(verify(&archive, &under).await.0, Some(1), "a time before");
}

#[tokio::test]
async fn an_archive_that_cannot_be_made_stops_the_start_and_names_the_key() {
    let files = Files::new();
    files.write("taken", "a file");
    let config = files.gateway(
        &["http://127.0.0.1:1"],
        "[archive]\ndir = \"taken/archive\"\n",
    );
    let args = ["gateway".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut gateway = Process::spawn(args, config.with_extension("log"));
    assert!(!soon("it ends", gateway.ended()).await.success());
    assert!(gateway.log().contains("archive.dir"), "{}", gateway.log());
}

#[tokio::test]
async fn without_its_required_archive_no_node_is_verified() {
    let setup = Setup::with("", "[archive]\ndir = \"archive\"\nrequired = true\n").await;
    until_ready(&setup, true).await;
    let archive = setup.dir.path().join("archive");
    fs::remove_dir_all(&archive).unwrap();
    fs::write(&archive, "no folder any more").unwrap();
    put_in_force(&setup, &format!("# edited\n{}", policy(&measurement()))).await;
    until_ready(&setup, false).await;
    assert!(setup.gateway.log().contains("verdict not archived"));
    let reply = setup.client.get(format!("{}/v1/models", setup.gateway.url));
    let models: Value = reply
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(models["data"], json!([]));
}

#[tokio::test]
async fn a_bundle_that_is_not_there_stops_the_start_and_names_the_key() {
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("bundle = \"nowhere\"\n{text}")).unwrap();
    for first in ["gateway --config", "check-config"] {
        let mut command = sealgate();
        command.args(first.split(' ')).arg(&config);
        let output = soon("it ends", command.output()).await.unwrap();
        assert!(!output.status.success(), "{first}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.contains("bundle: ") && said.contains("nowhere"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_hangup_during_start_ends_no_gateway() {
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let text = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    let mut making = tokio::process::Command::new("mkfifo");
    assert!(making.arg(&config).status().await.unwrap().success());
    let args = ["gateway".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut gateway = Process::spawn(args, config.with_extension("log"));
    // It opens once the gateway reads it.
    let opening = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(config));
    let mut pipe = soon("it reads", opening).await.unwrap().unwrap();
    gateway.signal("HUP").await;
    std::io::Write::write_all(&mut pipe, &text).unwrap();
    drop(pipe);
    let line = soon("it listens", gateway.line()).await;
    assert!(line.contains("listening on"), "{line}");
}
