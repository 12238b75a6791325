//! The main job: a plain request comes back as the plain contract, having travelled sealed.

use serde_json::{Value, json};

use crate::harness::{CANARY, Reply, Setup, engine, prompt, setup::error_of};

/// What the seed's schema requires of a reply.
fn assert_reply_shape(reply: &Value) {
    for member in [
        "choices",
        "usage",
        "created",
        "id",
        "model",
        "object",
        "system_fingerprint",
    ] {
        assert!(!reply[member].is_null(), "{member} in {reply}");
    }
    assert_eq!(reply["object"], "text_completion");
    for choice in reply["choices"].as_array().unwrap() {
        assert!(choice["text"].is_string(), "{choice}");
        assert!(choice["index"].is_u64(), "{choice}");
        assert!(choice["finish_reason"].is_string(), "{choice}");
    }
    assert_usage_shape(&reply["usage"]);
}

fn assert_usage_shape(usage: &Value) {
    let counters = [
        "/prompt_tokens",
        "/completion_tokens",
        "/total_tokens",
        "/completion_tokens_details/accepted_prediction_tokens",
        "/completion_tokens_details/audio_tokens",
        "/completion_tokens_details/reasoning_tokens",
        "/completion_tokens_details/rejected_prediction_tokens",
        "/prompt_tokens_details/audio_tokens",
        "/prompt_tokens_details/cached_tokens",
    ];
    for counter in counters {
        assert!(
            usage.pointer(counter).is_some_and(Value::is_u64),
            "{counter} in {usage}"
        );
    }
}

#[tokio::test]
async fn a_prompt_is_answered_as_the_contract_says() {
    let setup = Setup::start().await;
    let reply = setup.complete(json!({"prompt": prompt("hello 🦀")})).await;
    assert_eq!(reply.status(), 200);
    let headers = reply.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["sealgate-node"], "node-a");
    assert_eq!(headers["x-request-id"].len(), 32);
    let attestation = headers["sealgate-attestation"].to_str().unwrap();
    assert!(
        attestation.starts_with("sev-snp; root=\"software root\"; age="),
        "{attestation}"
    );
    let reply: Value = reply.json().await.unwrap();
    assert_reply_shape(&reply);
    assert_eq!(reply["choices"][0]["text"], prompt("hello 🦀"));
    assert_eq!(reply["model"], "tiny");
}

#[tokio::test]
async fn every_form_of_prompt_reaches_the_engine_as_it_was() {
    let setup = Setup::start().await;
    let forms = [
        ("string", json!(prompt("one"))),
        ("strings", json!([prompt("one"), "two"])),
        ("tokens", json!([1, 2, 3])),
        ("token arrays", json!([[1, 2], [3]])),
        ("empty string", json!("")),
    ];
    for (name, form) in &forms {
        let reply = setup.complete(json!({"prompt": form})).await;
        assert_eq!(reply.status(), 200, "{name}");
        let seen: Value = serde_json::from_slice(setup.engine.received().last().unwrap()).unwrap();
        assert_eq!(&seen["prompt"], form, "{name}");
    }
}

#[tokio::test]
async fn the_engine_is_asked_what_the_caller_meant() {
    let setup = Setup::start().await;
    let request = json!({
        "prompt": prompt("x"), "best_of": 2, "echo": true, "frequency_penalty": 1.5,
        "logit_bias": {"50256": -100}, "logprobs": 3, "max_tokens": 7, "n": 2,
        "presence_penalty": -2, "seed": 9, "stop": ["a", "b"], "suffix": "s", "temperature": 2,
        "top_p": 0.5, "user": "u", "unknown": {"kept": [1, null]},
        "stream": null, "stream_options": null,
    });
    assert_eq!(setup.complete(request.clone()).await.status(), 200);
    let seen = setup.engine.only_request();
    for (member, value) in request.as_object().unwrap() {
        let expected = if value.is_null() { &Value::Null } else { value };
        assert_eq!(&seen[member], expected, "{member}");
    }
    assert!(
        seen.as_object().unwrap().get("stream_options").is_none(),
        "nulls are dropped: {seen}"
    );
}

#[tokio::test]
async fn an_absent_max_tokens_is_sixteen() {
    let setup = Setup::start().await;
    for request in [
        json!({"prompt": prompt("x")}),
        json!({"prompt": prompt("x"), "max_tokens": null}),
    ] {
        setup.complete(request).await;
        let seen: Value = serde_json::from_slice(setup.engine.received().last().unwrap()).unwrap();
        assert_eq!(seen["max_tokens"], 16);
    }
}

#[tokio::test]
async fn a_stream_comes_word_by_word_and_ends_with_done() {
    let setup = Setup::start().await;
    let feed = setup.engine.stream();
    let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
        feed.text("one ").await;
    });
    // Each text is read before the next is written: nothing on the way waits for more.
    assert_eq!(stream.text().await, "one ");
    feed.text("🦀 ").await;
    assert_eq!(stream.text().await, "🦀 ");
    feed.done().await;
    drop(feed);
    let (rest, end) = stream.rest().await;
    end.unwrap();
    let last: Value = serde_json::from_str(&rest[0]).unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert!(
        last.get("usage").is_none(),
        "nobody asked for usage: {last}"
    );
    assert_eq!(rest[1..], ["[DONE]"]);
}

