//! Unary replies.

use std::{borrow::Cow, fmt};

use super::{
    LevelError, ReplyContext, embeddings, images,
    logprobs::EngineLogprobs,
    shapes::{Choice, EngineChoice, EngineCompletion, MessageChoice, TextChoice},
};
use crate::openai::{Endpoint, Usage, json};

/// A reply of the contract.
#[derive(Clone)]
pub struct LevelledReply {
    /// Its body.
    pub body: Vec<u8>,
    /// What the engine says that it used; `None` if it does not say. (The body then has zeros, since
    /// the contract wants numbers there.)
    pub usage: Option<Usage>,
}

impl fmt::Debug for LevelledReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelledReply").finish_non_exhaustive()
    }
}

/// Levels an engine's reply of status 200.
///
/// # Errors
/// [`LevelError`] if the reply is not what was asked for.
pub fn level_reply(body: &[u8], context: &ReplyContext) -> Result<LevelledReply, LevelError> {
    let body = body.trim_ascii();
    if !body.starts_with(b"{") {
        return Err(LevelError::Malformed);
    }
    match context.asked.endpoint {
        Endpoint::Completions | Endpoint::ChatCompletions => completion(body, context),
        Endpoint::Embeddings => embeddings::level(body, context),
        Endpoint::Images => images::level(body, context),
    }
}

fn completion(body: &[u8], context: &ReplyContext) -> Result<LevelledReply, LevelError> {
    let mut reply = EngineCompletion::read(body)?;
    let head = reply.head(context);
    let choices = reply.choices.take().ok_or(LevelError::Malformed)?;
    let choices = (0..)
        .zip(choices)
        .map(|(at, choice)| match context.asked.endpoint {
            Endpoint::ChatCompletions => message(choice, at, context),
            _ => text(choice, at),
        });
    let choices = choices.collect::<Result<Vec<_>, _>>()?;
    let usage = reply.usage.and_then(|usage| usage.level());
    let completion = head.completion(context, choices, Some(Some(usage.unwrap_or_default())));
    Ok(LevelledReply {
        body: json::to_line(&completion),
        usage,
    })
}

