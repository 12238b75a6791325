//! What becomes of an engine's answers.

use serde_json::Value;

use super::{
    BODY, STREAM_BODY,
    harness::{FakeEngine, Running, Sent},
};
use crate::seal::Padding;

/// A reply as llama.cpp writes it, more or less.
const REPLY: &str = r#"{"id":"chatcmpl-1","object":"text_completion","created":1,"model":"file",
    "choices":[{"index":0,"text":" yes","finish_reason":"stop","logprobs":null}],
    "usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8},"timings":{}}"#;

fn event(text: &str, end: bool) -> String {
    let reason = if end { "\"stop\"" } else { "null" };
    format!(
        "data: {{\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"file\",\
         \"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":{reason}}}]}}\n\n"
    )
}

fn stream() -> Sent<'static> {
    Sent {
        content: STREAM_BODY,
        padding: Padding::Bucket,
        ..Sent::default()
    }
}

fn paced() -> Sent<'static> {
    Sent {
        padding: Padding::Paced,
        ..stream()
    }
}

#[tokio::test]
async fn a_whole_answer_is_levelled_and_its_usage_told() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let played = async {
        let mut asked = engine.asked().await;
        asked.reply(200, REPLY).await;
        asked
    };
    let (reply, asked) = tokio::join!(node.ask(Sent::default()), played);
    assert!(
        asked.head.starts_with("POST /v1/completions HTTP/1.1"),
        "{}",
        asked.head
    );
    assert!(!asked.head.contains("sealgate"), "{}", asked.head);
    assert!(asked.body.contains("canary"));
    let json: Value = serde_json::from_slice(&reply.content).unwrap();
    assert_eq!((reply.status, &json["model"]), (200, &Value::from("m")));
    assert_eq!(json["choices"][0]["text"], " yes");
    assert_eq!(
        json["usage"]["completion_tokens_details"]["reasoning_tokens"],
        0
    );
    let usage: Value = serde_json::from_str(&reply.trailers.usage.unwrap()).unwrap();
    assert_eq!(usage, json["usage"]);
}

#[tokio::test]
async fn the_gateways_name_of_a_model_comes_back() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let content = BODY.replace("\"m\"", "\"public\"");
    let fields = [("sealgate-model", "m")];
    let sent = Sent {
        fields: &fields,
        content: &content,
        ..Sent::default()
    };
    let played = async {
        let mut asked = engine.asked().await;
        assert!(asked.body.contains("\"model\":\"m\""), "{}", asked.body);
        asked.reply(200, REPLY).await;
    };
    let (reply, ()) = tokio::join!(node.ask(sent), played);
    let json: Value = serde_json::from_slice(&reply.content).unwrap();
    assert_eq!(json["model"], "public");
}

#[tokio::test]
async fn an_engine_with_a_key_gets_it() {
    let mut engine = FakeEngine::start().await;
    let path = std::env::temp_dir().join(crate::ids::RequestId::generate().to_string());
    std::fs::write(&path, "engine-key\n").unwrap();
    let key = format!("api_key_file = \"{}\"\n", path.display());
    let node = Running::start(&format!("{}{key}", engine.config())).await;
    let played = async {
        let mut asked = engine.asked().await;
        assert!(
            asked.head.contains("authorization: Bearer engine-key"),
            "{}",
            asked.head
        );
        asked.reply(400, "{}").await;
    };
    tokio::join!(node.ask(Sent::default()), played);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn an_engines_statuses_become_the_protocols() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let cases = [
        (500, (502, "engine-failed")),
        (302, (502, "engine-failed")),
        (401, (502, "engine-failed")),
        (429, (503, "overloaded")),
        (503, (503, "overloaded")),
        (200, (502, "engine-failed")),
    ];
    for (status, (expected, kind)) in cases {
        for sent in [Sent::default(), stream(), paced()] {
            let played = async {
                engine
                    .asked()
                    .await
                    .reply(status, r#"{"error":"canary"}"#)
                    .await;
            };
            let (reply, ()) = tokio::join!(node.ask(sent), played);
            assert_eq!(reply.problem(), (expected, kind.to_owned()), "{status}");
            assert!(!String::from_utf8_lossy(&reply.content).contains("canary"));
            assert_eq!(reply.retry_after.is_some(), expected == 503);
        }
    }
    let refusal = r#"{"detail":[{"msg":"bad canary","loc":["body","n"]}]}"#;
    let played = async { engine.asked().await.reply(422, refusal).await };
    let (reply, ()) = tokio::join!(node.ask(Sent::default()), played);
    let json: Value = serde_json::from_slice(&reply.content).unwrap();
    assert_eq!(reply.status, 422);
    assert!(
        json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("canary"),
        "{json}"
    );
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable() {
    let gone = "[[engine]]\nurl = \"http://127.0.0.1:1\"\nmodels = [\"m\"]\n";
    let node = Running::start(gone).await;
    let reply = node.ask(Sent::default()).await;
    assert_eq!(reply.problem(), (503, "engine-unreachable".to_owned()));
}

#[tokio::test]
async fn a_full_engine_is_overloaded() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&format!("{}max_in_flight = 1\n", engine.config())).await;
    let second = async {
        let mut asked = engine.asked().await;
        let reply = node.ask(Sent::default()).await;
        assert_eq!(reply.problem(), (503, "overloaded".to_owned()));
        asked.reply(200, REPLY).await;
    };
    let (first, ()) = tokio::join!(node.ask(Sent::default()), second);
    assert_eq!(first.status, 200);
}

