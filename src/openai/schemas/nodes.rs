//! Nodes, and what is sealed past the gateway.

use serde_json::{Value, json};

use super::{model, nullable, or_null, reference, texts::created, with};
use crate::openai::nodes::{MAX_ADDRESS, MAX_SAFE};

pub(super) fn schemas() -> Value {
    let small_id = json!({"type": "integer", "minimum": 0, "maximum": MAX_SAFE,
        "description": "The node's id as a number."});
    json!({
        "NodeList": {
            "type": "object",
            "required": ["object", "data"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": reference("Node")},
            },
        },
        "Node": node(small_id.clone()),
        "NodeAnnouncement": announcement(),
        "Attestation": {
            "type": "object",
            "description": "As the node gives it (docs/wire.md).",
            "required": ["statement", "nonce", "evidence"],
            "properties": {
                "statement": {"type": "string", "contentEncoding": "base64"},
                "nonce": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "evidence": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            },
        },
        "LockRequest": lock_request(),
        "Lock": {
            "type": "object",
            "required": ["public_key", "node_small_id", "stack_entry_digest", "stack_small_id"],
            "properties": {
                "public_key": key("The key to seal to."),
                "node_small_id": small_id,
                "stack_entry_digest": {"type": "null"},
                "stack_small_id": {"type": "integer", "minimum": 1, "maximum": MAX_SAFE,
                    "description": "The lock. Nobody can guess it."},
            },
        },
        "ConfidentialRequest": confidential_request(),
        "ConfidentialResponse": confidential_reply(),
        "Problem": {
            "type": "object",
            "description": "RFC 9457.",
            "required": ["type"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
            },
        },
    })
}

fn node(small_id: Value) -> Value {
    json!({
        "type": "object",
        "required": ["id", "object", "node_small_id", "origin", "models", "tee", "root",
            "suites", "statement", "verified_at", "expires_at"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "node"},
            "node_small_id": small_id,
            "origin": {"type": "string", "enum": ["configured", "announced"]},
            "models": {"type": "array", "items": {"type": "string"},
                "description": "What it serves, of what the key may use."},
            "tee": {"type": "string", "description": "The kind of machine."},
            "root": {"type": "string",
                "description": "Who vouches for it; `software root` is no hardware."},
            "suites": {"type": "array",
                "items": {"type": "string",
                    "enum": ["x-wing", "x25519", "ehbp-x25519", "seed-x25519"]},
                "description": "What can be sealed to it with, the better ones first."},
            "statement": {"type": "string", "description": "Its statement's digest in hex."},
            "verified_at": created(),
            "expires_at": created(),
        },
    })
}

fn announcement() -> Value {
    json!({
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "object",
                "required": ["public_address"],
                "properties": {
                    "public_address": {"type": "string", "minLength": 1, "maxLength": MAX_ADDRESS,
                        "description": "`https://` and a host, perhaps a port."},
                    "node_small_id": unsigned("Read past."),
                    "country": nullable("string", "Read past."),
                },
            },
            "signature": nullable("string", "Read past."),
        },
    })
}

fn lock_request() -> Value {
    let from_1 = |description: &str| with(unsigned(description), "minimum", json!(1));
    json!({
        "type": "object",
        "required": ["model"],
        "properties": {
            "model": model("The model that will be asked, as the node calls it."),
            "max_num_tokens": with(
                from_1("Tokens to hold capacity for."), "default", json!(8192),
            ),
            "timeout": with(
                from_1("How long the lock waits for its request, in seconds."), "default", json!(5),
            ),
        },
    })
}

fn confidential_request() -> Value {
    let hash = "BLAKE2b with 32 bytes of output, of the plaintext.";
    json!({
        "type": "object",
        "description": "The gateway reads what it needs to find the lock; the rest is the node's.",
        "required": ["stack_small_id", "model_name", "node_dh_public_key", "ciphertext", "nonce",
            "salt", "client_dh_public_key", "plaintext_body_hash"],
        "properties": {
            "stack_small_id": {"type": "integer", "minimum": 0, "maximum": u64::MAX,
                "description": "The lock."},
            "model_name": model("The lock's model."),
            "node_dh_public_key": key("The lock's key."),
            "ciphertext": {"type": "string", "contentEncoding": "base64",
                "description": "AES-256-GCM of OpenAI's body, with its tag."},
            "nonce": {"type": "string", "contentEncoding": "base64", "description": "12 bytes."},
            "salt": {"type": "string", "contentEncoding": "base64", "description": "16 bytes."},
            "client_dh_public_key": key("A fresh key of the client's."),
            "plaintext_body_hash": key(hash),
            "stream": nullable("boolean", "The same as inside."),
            "num_compute_units": unsigned("Read past."),
        },
    })
}

fn confidential_reply() -> Value {
    json!({
        "type": "object",
        "description": "A whole reply, or one event of a stream; each opens to OpenAI's object.",
        "required": ["ciphertext", "nonce", "response_hash", "signature"],
        "properties": {
            "ciphertext": {"type": "string", "contentEncoding": "base64"},
            "nonce": {"type": "string", "contentEncoding": "base64"},
            "response_hash": {"type": "null"},
            "signature": {"type": "null"},
            "usage": or_null(json!({"type": "object"})),
        },
    })
}

/// A nullable 64-bit number.
fn unsigned(description: &str) -> Value {
    json!({"type": ["integer", "null"], "format": "int64", "minimum": 0, "maximum": u64::MAX,
        "description": description})
}

/// 32 bytes.
fn key(description: &str) -> Value {
    json!({"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
        "description": format!("32 bytes. {description}")})
}
