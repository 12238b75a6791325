//! Every kind of request goes the same way: checked, sealed, levelled, given back.

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{
    CANARY, KEY, Reply, Setup, prompt,
    setup::{EventStream, error_of},
};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const IMAGES: &str = "/v1/images/generations";

async fn ask(setup: &Setup, path: &str, body: &Value) -> Response {
    let url = format!("{}{path}", setup.gateway.url);
    let request = setup.client.post(url).bearer_auth(KEY).json(body);
    request.send().await.unwrap()
}

fn conversation(text: &str) -> Value {
    json!([
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": [{"type": "text", "text": prompt(text)}]},
    ])
}

fn usage() -> Value {
    json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
}

#[tokio::test]
async fn a_chat_with_tools_is_answered() {
    let setup = Setup::start().await;
    let call = json!({"id": "c1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}});
    setup.engine.reply(Reply::Json(
        200,
        json!({
            "id": "chatcmpl-7", "object": "chat.completion", "created": 5, "model": "tiny",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant",
                "content": null, "reasoning_content": "hm", "tool_calls": [call]}}],
            "usage": usage(), "timings": {},
        }),
    ));
    let body = json!({
        "model": "tiny", "messages": conversation("weather?"), "max_completion_tokens": 9,
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
        "tool_choice": "auto", "response_format": {"type": "text"}, "seed": null,
    });
    let reply = ask(&setup, CHAT, &body).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["sealgate-node"], "node-a");
    let reply: Value = reply.json().await.unwrap();
    let message = &reply["choices"][0]["message"];
    assert_eq!(message["tool_calls"], json!([call]));
    assert_eq!(message["reasoning_content"], "hm");
    assert_eq!(message["content"], Value::Null);
    assert_eq!(
        reply["usage"]["completion_tokens_details"]["reasoning_tokens"],
        0
    );
    assert_eq!(reply.get("timings"), None);
    let asked = setup.engine.only_request();
    assert_eq!(
        asked["messages"], body["messages"],
        "as the caller wrote them"
    );
    assert_eq!(asked["tools"], body["tools"]);
    assert_eq!((&asked["max_tokens"], asked.get("seed")), (&json!(9), None));
}

