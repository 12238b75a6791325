use super::{clients::EhbpCall, *};
use crate::node::tests::{BODY, STREAM_BODY};

const PATH: &str = "/v1/completions";

async fn config(node: &Running) -> Bytes {
    let (status, headers, body) = node.get("/.well-known/hpke-keys").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/ohttp-keys");
    body
}

async fn call(node: &Running, content: &str) -> EhbpCall {
    EhbpCall::new(&config(node).await, content.as_bytes(), 16)
}

fn request(node: &Running, call: &EhbpCall) -> Request<Full<Bytes>> {
    let builder = post(node, PATH).header("ehbp-encapsulated-key", &call.enc);
    builder.body(Full::new(call.body.clone().into())).unwrap()
}

/// Sends, and opens what comes back sealed.
async fn ask(node: &Running, call: &EhbpCall) -> (StatusCode, HeaderMap, Vec<u8>) {
    let (status, headers, body) = node.send(request(node, call)).await;
    let mut reply = call.opener(headers["ehbp-response-nonce"].to_str().unwrap());
    let content = reply.push(&body);
    assert!(reply.is_between_frames());
    assert_eq!(headers["content-type"], "application/json");
    (status, headers, content)
}

#[tokio::test]
async fn the_key_is_the_attested_one_and_nothing_is_there_where_the_dialect_is_off() {
    let engine = FakeEngine::start().await;
    let speaks = node(&engine, "").await;
    let key = key(&speaks, Dialect::Ehbp).await;
    assert_eq!(config(&speaks).await[3..35], key);
    let (status, ..) = speaks
        .send(
            post(&speaks, "/.well-known/hpke-keys")
                .body(Full::default())
                .unwrap(),
        )
        .await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(speaks.get(PATH).await.0, StatusCode::METHOD_NOT_ALLOWED);

    let silent = Running::start(&engine.config()).await;
    assert_eq!(
        silent.get("/.well-known/hpke-keys").await.0,
        StatusCode::NOT_FOUND
    );
    let call = EhbpCall::to_key(&key, BODY.as_bytes(), 16);
    let (status, ..) = silent.send(request(&silent, &call)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(silent.attest().await.statement().keys().len(), 2);
}

#[tokio::test]
async fn a_request_is_opened_and_its_answer_sealed() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let call = call(&node, BODY).await;
    let played = async {
        let mut asked = engine.asked().await;
        asked.reply(200, REPLY).await;
        asked
    };
    let ((status, headers, content), asked) = tokio::join!(ask(&node, &call), played);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["cache-control"], "no-store");
    assert!(asked.body.contains("canary") && !asked.head.contains("ehbp"));
    let json: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!(
        (&json["model"], &json["choices"][0]["text"]),
        (&"m".into(), &" yes".into())
    );
}

/// The client is an OpenAI client: it reads what was sealed as an error, whatever went wrong.
#[tokio::test]
async fn what_goes_wrong_after_opening_is_sealed_in_openais_shape() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let wrong = r#"{"error":{"message":"no canary","type":"invalid_request_error"}}"#;
    let cases: [(&str, Option<u16>, u16, &str); 5] = [
        ("{", None, 400, "invalid_json"),
        (
            r#"{"model":"other","prompt":"x"}"#,
            None,
            404,
            "model_not_found",
        ),
        (BODY, Some(500), 502, "engine_error"),
        (BODY, Some(429), 503, "overloaded"),
        (BODY, Some(400), 400, ""),
    ];
    for (content, engine_status, expected, code) in cases {
        let call = call(&node, content).await;
        let played = async {
            if let Some(status) = engine_status {
                engine.asked().await.reply(status, wrong).await;
            }
        };
        let ((status, headers, content), ()) = tokio::join!(ask(&node, &call), played);
        if engine_status == Some(400) {
            assert_eq!(status.as_u16(), 400);
            let said = String::from_utf8(content).unwrap();
            assert!(
                said.contains("no canary"),
                "an engine's own words pass: {said}"
            );
            continue;
        }
        assert_eq!(error(status, &content), (expected, code.to_owned()));
        assert_eq!(headers.contains_key("x-should-retry"), expected == 502);
        assert_eq!(headers.contains_key("retry-after"), expected == 503);
    }
}

