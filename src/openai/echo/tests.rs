use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::openai::{
    level::{level_reply, test_context},
    sse::ReplyEvents,
};

fn echo(members: &Value) -> Echo {
    let mut body = json!({"model": "echo", "prompt": "one two  three\n"});
    body.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    let request = Request::parse(Endpoint::Completions, body.to_string().into()).unwrap();
    Echo::new(&request, "cmpl-1".to_owned(), 7).unwrap()
}

fn texts(echo: &Echo) -> Vec<(String, String)> {
    let reply: Value = serde_json::from_slice(&echo.reply()).unwrap();
    let choices = reply["choices"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    choices
        .map(|choice| (text(&choice["text"]), text(&choice["finish_reason"])))
        .collect()
}

#[test]
fn it_repeats_words_within_the_callers_limits() {
    let cases = [
        (json!({}), vec![("one two  three\n", "stop")], (4, 4)),
        (
            json!({"max_tokens": 2}),
            vec![("one two", "length")],
            (4, 2),
        ),
        (json!({"max_tokens": 0}), vec![("", "length")], (4, 0)),
        (
            json!({"max_tokens": 0, "echo": true}),
            vec![("one two  three\n", "length")],
            (4, 0),
        ),
        (
            json!({"max_tokens": 1, "echo": true}),
            vec![("one two  three\none", "length")],
            (4, 1),
        ),
        (
            json!({"n": 2, "max_tokens": 1}),
            vec![("one", "length"); 2],
            (4, 2),
        ),
        (json!({"stop": "wo"}), vec![("one t", "stop")], (4, 2)),
        (
            json!({"stop": ["three", "two"]}),
            vec![("one ", "stop")],
            (4, 2),
        ),
        (json!({"stop": ["one", "x"]}), vec![("", "stop")], (4, 0)),
        (
            json!({"stop": ["", "x"], "max_tokens": 1}),
            vec![("one", "length")],
            (4, 1),
        ),
        (json!({"prompt": ""}), vec![("", "stop")], (0, 0)),
        (
            json!({"prompt": ["a b", "c"]}),
            vec![("a b", "stop"), ("c", "stop")],
            (3, 3),
        ),
        (json!({"prompt": [5, 60]}), vec![("5 60", "stop")], (2, 2)),
        (
            json!({"prompt": [[5], [6, 7]]}),
            vec![("5", "stop"), ("6 7", "stop")],
            (3, 3),
        ),
        (
            json!({"prompt": "\u{1F600} é"}),
            vec![("\u{1F600} é", "stop")],
            (2, 2),
        ),
    ];
    for (members, expected, (prompt, completion)) in cases {
        let echo = echo(&members);
        let expected = expected
            .iter()
            .map(|(text, why)| ((*text).into(), (*why).into()));
        assert_eq!(texts(&echo), expected.collect::<Vec<_>>(), "{members}");
        assert_eq!(echo.usage(), Usage::new(prompt, completion), "{members}");
    }
}

#[test]
fn it_says_what_it_is() {
    let reply: Value = serde_json::from_slice(&echo(&json!({})).reply()).unwrap();
    assert_eq!(reply["model"], "echo");
    assert_eq!(reply["system_fingerprint"], "sealgate-echo");
    assert_eq!(
        (&reply["id"], &reply["created"]),
        (&json!("cmpl-1"), &json!(7))
    );
}

#[test]
fn a_stream_holds_the_same_as_the_whole() {
    for members in [
        json!({"stream": true}),
        json!({"stream": true, "n": 2, "stop": "thr", "logprobs": 0}),
        json!({"stream": true, "stream_options": {"include_usage": true}, "prompt": ["a", "é b"]}),
    ] {
        let echo = echo(&members);
        assert!(echo.stream());
        let all = echo.events().collect::<Vec<_>>().concat();
        let given = ReplyEvents::new().finish(&all).unwrap();
        assert_eq!(given, all, "valid, and without comments");
        let mut texts_of = vec![String::new(); texts(&echo).len()];
        let mut usage = None;
        for event in str::from_utf8(&all).unwrap().split_terminator("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            if data == "[DONE]" {
                continue;
            }
            let chunk: Value = serde_json::from_str(data).unwrap();
            for choice in chunk["choices"].as_array().unwrap() {
                let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
                texts_of[index].push_str(choice["text"].as_str().unwrap());
            }
            usage = chunk.get("usage").cloned();
        }
        let whole = texts(&echo)
            .into_iter()
            .map(|(text, _)| text)
            .collect::<Vec<_>>();
        assert_eq!(texts_of, whole, "{members}");
        let asked = members.get("stream_options").is_some();
        let expected = asked.then(|| serde_json::to_value(echo.usage()).unwrap());
        assert_eq!(usage, expected, "{members}");
    }
}

