use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::openai::{
    level::{FINGERPRINT, test_context},
    sse::{EngineEvents, ReplyEvents},
};

fn context(include_usage: bool, n: u32, choices: u64) -> ReplyContext {
    let mut context = test_context();
    context.asked.include_usage = include_usage;
    context.asked.n = n;
    context.asked.inputs = choices / u64::from(n);
    context
}

/// What a node would seal for a whole stream of the engine's, and its usage.
fn level(context: ReplyContext, stream: &str) -> Result<(String, Option<Usage>), LevelError> {
    let mut events = EngineEvents::new();
    events.push(stream.as_bytes()).unwrap();
    events.finish().unwrap();
    let mut leveller = StreamLeveller::new(context);
    let mut sent = Vec::new();
    while let Some(event) = events.next_event() {
        sent.extend(leveller.event(&event)?);
        sent.extend(leveller.usage_comment().unwrap_or_default());
    }
    let end = leveller.finish(true)?;
    let mut given = ReplyEvents::new();
    let mut text = given.push(&sent).unwrap().to_vec();
    text.extend_from_slice(&given.finish(&end.events).unwrap());
    Ok((String::from_utf8(text).unwrap(), end.usage))
}

/// The objects of a levelled stream, which must end in `[DONE]`.
fn objects(text: &str) -> Vec<Value> {
    let body = text.strip_suffix("data: [DONE]\n\n").expect("no end event");
    let events = body.split_terminator("\n\n");
    events
        .map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

const LLAMA: &str = concat!(
    "data: {\"choices\":[{\"text\":\" first\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}],",
    "\"created\":1763000123,\"model\":\"tiny\",\"system_fingerprint\":\"b11549\",",
    "\"object\":\"text_completion\",\"id\":\"chatcmpl-abc\"}\n\n",
    "data: {\"choices\":[{\"text\":\" must\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}],",
    "\"created\":1763000124,\"model\":\"tiny\",\"system_fingerprint\":\"b11549\",",
    "\"object\":\"text_completion\",\"id\":\"chatcmpl-abc\"}\n\n",
    "data: {\"choices\":[{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"length\"}],",
    "\"created\":1763000124,\"model\":\"tiny\",\"system_fingerprint\":\"b11549\",",
    "\"object\":\"text_completion\",\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":4,",
    "\"total_tokens\":6,\"prompt_tokens_details\":{\"cached_tokens\":3}},\"id\":\"chatcmpl-abc\",",
    "\"timings\":{\"cache_n\":3,\"predicted_ms\":1.5}}\n\n",
    "data: [DONE]\n\n",
);

const VLLM: &str = concat!(
    "data: {\"id\":\"cmpl-9\",\"object\":\"text_completion\",\"created\":1763000123,\"model\":\"./m\",",
    "\"choices\":[{\"index\":0,\"text\":\" first\",\"logprobs\":null,\"finish_reason\":null,",
    "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}],\"usage\":null}\r\n\r\n",
    "data: {\"id\":\"cmpl-9\",\"object\":\"text_completion\",\"created\":1763000123,\"model\":\"./m\",",
    "\"choices\":[{\"index\":0,\"text\":\" must\",\"logprobs\":null,\"finish_reason\":\"length\",",
    "\"stop_reason\":null,\"token_ids\":null}]}\r\n\r\n",
    "data: {\"id\":\"cmpl-9\",\"object\":\"text_completion\",\"created\":1763000123,\"model\":\"./m\",",
    "\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":6,\"completion_tokens\":2}}\r\n\r\n",
    "data: [DONE]\r\n\r\n",
);

/// The matrix of `include_usage`, to the byte.
#[test]
fn usage_stands_in_a_chunk_of_its_own_if_it_was_asked_for() {
    let chunk = |text: &str, finish: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"cmpl-abc\",\"object\":\"text_completion\",\"created\":1763000123,\
             \"model\":\"caller/model\",\"choices\":[{{\"text\":\"{text}\",\"index\":0,\
             \"logprobs\":null,\"finish_reason\":{finish}}}],{usage}\
             \"system_fingerprint\":\"b11549\"}}\n\n"
        )
    };
    let chunks = |usage: &str| {
        [
            chunk(" first", "null", usage),
            chunk(" must", "null", usage),
            chunk("", "\"length\"", usage),
        ]
        .concat()
    };
    let (text, usage) = level(context(false, 1, 1), LLAMA).unwrap();
    assert_eq!(text, format!("{}data: [DONE]\n\n", chunks("")));
    let mut expected = Usage::new(4, 2);
    expected.prompt_tokens_details.cached_tokens = 3;
    assert_eq!(usage, Some(expected));

    let (text, usage) = level(context(true, 1, 1), LLAMA).unwrap();
    let last = format!(
        "data: {{\"id\":\"cmpl-abc\",\"object\":\"text_completion\",\"created\":1763000123,\
         \"model\":\"caller/model\",\"choices\":[],\"usage\":{},\
         \"system_fingerprint\":\"b11549\"}}\n\ndata: [DONE]\n\n",
        String::from_utf8(expected.to_json()).unwrap()
    );
    assert_eq!(text, format!("{}{last}", chunks("\"usage\":null,")));
    assert_eq!(usage, Some(expected));
}