#[tokio::test]
async fn a_second_use_is_refused() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    let call = call(&node, BODY).await;
    let played = async { engine.asked().await.reply(200, REPLY).await };
    let ((status, ..), ()) = tokio::join!(ask(&node, &call), played);
    assert_eq!(status, StatusCode::OK);
    let (status, headers, content) = ask(&node, &call).await;
    assert_eq!(error(status, &content), (409, "replayed".to_owned()));
    assert_eq!(headers["x-should-retry"], "false");
    assert!(engine.idle());
}

/// The table refuses rather than forget, until the keys end.
#[tokio::test]
async fn a_full_table_lets_nobody_in() {
    let mut engine = FakeEngine::start().await;
    let rest = format!(
        "{BOTH}{CREDENTIAL}{}[limits]\ndialect_replay_entries = 1\n",
        engine.config()
    );
    let node = Running::start(&rest).await;
    for full in [false, true] {
        let call = call(&node, BODY).await;
        let (mut head, body) = request(&node, &call).into_parts();
        head.headers
            .insert("authorization", "bearer token".parse().unwrap());
        let played = async {
            if !full {
                engine.asked().await.reply(200, REPLY).await;
            }
        };
        let ((status, headers, body), ()) =
            tokio::join!(node.send(Request::from_parts(head, body)), played);
        assert_eq!(status.as_u16(), if full { 503 } else { 200 });
        let nonce = headers["ehbp-response-nonce"].to_str().unwrap();
        let content = call.opener(nonce).push(&body);
        if full {
            assert_eq!(error(status, &content), (503, "overloaded".to_owned()));
        }
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn what_does_not_open_is_refused_in_clear() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&format!(
        "{BOTH}{}[limits]\nbody_bytes = 1024\n",
        engine.config()
    ))
    .await;
    let good = call(&node, BODY).await;
    let long = call(&node, &format!("{BODY}{}", " ".repeat(1024))).await;
    let mut cut = good.body.clone();
    cut.pop();
    let mut later = good.body.clone();
    *later.last_mut().unwrap() ^= 1;
    let headers = |values: &[&str]| {
        let values = values.iter();
        values.fold(post(&node, PATH), |to, value| {
            to.header("ehbp-encapsulated-key", *value)
        })
    };
    let enc = good.enc.as_str();
    let upper = enc.to_uppercase();
    let cases: [(&str, Builder, Vec<u8>, u16, &str); 10] = [
        (
            "plaintext",
            post(&node, PATH),
            BODY.into(),
            400,
            "not_sealed",
        ),
        (
            "half a key",
            headers(&[&enc[1..]]),
            good.body.clone(),
            400,
            "invalid_encapsulation",
        ),
        (
            "upper case",
            headers(&[&upper]),
            good.body.clone(),
            400,
            "invalid_encapsulation",
        ),
        (
            "twice",
            headers(&[enc, enc]),
            good.body.clone(),
            400,
            "invalid_encapsulation",
        ),
        (
            "no frame",
            headers(&[enc]),
            vec![],
            400,
            "invalid_encapsulation",
        ),
        (
            "a cut frame",
            headers(&[enc]),
            cut,
            400,
            "invalid_encapsulation",
        ),
        (
            "a later frame",
            headers(&[enc]),
            later,
            400,
            "invalid_encapsulation",
        ),
        (
            "4 GiB to come",
            headers(&[enc]),
            vec![0xff; 4],
            413,
            "request_too_large",
        ),
        (
            "too much",
            headers(&[&long.enc]),
            long.body,
            413,
            "request_too_large",
        ),
        (
            "another media type",
            Request::post(node.url(PATH)).header("ehbp-encapsulated-key", enc),
            good.body.clone(),
            415,
            "unsupported_media_type",
        ),
    ];
    for (name, builder, body, status, code) in cases {
        let request = builder.body(Full::new(body.into())).unwrap();
        let (seen, headers, body) = node.send(request).await;
        assert_eq!(error(seen, &body), (status, code.to_owned()), "{name}");
        assert!(!headers.contains_key("ehbp-response-nonce"), "{name}");
        assert!(!String::from_utf8_lossy(&body).contains("canary"), "{name}");
    }
    assert!(engine.idle());
}

