//! The command line as a person meets it.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Engine, KEY, Process, process::sealgate, prompt, setup::Files, soon};

async fn run(args: &[&str]) -> Output {
    soon(&args.join(" "), sealgate().args(args).output())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_bad_configuration_names_its_key_and_opens_no_port() {
    let files = Files::new();
    let engine = Engine::start().await;
    let good_gateway = std::fs::read_to_string(files.gateway(&["http://127.0.0.1:1"], "")).unwrap();
    let good_node = std::fs::read_to_string(files.node("node-a", &engine, "")).unwrap();
    let cases = [
        ("gateway", good_gateway.replace("auth", "auht"), "auht"),
        ("gateway", format!("{good_gateway}[store]\n"), "keys_file"),
        (
            "gateway",
            good_gateway.replace("keys.toml", "absent.toml"),
            "absent.toml",
        ),
        (
            "gateway",
            good_gateway.replace("policy.toml", "absent.toml"),
            ".toml: policy: ",
        ),
        (
            "gateway",
            good_gateway.replace("keys.toml", "absent.toml"),
            ".toml: keys_file: ",
        ),
        (
            "gateway",
            good_gateway.replace("127.0.0.1:0", "localhost:1"),
            "not an IP address and port, such as 127.0.0.1:8080",
        ),
        (
            "gateway",
            good_gateway.replace("http://127.0.0.1:1", "ftp://x"),
            "url",
        ),
        (
            "gateway",
            good_gateway
                .replace("127.0.0.1:0", "0.0.0.0:0")
                .replace("\"keys\"", "\"open\""),
            "auth",
        ),
        (
            "gateway",
            good_gateway.clone() + "[limits]\nbody_bytes = 0\n",
            "body_bytes",
        ),
        (
            "gateway",
            good_gateway.clone() + "[limits]\nbody_bytes = \"8M\"\n",
            "body_bytes",
        ),
        ("node", good_node.replace("node-a", "Node A"), "node_id"),
        (
            "node",
            good_node.replace("dir = \"software-root\"", "dir = \"absent\""),
            "absent",
        ),
        (
            "node",
            good_node.replace("http://127", "http://192.0.2.1:1/#127"),
            "url",
        ),
    ];
    for (i, (role, text_of, named)) in cases.into_iter().enumerate() {
        let path = files.write(&format!("bad-{i}.toml"), &text_of);
        let path = path.to_str().unwrap();
        for args in [vec![role, "--config", path], vec!["check-config", path]] {
            let output = run(&args).await;
            assert!(!output.status.success(), "{args:?}: {named}");
            let error = text(&output.stderr);
            assert!(
                error.contains(named),
                "{args:?} does not name {named}:\n{error}"
            );
            assert!(output.stdout.is_empty(), "{args:?}");
        }
    }
}

#[tokio::test]
async fn check_config_approves_what_is_right() {
    let files = Files::new();
    let engine = Engine::start().await;
    for path in [
        files.gateway(&["http://127.0.0.1:1"], ""),
        files.node("node-a", &engine, ""),
    ] {
        let output = run(&["check-config", path.to_str().unwrap()]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let policy = files.dir.path().join("policy.toml");
    let said = |path: std::path::PathBuf| async move {
        let output = run(&["check-config", path.to_str().unwrap()]).await;
        text(&output.stdout) + &text(&output.stderr)
    };
    for path in [
        policy,
        files.gateway(&["http://127.0.0.1:1"], ""),
        files.node("node-a", &engine, ""),
    ] {
        let shown = said(path).await;
        assert!(
            shown.contains("software root: no hardware stands behind it"),
            "{shown}"
        );
    }
    for (content, expected) in [
        ("", "empty: a gateway has"),
        ("a = 1", "[nitro] or [nvidia]"),
        ("version = 1", "a policy, nothing wrong"),
    ] {
        let shown = said(files.write("least.toml", content)).await;
        assert!(shown.contains(expected), "{shown}");
    }
    for name in ["policy.toml", "keys.toml"] {
        // A variable for the gateway is nothing to a policy or a key file.
        let path = files.dir.path().join(name);
        let checked = sealgate()
            .env("SEALGATE_LISTEN", "127.0.0.1:1")
            .arg("check-config")
            .arg(path)
            .output();
        let output = soon(name, checked).await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn samples_under_deploy_are_right() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for name in ["gateway.toml", "node.toml", "policy.toml", "keys.toml"] {
        let path = folder.join(name);
        let output = run(&["check-config", "--syntax-only", path.to_str().unwrap()]).await;
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
}

/// What a sample shows commented out can be used as it stands, placeholders and files apart.
#[tokio::test]
async fn what_samples_comment_out_is_right_too() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let uncommented = |line: &str| {
        let bare = line.strip_prefix('#')?;
        let key = bare.starts_with(|c: char| c.is_ascii_lowercase() || matches!(c, '"' | '['));
        let usable = key && !bare.contains('<') && !bare.starts_with("software_roots");
        let is_toml = bare.contains(" = ") || bare.starts_with('[');
        (usable && is_toml).then(|| bare.to_owned())
    };
    let dir = tempfile::tempdir().unwrap();
    for (name, least) in [("gateway.toml", 20), ("node.toml", 20), ("policy.toml", 10)] {
        let sample = std::fs::read_to_string(folder.join(name)).unwrap();
        let found = sample.lines().filter_map(uncommented).count();
        assert!(found >= least, "{name}: {found} keys commented out");
        let lines = sample
            .lines()
            .map(|line| uncommented(line).unwrap_or_else(|| line.to_owned()) + "\n");
        let path = dir.path().join(name);
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        let output = run(&["check-config", "--syntax-only", path.to_str().unwrap()]).await;
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn verify_shows_every_check_and_its_verdict() {
    let files = Files::new();
    let engine = Engine::start().await;
    let node = Process::start("node", &files.node("node-a", &engine, "")).await;
    let nonce = "ab".repeat(32);
    let answer = reqwest::get(format!("{}/v1/attestation?nonce={nonce}", node.url))
        .await
        .unwrap();
    let evidence = files.write("evidence.json", &answer.text().await.unwrap());
    let (evidence, policy) = (
        evidence.to_str().unwrap(),
        files.dir.path().join("policy.toml"),
    );
    let policy = policy.to_str().unwrap();
    let accepted = run(&["verify", evidence, "--policy", policy, "--nonce", &nonce]).await;
    let shown = text(&accepted.stdout);
    assert_eq!(
        accepted.status.code(),
        Some(0),
        "{shown}{}",
        text(&accepted.stderr)
    );
    assert!(shown.contains("software root"), "{shown}");
    assert!(shown.contains("accepted"), "{shown}");
    let refused = run(&[
        "verify",
        evidence,
        "--policy",
        policy,
        "--nonce",
        &"cd".repeat(32),
    ])
    .await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    let late = run(&[
        "verify",
        evidence,
        "--policy",
        policy,
        "--nonce",
        &nonce,
        "--at",
        "2100-01-01T00:00:00Z",
    ])
    .await;
    assert_eq!(late.status.code(), Some(1), "{}", text(&late.stdout));
    let json_output = run(&[
        "verify", evidence, "--policy", policy, "--nonce", &nonce, "--json",
    ])
    .await;
    let shown: Value = serde_json::from_slice(&json_output.stdout).unwrap();
    assert!(shown.to_string().contains("software root"), "{shown}");
    for args in [
        vec!["verify", "absent.json", "--policy", policy],
        vec!["verify", policy, "--policy", policy],
        vec!["verify", evidence, "--policy", evidence],
        vec!["verify", evidence, "--policy", policy, "--nonce", "xyz"],
    ] {
        let output = run(&args).await;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn keys_are_shown_once_and_stored_as_hashes() {
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let config = config.to_str().unwrap();
    let created = run(&[
        "keys", "create", "--config", config, "--name", "alice", "--json",
    ])
    .await;
    assert!(created.status.success(), "{}", text(&created.stderr));
    let key: Value = serde_json::from_slice(&created.stdout).unwrap();
    let key = key["key"].as_str().unwrap();
    let stored = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    assert!(
        stored.contains("alice") && !stored.contains(key),
        "{stored}"
    );
    let again = run(&["keys", "create", "--config", config, "--name", "alice"]).await;
    assert!(!again.status.success(), "a name is taken once");
    let list = run(&["keys", "list", "--config", config]).await;
    assert!(text(&list.stdout).contains("alice"));
    let list = run(&["keys", "list", "--config", config, "--json"]).await;
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(
        list,
        serde_json::json!({ "keys": [{ "name": "tests" }, { "name": "alice" }] })
    );
    let revoked = run(&["keys", "revoke", "--config", config, "alice"]).await;
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    let stored = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    assert!(
        !stored.contains("alice") && stored.contains("tests"),
        "{stored}"
    );
}

/// A result that nobody got is no success, and a key that nobody saw is not stored.
#[tokio::test]
async fn a_lost_result_is_an_error() {
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let config = config.to_str().unwrap();
    let policy = files.dir.path().join("policy.toml");
    let policy = policy.to_str().unwrap();
    let stored = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    let create = ["keys", "create", "--config", config, "--name", "alice"];
    for args in [
        &["policy", "check", policy][..],
        &["check-config", policy],
        &["man"],
        &["keys", "list", "--config", config],
        &create,
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let lost = sealgate()
            .args(args)
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .spawn();
        let lost = lost.unwrap().wait_with_output();
        let output = soon(&args.join(" "), lost).await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let mut closed = sealgate();
    let mut list = closed
        .args(["man"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(list.stdout.take());
    assert!(
        soon("man", list.wait()).await.unwrap().success(),
        "who reads no more had enough"
    );
    let after = std::fs::read_to_string(files.dir.path().join("keys.toml")).unwrap();
    assert_eq!(after, stored);
}

#[tokio::test]
async fn a_key_file_stays_readable_and_loses_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    let config = files.gateway(&["http://127.0.0.1:1"], "");
    let config = config.to_str().unwrap();
    let path = files.dir.path().join("keys.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let create = ["keys", "create", "--config", config, "--name", "alice"];
    let created = run(&create).await;
    assert!(created.status.success(), "{}", text(&created.stderr));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    // The gateway reads this form too; an edit that does not see its keys would lose them.
    let inline = format!(
        "key = [{{ name = \"x\", sha256 = \"{}\" }}]\n",
        "0a".repeat(32)
    );
    std::fs::write(&path, &inline).unwrap();
    for args in [&create[..], &["keys", "list", "--config", config]] {
        let output = run(args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("[[key]]"), "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), inline);
}

#[tokio::test]
async fn the_manual_has_a_page_for_each_command() {
    let output = run(&["man"]).await;
    let pages = text(&output.stdout);
    for page in [
        ".TH sealgate 1",
        ".TH sealgate-demo 1",
        ".TH sealgate-keys-create 1",
    ] {
        assert!(pages.contains(page), "{page}");
    }
}

#[tokio::test]
async fn a_demo_that_does_not_start_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let kept_name = kept.to_str().unwrap();
    for (name, value) in [
        ("--listen", "127.0.0.1:99999"),
        ("--engine", "localhost:8000"),
        ("--engine", "http://192.0.2.1:8000"),
        ("--model", "a b"),
        ("--api-key", ""),
    ] {
        let output = run(&["demo", "--dir", kept_name, name, value]).await;
        assert_eq!(output.status.code(), Some(2), "{name} {value}");
        assert!(text(&output.stderr).contains(name), "{name} {value}");
        assert!(!kept.exists(), "{name} {value}");
    }
    let output = run(&["demo", "--dir", kept_name, "--listen", &taken]).await;
    let error = text(&output.stderr);
    assert!(error.contains(&taken), "{error}");
    assert!(!kept.exists());

    let args = ["demo", "--listen", "127.0.0.1:0", "--dir", kept_name];
    let mut demo = Process::spawn(args, dir.path().join("demo.log"));
    let folder_is_there = async {
        while !kept.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("the folder", folder_is_there).await;
    demo.terminate().await;
    assert!(demo.ended().await.success());
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
}

/// Reads a demo's words until its base URL and key have come.
async fn demo_ready(demo: &mut Process) -> (String, String, String) {
    let (mut url, mut key, mut shown) = (None, None, String::new());
    while url.is_none() || key.is_none() {
        let line = demo.line().await;
        shown += &format!("{line}\n");
        assert!(
            shown.len() < 10_000 && demo.running(),
            "no demo:\n{shown}\n{}",
            demo.log()
        );
        if let Some(value) = line.strip_prefix("base url: ") {
            url = Some(value.to_owned());
        }
        if let Some(value) = line.strip_prefix("api key: ") {
            key = Some(value.to_owned());
        }
    }
    (url.unwrap(), key.unwrap(), shown)
}

async fn ask(url: &str, key: &str, model: &str) -> (u16, Value) {
    let body = json!({"model": model, "prompt": prompt("hello")}).to_string();
    let request = reqwest::Client::new()
        .post(format!("{url}/completions"))
        .bearer_auth(key);
    let reply = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

#[tokio::test]
async fn the_demo_answers_and_its_files_are_a_real_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let args = [
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--api-key",
        KEY,
        "--dir",
        kept.to_str().unwrap(),
    ];
    let mut demo = Process::spawn(args, dir.path().join("demo.log"));
    let (url, key, shown) = demo_ready(&mut demo).await;
    assert_eq!(key, KEY);
    assert!(shown.contains("software root"), "{shown}");
    let (status, reply) = ask(&url, KEY, "echo").await;
    assert_eq!(status, 200, "{reply}");
    let drawing = reqwest::Client::new()
        .post(format!("{url}/images/generations"))
        .bearer_auth(KEY)
        .json(&json!({"model": "echo", "prompt": "a cat"}));
    let reply = drawing.send().await.unwrap();
    assert_eq!(reply.status(), 404);
    let reply: Value = reply.json().await.unwrap();
    let said = "The built-in echo engine draws no images.";
    assert_eq!(reply["error"]["message"], said, "{reply}");
    demo.terminate().await;
    assert!(demo.ended().await.success());

    let node = Process::start("node", &kept.join("node.toml")).await;
    let gateway = Process::start("gateway", &kept.join("gateway.toml")).await;
    assert_eq!(format!("{}/v1", gateway.url), url, "the same address");
    let (status, reply) = ask(&url, KEY, "echo").await;
    assert_eq!(status, 200, "{reply}");
    drop(node);
    for file in [
        "sealgate.db",
        "sealgate.db-wal",
        "sealgate.journal",
        "sealgate.journal-receipts",
    ] {
        let stored = std::fs::read(kept.join(file)).unwrap();
        assert!(
            !stored.windows(KEY.len()).any(|it| it == KEY.as_bytes()),
            "{file}"
        );
    }
}

#[tokio::test]
async fn the_demo_fronts_a_real_engine() {
    let engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let address = format!("http://{}", engine.address);
    let args = ["demo", "--listen", "127.0.0.1:0", "--engine", &address];
    let mut demo = Process::spawn(args, dir.path().join("demo.log"));
    let (url, key, _) = demo_ready(&mut demo).await;
    let (status, reply) = ask(&url, &key, "tiny").await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(engine.received().len(), 1);
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_help() {
    for args in [vec![], vec!["gatewya"], vec!["gateway"], vec!["verify"]] {
        let output = run(&args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("Usage"), "{args:?}");
    }
    for args in [["--version"], ["--help"]] {
        let output = run(&args).await;
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("sealgate"));
    }
}
