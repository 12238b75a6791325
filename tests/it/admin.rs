//! The admin listener of both roles behind TLS: who gets in, how its files are replaced, and what
//! `check-config` says of it.

use std::path::Path;

use crate::harness::{
    Engine, Process,
    process::sealgate,
    setup::Files,
    soon,
    tls::{Authority, Identity},
};

const TABLE: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n[admin.tls]\n\
                     certificate_file = \"admin.pem\"\nkey_file = \"admin.key\"\n";

fn write(files: &Files, identity: &Identity) {
    files.write("admin.pem", &identity.certificate);
    files.write("admin.key", &identity.key);
}

/// A node and a gateway, each with `table` in its configuration.
async fn both(files: &Files, engine: &Engine, table: &str) -> [Process; 2] {
    let node = Process::start("node", &files.node("node-a", engine, table)).await;
    let gateway = files.gateway(&[&node.url], table);
    let gateway = Process::start("gateway", &gateway).await;
    [node, gateway]
}

#[tokio::test]
async fn an_admin_listener_speaks_tls_and_takes_another_certificate_while_it_serves() {
    let authority = Authority::new();
    let (files, engine) = (Files::new(), Engine::start().await);
    let (first, second) = (authority.issue(), authority.issue());
    write(&files, &first);
    let both = both(&files, &engine, TABLE).await;
    for process in &both {
        assert!(process.admin.starts_with("https://"), "{}", process.admin);
        assert!(process.url.starts_with("http://"), "{}", process.url);
        for h2 in [false, true] {
            let url = format!("{}/metrics", process.admin);
            let page = authority.get(&url, None, h2).await.unwrap();
            assert_eq!(page.status(), 200);
            assert!(page.body().starts_with(b"# HELP sealgate_"), "{h2}");
            let stranger = Authority::new().get(&url, None, h2).await;
            assert!(stranger.unwrap_err().is_connect());
        }
        let plain = process.admin.replace("https", "http");
        assert!(reqwest::get(format!("{plain}/health")).await.is_err());
    }
    for process in &both {
        let address = process.admin.trim_start_matches("https://").to_owned();
        write(&files, &first);
        assert_eq!(authority.shown_at(&address).await, first.der());
        // The key of the second with the certificate of the first.
        files.write("admin.key", &second.key);
        process.signal("HUP").await;
        process.logged("tls not taken", 1).await;
        assert_eq!(authority.shown_at(&address).await, first.der());
        write(&files, &second);
        process.signal("HUP").await;
        process.logged("tls in force", 1).await;
        assert_eq!(authority.shown_at(&address).await, second.der());
    }
}

#[tokio::test]
async fn an_admin_listener_can_ask_for_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (files, engine) = (Files::new(), Engine::start().await);
    write(&files, &authority.issue());
    files.write("operators.pem", &authority.pem);
    let table = format!("{TABLE}client_ca_file = \"operators.pem\"\n");
    let (known, unknown) = (authority.issue(), stranger.issue());
    for process in both(&files, &engine, &table).await {
        let url = format!("{}/health", process.admin);
        for (identity, expected) in [(Some(&known), true), (Some(&unknown), false), (None, false)] {
            let reply = authority.get(&url, identity, false).await;
            assert_eq!(reply.is_ok(), expected, "{url} {reply:?}");
        }
    }
}

async fn checked(config: &Path) -> (bool, String) {
    let output = sealgate().arg("check-config").arg(config).output();
    let output = soon("check-config", output).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn check_config_reads_the_files_of_an_admin_listener_and_warns_of_one_in_clear() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let authority = Authority::new();
    write(&files, &authority.issue());
    files.write("other.key", &authority.issue().key);
    files.write("token", "0123456789abcdef");
    let beyond = "[admin]\nlisten = \"0.0.0.0:9\"\ntoken_file = \"token\"\n";
    let tls = TABLE.split_once("[admin.tls]").unwrap().1;
    let cases = [
        (TABLE.to_owned(), true, ""),
        (
            TABLE.replace("admin.key", "other.key"),
            false,
            "admin.tls.key_file",
        ),
        (
            TABLE.replace("admin.pem", "none.pem"),
            false,
            "admin.tls.certificate_file",
        ),
        (beyond.to_owned(), true, "admin.tls: without it the token"),
        (format!("{beyond}[admin.tls]{tls}"), true, ""),
    ];
    for (table, good, said) in cases {
        let node = files.node("node-a", &engine, &table);
        let gateway = files.gateway(&["http://127.0.0.1:1"], &table);
        for config in [node, gateway] {
            let (right, text) = checked(&config).await;
            assert_eq!(right, good, "{table}: {text}");
            assert!(text.contains(said), "{table}: {text}");
            assert_eq!(
                text.contains("in clear"),
                said.contains("without"),
                "{text}"
            );
        }
    }
}
