//! `POST /v1/images/generations`.

use serde_json::{Value, json};

use super::{
    embeddings::never,
    model, nullable, reference,
    texts::{counters, created},
};
use crate::openai::request::MAX_IMAGES;

pub(super) fn schemas() -> Value {
    json!({
        "ImagesRequest": request(),
        "ImagesResponse": {
            "type": "object",
            "required": ["created", "data"],
            "properties": {
                "created": created(),
                "data": {"type": "array", "minItems": 1, "items": reference("Image")},
                "usage": counters("Where the engine counts.",
                    &["input_tokens", "output_tokens", "total_tokens"]),
            },
        },
        "Image": {
            "type": "object",
            "description": "By its address, or as a file.",
            "anyOf": [{"required": ["url"]}, {"required": ["b64_json"]}],
            "properties": {
                "url": {"type": "string"},
                "b64_json": {"type": "string", "contentEncoding": "base64"},
                "revised_prompt": {"type": "string",
                    "description": "What the model made of the prompt."},
            },
        },
    })
}

fn request() -> Value {
    let size = json!({
        "type": ["string", "null"],
        "pattern": "^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$",
        "description": "Width and height in pixels, or `auto`.", "example": "1024x1024",
    });
    let format = json!({
        "type": ["string", "null"], "enum": ["url", "b64_json", null],
        "description": "How images are given; as the engine likes, if it is not said.",
    });
    let n = json!({
        "type": ["integer", "null"], "format": "int32", "minimum": 1, "maximum": MAX_IMAGES,
        "default": 1, "description": "How many images to make.",
    });
    json!({
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": model("The model to ask, as `GET /v1/models` lists it."),
            "prompt": {"type": "string", "description": "What is to be seen."},
            "n": n,
            "size": size,
            "quality": nullable("string", "In the engine's words."),
            "style": nullable("string", "In the engine's words."),
            "response_format": format,
            "user": nullable("string", "An id of the end user, for the engine."),
            "stream": never(),
        },
    })
}