#[test]
fn vllm_gives_the_same_stream() {
    let (text, usage) = level(context(false, 1, 1), VLLM).unwrap();
    let chunks = objects(&text);
    assert_eq!(chunks.len(), 2);
    for chunk in &chunks {
        let members = chunk.as_object().unwrap().keys().cloned();
        let members: BTreeSet<_> = members.collect();
        let expected = [
            "choices",
            "created",
            "id",
            "model",
            "object",
            "system_fingerprint",
        ];
        assert_eq!(members, expected.map(str::to_owned).into());
        assert_eq!(chunk["system_fingerprint"], FINGERPRINT);
        let choice = chunk["choices"][0].as_object().unwrap();
        assert_eq!(choice.len(), 4);
    }
    assert_eq!(usage, Some(Usage::new(4, 2)));
    let (text, _) = level(context(true, 1, 1), VLLM).unwrap();
    let chunks = objects(&text);
    assert!(chunks[0]["usage"].is_null() && chunks[0].as_object().unwrap().contains_key("usage"));
    assert_eq!(chunks[2]["choices"], json!([]));
    assert_eq!(
        chunks[2]["usage"]["completion_tokens_details"]["reasoning_tokens"],
        0
    );
}

fn choice(index: u32, text: &str, finish: Option<&str>) -> Value {
    json!({"choices": [{"index": index, "text": text, "finish_reason": finish}]})
}

fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

#[test]
fn events_that_are_no_objects_are_dropped() {
    let mut text = "data: null\n\ndata: 5\n\ndata: []\n\ndata: \"x\"\n\ndata: true\n\n".to_owned();
    text.push_str(&stream(&[
        json!({}),
        json!({"type": "ping"}),
        choice(0, "a", Some("stop")),
    ]));
    text.push_str(": keep-alive\n\ndata: [DONE]\n\ndata: {\"error\":1}\n\ndata: late\n\n");
    let (text, _) = level(context(false, 1, 1), &text).unwrap();
    assert_eq!(objects(&text).len(), 1);
}

