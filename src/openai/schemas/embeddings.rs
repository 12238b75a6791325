//! `POST /v1/embeddings`.

use serde_json::{Value, json};

use super::{integer, model, nullable, reference, texts::counters, with};

pub(super) fn schemas() -> Value {
    json!({
        "EmbeddingsRequest": request(),
        "EmbeddingsResponse": {
            "type": "object",
            "required": ["object", "data", "model", "usage"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": reference("Embedding")},
                "model": {"type": "string", "description": "The name that the request gave."},
                "usage": counters("Zeros where the engine does not count.",
                    &["prompt_tokens", "total_tokens"]),
            },
        },
        "Embedding": {
            "type": "object",
            "required": ["object", "index", "embedding"],
            "properties": {
                "object": {"const": "embedding"},
                "index": {"type": "integer", "format": "int32", "minimum": 0,
                    "description": "Which input it is of."},
                "embedding": {"oneOf": [
                    {"type": "array", "items": {"type": "number"}},
                    {"type": "string", "contentEncoding": "base64",
                        "description": "Little-endian 32-bit floats."},
                ]},
            },
        },
    })
}

fn request() -> Value {
    let input = with(
        reference("CompletionsPrompt"),
        "description",
        json!("One text or several, each as a string or as tokens."),
    );
    let format = json!({
        "type": ["string", "null"], "enum": ["float", "base64", null], "default": "float",
        "description": "How vectors are written.",
    });
    json!({
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": model("The model to ask, as `GET /v1/models` lists it."),
            "input": input,
            "encoding_format": format,
            "dimensions": integer(1, "The length of the vectors, where the model can choose."),
            "user": nullable("string", "An id of the end user, for the engine."),
            "stream": never(),
        },
    })
}

/// `stream`, where nothing can be streamed.
pub(super) fn never() -> Value {
    json!({"type": ["boolean", "null"], "enum": [false, null],
        "description": "There is no stream of these."})
}
