//! `POST /v1/completions`, and what chats share with it.

use serde_json::{Value, json};

use super::{integer, model, nullable, only_if, or_null, reference, with, with_sampling};
use crate::openai::DEFAULT_MAX_TOKENS;

pub(super) fn schemas() -> Value {
    let token = json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": i32::MAX});
    let tokens = json!({"type": "array", "minItems": 1, "items": token});
    json!({
        "CompletionsRequest": request(),
        "CompletionsPrompt": {"oneOf": [
            {"type": "string", "description": "One text."},
            {"type": "array", "minItems": 1, "items": {"type": "string"},
                "description": "Several texts."},
            with(tokens.clone(), "description", json!("One text as tokens.")),
            {"type": "array", "minItems": 1, "items": tokens,
                "description": "Several texts as tokens."},
        ]},
        "StreamOptions": {
            "type": "object",
            "description": "Only where `stream` is true.",
            "properties": {"include_usage": nullable("boolean",
                "Whether the stream ends with a chunk that has no choices and the usage of all; \
                 the chunks before it then have a `usage` that is null."),
                "include_obfuscation": nullable("boolean",
                    "Whether each chunk has an `obfuscation` that levels its length; else as the gateway is set.")},
        },
        "CompletionsResponse": reply(reference("CompletionChoice"), "text_completion"),
        "CompletionsChunk": chunk(reference("CompletionChunkChoice"), "text_completion"),
        "CompletionChoice": choice(json!({"type": "string"})),
        "CompletionChunkChoice": choice(json!({"type": ["string", "null"]})),
        "LogProbs": logprobs(),
        "Usage": usage(),
        "CompletionTokensDetails": counters(
            "What the tokens made were.",
            &["accepted_prediction_tokens", "audio_tokens", "reasoning_tokens",
                "rejected_prediction_tokens"],
        ),
        "PromptTokensDetails": counters(
            "What the tokens of the prompt were.",
            &["audio_tokens", "cached_tokens"],
        ),
    })
}

fn request() -> Value {
    let most = integer(0, "Most tokens to make for each choice.");
    let alternatives = json!({
        "type": ["integer", "null"], "format": "int32", "minimum": 0, "maximum": 20,
        "description": "Show the log probabilities of the tokens, and of so many likely others.",
    });
    let best_of = integer(1, "Make so many and give the best.");
    let echo = nullable("boolean", "Whether the prompt stands before the text.");
    let schema = json!({
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": model("The model to ask, as `GET /v1/models` lists it."),
            "prompt": with(reference("CompletionsPrompt"), "description", json!("What goes on.")),
            "max_tokens": with(most, "default", json!(DEFAULT_MAX_TOKENS)),
            "best_of": with(best_of, "default", json!(1)),
            "echo": with(echo, "default", json!(false)),
            "logprobs": alternatives,
            "suffix": nullable("string", "The text that comes after the one that is made."),
        },
        "allOf": [only_if("stream_options", "stream")],
    });
    with_sampling(schema, "How many choices to make for each prompt.")
}

/// A whole reply of choices.
pub(super) fn reply(choice: Value, object: &str) -> Value {
    json!({
        "type": "object",
        "required": ["choices", "usage", "created", "id", "model", "object", "system_fingerprint"],
        "properties": {
            "choices": {"type": "array", "items": choice},
            "usage": reference("Usage"),
            "created": created(),
            "id": {"type": "string"},
            "model": {"type": "string", "description": "The name that the request gave."},
            "object": {"type": "string", "const": object},
            "system_fingerprint": {"type": "string", "description": "The engine, if it says."},
        },
    })
}

/// One event of a streamed reply. The end is the event `[DONE]`.
pub(super) fn chunk(choice: Value, object: &str) -> Value {
    json!({
        "type": "object",
        "required": ["choices", "created", "id", "model", "object", "system_fingerprint"],
        "properties": {
            "choices": {"type": "array", "items": choice},
            "usage": or_null(reference("Usage")),
            "created": created(),
            "id": {"type": "string"},
            "model": {"type": "string"},
            "object": {"type": "string", "const": object},
            "system_fingerprint": {"type": "string"},
            "obfuscation": {"type": "string",
                "description": "Random letters that level the chunk's length."},
        },
    })
}

/// A time.
pub(super) fn created() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0,
        "description": "Seconds since the Unix epoch."})
}

fn choice(finish_reason: Value) -> Value {
    let why = "Why it ends: `stop`, `length`, or the engine's own word.";
    json!({
        "type": "object",
        "required": ["text", "index", "finish_reason"],
        "properties": {
            "text": {"type": "string"},
            "index": {"type": "integer", "format": "int32", "minimum": 0},
            "logprobs": or_null(reference("LogProbs")),
            "finish_reason": with(finish_reason, "description", json!(why)),
        },
    })
}

fn logprobs() -> Value {
    json!({
        "type": "object",
        "description": "Null where the engine has none: for the first token of an echoed prompt.",
        "required": ["tokens", "token_logprobs", "top_logprobs", "text_offset"],
        "properties": {
            "tokens": {"type": "array", "items": {"type": "string"}},
            "token_logprobs": {"type": "array",
                "items": {"type": ["number", "null"], "format": "float"}},
            "top_logprobs": {"type": "array", "items": {"type": ["object", "null"],
                "additionalProperties": {"type": "number", "format": "float"},
                "propertyNames": {"type": "string"}}},
            "text_offset": {"type": "array", "description": "In characters.",
                "items": {"type": "integer", "format": "int32", "minimum": 0}},
        },
    })
}

fn usage() -> Value {
    let sum = "Zeros where the engine does not count.";
    let mut schema = counters(sum, &["prompt_tokens", "completion_tokens", "total_tokens"]);
    for (name, details) in [
        ("completion_tokens_details", "CompletionTokensDetails"),
        ("prompt_tokens_details", "PromptTokensDetails"),
    ] {
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.push(json!(name));
        }
        if let Some(properties) = schema.get_mut("properties") {
            *properties = with(properties.take(), name, reference(details));
        }
    }
    schema
}

/// An object of counters, all of them there.
pub(super) fn counters(description: &str, names: &[&str]) -> Value {
    let counter = json!({"type": "integer", "format": "int32", "minimum": 0});
    let properties = names
        .iter()
        .map(|name| ((*name).to_owned(), counter.clone()));
    json!({
        "type": "object",
        "description": description,
        "required": names,
        "properties": properties.collect::<serde_json::Map<_, _>>(),
    })
}
