//! What every error looks like.

use serde_json::{Value, json};

use super::{nullable, reference};
use crate::openai::Code;

pub(super) fn schemas() -> Value {
    let codes = Code::ALL.iter().map(|code| code.code());
    let codes = format!(
        "One of {}; or what an engine says of a request that it refuses.",
        codes
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(", ")
    );
    json!({
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": reference("ErrorObject")},
        },
        "ErrorObject": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what to do."},
                "type": {"type": "string"},
                "param": nullable("string", "The member that is at fault."),
                "code": nullable("string", &codes),
            },
        },
    })
}
