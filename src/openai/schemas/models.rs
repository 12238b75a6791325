//! `GET /v1/models`.

use serde_json::{Value, json};

use super::{reference, texts::created};

pub(super) fn schemas() -> Value {
    json!({
        "ModelList": {
            "type": "object",
            "required": ["object", "data"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": reference("Model")},
            },
        },
        "Model": {
            "type": "object",
            "required": ["id", "object", "created", "owned_by"],
            "properties": {
                "id": {"type": "string"},
                "object": {"const": "model"},
                "created": created(),
                "owned_by": {"type": "string"},
            },
        },
    })
}