#[tokio::test]
async fn a_chat_is_streamed_and_its_cut_is_an_error() {
    let setup = Setup::start().await;
    let delta = |delta: Value, reason: Value| {
        let chunk = json!({"id": "chatcmpl-7", "created": 5,
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
        format!("data: {chunk}\n\n")
    };
    let body = json!({"model": "tiny", "messages": conversation("go"), "stream": true,
        "stream_options": {"include_usage": true}});
    let whole = [
        delta(json!({"role": "assistant", "content": null}), Value::Null),
        delta(json!({"content": "one"}), Value::Null),
        delta(json!({}), json!("stop")),
        format!("data: {}\n\n", json!({"choices": [], "usage": usage()})),
        "data: [DONE]\n\n".to_owned(),
    ];
    let bytes = whole.concat().into_bytes();
    setup
        .engine
        .reply(Reply::Raw(200, "text/event-stream", bytes));
    let reply = ask(&setup, CHAT, &body).await;
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let (events, end) = EventStream::new(reply).rest().await;
    end.unwrap();
    let chunk = |at: usize| serde_json::from_str::<Value>(&events[at]).unwrap();
    assert_eq!(chunk(0)["object"], "chat.completion.chunk");
    assert_eq!(chunk(1)["choices"][0]["delta"], json!({"content": "one"}));
    assert_eq!(chunk(2)["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunk(3)["usage"]["total_tokens"], 5);
    assert_eq!((events[4].as_str(), events.len()), ("[DONE]", 5));

    let feed = setup.engine.stream();
    let (reply, ()) = tokio::join!(ask(&setup, CHAT, &body), feed.raw(whole[1].clone()));
    let mut stream = EventStream::new(reply);
    let first: Value = serde_json::from_str(&stream.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(first["choices"][0]["delta"], json!({"content": "one"}));
    feed.cut().await;
    let (events, end) = stream.rest().await;
    let last: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(last["error"]["code"], "engine_error");
    assert!(end.is_err() && events.len() == 1, "{events:?}");
}

#[tokio::test]
async fn texts_are_embedded_in_the_encoding_asked_for() {
    let setup = Setup::start().await;
    let numbers = json!({"object": "list", "model": "./m", "data": [
        {"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4}});
    for (encoding, first) in [("float", json!(0.5)), ("base64", json!("AAAAPw=="))] {
        setup.engine.reply(Reply::Json(200, numbers.clone()));
        let body = json!({"model": "tiny", "input": [prompt("a"), prompt("b")],
            "encoding_format": encoding});
        let reply = ask(&setup, EMBEDDINGS, &body).await;
        assert_eq!(reply.status(), 200, "{encoding}");
        let reply: Value = reply.json().await.unwrap();
        assert_eq!(reply["model"], "tiny");
        assert_eq!(
            reply["usage"],
            json!({"prompt_tokens": 4, "total_tokens": 4})
        );
        let embedding = &reply["data"][0]["embedding"];
        assert_eq!(embedding.get(0).unwrap_or(embedding), &first, "{reply}");
    }
    setup.engine.reply(Reply::Json(200, numbers));
    let body = json!({"model": "tiny", "input": ["a", "b"], "dimensions": 2});
    let (status, error) = error_of(ask(&setup, EMBEDDINGS, &body).await).await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("dimensions")),
        "{error}"
    );
}

#[tokio::test]
async fn images_are_drawn() {
    let setup = Setup::start().await;
    let image = json!({"b64_json": "iVBORw==", "revised_prompt": "a cat"});
    setup
        .engine
        .reply(Reply::Json(200, json!({"created": 5, "data": [image]})));
    let body = json!({"model": "tiny", "prompt": prompt("a cat"), "n": 1, "size": "256x256",
        "response_format": "b64_json"});
    let reply = ask(&setup, IMAGES, &body).await;
    assert_eq!(reply.status(), 200);
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(reply, json!({"created": 5, "data": [image]}));
    assert_eq!(setup.engine.only_request(), body);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named_on_every_path() {
    let setup = Setup::start().await;
    let cases = [
        (CHAT, json!({"model": "tiny"}), 400, "messages"),
        (
            CHAT,
            json!({"model": "tiny", "messages": []}),
            400,
            "messages",
        ),
        (
            CHAT,
            json!({"model": "tiny", "messages": [{"content": CANARY}]}),
            400,
            "messages[0].role",
        ),
        (
            EMBEDDINGS,
            json!({"model": "tiny", "input": []}),
            400,
            "input",
        ),
        (
            EMBEDDINGS,
            json!({"model": "tiny", "input": "x", "stream": true}),
            400,
            "stream",
        ),
        (
            IMAGES,
            json!({"model": "tiny", "prompt": "x", "n": 11}),
            400,
            "n",
        ),
        (
            IMAGES,
            json!({"model": "tiny", "prompt": "x", "size": CANARY}),
            400,
            "size",
        ),
    ];
    for (path, body, status, param) in cases {
        let (seen, error) = error_of(ask(&setup, path, &body).await).await;
        assert_eq!(
            (seen, &error["param"]),
            (status, &json!(param)),
            "{path} {body}"
        );
        assert_eq!(error["code"], "invalid_request");
        assert!(!error.to_string().contains(CANARY), "{error}");
    }
    let unknown = json!({"model": "other", "messages": conversation("x")});
    let (status, error) = error_of(ask(&setup, CHAT, &unknown).await).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    assert_eq!(setup.engine.received().len(), 0);
}

#[tokio::test]
async fn an_engine_that_does_not_do_such_requests_is_the_callers_to_know() {
    let setup = Setup::start().await;
    let refusal = json!({"error": {"code": 501, "type": "not_supported_error",
        "message": "This server does not support embeddings."}});
    for status in [501, 404] {
        setup.engine.reply(Reply::Json(status, refusal.clone()));
        let body = json!({"model": "tiny", "input": "x"});
        let (seen, error) = error_of(ask(&setup, EMBEDDINGS, &body).await).await;
        assert_eq!(seen, if status == 501 { 400 } else { status });
        assert_eq!(error["message"], refusal["error"]["message"]);
    }
    // What is no reply of this kind is no answer.
    for (path, body) in [
        (EMBEDDINGS, json!({"model": "tiny", "input": "x"})),
        (
            CHAT,
            json!({"model": "tiny", "messages": conversation("x")}),
        ),
        (IMAGES, json!({"model": "tiny", "prompt": "x"})),
    ] {
        setup.engine.reply(Reply::Json(
            200,
            crate::harness::engine::completion("a text"),
        ));
        let (status, error) = error_of(ask(&setup, path, &body).await).await;
        assert_eq!(
            (status, &error["code"]),
            (502, &json!("engine_error")),
            "{path}"
        );
    }
}