#[tokio::test]
async fn a_stream_is_given_on_as_it_comes() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    for padding in Padding::ALL {
        let begun = async {
            let mut asked = engine.asked().await;
            asked.begin_stream().await;
            asked.write(&event("one", false)).await;
            asked
        };
        let (mut reply, mut asked) = tokio::join!(
            node.begin(Sent {
                padding,
                ..stream()
            }),
            begun
        );
        let first = reply.content().await;
        assert!(String::from_utf8_lossy(&first).contains("one"));
        asked.write(&event("two", true)).await;
        asked.write("data: [DONE]\n\n").await;
        // The engine's connection stays open: its word is enough.
        let reply = reply.finish().await;
        let content = String::from_utf8(reply.content).unwrap();
        assert!(
            content.contains("two") && content.ends_with("data: [DONE]\n\n"),
            "{content}"
        );
        assert!(reply.trailers.usage.is_some());
        assert_eq!(reply.trailers.incomplete, None);
        asked.closed().await;
    }
}

#[tokio::test]
async fn an_engine_that_fails_before_its_first_event_is_a_refusal() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let texts = [
        "",
        ": a sign of life\n\n",
        "data: {\"error\":{\"message\":\"canary\"}}\n\n",
        "x\n",
    ];
    for (text, sent) in texts
        .into_iter()
        .flat_map(|text| [(text, stream()), (text, paced())])
    {
        let played = async {
            let mut asked = engine.asked().await;
            asked.begin_stream().await;
            asked.write(text).await;
        };
        let (reply, ()) = tokio::join!(node.ask(sent), played);
        assert_eq!(reply.problem(), (502, "engine-failed".to_owned()), "{text}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_under_the_seal() {
    let mut engine = FakeEngine::start().await;
    let timeouts = "timeouts = { engine_idle_ms = 300 }\n";
    let node = Running::start(&format!("{timeouts}{}", engine.config())).await;
    let ends = [
        (Some(""), "engine-failed"),
        (Some("data: {\"error\":{}}\n\n"), "engine-failed"),
        (Some("data: {\n\n"), "engine-failed"),
        (None, "idle"),
    ];
    let of_either = |end| [(end, stream()), (end, paced())];
    for ((after, why), sent) in ends.into_iter().flat_map(of_either) {
        let played = async {
            let mut asked = engine.asked().await;
            asked.begin_stream().await;
            asked.write(&event("one", false)).await;
            match after {
                Some(text) => asked.write(text).await,
                None => asked.closed().await,
            }
        };
        let (reply, ()) = tokio::join!(node.ask(sent), played);
        let content = String::from_utf8(reply.content).unwrap();
        assert!(
            content.contains("one") && !content.contains("[DONE]"),
            "{why}: {content}"
        );
        assert_eq!(reply.trailers.incomplete.as_deref(), Some(why), "{after:?}");
        assert!(reply.trailers.usage.is_some());
    }
}

#[tokio::test]
async fn a_long_stream_tells_its_usage_on_the_way() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    let played = async {
        let mut asked = engine.asked().await;
        asked.begin_stream().await;
        for _ in 0..200 {
            asked.write(&event("word", false)).await;
        }
        asked.write(&event("", true)).await;
        asked.write("data: [DONE]\n\n").await;
    };
    let (reply, ()) = tokio::join!(node.ask(stream()), played);
    let content = String::from_utf8(reply.content).unwrap();
    assert_eq!(content.matches("\"text\":\"word\"").count(), 200);
    assert_eq!(content.matches(":usage {").count(), 3, "{content}");
}

/// Some engines close after a stream and say nothing of it: what is sent there is lost.
#[tokio::test]
async fn a_stream_has_a_connection_to_its_engine_for_itself() {
    let mut engine = FakeEngine::start().await;
    let node = Running::start(&engine.config()).await;
    for (content, closes) in [(BODY, false), (STREAM_BODY, true)] {
        let sent = Sent {
            content,
            ..Sent::default()
        };
        let played = async {
            let mut asked = engine.asked().await;
            let head = asked.head.to_ascii_lowercase();
            assert_eq!(head.contains("connection: close"), closes, "{head}");
            asked.reply(400, "{}").await;
        };
        tokio::join!(node.ask(sent), played);
    }
}
