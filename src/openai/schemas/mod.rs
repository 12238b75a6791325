//! The contract as JSON Schemas, for the OpenAPI document.
//!
//! Bounds are the constants that the readers of requests use. Tests hold every member that a schema
//! names against its reader, so that neither says what the other does not.

mod embeddings;
mod errors;
mod images;
mod messages;
mod models;
mod nodes;
mod receipts;
#[cfg(test)]
mod tests;
mod texts;

use serde_json::{Map, Value, json};

use super::Endpoint;

/// Largest 32-bit integer, which is what `format: int32` stands for.
const MAX_INT32: i32 = i32::MAX;

/// All schemas by their names.
#[must_use]
pub fn schemas() -> Map<String, Value> {
    let parts = [
        texts::schemas(),
        messages::schemas(),
        embeddings::schemas(),
        images::schemas(),
        models::schemas(),
        nodes::schemas(),
        receipts::schemas(),
        errors::schemas(),
    ];
    let mut all = Map::new();
    for part in parts {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    all
}

impl Endpoint {
    /// The schema of its request.
    #[must_use]
    pub const fn request_schema(self) -> &'static str {
        match self {
            Self::Completions => "CompletionsRequest",
            Self::ChatCompletions => "ChatCompletionsRequest",
            Self::Embeddings => "EmbeddingsRequest",
            Self::Images => "ImagesRequest",
        }
    }

    /// The schema of its whole reply.
    #[must_use]
    pub const fn reply_schema(self) -> &'static str {
        match self {
            Self::Completions => "CompletionsResponse",
            Self::ChatCompletions => "ChatCompletionsResponse",
            Self::Embeddings => "EmbeddingsResponse",
            Self::Images => "ImagesResponse",
        }
    }

    /// The schema of one event of its stream, if it can be streamed.
    #[must_use]
    pub const fn chunk_schema(self) -> Option<&'static str> {
        match self {
            Self::Completions => Some("CompletionsChunk"),
            Self::ChatCompletions => Some("ChatCompletionsChunk"),
            Self::Embeddings | Self::Images => None,
        }
    }

    /// What its request may look like.
    #[must_use]
    pub fn example(self, model: &str) -> Value {
        match self {
            Self::Completions => json!({"model": model, "prompt": "Hello, world!"}),
            Self::ChatCompletions => json!({
                "model": model,
                "messages": [{"role": "user", "content": "Hello, world!"}],
            }),
            Self::Embeddings => json!({"model": model, "input": "Hello, world!"}),
            Self::Images => json!({"model": model, "prompt": "A lighthouse in the fog"}),
        }
    }
}

/// A reference to a schema.
#[must_use]
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// `schema`, or null.
fn or_null(schema: Value) -> Value {
    json!({"oneOf": [{"type": "null"}, schema]})
}

fn model(description: &str) -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": super::MAX_MODEL,
        "description": description, "example": "meta-llama/Llama-3.3-70B-Instruct",
    })
}

fn nullable(kind: &str, description: &str) -> Value {
    json!({"type": [kind, "null"], "description": description})
}

fn integer(least: i32, description: &str) -> Value {
    json!({
        "type": ["integer", "null"], "format": "int32", "minimum": least, "maximum": MAX_INT32,
        "description": description,
    })
}

fn number(least: i32, most: i32, description: &str) -> Value {
    json!({
        "type": ["number", "null"], "format": "float", "minimum": least, "maximum": most,
        "description": description,
    })
}

/// A member that says something only where another is true.
fn only_if(member: &str, other: &str) -> Value {
    json!({
        "if": {"required": [member], "properties": {member: {"not": {"enum": [null, 0]}}}},
        "then": {"required": [other], "properties": {other: {"const": true}}},
    })
}

/// `value` with a member more.
fn with(mut value: Value, name: &str, member: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
    value
}

/// Members that steer how a text is made.
fn sampling(n: &str) -> Map<String, Value> {
    let stop = json!({
        "type": ["array", "string", "null"], "items": {"type": "string"}, "maxItems": 4,
        "description": "Up to 4 sequences at which the text ends; they are not part of it.",
        "default": [],
    });
    let bias = json!({
        "type": ["object", "null"],
        "additionalProperties":
            {"type": "number", "format": "float", "minimum": -100, "maximum": 100},
        "propertyNames": {"type": "string"},
        "description": "Added to the logits of tokens, named by their ids.",
    });
    let seed = json!({
        "type": ["integer", "null"], "format": "int64",
        "minimum": i64::MIN, "maximum": i64::MAX,
        "description": "The same seed gives the same text, as far as the engine can.",
    });
    let stream = "Whether the reply comes as server-sent events.";
    let members = json!({
        "stream": with(nullable("boolean", stream), "default", json!(false)),
        "stream_options": or_null(reference("StreamOptions")),
        "n": with(integer(1, n), "default", json!(1)),
        "temperature": number(0, 2, "How freely tokens are chosen; 0 takes the likeliest."),
        "top_p": number(0, 1, "Choose among the tokens that together have this probability."),
        "frequency_penalty": number(-2, 2, "Makes tokens rarer the more often they came."),
        "presence_penalty": number(-2, 2, "Makes tokens rarer once they came."),
        "seed": seed,
        "logit_bias": bias,
        "stop": stop,
        "user": nullable("string", "An id of the end user, for the engine."),
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// An object schema with sampling members beside its own.
fn with_sampling(mut schema: Value, n: &str) -> Value {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(sampling(n));
    }
    schema
}
