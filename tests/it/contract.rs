//! Bad input gets a clear error that names what is wrong, and never repeats it.

use serde_json::{Value, json};

use crate::harness::{CANARY, KEY, Setup, prompt, setup::error_of};

#[tokio::test]
async fn a_bad_body_is_refused_by_member_and_goes_nowhere() {
    let setup = Setup::start().await;
    let with = |members: &str| format!(r#"{{"model":"tiny","prompt":"{CANARY}",{members}}}"#);
    let deep = format!(r#""deep":{}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, String, &str, Value)> = vec![
        ("empty", String::new(), "invalid_json", json!(null)),
        ("no JSON", CANARY.to_owned(), "invalid_json", json!(null)),
        (
            "cut",
            format!(r#"{{"model":"tiny","prompt":"{CANARY}"#),
            "invalid_json",
            json!(null),
        ),
        (
            "an array",
            format!(r#"["{CANARY}"]"#),
            "invalid_request",
            json!(null),
        ),
        ("deeply nested", with(&deep), "invalid_json", json!(null)),
        (
            "trailing text",
            with(r#""n":1"#) + CANARY,
            "invalid_json",
            json!(null),
        ),
        (
            "model missing",
            format!(r#"{{"prompt":"{CANARY}"}}"#),
            "invalid_request",
            json!("model"),
        ),
        (
            "model null",
            format!(r#"{{"model":null,"prompt":"{CANARY}"}}"#),
            "invalid_request",
            json!("model"),
        ),
        (
            "prompt missing",
            r#"{"model":"tiny"}"#.to_owned(),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "prompt null",
            r#"{"model":"tiny","prompt":null}"#.to_owned(),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "prompt mixed",
            format!(r#"{{"model":"tiny","prompt":["{CANARY}",5]}}"#),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "prompt of booleans",
            r#"{"model":"tiny","prompt":[true]}"#.to_owned(),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "prompt negative",
            r#"{"model":"tiny","prompt":[-1]}"#.to_owned(),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "prompt empty list",
            r#"{"model":"tiny","prompt":[]}"#.to_owned(),
            "invalid_request",
            json!("prompt"),
        ),
        (
            "duplicate",
            with(&format!(r#""prompt":"{CANARY}2""#)),
            "duplicate_member",
            json!("prompt"),
        ),
        (
            "stream a string",
            with(&format!(r#""stream":"{CANARY}""#)),
            "invalid_request",
            json!("stream"),
        ),
        (
            "echo a string",
            with(r#""echo":"yes""#),
            "invalid_request",
            json!("echo"),
        ),
        ("n zero", with(r#""n":0"#), "invalid_request", json!("n")),
        (
            "n a float",
            with(r#""n":1.5"#),
            "invalid_request",
            json!("n"),
        ),
        (
            "n a string",
            with(r#""n":"2""#),
            "invalid_request",
            json!("n"),
        ),
        (
            "best_of zero",
            with(r#""best_of":0"#),
            "invalid_request",
            json!("best_of"),
        ),
        (
            "max_tokens negative",
            with(r#""max_tokens":-1"#),
            "invalid_request",
            json!("max_tokens"),
        ),
        (
            "temperature low",
            with(r#""temperature":-0.1"#),
            "invalid_request",
            json!("temperature"),
        ),
        (
            "temperature high",
            with(r#""temperature":2.1"#),
            "invalid_request",
            json!("temperature"),
        ),
        (
            "top_p high",
            with(r#""top_p":2"#),
            "invalid_request",
            json!("top_p"),
        ),
        (
            "frequency_penalty",
            with(r#""frequency_penalty":9"#),
            "invalid_request",
            json!("frequency_penalty"),
        ),
        (
            "presence_penalty",
            with(r#""presence_penalty":-2.5"#),
            "invalid_request",
            json!("presence_penalty"),
        ),
        (
            "logprobs high",
            with(r#""logprobs":21"#),
            "invalid_request",
            json!("logprobs"),
        ),
        (
            "logprobs a boolean",
            with(r#""logprobs":true"#),
            "invalid_request",
            json!("logprobs"),
        ),
        (
            "five stops",
            with(r#""stop":["a","b","c","d","e"]"#),
            "invalid_request",
            json!("stop"),
        ),
        (
            "stop a number",
            with(r#""stop":5"#),
            "invalid_request",
            json!("stop"),
        ),
        (
            "bias high",
            with(r#""logit_bias":{"1":101}"#),
            "invalid_request",
            json!("logit_bias"),
        ),
        (
            "bias a list",
            with(r#""logit_bias":[1]"#),
            "invalid_request",
            json!("logit_bias"),
        ),
        (
            "seed a float",
            with(r#""seed":0.5"#),
            "invalid_request",
            json!("seed"),
        ),
        (
            "suffix a number",
            with(r#""suffix":1"#),
            "invalid_request",
            json!("suffix"),
        ),
        (
            "user a number",
            with(r#""user":1"#),
            "invalid_request",
            json!("user"),
        ),
    ];
    for (name, body, code, param) in cases {
        let reply = setup.post(body).send().await.unwrap();
        let (status, error) = error_of(reply).await;
        assert_eq!(status, 400, "{name}: {error}");
        assert_eq!(error["code"], code, "{name}: {error}");
        assert_eq!(error["param"], param, "{name}: {error}");
        assert!(
            !error.to_string().contains(CANARY),
            "{name} repeats the input: {error}"
        );
    }
    let not_utf8 = b"{\"model\":\"tiny\",\"prompt\":\"\xff\"}".to_vec();
    let (status, error) = error_of(setup.post(not_utf8).send().await.unwrap()).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_json")));
    assert!(
        setup.engine.received().is_empty(),
        "a bad body reached the engine"
    );
}

#[tokio::test]
async fn good_bodies_at_the_bounds_pass() {
    let setup = Setup::start().await;
    for members in [
        r#""temperature":0,"top_p":0"#,
        r#""temperature":2.0,"top_p":1,"frequency_penalty":-2,"presence_penalty":2"#,
        r#""stop":"one""#,
        r#""stop":["a","b","c","d"]"#,
        r#""stop":null,"logprobs":0,"seed":-9223372036854775808"#,
        r#""logit_bias":{"1":-100,"2":100}"#,
        r#""another":{"a":[{"b":1}]}"#,
    ] {
        let body = format!(r#"{{"model":"tiny","prompt":"{CANARY}",{members}}}"#);
        assert_eq!(
            setup.post(body).send().await.unwrap().status(),
            200,
            "{members}"
        );
    }
}

#[tokio::test]
async fn the_way_in_is_refused_in_json_too() {
    let setup = Setup::with("", "[limits]\nbody_bytes = 4096\n").await;
    let url = |path: &str| format!("{}{path}", setup.gateway.url);
    let body = json!({"model": "tiny", "prompt": prompt("x")}).to_string();
    let large = json!({"model": "tiny", "prompt": prompt(&"x".repeat(5000))}).to_string();
    let client = &setup.client;
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(
        [large.clone()].map(Ok::<_, std::io::Error>),
    ));
    let post = || {
        client
            .post(url("/v1/completions"))
            .header("content-type", "application/json")
    };
    let cases = [
        ("no key", post().body(body.clone()), 401, "invalid_api_key"),
        (
            "a wrong key",
            post().bearer_auth("sk-wrong").body(body.clone()),
            401,
            "invalid_api_key",
        ),
        (
            "another scheme",
            post().header("authorization", format!("Basic {KEY}")),
            401,
            "invalid_api_key",
        ),
        (
            "no key on models",
            client.get(url("/v1/models")),
            401,
            "invalid_api_key",
        ),
        (
            "too large",
            post().bearer_auth(KEY).body(large),
            413,
            "request_too_large",
        ),
        (
            "too large, chunked",
            post().bearer_auth(KEY).body(chunked),
            413,
            "request_too_large",
        ),
        (
            "an unknown path",
            client.get(url("/v2")).bearer_auth(KEY),
            404,
            "not_found",
        ),
        (
            "a wrong method",
            client.get(url("/v1/completions")).bearer_auth(KEY),
            405,
            "method_not_allowed",
        ),
        (
            "a wrong media type",
            client
                .post(url("/v1/completions"))
                .bearer_auth(KEY)
                .header("content-type", "text/plain")
                .body(body.clone()),
            415,
            "unsupported_media_type",
        ),
        (
            "a coded body",
            post()
                .bearer_auth(KEY)
                .header("content-encoding", "gzip")
                .body(body.clone()),
            415,
            "unsupported_media_type",
        ),
        (
            "an unknown model",
            post()
                .bearer_auth(KEY)
                .body(json!({"model": "absent", "prompt": prompt("x")}).to_string()),
            404,
            "model_not_found",
        ),
    ];
    for (name, request, status, code) in cases {
        let (seen, error) = error_of(request.send().await.unwrap()).await;
        assert_eq!((seen, &error["code"]), (status, &json!(code)), "{name}");
    }
    let reply = setup
        .client
        .post(url("/v1/completions"))
        .header("content-type", "application/json")
        .header("authorization", format!("bearer {KEY}"))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200, "the scheme is case-insensitive");
    assert_eq!(setup.engine.received().len(), 1);
}

#[tokio::test]
async fn health_and_readiness_need_no_key() {
    let setup = Setup::start().await;
    // The list waits for the first appraisal; after it the gateway is ready.
    assert_eq!(setup.get("/v1/models").await.status(), 200);
    for (path, key, value) in [("/health", "message", "ok"), ("/readyz", "message", "ok")] {
        let reply = setup
            .client
            .get(format!("{}{path}", setup.gateway.url))
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        assert_eq!(reply.json::<Value>().await.unwrap()[key], value, "{path}");
    }
}

#[tokio::test]
async fn more_than_fits_is_shed_at_once() {
    let setup = Setup::with("", "[limits]\nin_flight = 1\n").await;
    let feed = setup.engine.stream();
    let (mut first, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("a").await;
    });
    assert_eq!(first.text().await, "a");
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (429, &json!("overloaded")));
    feed.done().await;
    drop(feed);
    first.rest().await.1.unwrap();
    assert_eq!(
        setup
            .complete(json!({"prompt": prompt("x")}))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_question_for_a_receipt_is_said_by_its_code() {
    let setup = Setup::start().await;
    let id = "00".repeat(16);
    let cases = [
        (format!("/v1/receipts/{id}"), 404, "receipt_not_found"),
        (
            format!("/v1/receipts/{id}?bundle=1"),
            404,
            "receipt_not_found",
        ),
        (format!("/v1/receipts/{CANARY}"), 404, "receipt_not_found"),
        ("/v1/receipts".to_owned(), 404, "not_found"),
        (
            format!("/v1/receipts/{id}?bundle=2"),
            400,
            "invalid_request",
        ),
        (format!("/v1/receipts/{id}?other"), 400, "invalid_request"),
    ];
    for (path, status, code) in cases {
        let (seen, error) = error_of(setup.get(&path).await).await;
        assert_eq!((seen, &error["code"]), (status, &json!(code)), "{path}");
        assert!(!error.to_string().contains(CANARY), "{path}");
    }
    let url = format!("{}/v1/receipts/{id}", setup.gateway.url);
    let posted = setup
        .client
        .post(&url)
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(posted.headers()["allow"], "GET, HEAD, OPTIONS");
    assert_eq!(error_of(posted).await.0, 405);
    let unknown = setup.client.get(&url).send().await.unwrap();
    assert_eq!(error_of(unknown).await.0, 401);
}
