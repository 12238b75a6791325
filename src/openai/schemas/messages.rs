//! `POST /v1/chat/completions`.

use serde_json::{Value, json};

use super::{integer, model, nullable, only_if, or_null, reference, texts, with, with_sampling};
use crate::openai::request::ROLES;

pub(super) fn schemas() -> Value {
    json!({
        "ChatCompletionsRequest": request(),
        "ChatMessage": message(),
        "ContentPart": part(),
        "ToolCall": typed("A call that the assistant made: `function` or `custom`."),
        "Tool": tool(),
        "ChatCompletionsResponse": texts::reply(reference("ChatChoice"), "chat.completion"),
        "ChatChoice": choice("message", json!({"type": "string"})),
        "ChatCompletionsChunk": texts::chunk(reference("ChatChunkChoice"), "chat.completion.chunk"),
        "ChatChunkChoice": choice("delta", json!({"type": ["string", "null"]})),
        "AssistantMessage": assistant(),
        "AssistantToolCall": call(),
        "ChatLogProbs": {
            "type": "object",
            "required": ["content", "refusal"],
            "properties": {
                "content": {"type": "array", "items": reference("ChatTokenLogProb")},
                "refusal": {"type": "null"},
            },
        },
        "ChatTokenLogProb": token(true),
        "ChatTopLogProb": token(false),
    })
}

fn request() -> Value {
    let alternatives = json!({
        "type": ["integer", "null"], "format": "int32", "minimum": 0, "maximum": 20,
        "description": "So many likely others for each token; only where `logprobs` is true.",
    });
    let typed = json!({"type": ["string", "object", "null"], "required": ["type"],
        "properties": {"type": {"type": "string"}},
        "description": "`none`, `auto`, `required`, or the tool that is to be called."});
    let format = json!({"type": ["object", "null"], "required": ["type"],
        "properties": {"type": {"type": "string"}},
        "description": "`text`, `json_object` or `json_schema`."});
    let schema = json!({
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": model("The model to ask, as `GET /v1/models` lists it."),
            "messages": {"type": "array", "minItems": 1, "items": reference("ChatMessage"),
                "description": "The conversation so far, the oldest message first."},
            "max_completion_tokens": integer(1, "Most tokens to make for each choice."),
            "max_tokens": with(
                integer(1, "The older name; where both stand, the newer one counts."),
                "deprecated",
                json!(true),
            ),
            "logprobs": nullable("boolean", "Whether to show the log probabilities of the tokens."),
            "top_logprobs": alternatives,
            "tools": {"type": ["array", "null"], "items": reference("Tool"),
                "description": "What the model may call."},
            "tool_choice": typed,
            "parallel_tool_calls":
                nullable("boolean", "Whether several tools may be called at once."),
            "response_format": format,
            "reasoning_effort": nullable("string", "How much the model is to think."),
        },
        "allOf": [only_if("stream_options", "stream"), only_if("top_logprobs", "logprobs")],
    });
    with_sampling(schema, "How many choices to make.")
}

fn message() -> Value {
    let parts = |description: &str| {
        json!({
            "description": description,
            "oneOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": reference("ContentPart")},
            ],
        })
    };
    let calls = json!({"type": ["array", "null"], "items": reference("ToolCall")});
    let (said, may_be_silent): (Vec<_>, Vec<_>) = ROLES
        .into_iter()
        .filter(|role| *role != "tool")
        .partition(|role| !matches!(*role, "assistant" | "function"));
    json!({"oneOf": [
        {
            "type": "object",
            "required": ["role", "content"],
            "properties": {
                "role": {"type": "string", "enum": said},
                "content": parts("What was said."),
                "tool_calls": calls,
            },
        },
        {
            "type": "object",
            "required": ["role", "content", "tool_call_id"],
            "properties": {
                "role": {"type": "string", "const": "tool"},
                "content": parts("What came of the call."),
                "tool_calls": calls,
                "tool_call_id": {"type": "string", "description": "Which call it answers."},
            },
        },
        {
            "type": "object",
            "required": ["role"],
            "properties": {
                "role": {"type": "string", "enum": may_be_silent},
                "content": or_null(parts("What was said, if anything.")),
                "tool_calls": calls,
            },
        },
    ]})
}

fn part() -> Value {
    let image = json!({"type": "object", "required": ["url"],
        "properties": {"url": {"type": "string"}}});
    let only = |kind: &str| json!({"type": "string", "const": kind});
    json!({"oneOf": [
        {"type": "object", "required": ["type", "text"],
            "properties": {"type": only("text"), "text": {"type": "string"}}},
        {"type": "object", "required": ["type", "image_url"],
            "properties": {"type": only("image_url"), "image_url": image}},
        {"type": "object", "required": ["type"],
            "description": "What else the model reads.",
            "properties": {"type": {"type": "string", "not": {"enum": ["text", "image_url"]}}}},
    ]})
}

fn typed(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
    })
}

fn tool() -> Value {
    let function = json!({"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}}});
    json!({"oneOf": [
        {"type": "object", "required": ["type", "function"],
            "properties": {"type": {"const": "function"}, "function": function}},
        {"type": "object", "required": ["type"],
            "properties": {"type": {"type": "string", "not": {"const": "function"}}}},
    ]})
}

fn choice(what: &str, finish_reason: Value) -> Value {
    let why = "Why it ends: `stop`, `length`, `tool_calls`, or the engine's own word.";
    json!({
        "type": "object",
        "required": ["index", what, "logprobs", "finish_reason"],
        "properties": {
            "index": {"type": "integer", "format": "int32", "minimum": 0},
            what: reference("AssistantMessage"),
            "logprobs": or_null(reference("ChatLogProbs")),
            "finish_reason": with(finish_reason, "description", json!(why)),
        },
    })
}

fn assistant() -> Value {
    let thoughts = "What the model thought, under the name that the engine gives it.";
    json!({
        "type": "object",
        "description": "What the model says. A chunk has the pieces that are new.",
        "properties": {
            "role": {"type": "string"},
            "content": nullable("string", "The text."),
            "refusal": nullable("string", "Why the model does not answer."),
            "reasoning": {"type": "string", "description": thoughts},
            "reasoning_content": {"type": "string", "description": thoughts},
            "reasoning_details": {"description": thoughts},
            "tool_calls": {"type": "array", "items": reference("AssistantToolCall")},
            "function_call": function(),
            "annotations": {},
            "audio": {},
        },
    })
}

fn call() -> Value {
    json!({
        "type": "object",
        "properties": {
            "index": {"type": "integer", "format": "int32", "minimum": 0,
                "description": "In chunks: which call a piece is of."},
            "id": {"type": "string"},
            "type": {"type": "string"},
            "function": function(),
            "custom": {},
        },
    })
}

fn function() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "arguments": {"type": "string", "description": "JSON, as the model wrote it."},
        },
    })
}

fn token(with_others: bool) -> Value {
    let token = json!({
        "type": "object",
        "required": ["token", "logprob", "bytes"],
        "properties": {
            "token": {"type": "string"},
            "logprob": {"type": "number", "format": "float"},
            "bytes": {"type": ["array", "null"],
                "items": {"type": "integer", "minimum": 0, "maximum": 255}},
        },
    });
    if !with_others {
        return token;
    }
    let others = json!({"type": "array", "items": reference("ChatTopLogProb")});
    let mut token = token;
    if let Some(properties) = token.get_mut("properties") {
        *properties = with(properties.take(), "top_logprobs", others);
    }
    token
}
