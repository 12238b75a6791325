//! What the operator sees on the admin listeners of gateway and node.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{
    CANARY, KEY, Reply, Setup,
    metrics::{metric, page, parse, until_metric, value},
    prompt,
    setup::error_of,
    soon,
};

/// An admin listener on a port of the kernel's choice.
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n";

/// Some of a series' labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

const COMPLETIONS: (&str, &str) = ("endpoint", "/v1/completions");

/// One whole answer, one stream, two refusals, one that its caller left.
async fn some_requests(setup: &Setup) {
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200);
    reply.bytes().await.unwrap();
    let (_, end) = setup
        .stream(json!({"prompt": prompt("a b c")}))
        .await
        .rest()
        .await;
    end.unwrap();
    let refused = setup.post(format!("{{{CANARY}")).send().await.unwrap();
    assert_eq!(error_of(refused).await.1["code"], "invalid_json");
    let unknown = setup.post(CANARY).bearer_auth(CANARY);
    let unknown = unknown.send().await.unwrap();
    assert_eq!(unknown.status(), 401);
    setup.engine.reply(Reply::Hang);
    let asked = setup.engine.received().len() + 1;
    tokio::select! {
        _ = setup.complete(json!({"prompt": prompt("y")})) => panic!("answered"),
        () = setup.engine.arrived(asked) => {}
    }
    setup.engine.idle().await;
    assert_eq!(setup.get(&format!("/{CANARY}")).await.status(), 404);
}