/// The very answer at which clients fetch the key again and send once more.
#[tokio::test]
async fn another_key_is_the_key_config_problem() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, "").await;
    // Also the attested key of the other dialect: it opens that one alone.
    for key in [[9; 32], key(&node, Dialect::Seed).await] {
        let call = EhbpCall::to_key(&key, BODY.as_bytes(), 4096);
        let (status, headers, body) = node.send(request(&node, &call)).await;
        assert_eq!(status.as_u16(), 422);
        assert_eq!(headers["content-type"], "application/problem+json");
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["type"], "urn:ietf:params:ehbp:error:key-config");
        assert!(problem["title"].is_string());
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn the_credential_is_asked_for_outside_the_seal() {
    let mut engine = FakeEngine::start().await;
    let node = node(&engine, CREDENTIAL).await;
    for (value, expected) in [
        (None, 401),
        (Some("Bearer other"), 401),
        (Some("Bearer token"), 200),
    ] {
        let call = call(&node, BODY).await;
        let (mut head, body) = request(&node, &call).into_parts();
        if let Some(value) = value {
            head.headers.insert("authorization", value.parse().unwrap());
        }
        let played = async {
            if expected == 200 {
                engine.asked().await.reply(200, REPLY).await;
            }
        };
        let ((status, _, body), ()) =
            tokio::join!(node.send(Request::from_parts(head, body)), played);
        assert_eq!(status.as_u16(), expected, "{value:?}");
        if expected == 401 {
            assert_eq!(error(status, &body), (401, "invalid_api_key".to_owned()));
        }
    }
    assert!(engine.idle());
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_ends() {
    for (whole, name) in [(true, "whole"), (false, "broken")] {
        let mut engine = FakeEngine::start().await;
        let node = node(&engine, "").await;
        let call = call(&node, STREAM_BODY).await;
        let (mut coming, mut asked) = {
            let played = async {
                let mut asked = engine.asked().await;
                asked.begin_stream().await;
                asked.write(&event(" one")).await;
                asked
            };
            tokio::join!(Coming::of(&node, request(&node, &call)), played)
        };
        let nonce = coming.headers["ehbp-response-nonce"]
            .to_str()
            .unwrap()
            .to_owned();
        let mut reply = call.opener(&nonce);
        let first = reply.push(&coming.next().await.unwrap().unwrap());
        let first = String::from_utf8(first).unwrap();
        assert!(
            first.contains(" one") && reply.is_between_frames(),
            "{first}"
        );

        play(&mut asked, whole).await;
        drop(asked);
        let (mut rest, mut aborted) = (Vec::new(), false);
        while let Some(bytes) = coming.next().await {
            match bytes {
                Ok(bytes) => rest.extend(reply.push(&bytes)),
                Err(_) => {
                    aborted = true;
                    break;
                }
            }
        }
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains(" two") && reply.is_between_frames(), "{rest}");
        assert!(
            !rest.contains("\n:") && !rest.starts_with(':'),
            "no comments: {rest}"
        );
        assert_eq!(rest.ends_with("data: [DONE]\n\n"), whole, "{name}: {rest}");
        assert_eq!(rest.contains("data: {\"error\":"), !whole, "{name}: {rest}");
        assert_eq!(aborted, !whole, "{name}");
    }
}

/// A request does not name its key: the old one must still be tried.
#[tokio::test]
async fn what_was_sealed_to_an_old_key_opens() {
    let mut engine = FakeEngine::start().await;
    let rest = format!("{BOTH}{}[keys]\nlife_s = 1\n", engine.config());
    let node = Running::start(&rest).await;
    // Keys live for so short that now and then there is none.
    let published = async |but: &[u8]| loop {
        let (status, _, body) = node.get("/.well-known/hpke-keys").await;
        if status == StatusCode::OK && body != but {
            return body;
        }
        sleep(Duration::from_millis(20)).await;
    };
    let first = timeout(PATIENCE, published(&[])).await.unwrap();
    timeout(PATIENCE, published(&first)).await.unwrap();
    let call = EhbpCall::new(&first, BODY.as_bytes(), 4096);
    let played = async { engine.asked().await.reply(200, REPLY).await };
    let ((status, ..), ()) = tokio::join!(ask(&node, &call), played);
    assert_eq!(status, StatusCode::OK);
}
