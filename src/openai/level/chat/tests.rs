use serde_json::{Value, json};

use crate::openai::{
    Endpoint, Usage,
    level::{LevelError, ReplyContext, StreamLeveller, level_reply, test_context},
    sse::{EngineEvents, ReplyEvents},
};

fn context(stream: bool, include_usage: bool, n: u32) -> ReplyContext {
    let mut context = test_context();
    context.asked.endpoint = Endpoint::ChatCompletions;
    context.asked.stream = stream;
    context.asked.include_usage = include_usage;
    context.asked.n = n;
    context
}

fn whole(body: &Value) -> Result<Value, LevelError> {
    let reply = level_reply(body.to_string().as_bytes(), &context(false, false, 1))?;
    Ok(serde_json::from_slice(&reply.body).unwrap())
}

/// The objects of a levelled stream, and its usage.
fn stream(
    events: &[Value],
    context: ReplyContext,
) -> Result<(Vec<Value>, Option<Usage>), LevelError> {
    let text: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let mut read = EngineEvents::new();
    read.push(format!("{text}data: [DONE]\n\n").as_bytes())
        .unwrap();
    let mut leveller = StreamLeveller::new(context);
    let mut sent = Vec::new();
    while let Some(event) = read.next_event() {
        sent.extend(leveller.event(&event)?);
    }
    let end = leveller.finish(true)?;
    let mut strict = ReplyEvents::new();
    let mut given = strict.push(&sent).unwrap().to_vec();
    given.extend_from_slice(&strict.finish(&end.events).unwrap());
    let given = String::from_utf8(given).unwrap();
    let given = given.strip_suffix("data: [DONE]\n\n").unwrap();
    let objects = given
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap());
    Ok((objects.collect(), end.usage))
}

fn message(message: &Value) -> Value {
    json!({"choices": [{"index": 0, "message": message, "finish_reason": null}]})
}

fn delta(delta: &Value) -> Value {
    json!({"id": "chatcmpl-9", "created": 5, "choices": [{"index": 0, "delta": delta}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn llama_cpps_reply_becomes_the_contracts() {
    let body = json!({
        "choices": [{"finish_reason": "stop", "index": 0,
            "message": {"role": "assistant", "content": "hello", "reasoning_content": "thinks"},
            "logprobs": {"content": [{"id": 5, "token": "hello", "bytes": [104], "logprob": -0.25,
                "top_logprobs": [{"id": 6, "token": "x", "bytes": [120], "logprob": null}]}]}}],
        "created": 7, "model": "tiny", "system_fingerprint": "b1", "object": "chat.completion",
        "usage": {"completion_tokens": 1, "prompt_tokens": 12, "total_tokens": 13},
        "id": "chatcmpl-abc", "timings": {"prompt_n": 1}, "service_tier": null,
    });
    let mut usage = serde_json::to_value(Usage::new(12, 1)).unwrap();
    let expected = json!({
        "id": "chatcmpl-abc", "object": "chat.completion", "created": 7, "model": "caller/model",
        "choices": [{"index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": null,
                "reasoning_content": "thinks"},
            "logprobs": {"content": [{"token": "hello", "logprob": -0.25, "bytes": [104],
                "top_logprobs": [{"token": "x", "logprob": -9999.0, "bytes": [120]}]}],
                "refusal": null},
            "finish_reason": "stop"}],
        "usage": usage.take(), "system_fingerprint": "b1",
    });
    assert_eq!(whole(&body), Ok(expected));
}

#[test]
fn a_tools_call_is_whole() {
    let reply = whole(&message(
        &json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}, "x": 1},
            {"function": {"name": "g", "arguments": {"b": [1, 2.5]}}},
            {"id": "", "type": "custom", "custom": {"name": "h", "input": "y"}},
        ]}),
    ));
    let reply = reply.unwrap();
    let id = |at: u32| format!("call_000102030405060708090a0b0c0d0e0f_{at}");
    assert_eq!(reply["id"], "chatcmpl-000102030405060708090a0b0c0d0e0f");
    assert_eq!(
        reply["choices"][0],
        json!({"index": 0, "message": {"role": "assistant", "content": null, "refusal": null,
            "tool_calls": [
                {"id": "c1", "type": "function",
                    "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": id(1), "type": "function",
                    "function": {"name": "g", "arguments": "{\"b\":[1,2.5]}"}},
                {"id": id(2), "type": "custom", "custom": {"name": "h", "input": "y"}},
            ]}, "logprobs": null, "finish_reason": "tool_calls"})
    );
}

