//! Receipts, and the file that one travels in.

use serde_json::{Value, json};

use super::or_null;

pub(super) fn schemas() -> Value {
    let digest = |of: &str| {
        json!({"type": "string", "pattern": "^[0-9a-f]{64}$",
            "description": format!("SHA-256 of {of}.")})
    };
    json!({
        "Receipt": {
            "type": "object",
            "required": [
                "request_id", "receipt", "salts", "node", "statement", "evidence", "nonce", "policy",
                "bundle", "asked_at", "appraised_at", "checked_at",
            ],
            "properties": {
                "request_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                "receipt": {"type": "string", "maxLength": 4096,
                    "description": "A compact JWS (docs/wire.md)."},
                "salts": {"type": ["string", "null"],
                    "description": "What proves the prompt and the answer, if that was asked for."},
                "node": {"type": "string", "description": "The node's id."},
                "statement": digest("the statement that was sealed to"),
                "evidence": digest("the node's answer that it was verified by, as the archive names it"),
                "nonce": {"type": "string", "pattern": "^[0-9a-f]{64}$",
                    "description": "What the evidence answers."},
                "policy": digest("the policy"),
                "bundle": or_null(digest("the bundle's manifest")),
                "asked_at": {"type": "string", "format": "date-time",
                    "description": "When the node was asked for the evidence."},
                "appraised_at": {"type": "string", "format": "date-time",
                    "description": "When the evidence was judged last."},
                "checked_at": {"type": "string", "format": "date-time"},
            },
        },
        "ReceiptBundle": {
            "type": "object",
            "description": "For `sealgate receipt verify`, byte for byte as it is given.",
            "required": ["sealgate", "content", "sha256"],
            "properties": {
                "sealgate": {"const": "receipt-1"},
                "content": {"type": "object"},
                "sha256": digest("the text of `content`"),
            },
        },
    })
}