fn text(choice: EngineChoice<'_>, at: u32) -> Result<Choice<'_>, LevelError> {
    let EngineChoice {
        text,
        index,
        logprobs,
        finish_reason,
        ..
    } = choice;
    Ok(Choice::Text(TextChoice {
        // Without a text it is some other reply, and an empty answer would be a lie.
        text: text.ok_or(LevelError::Malformed)?.0,
        index: index.unwrap_or(at),
        logprobs: logprobs.and_then(|logprobs: EngineLogprobs<'_>| logprobs.level(0)),
        finish_reason: Some(finish_reason.map_or(Cow::Borrowed("stop"), |reason| reason.0)),
    }))
}

fn message<'a>(
    choice: EngineChoice<'a>,
    at: u32,
    context: &ReplyContext,
) -> Result<Choice<'a>, LevelError> {
    let message = choice.message.ok_or(LevelError::Malformed)?;
    let message = message.whole(context)?;
    let default = if message.calls() {
        "tool_calls"
    } else {
        "stop"
    };
    Ok(Choice::Message(MessageChoice {
        index: choice.index.unwrap_or(at),
        logprobs: choice.logprobs.and_then(EngineLogprobs::chat),
        finish_reason: choice
            .finish_reason
            .map_or(Cow::Borrowed(default), |reason| reason.0),
        message,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::level::test_context;

    fn level(body: &str) -> (Value, Option<Usage>) {
        let reply = level_reply(body.as_bytes(), &test_context()).unwrap();
        assert!(!reply.body.contains(&b'\n'));
        (serde_json::from_slice(&reply.body).unwrap(), reply.usage)
    }

    const LLAMA: &str = r#"{"choices":[{"text":" first must father","index":0,"logprobs":{"content":[
        {"id":390,"token":" first","bytes":[32,102],"logprob":-0.05000000000000001,"top_logprobs":[
          {"id":390,"token":" first","bytes":[32],"logprob":-0.05000000000000001},
          {"id":391,"token":" last","bytes":[32],"logprob":-3.25}]},
        {"id":7,"token":" müst","bytes":[],"logprob":-1e-3,"top_logprobs":[]},
        {"id":8,"token":"","bytes":[240],"logprob":null,"top_logprobs":[
          {"id":1,"token":"\ufffd","bytes":[240],"logprob":-1},
          {"id":2,"token":"\ufffd","bytes":[241],"logprob":-2},
          {"id":3,"token":"z","bytes":[1],"logprob":null}]},
        {"id":9,"token":" father","bytes":[],"logprob":-2}]},
        "finish_reason":"length"}],"created":1763000123,"model":"tiny","system_fingerprint":"b11549-abc",
        "object":"text_completion","usage":{"completion_tokens":4,"prompt_tokens":3,"total_tokens":7,
        "prompt_tokens_details":{"cached_tokens":2}},"id":"chatcmpl-Xy12","timings":{"prompt_n":3},
        "__verbose":{"prompt":"x"}}"#;

    const VLLM: &str = r#"{"id":"cmpl-77","object":"text_completion","created":1763000123,"model":"./tiny",
        "choices":[{"index":0,"text":"the sealed","logprobs":{"text_offset":[0,3],
        "token_logprobs":[null,-0.5],"tokens":["the"," sealed"],
        "top_logprobs":[null,{" sealed":-0.5," open":-1.5}]},"finish_reason":"stop","stop_reason":2,
        "token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null},
        {"index":1,"text":"b","logprobs":null,"finish_reason":null}],
        "service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":5,"total_tokens":9,
        "completion_tokens":4,"prompt_tokens_details":null},"kv_transfer_params":null,"metrics":{}}"#;

    #[test]
    fn llama_cpp_gets_the_legacy_logprobs_the_id_and_the_details() {
        let (reply, usage) = level(LLAMA);
        let expected = json!({
            "id": "cmpl-Xy12", "object": "text_completion", "created": 1_763_000_123,
            "model": "caller/model",
            "choices": [{
                "text": " first must father", "index": 0, "finish_reason": "length",
                "logprobs": {
                    "tokens": [" first", " müst", "", " father"],
                    "token_logprobs": [-0.05000000000000001, -1e-3, null, -2],
                    "top_logprobs": [
                        {" first": -0.05000000000000001, " last": -3.25}, {" müst": -1e-3}, {"\u{fffd}": -1}, {" father": -2}
                    ],
                    "text_offset": [0, 6, 11, 11],
                },
            }],
            "usage": {
                "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                "completion_tokens_details": {
                    "accepted_prediction_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
                "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 2},
            },
            "system_fingerprint": "b11549-abc",
        });
        assert_eq!(reply, expected);
        let usage = usage.unwrap();
        assert_eq!(
            (
                usage.completion_tokens,
                usage.prompt_tokens_details.cached_tokens
            ),
            (4, 2)
        );
    }

    #[test]
    fn numbers_keep_their_digits() {
        let reply = level_reply(LLAMA.as_bytes(), &test_context()).unwrap();
        let text = String::from_utf8(reply.body).unwrap();
        assert!(
            text.contains("[-0.05000000000000001,-1e-3,null,-2]"),
            "{text}"
        );
    }

    #[test]
    fn vllm_loses_its_extras_and_gets_the_details() {
        let (reply, usage) = level(VLLM);
        let expected = json!({
            "id": "cmpl-77", "object": "text_completion", "created": 1_763_000_123,
            "model": "caller/model",
            "choices": [
                {
                    "text": "the sealed", "index": 0, "finish_reason": "stop",
                    "logprobs": {
                        "tokens": ["the", " sealed"], "token_logprobs": [null, -0.5],
                        "top_logprobs": [null, {" sealed": -0.5, " open": -1.5}],
                        "text_offset": [0, 3],
                    },
                },
                {"text": "b", "index": 1, "finish_reason": "stop", "logprobs": null},
            ],
            "usage": serde_json::to_value(Usage::new(5, 4)).unwrap(),
            "system_fingerprint": FINGERPRINT,
        });
        assert_eq!(reply, expected);
        assert_eq!(usage, Some(Usage::new(5, 4)));
    }

    use crate::openai::level::FINGERPRINT;

    #[test]
    fn what_an_engine_leaves_out_is_filled() {
        let (reply, usage) = level(r#" {"choices":[{"text":"a"},{"text":"b"}]} "#);
        assert_eq!(reply["id"], "cmpl-000102030405060708090a0b0c0d0e0f");
        assert_eq!(reply["created"], 1_763_000_000);
        assert_eq!(reply["object"], "text_completion");
        assert_eq!(reply["system_fingerprint"], FINGERPRINT);
        assert_eq!(reply["choices"][1]["index"], 1);
        assert_eq!(
            reply["usage"],
            serde_json::to_value(Usage::default()).unwrap()
        );
        assert_eq!(usage, None, "absent is not zero");
        for usage in ["null", "{}", r#"{"total_tokens":5}"#] {
            let (_, counted) = level(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
            assert_eq!(counted, None);
        }
        let (reply, _) =
            level(r#"{"id":"42","system_fingerprint":"","created":1.5,"object":"x","choices":[]}"#);
        assert_eq!(reply["id"], "cmpl-42");
        assert_eq!(reply["system_fingerprint"], FINGERPRINT);
        assert_eq!(reply["created"], 1_763_000_000);
        assert_eq!(reply["object"], "text_completion");
    }

    #[test]
    fn legacy_logprobs_that_are_half_there_are_filled() {
        let (reply, _) = level(
            r#"{"choices":[{"text":"é x","logprobs":{"tokens":["é"," x"],"token_logprobs":[-1,-2],
                "top_logprobs":null}},{"text":"y","logprobs":{"content":null}},
                {"text":"z","logprobs":{"content":[]}}]}"#,
        );
        let logprobs = &reply["choices"][0]["logprobs"];
        assert_eq!(logprobs["text_offset"], json!([0, 1]));
        assert_eq!(logprobs["top_logprobs"], json!([{}, {}]));
        assert!(reply["choices"][1]["logprobs"].is_null());
        assert_eq!(reply["choices"][2]["logprobs"]["tokens"], json!([]));
    }

    #[test]
    fn what_is_no_completion_is_an_error() {
        let cases = [
            ("", LevelError::Malformed),
            ("null", LevelError::Malformed),
            ("[]", LevelError::Malformed),
            ("{}", LevelError::Malformed),
            ("<html>", LevelError::Malformed),
            (r#"{"choices":null}"#, LevelError::Malformed),
            (
                r#"{"choices":[{"message":{"content":"x"}}]}"#,
                LevelError::Malformed,
            ),
            (r#"{"choices":[{"text":null}]}"#, LevelError::Malformed),
            (r#"{"choices":[{"text":5}]}"#, LevelError::Malformed),
            (r#"{"choices":[{"text":"\ud83d"}]}"#, LevelError::Malformed),
            (
                r#"{"choices":[{"text":"a","text":"b"}]}"#,
                LevelError::Malformed,
            ),
            (
                r#"{"choices":[{"text":"x","logprobs":{"token_logprobs":["x"],"tokens":[]}}]}"#,
                LevelError::Malformed,
            ),
            (r#"{"choices":[{"text":"x"}]"#, LevelError::Malformed),
            (r#"{"choices":[{"text":"x"}]} {}"#, LevelError::Malformed),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":-1}}"#,
                LevelError::Malformed,
            ),
            (r#"{"error":{"message":"x"}}"#, LevelError::Engine),
            (r#"{"error":"x","choices":[]}"#, LevelError::Engine),
            (r#"{"object":"error","message":"x"}"#, LevelError::Engine),
        ];
        for (body, expected) in cases {
            let outcome = level_reply(body.as_bytes(), &test_context()).map(|reply| reply.usage);
            assert_eq!(outcome, Err(expected), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = level_reply(&body, &test_context());
        }

        #[test]
        fn any_text_passes_unchanged(text in any::<String>()) {
            let body = json!({"choices": [{"text": text}]}).to_string();
            let (reply, _) = level(&body);
            prop_assert_eq!(reply["choices"][0]["text"].as_str(), Some(text.as_str()));
        }
    }
}