#[test]
fn what_the_contract_does_not_name_is_dropped_and_what_it_needs_is_there() {
    let reply = whole(&message(
        &json!({"content": "x", "tool_calls": [], "vendor": {"a": 1},
        "annotations": [{"type": "url_citation"}], "function_call": {"name": "f", "arguments": ""}}),
    ));
    assert_eq!(
        reply.unwrap()["choices"][0],
        json!({"index": 0, "message": {"role": "assistant", "content": "x", "refusal": null,
            "function_call": {"name": "f", "arguments": ""},
            "annotations": [{"type": "url_citation"}]},
            "logprobs": null, "finish_reason": "tool_calls"})
    );
    let silent = whole(&message(&json!({"role": "assistant", "content": null}))).unwrap();
    assert_eq!(silent["choices"][0]["finish_reason"], "stop");
}

#[test]
fn what_is_no_message_is_an_error() {
    for choice in [
        json!({"text": "a completion"}),
        json!({"message": null}),
        json!({"message": {}}),
        json!({"message": "x"}),
        json!({"message": {"vendor": 1}}),
        json!({"message": {"role": "assistant", "content": 5}}),
        json!({"delta": {"content": "x"}}),
        json!({"message": {"content": "x", "tool_calls": [5]}}),
        json!({"message": {"content": "x", "tool_calls": {}}}),
    ] {
        assert_eq!(
            whole(&json!({"choices": [choice]})),
            Err(LevelError::Malformed),
            "{choice}"
        );
    }
    assert_eq!(whole(&json!({"object": "error"})), Err(LevelError::Engine));
}

#[test]
fn pieces_come_as_the_engine_sent_them() {
    let events = [
        delta(&json!({"role": "assistant", "content": null})),
        delta(&json!({"reasoning_content": "hm"})),
        delta(&json!({"content": "a", "vendor": 1})),
        finish("stop"),
        json!({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}),
    ];
    let chunk = |delta: Value, reason: Value| {
        json!({"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 5,
            "model": "caller/model", "system_fingerprint": "sealgate",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]})
    };
    let expected = [
        chunk(json!({"role": "assistant"}), Value::Null),
        chunk(json!({"reasoning_content": "hm"}), Value::Null),
        chunk(json!({"content": "a"}), Value::Null),
        chunk(json!({}), json!("stop")),
    ];
    let (chunks, usage) = stream(&events, context(true, false, 1)).unwrap();
    assert_eq!(chunks, expected);
    assert_eq!(usage, Some(Usage::new(4, 2)));
    let (chunks, _) = stream(&events, context(true, true, 1)).unwrap();
    assert!(chunks[..4].iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(chunks[4]["choices"], json!([]));
    assert_eq!(chunks[4]["usage"]["total_tokens"], 6);
}

#[test]
fn a_tools_call_comes_in_pieces() {
    let events = [
        delta(
            &json!({"role": "assistant", "tool_calls": [{"index": 0, "id": "c1",
            "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        ),
        delta(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\""}}]})),
        delta(&json!({"tool_calls": [{"function": {"arguments": ":1}"}}]})),
        finish("tool_calls"),
    ];
    let (chunks, usage) = stream(&events, context(true, false, 1)).unwrap();
    let calls: Vec<_> = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone())
        .collect();
    assert_eq!(
        calls[..3],
        [
            json!({"index": 0, "id": "c1", "type": "function",
                "function": {"name": "f", "arguments": ""}}),
            json!({"index": 0, "function": {"arguments": "{\"a\""}}),
            json!({"index": 0, "function": {"arguments": ":1}"}}),
        ]
    );
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        usage,
        Some(Usage::new(0, 3)),
        "counted, since the engine did not"
    );
}

#[test]
fn a_stream_of_something_else_is_an_error() {
    for choice in [
        json!({"text": "x"}),
        json!({"finish_reason": "stop"}),
        json!({"message": {"content": "x"}}),
        json!({"delta": {"content": 5}}),
        json!({"delta": {"tool_calls": "x"}}),
    ] {
        let events = [json!({"choices": [choice]})];
        let outcome = stream(&events, context(true, false, 1)).map(drop);
        assert_eq!(outcome, Err(LevelError::Malformed), "{choice}");
    }
}

#[test]
fn a_stream_without_its_end_is_not_whole() {
    let mut leveller = StreamLeveller::new(context(true, false, 2));
    for index in [0, 1] {
        let piece = json!({"choices": [{"index": index, "delta": {"content": "x"}}]});
        leveller.event(piece.to_string().as_bytes()).unwrap();
    }
    let end = json!({"choices": [{"index": 0, "finish_reason": "stop"}]});
    leveller.event(end.to_string().as_bytes()).unwrap();
    let ended = leveller.finish(true).map(drop);
    assert_eq!(
        ended,
        Err(LevelError::Incomplete),
        "the second choice goes on"
    );
}