#[tokio::test]
async fn usage_is_streamed_as_openai_does() {
    let setup = Setup::start().await;
    let request = json!({"prompt": prompt("a b"), "stream_options": {"include_usage": true}});
    let (events, end) = setup.stream(request).await.rest().await;
    end.unwrap();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect();
    let (usage, texts) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_usage_shape(&usage["usage"]);
    for chunk in texts {
        assert_eq!(chunk.get("usage"), Some(&Value::Null), "{chunk}");
    }
    let text: String = texts
        .iter()
        .map(|c| c["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, prompt("a b"));
}

#[tokio::test]
async fn an_engine_with_quirks_is_levelled() {
    let setup = Setup::start().await;
    // The shape of llama.cpp: chat ids, chat-shaped logprobs, extras, half of the usage details.
    setup.engine.reply(Reply::Json(200, json!({
        "id": "chatcmpl-1", "object": "text_completion", "created": 1, "model": "other",
        "choices": [{"text": " a", "index": 0, "finish_reason": "length", "logprobs": {"content": [
            {"token": " a", "logprob": -0.5, "bytes": [32, 97],
             "top_logprobs": [{"token": " a", "logprob": -0.5}, {"token": " b", "logprob": -1.5}]}]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
                  "prompt_tokens_details": {"cached_tokens": 1}},
        "timings": {"prompt_ms": 1},
    })));
    let reply: Value = setup
        .complete(json!({"prompt": prompt("x"), "logprobs": 2}))
        .await
        .json()
        .await
        .unwrap();
    assert_reply_shape(&reply);
    assert_eq!(reply["model"], "tiny");
    assert!(reply.get("timings").is_none());
    assert_eq!(reply["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
    assert_eq!(
        reply["choices"][0]["logprobs"],
        json!({"tokens": [" a"], "token_logprobs": [-0.5],
               "top_logprobs": [{" a": -0.5, " b": -1.5}], "text_offset": [0]})
    );
}

#[tokio::test]
async fn a_stream_with_quirks_is_levelled() {
    let setup = Setup::start().await;
    let events = format!(
        "\u{feff}: hello\r\nid: 7\r\nevent: message\r\ndata: null\r\n\r\ndata:{}\r\rdata: {}\n\n\
         data: [DONE]\n\n",
        engine::chunk("a", Value::Null),
        engine::chunk("", json!("stop")),
    );
    setup.engine.reply(Reply::Raw(
        200,
        "text/event-stream; charset=utf-8",
        events.into_bytes(),
    ));
    let (events, end) = setup
        .stream(json!({"prompt": prompt("x")}))
        .await
        .rest()
        .await;
    end.unwrap();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(events[2], "[DONE]");
}

#[tokio::test]
async fn an_engines_refusal_is_the_callers_to_see() {
    let setup = Setup::start().await;
    setup.engine.reply(Reply::Json(400, json!({"error": {
        "message": format!("bad value: {CANARY}"), "type": "BadRequestError", "param": "n", "code": 400}})));
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    assert_eq!(status, 400);
    assert_eq!(error["code"], "400");
    assert_eq!(error["param"], "n");
    assert_eq!(error["message"], format!("bad value: {CANARY}"));
}

#[tokio::test]
async fn an_engines_conflict_is_not_for_the_sdk_to_repeat() {
    let setup = Setup::start().await;
    for status in [408, 409] {
        let error = json!({"error": {"message": "x", "code": status}});
        setup.engine.reply(Reply::Json(status, error));
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), status);
        assert_eq!(reply.headers()["x-should-retry"], "false");
    }
}

#[tokio::test]
async fn models_are_what_verified_nodes_serve() {
    let setup = Setup::start().await;
    let list: Value = setup.get("/v1/models").await.json().await.unwrap();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "tiny");
    assert_eq!(list["data"][0]["object"], "model");
    let one: Value = setup.get("/v1/models/tiny").await.json().await.unwrap();
    assert_eq!(one["id"], "tiny");
    let (status, error) = error_of(setup.get("/v1/models/absent").await).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn a_large_prompt_comes_back_whole() {
    let setup = Setup::start().await;
    let large = prompt(&"0123456789abcdef".repeat(65_536));
    let reply: Value = setup
        .complete(json!({"prompt": large}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(reply["choices"][0]["text"], large);
    let (events, end) = setup.stream(json!({"prompt": large})).await.rest().await;
    end.unwrap();
    let first: Value = serde_json::from_str(&events[1]).unwrap();
    assert_eq!(
        first["choices"][0]["text"].as_str().unwrap().len(),
        1_048_576
    );
}

#[tokio::test]
async fn a_hundred_at_once_get_their_own_answers() {
    let setup = Setup::start().await;
    let asked = (0..100).map(|i| async move { (i, prompt(&format!("number {i}"))) });
    let answers = asked.map(|asked| async {
        let (i, text) = asked.await;
        if i % 2 == 0 {
            let reply: Value = setup
                .complete(json!({"prompt": text}))
                .await
                .json()
                .await
                .unwrap();
            (
                text,
                reply["choices"][0]["text"].as_str().unwrap().to_owned(),
            )
        } else {
            let (events, end) = setup.stream(json!({"prompt": text})).await.rest().await;
            end.unwrap();
            let texts = events
                .iter()
                .filter_map(|e| serde_json::from_str::<Value>(e).ok());
            let answer = texts.map(|e| e["choices"][0]["text"].as_str().unwrap().to_owned());
            (text, answer.collect())
        }
    });
    for (asked, answered) in futures_util::future::join_all(answers).await {
        assert_eq!(asked, answered);
    }
}