#[test]
fn each_choice_counted_by_itself_is_summed_and_a_prompt_counts_once() {
    let last = |index: u32, prompt: u64, completion: u64| {
        let mut event = choice(index, "", Some("stop"));
        event["usage"] = json!({"prompt_tokens": prompt, "completion_tokens": completion});
        event
    };
    // Two prompts of 5 and 7 tokens, two choices each.
    let events = [last(0, 5, 4), last(1, 5, 3), last(3, 7, 2), last(2, 7, 1)];
    let text = format!("{}data: [DONE]\n\n", stream(&events));
    let (_, usage) = level(context(false, 2, 4), &text).unwrap();
    assert_eq!(usage, Some(Usage::new(12, 10)));
    // Beside several choices it is the whole's.
    let both = json!({
        "choices": [{"text": "a", "index": 0}, {"text": "b", "index": 1}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    });
    let text = format!("{}data: [DONE]\n\n", stream(&[both]));
    assert_eq!(
        level(context(false, 2, 2), &text).unwrap().1,
        Some(Usage::new(5, 2))
    );
    // The engine's word on the whole wins.
    let whole = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    let text = format!("{}{}data: [DONE]\n\n", stream(&events), stream(&[whole]));
    assert_eq!(
        level(context(false, 2, 4), &text).unwrap().1,
        Some(Usage::new(1, 2))
    );
}

#[test]
fn tokens_are_counted_where_the_engine_does_not() {
    let mut events = vec![choice(0, "a", None); 5];
    events.push(choice(0, "", None));
    events.push(choice(0, "b", Some("stop")));
    let text = format!("{}data: [DONE]\n\n", stream(&events));
    let (text, usage) = level(context(true, 1, 1), &text).unwrap();
    assert_eq!(usage, Some(Usage::new(0, 6)));
    assert_eq!(
        objects(&text).last().unwrap()["usage"]["completion_tokens"],
        6
    );
    assert_eq!(
        level(context(true, 1, 1), "data: [DONE]\n\n").unwrap().1,
        None
    );
}

#[test]
fn a_comment_tells_the_usage_at_least_every_64_tokens() {
    let mut leveller = StreamLeveller::new(context(false, 1, 1));
    let mut told = Vec::new();
    for at in 1..=200_u64 {
        leveller
            .event(choice(0, "x", None).to_string().as_bytes())
            .unwrap();
        if let Some(comment) = leveller.usage_comment() {
            let usage = comment
                .strip_prefix(b":usage ")
                .unwrap()
                .strip_suffix(b"\n")
                .unwrap();
            assert_eq!(Usage::from_json(usage), Ok(Usage::new(0, at)));
            told.push(at);
        }
    }
    assert_eq!(told, [64, 128, 192]);
    // One event of many tokens is told at once.
    let tokens = vec![json!({"token": "x", "logprob": -1}); 70];
    let event = json!({"choices": [{"text": "x", "logprobs": {"content": tokens}}]});
    leveller.event(event.to_string().as_bytes()).unwrap();
    assert!(leveller.usage_comment().is_some() && leveller.usage_comment().is_none());
    assert_eq!(leveller.usage(), Some(Usage::new(0, 270)));
}

#[test]
fn offsets_go_on_over_chunks_for_each_choice_in_characters() {
    let event = |index: u32, text: &str, tokens: &[&str]| {
        let content = tokens
            .iter()
            .map(|t| json!({"token": t, "logprob": -0.5, "top_logprobs": []}));
        json!({"choices": [{"index": index, "text": text, "finish_reason": null,
               "logprobs": {"content": content.collect::<Vec<_>>()}}]})
    };
    let events = [
        event(0, "a\u{1F600}", &["a", "\u{1F600}"]),
        event(1, "é", &["é"]),
        // Bytes held back until the character is whole.
        event(0, "", &[""]),
        event(0, "bc", &["b", "c"]),
        event(1, "x", &["x"]),
    ];
    let text = format!("{}data: [DONE]\n\n", stream(&events));
    let (text, usage) = level(context(false, 2, 2), &text).unwrap();
    let offsets = objects(&text)
        .iter()
        .map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"].clone())
        .collect::<Vec<_>>();
    assert_eq!(
        offsets,
        [
            json!([0, 1]),
            json!([0]),
            json!([2]),
            json!([2, 3]),
            json!([1])
        ]
    );
    assert_eq!(usage, Some(Usage::new(0, 7)));
}

#[test]
fn an_engines_error_is_an_error() {
    let cases = [
        (
            "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n",
            LevelError::Engine,
        ),
        (
            "event: error\ndata: {\"error\":\"x\"}\n\n",
            LevelError::Engine,
        ),
        (
            "data: {\"object\":\"error\",\"message\":\"x\"}\n\n",
            LevelError::Engine,
        ),
        ("data: error: out of memory\n\n", LevelError::Malformed),
        ("data: {\"choices\":[{\"text\"\n\n", LevelError::Malformed),
        (
            "data: {\"choices\":[{\"text\":5}]}\n\n",
            LevelError::Malformed,
        ),
    ];
    for (event, expected) in cases {
        let text = format!("{}{event}data: [DONE]\n\n", stream(&[choice(0, "a", None)]));
        assert_eq!(level(context(false, 1, 1), &text), Err(expected), "{event}");
    }
}

#[test]
fn a_stream_of_another_kind_is_no_empty_answer() {
    let chat = |delta: Value, finish: Option<&str>| {
        json!({"object": "chat.completion.chunk",
               "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let streams = [
        vec![chat(json!({"role": "assistant"}), None)],
        vec![chat(json!({"content": "a"}), Some("stop"))],
        vec![choice(0, "a", None), chat(json!({"content": "b"}), None)],
        vec![json!({"choices": [{"text": null, "index": 0}]})],
    ];
    for events in streams {
        let text = format!("{}data: [DONE]\n\n", stream(&events));
        assert_eq!(
            level(context(false, 1, 1), &text),
            Err(LevelError::Malformed),
            "{text}"
        );
    }
    // An end that says no more than its reason.
    let end = json!({"choices": [{"index": 0, "finish_reason": "stop"}]});
    let text = format!("{}data: [DONE]\n\n", stream(&[choice(0, "a", None), end]));
    let (text, _) = level(context(false, 1, 1), &text).unwrap();
    assert_eq!(objects(&text)[1]["choices"][0]["text"], "");
}

#[test]
fn only_a_proved_end_is_one() {
    let finish = |choices: u64, events: &[Value], done: bool, clean: bool| {
        let mut leveller = StreamLeveller::new(context(false, 1, choices));
        for event in events {
            leveller.event(event.to_string().as_bytes()).unwrap();
        }
        if done {
            leveller.event(b" [DONE] ").unwrap();
        }
        leveller
            .finish(clean)
            .map(|end| String::from_utf8(end.events).unwrap())
    };
    let end = Ok("data: [DONE]\n\n".to_owned());
    let cut = Err(LevelError::Incomplete);
    let half = [choice(0, "a", None)];
    let whole = [choice(0, "a", Some("stop"))];
    assert_eq!(finish(1, &half, true, false), end, "[DONE] is the proof");
    assert_eq!(finish(1, &half, false, true), cut);
    assert_eq!(
        finish(1, &whole, false, true),
        end,
        "all finished, and the body ended cleanly"
    );
    assert_eq!(finish(1, &whole, false, false), cut);
    assert_eq!(finish(2, &whole, false, true), cut, "a choice is missing");
    assert_eq!(finish(1, &[], false, true), cut);
}

#[test]
fn choices_have_a_limit() {
    let mut leveller = StreamLeveller::new(context(false, 1, 1));
    let last = u32::try_from(MAX_CHOICES).unwrap();
    for index in 0..last {
        let event = format!("{{\"choices\":[{{\"text\":\"\",\"index\":{index}}}]}}");
        leveller.event(event.as_bytes()).unwrap();
    }
    let event = format!("{{\"choices\":[{{\"text\":\"\",\"index\":{last}}}]}}");
    assert_eq!(
        leveller.event(event.as_bytes()),
        Err(LevelError::TooManyChoices)
    );
    assert!(
        leveller
            .event(b"{\"choices\":[{\"text\":\"\",\"index\":7}]}")
            .is_ok()
    );
}

#[test]
fn a_text_cannot_break_out_of_its_event() {
    let text = "a\n\ndata: [DONE]\n\n\r\u{2028}\u{85}\0";
    let events = format!(
        "{}data: [DONE]\n\n",
        stream(&[choice(0, text, Some("stop"))])
    );
    let (sent, _) = level(context(false, 1, 1), &events).unwrap();
    assert_eq!(objects(&sent)[0]["choices"][0]["text"], text);
}

#[test]
fn an_event_over_several_data_lines_becomes_one() {
    let events = "data: {\"choices\":\ndata: [{\"text\":\ndata: \"a\",\"logprobs\":{\"tokens\":[\"a\"],\n\
                  data: \"token_logprobs\":[\ndata: -1\ndata: ]}}]}\n\ndata: [DONE]\n\n";
    let (sent, _) = level(context(false, 1, 1), events).unwrap();
    assert_eq!(
        objects(&sent)[0]["choices"][0]["logprobs"]["token_logprobs"],
        json!([-1])
    );
}

proptest! {
    #[test]
    fn any_event_is_read_without_panic(event in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut leveller = StreamLeveller::new(context(true, 1, 1));
        let _ = leveller.event(&event);
        let _ = leveller.usage_comment();
        let _ = leveller.finish(true);
    }

    /// Wherever the network cuts an engine's stream, the caller gets the same.
    #[test]
    fn splits_do_not_matter(size in 1_usize..40, texts in proptest::collection::vec(any::<String>(), 0..8)) {
        let events = texts.iter().map(|text| choice(0, text, None)).collect::<Vec<_>>();
        let text = format!("{}data: [DONE]\n\n", stream(&events));
        let mut reader = EngineEvents::new();
        let mut leveller = StreamLeveller::new(context(true, 1, 1));
        let mut sent = String::new();
        for piece in text.as_bytes().chunks(size) {
            reader.push(piece).unwrap();
            while let Some(event) = reader.next_event() {
                sent.push_str(str::from_utf8(&leveller.event(&event).unwrap()).unwrap());
            }
        }
        let end = leveller.finish(true).unwrap();
        sent.push_str(str::from_utf8(&end.events).unwrap());
        let expected = level(context(true, 1, 1), &text).unwrap().0;
        prop_assert_eq!(sent, expected);
    }
}