#[tokio::test]
async fn what_happened_is_counted_and_what_is_held_is_given_back() {
    let setup = Setup::with(ADMIN, ADMIN).await;
    let gateway = &setup.gateway.admin;
    some_requests(&setup).await;
    let requests = "sealgate_gateway_requests_total";
    until_metric(gateway, requests, &[COMPLETIONS], 5.0).await;
    for held in [
        "requests_in_flight",
        "bodies_held_bytes",
        "node_requests_in_flight",
    ] {
        until_metric(gateway, &format!("sealgate_gateway_{held}"), &[], 0.0).await;
    }
    let counted = page(gateway).await;
    let cases: [(&str, Labels<'_>, f64); 25] = [
        (
            "requests_total",
            &[
                COMPLETIONS,
                ("outcome", "complete"),
                ("status", "2xx"),
                ("code", "none"),
                ("model", "tiny"),
            ],
            2.0,
        ),
        (
            "requests_total",
            &[
                ("code", "invalid_json"),
                ("outcome", "failed"),
                ("status", "4xx"),
                ("model", "other"),
            ],
            1.0,
        ),
        (
            "requests_total",
            &[
                COMPLETIONS,
                ("code", "invalid_api_key"),
                ("status", "4xx"),
                ("model", "other"),
            ],
            1.0,
        ),
        (
            "requests_total",
            &[
                ("outcome", "cancelled"),
                ("status", "none"),
                ("model", "tiny"),
            ],
            1.0,
        ),
        (
            "requests_total",
            &[
                ("endpoint", "unknown"),
                ("code", "not_found"),
                ("status", "4xx"),
            ],
            1.0,
        ),
        ("request_duration_seconds_count", &[COMPLETIONS], 5.0),
        (
            "request_duration_seconds_bucket",
            &[COMPLETIONS, ("le", "+Inf")],
            5.0,
        ),
        ("time_to_first_byte_seconds_count", &[COMPLETIONS], 2.0),
        ("time_to_first_byte_seconds_count", &[], 2.0),
        ("prompt_tokens_total", &[("model", "tiny")], 6.0),
        ("completion_tokens_total", &[("model", "tiny")], 4.0),
        ("completion_tokens_total", &[("model", "other")], 0.0),
        ("tries_total", &[], 3.0),
        ("retries_total", &[], 0.0),
        ("retries_refused_total", &[], 0.0),
        ("reseals_total", &[], 0.0),
        ("requests_shed_total", &[], 0.0),
        ("exchange_failures_total", &[], 0.0),
        ("nodes", &[], 1.0),
        ("node_verified", &[("node", "node-a")], 1.0),
        (
            "node_standing",
            &[("node", "node-a"), ("standing", "good")],
            1.0,
        ),
        (
            "node_answers_total",
            &[("node", "node-a"), ("url", &setup.node.url)],
            2.0,
        ),
        ("node_appraisals_total", &[("verdict", "accepted")], 1.0),
        ("node_appraisals_total", &[], 1.0),
        ("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ];
    for (name, labels, expected) in cases {
        let found = value(&counted, &format!("sealgate_gateway_{name}"), labels);
        assert_eq!(found, expected, "{name} {labels:?}\n{counted}");
    }
    let bytes = value(
        &counted,
        "sealgate_gateway_request_body_bytes_total",
        &[COMPLETIONS],
    );
    assert!(bytes > 100.0, "{bytes}");
    assert!(value(&counted, "sealgate_gateway_reply_body_bytes_total", &[]) > bytes);
    assert!(
        value(
            &counted,
            "sealgate_gateway_node_appraisal_remaining_seconds",
            &[]
        ) > 1000.0
    );
    assert!(value(&counted, "process_resident_memory_bytes", &[]) > 1e6);
}

#[tokio::test]
async fn a_node_counts_what_it_opened_and_what_its_engine_did() {
    let setup = Setup::with(ADMIN, ADMIN).await;
    let node = &setup.node.admin;
    some_requests(&setup).await;
    setup.engine.reply(Reply::Json(500, json!({"error": "x"})));
    let failed = setup.complete(json!({"prompt": prompt("z")})).await;
    assert_eq!(error_of(failed).await.1["code"], "engine_error");
    let nonce = format!("{}/v1/attestation?nonce=1", setup.node.url);
    assert_eq!(reqwest::get(nonce).await.unwrap().status(), 400);
    until_metric(node, "sealgate_node_requests_total", &[], 4.0).await;
    for held in [
        "requests_in_flight",
        "buffered_bytes",
        "engine_requests_in_flight",
    ] {
        until_metric(node, &format!("sealgate_node_{held}"), &[], 0.0).await;
    }
    let counted = page(node).await;
    let address = setup.engine.address.to_string();
    let engine = [("engine", "0"), ("address", address.as_str())];
    let sealgate = ("dialect", "sealgate");
    let cases: [(&str, Labels<'_>, f64); 12] = [
        (
            "requests_total",
            &[COMPLETIONS, sealgate, ("outcome", "complete")],
            2.0,
        ),
        (
            "requests_total",
            &[COMPLETIONS, ("outcome", "cancelled")],
            1.0,
        ),
        (
            "requests_total",
            &[COMPLETIONS, ("outcome", "engine-failed")],
            1.0,
        ),
        (
            "refusals_total",
            &[("form", "sealed"), ("problem", "engine-failed")],
            1.0,
        ),
        ("refusals_total", &[], 1.0),
        (
            "engine_failures_total",
            &[engine[0], engine[1], ("class", "engine-failed")],
            1.0,
        ),
        ("engine_time_to_first_byte_seconds_count", &engine, 3.0),
        ("replay_table_entries", &[sealgate], 4.0),
        ("replay_table_entries", &[], 4.0),
        ("attestations_total", &[("outcome", "answered")], 1.0),
        ("attestations_total", &[("outcome", "nonce")], 1.0),
        ("build_info", &[], 1.0),
    ];
    for (name, labels, expected) in cases {
        let found = value(&counted, &format!("sealgate_node_{name}"), labels);
        assert_eq!(found, expected, "{name} {labels:?}\n{counted}");
    }
    let suite = ("suite", "x-wing");
    let end = value(
        &counted,
        "sealgate_node_key_not_after_timestamp_seconds",
        &[suite],
    );
    let begin = value(
        &counted,
        "sealgate_node_key_not_before_timestamp_seconds",
        &[suite],
    );
    assert!(end - begin > 86_000.0, "{begin} {end}");
}

/// Prompt, key, a path and a model from outside are in no line, and every series stands once.
#[tokio::test]
async fn nothing_from_outside_gets_into_a_label() {
    let setup = Setup::with(ADMIN, ADMIN).await;
    some_requests(&setup).await;
    let unknown = setup
        .complete(json!({"model": CANARY, "prompt": prompt("x")}))
        .await;
    assert_eq!(error_of(unknown).await.1["code"], "model_not_found");
    for admin in [&setup.gateway.admin, &setup.node.admin] {
        let text = page(admin).await;
        assert!(!text.contains(CANARY) && !text.contains(KEY), "{text}");
        let samples = parse(&text);
        let series: BTreeSet<_> = samples.iter().map(|it| (&it.name, &it.labels)).collect();
        assert_eq!(series.len(), samples.len(), "{text}");
        let client = reqwest::Client::new();
        let asked = client.get(format!("{admin}/metrics"));
        let open = asked
            .header("accept", "application/openmetrics-text")
            .send()
            .await
            .unwrap();
        let media_type = open.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0"));
        let open = open.text().await.unwrap();
        assert!(open.ends_with("\n# EOF\n"), "{open}");
        assert_eq!(
            parse(&open).len(),
            samples.len(),
            "as many in either format"
        );
    }
}

#[tokio::test]
async fn without_its_token_an_admin_listener_tells_nothing() {
    let token = "admin-token-0123456789";
    let admin = format!("{ADMIN}token_file = \"admin.token\"\n");
    let files = crate::harness::setup::Files::new();
    files.write("admin.token", &format!("{token}\n"));
    let engine = crate::harness::Engine::start().await;
    let config = files.node("node-a", &engine, &admin);
    let node = crate::harness::Process::start("node", &config).await;
    let config = files.gateway(&[&node.url], &admin);
    let gateway = crate::harness::Process::start("gateway", &config).await;
    let client = reqwest::Client::new();
    for process in [&node, &gateway] {
        for path in ["/metrics", "/health", "/readyz", "/"] {
            let url = format!("{}{path}", process.admin);
            for given in [None, Some(KEY), Some(&token[1..])] {
                let mut request = client.get(&url);
                if let Some(given) = given {
                    request = request.bearer_auth(given);
                }
                let refused = request.send().await.unwrap();
                assert_eq!(refused.status(), 401, "{path}");
                assert_eq!(refused.headers()["www-authenticate"], "Bearer");
                let text = refused.text().await.unwrap();
                assert!(!text.contains("sealgate_"), "{text}");
            }
        }
        let page = client
            .get(format!("{}/metrics", process.admin))
            .bearer_auth(token);
        let page = page.send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(!page.text().await.unwrap().contains(token));
    }
}

#[tokio::test]
async fn a_drain_can_be_watched_to_its_end() {
    let mut setup = Setup::with(ADMIN, ADMIN).await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let gateway = setup.gateway.admin.clone();
    assert_eq!(
        metric(&gateway, "sealgate_gateway_draining", &[]).await,
        0.0
    );
    setup.gateway.terminate().await;
    until_metric(&gateway, "sealgate_gateway_draining", &[], 1.0).await;
    assert_eq!(
        metric(&gateway, "sealgate_gateway_requests_in_flight", &[]).await,
        1.0
    );
    let ready = reqwest::get(format!("{gateway}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(
        reqwest::get(format!("{gateway}/health"))
            .await
            .unwrap()
            .status(),
        200
    );
    feed.done().await;
    let (_, end) = stream.rest().await;
    end.unwrap();
    let ended = soon("the gateway ends", setup.gateway.ended()).await;
    assert!(ended.success());
    assert!(reqwest::get(format!("{gateway}/health")).await.is_err());
}

#[tokio::test]
async fn check_config_reads_the_token_too() {
    let files = crate::harness::setup::Files::new();
    let engine = crate::harness::Engine::start().await;
    let admin = format!("{ADMIN}token_file = \"admin.token\"\n");
    let node = files.node("node-a", &engine, &admin);
    let gateway = files.gateway(&["http://127.0.0.1:1"], &admin);
    let checked = async |config: &std::path::Path| {
        let output = crate::harness::process::sealgate()
            .arg("check-config")
            .arg(config)
            .output();
        let output = soon("check-config", output).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    for config in [&node, &gateway] {
        let (good, text) = checked(config).await;
        assert!(!good && text.contains("admin.token"), "{text}");
        files.write("admin.token", "short");
        let (good, text) = checked(config).await;
        assert!(!good && text.contains("admin.token_file"), "{text}");
        assert!(!text.contains("short"), "{text}");
        files.write("admin.token", "long-enough-to-be-a-token");
        let (good, text) = checked(config).await;
        assert!(good, "{text}");
        std::fs::remove_file(files.dir.path().join("admin.token")).unwrap();
    }
}

#[tokio::test]
async fn what_is_shed_and_what_breaks_off_is_counted() {
    let limits = format!("{ADMIN}[limits]\nin_flight = 1\n");
    let mut setup = Setup::with(ADMIN, &limits).await;
    let gateway = setup.gateway.admin.clone();
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(stream.text().await, "a");
    let shed = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(shed.status(), 429);
    let held = page(&gateway).await;
    for (name, expected) in [
        ("requests_in_flight", 1.0),
        ("requests_in_flight_limit", 1.0),
        ("node_requests_in_flight", 1.0),
        ("node_answers_total", 1.0),
    ] {
        let found = value(&held, &format!("sealgate_gateway_{name}"), &[]);
        assert_eq!(found, expected, "{name}\n{held}");
    }
    assert_eq!(
        metric(
            &setup.node.admin,
            "sealgate_node_engine_requests_in_flight",
            &[]
        )
        .await,
        1.0
    );
    setup.node.kill().await;
    let (_, end) = stream.rest().await;
    assert!(end.is_err());
    for held in ["requests_in_flight", "node_requests_in_flight"] {
        until_metric(&gateway, &format!("sealgate_gateway_{held}"), &[], 0.0).await;
    }
    let counted = page(&gateway).await;
    let broken = ("code", "upstream_truncated");
    let cases: [(&str, Labels<'_>, f64); 6] = [
        ("requests_shed_total", &[("reason", "places")], 1.0),
        ("requests_shed_total", &[], 1.0),
        (
            "requests_total",
            &[("code", "overloaded"), ("status", "4xx")],
            1.0,
        ),
        (
            "requests_total",
            &[broken, ("status", "2xx"), ("outcome", "failed")],
            1.0,
        ),
        ("node_failures_total", &[("node", "node-a")], 1.0),
        ("exchange_failures_total", &[], 1.0),
    ];
    for (name, labels, expected) in cases {
        let found = value(&counted, &format!("sealgate_gateway_{name}"), labels);
        assert_eq!(found, expected, "{name} {labels:?}\n{counted}");
    }
}

#[tokio::test]
async fn a_policy_that_is_read_again_and_verdicts_that_are_kept_are_counted() {
    let archive = format!("{ADMIN}[archive]\ndir = \"archive\"\n");
    let setup = Setup::with("", &archive).await;
    let gateway = &setup.gateway.admin;
    let (reloads, written) = (
        "sealgate_gateway_reloads_total",
        "sealgate_gateway_archived_verdicts_total",
    );
    until_metric(gateway, written, &[("outcome", "written")], 1.0).await;
    let last_good = "sealgate_gateway_last_good_reload_timestamp_seconds";
    assert_eq!(metric(gateway, last_good, &[("file", "policy")]).await, 0.0);
    let path = setup.dir.path().join("policy.toml");
    let policy = std::fs::read_to_string(&path).unwrap();
    let cases = [
        ("unchanged", policy.clone()),
        ("refused", "version = ".to_owned()),
        ("applied", format!("{policy}# another\n")),
    ];
    for (outcome, text) in cases {
        let unfinished = setup.dir.path().join("policy.toml.new");
        std::fs::write(&unfinished, text).unwrap();
        std::fs::rename(unfinished, &path).unwrap();
        setup.gateway.signal("HUP").await;
        let of = [("file", "policy"), ("outcome", outcome)];
        until_metric(gateway, reloads, &of, 1.0).await;
    }
    assert!(metric(gateway, last_good, &[("file", "policy")]).await > 1.7e9);
    // Judged again by the new policy, and written down.
    until_metric(gateway, written, &[("outcome", "written")], 2.0).await;
    let accepted = [("node", "node-a"), ("verdict", "accepted")];
    until_metric(
        gateway,
        "sealgate_gateway_node_appraisals_total",
        &accepted,
        2.0,
    )
    .await;
    until_metric(gateway, "sealgate_gateway_archive_queue", &[], 0.0).await;
}

#[tokio::test]
async fn nothing_is_claimed_of_an_engine_that_nobody_asks() {
    for (watch, expected) in [("", 1), ("watch = false\n", 0)] {
        let (files, engine) = (
            crate::harness::setup::Files::new(),
            crate::harness::Engine::start().await,
        );
        let config = files.node("node-a", &engine, &format!("{watch}{ADMIN}"));
        let node = crate::harness::Process::start("node", &config).await;
        let page = page(&node.admin).await;
        let begin = "\nsealgate_node_engine_healthy{";
        assert_eq!(page.matches(begin).count(), expected, "{page}");
        assert!(page.contains("\nsealgate_node_engine_queue{"), "{page}");
    }
}