#[test]
fn logprobs_are_of_the_legacy_shape() {
    let reply: Value =
        serde_json::from_slice(&echo(&json!({"prompt": "é b", "logprobs": 1})).reply()).unwrap();
    let expected = json!({
        "tokens": ["é", " b"], "token_logprobs": [0.0, 0.0],
        "top_logprobs": [{"é": 0.0}, {" b": 0.0}], "text_offset": [0, 1],
    });
    assert_eq!(reply["choices"][0]["logprobs"], expected);
}

#[test]
fn what_would_be_too_large_is_refused() {
    let long = "x".repeat(MAX_TEXT / 1000);
    for (body, param) in [
        (json!({"model": "echo", "prompt": "x", "n": 1025}), "n"),
        (
            json!({"model": "echo", "prompt": long, "n": 1024}),
            "prompt",
        ),
    ] {
        let request = Request::parse(Endpoint::Completions, body.to_string().into()).unwrap();
        let error = Echo::new(&request, String::new(), 0).err().unwrap();
        assert_eq!(error.param(), Some(param));
    }
}

proptest! {
    #[test]
    fn any_prompt_and_stop_make_a_reply_that_levels(
        prompt in any::<String>(),
        stop in any::<String>(),
        max_tokens in 0..20_u32,
    ) {
        let echo = echo(&json!({"prompt": prompt, "stop": stop, "max_tokens": max_tokens}));
        prop_assert!(level_reply(&echo.reply(), &test_context()).is_ok());
    }
}

fn chat(members: &Value) -> Echo {
    let mut body = json!({"model": "echo", "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "an earlier word"},
        {"role": "assistant", "content": null, "tool_calls": [{"type": "function"}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "a result"}]},
        {"role": "user", "content": [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]});
    body.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    let request = Request::parse(Endpoint::ChatCompletions, body.to_string().into()).unwrap();
    Echo::new(&request, "chatcmpl-1".to_owned(), 7).unwrap()
}

#[test]
fn a_chat_repeats_what_the_user_said_last() {
    let reply: Value = serde_json::from_slice(&chat(&json!({"logprobs": true})).reply()).unwrap();
    assert_eq!(reply["object"], "chat.completion");
    let token = |text: &str| json!({"token": text, "logprob": 0.0, "bytes": text.as_bytes(), "top_logprobs": []});
    assert_eq!(
        reply["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "one two"},
            "logprobs": {"content": [token("one"), token(" two")]}, "finish_reason": "stop"}])
    );
    assert_eq!(reply["usage"]["prompt_tokens"], 9);
    let limits = json!({"max_tokens": 9, "max_completion_tokens": 1, "n": 2});
    let reply: Value = serde_json::from_slice(&chat(&limits).reply()).unwrap();
    for choice in [&reply["choices"][0], &reply["choices"][1]] {
        assert_eq!(choice["message"]["content"], "one");
        assert_eq!(choice["finish_reason"], "length");
    }
}

#[test]
fn a_streamed_chat_holds_the_same_as_the_whole() {
    let echo = chat(&json!({"stream": true, "stream_options": {"include_usage": true}}));
    let all = echo.events().collect::<Vec<_>>().concat();
    let all = String::from_utf8(all).unwrap();
    let chunks: Vec<Value> = all
        .strip_suffix("data: [DONE]\n\n")
        .unwrap()
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let deltas: Vec<_> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": ""}));
    assert_eq!(*deltas[2], json!({"content": " two"}));
    assert_eq!(*deltas[3], json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[4]["choices"], json!([]));
    assert_eq!(chunks[4]["usage"]["completion_tokens"], 2);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk")
    );
}
