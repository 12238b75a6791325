//! What can be asked of the gateway.

use attestation::Padding;
use http::HeaderName;
use serde_json::{Value, json};

use super::errors::Kind;
use crate::{
    attester::answer::ATTESTATION,
    gateway::{
        labels::{MAX_NAMES, REGION, TAGS as TAGS_FIELD},
        padding::PADDING,
    },
    openai::{Endpoint, schemas::reference},
    sealer::OHTTP,
};

/// Groups of operations.
pub(super) const TAGS: [(&str, &str); 8] = [
    ("Completions", "Text that goes on from a prompt."),
    ("Chat", "The next message of a conversation."),
    ("Embeddings", "Vectors of texts."),
    ("Images", "Images of a description."),
    ("Models", "What verified nodes serve now."),
    (
        "Nodes",
        "Who is verified, and by what evidence; announcements, locks, and keys to seal to.",
    ),
    (
        "Confidential",
        "For clients that seal for themselves: the gateway carries what it cannot open.",
    ),
    (
        "Health",
        "Whether the gateway runs, and whether it can answer.",
    ),
];

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) kind: Kind,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Content>,
    pub(super) replies: Vec<Content>,
}

/// A media type, and what stands under it.
type Content = (&'static str, Value);

/// All of them.
pub(super) fn operations() -> Vec<Operation> {
    let mut all: Vec<_> = Endpoint::ALL.into_iter().map(inference).collect();
    all.extend(models());
    all.extend(nodes());
    all.push(receipt());
    all.extend(Endpoint::ALL.into_iter().map(confidential));
    all.extend(relay());
    all.extend(own());
    all.extend(health());
    all
}

fn operation(method: &'static str, path: &'static str, kind: Kind) -> Operation {
    Operation {
        method,
        path,
        id: "",
        tag: "",
        summary: "",
        description: "",
        kind,
        parameters: Vec::new(),
        body: None,
        replies: Vec::new(),
    }
}

fn schema(name: &str) -> Value {
    json!({"schema": reference(name)})
}

fn inference(endpoint: Endpoint) -> Operation {
    let (id, tag, summary) = match endpoint {
        Endpoint::Completions => ("completions_create", "Completions", "Create a completion"),
        Endpoint::ChatCompletions => ("chat_completions_create", "Chat", "Answer a conversation"),
        Endpoint::Embeddings => ("embeddings_create", "Embeddings", "Embed texts"),
        Endpoint::Images => ("images_generate", "Images", "Draw images"),
    };
    let mut replies = vec![(JSON, schema(endpoint.reply_schema()))];
    if let Some(chunk) = endpoint.chunk_schema() {
        replies.push((
            EVENTS,
            json!({
                "itemSchema": {"type": "object", "required": ["data"],
                    "properties": {"data": {"anyOf": [
                        {"const": "[DONE]"},
                        {"type": "string", "contentMediaType": JSON, "contentSchema":
                            {"anyOf": [reference(chunk), reference("Error")]}},
                    ]}}},
            }),
        ));
    }
    let description = if endpoint.streams() {
        "The body goes under the seal byte for byte. With `\"stream\": true` the reply comes as \
         events, each `data: ` and one JSON object, and ends in `data: [DONE]`. What goes wrong \
         after the first event is one event with an `error`, and an aborted connection: a stream \
         that was cut never ends in `[DONE]`."
    } else {
        "The body goes under the seal byte for byte."
    };
    Operation {
        id,
        tag,
        summary,
        description,
        body: Some((
            JSON,
            json!({
                "schema": reference(endpoint.request_schema()),
                "example": endpoint.example("meta-llama/Llama-3.3-70B-Instruct"),
            }),
        )),
        parameters: vec![
            wish(&REGION, "In one of these regions."),
            wish(&TAGS_FIELD, "With all of these tags."),
            padding(),
        ],
        replies,
        ..operation("post", endpoint.path(), Kind::Inference)
    }
}

/// How a request and its reply are padded on their way to the node and back.
fn padding() -> Value {
    json!({"name": PADDING.as_str(), "in": "header", "required": false,
        "description": "How lengths are hidden between this gateway and the node, of the request and its \
            reply: `off` not at all; `bucket` rounds them up; `paced` does that too, and sends a stream \
            in chunks of one length at a steady pace, from before its first token on. Without it the \
            key's setting counts, or else the gateway's. What is below the least that the policy allows \
            is raised to that. Another value, or two, is refused with this field in `param`.",
        "schema": {"type": "string", "enum": Padding::ALL.map(Padding::as_str)}})
}

/// What a request wants of the node that answers it: names of labels, separated by commas.
fn wish(field: &HeaderName, which: &str) -> Value {
    let (name, more) = ("[a-z0-9-]{1,64}", MAX_NAMES.saturating_sub(1));
    let description = format!(
        "{which} Only nodes that fit are asked, and a name that no node of this gateway has is \
         refused with its field in `param`."
    );
    json!({"name": field.as_str(), "in": "header", "required": false,
        "description": description,
        "schema": {"type": "string", "pattern": format!("^{name}([ \t]*,[ \t]*{name}){{0,{more}}}$")}})
}

/// The id of a node in a path.
fn node() -> Value {
    json!({"name": "id", "in": "path", "required": true, "description": "The node's id.",
        "schema": {"type": "string", "pattern": "^[a-z0-9-]{1,64}$"}})
}

fn nodes() -> [Operation; 4] {
    let nonce = json!({"name": "nonce", "in": "query", "required": false,
        "description": "Ask the node itself for evidence of this moment.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"}});
    let success = json!({"schema": {"type": "object", "required": ["message"],
        "properties": {"message": {"const": "Success"}}}});
    [
        Operation {
            id: "nodes_list",
            tag: "Nodes",
            summary: "List nodes",
            description: "Those that are verified now.",
            replies: vec![(JSON, schema("NodeList"))],
            ..operation("get", "/v1/nodes", Kind::List)
        },
        Operation {
            id: "nodes_create",
            tag: "Nodes",
            summary: "Announce a node",
            description: "The node joins if announcements are on, its address is allowed, and its \
                evidence passes the policy. The signature is read past: evidence is what counts.",
            body: Some((
                JSON,
                json!({"schema": reference("NodeAnnouncement"),
                "example": {"data": {"public_address": "https://node-1.example"}}}),
            )),
            replies: vec![(JSON, success)],
            ..operation("post", "/v1/nodes", Kind::Announcement)
        },
        Operation {
            id: "nodes_attestation",
            tag: "Nodes",
            summary: "Get a node's evidence",
            description: "What the gateway judged last, byte for byte, or what the node shows to a \
                nonce. `sealgate verify` judges it without this gateway.",
            parameters: vec![node(), nonce],
            replies: vec![(JSON, schema("Attestation"))],
            ..operation("get", "/v1/nodes/{id}/attestation", Kind::Evidence)
        },
        Operation {
            id: "nodes_create_lock",
            tag: "Nodes",
            summary: "Lock a node",
            description: "A node for one request in the seed's format, and the key to seal it to. \
                Only its taker can use a lock, once, while it lasts.",
            body: Some((
                JSON,
                json!({"schema": reference("LockRequest"),
                "example": {"model": "meta-llama/Llama-3.3-70B-Instruct"}}),
            )),
            replies: vec![(JSON, schema("Lock"))],
            ..operation("post", "/v1/nodes/lock", Kind::Lock)
        },
    ]
}

/// What a node signed of a reply.
fn receipt() -> Operation {
    let id = json!({"name": "id", "in": "path", "required": true,
        "description": "The reply's `x-request-id`.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}});
    let bundle = json!({"name": "bundle", "in": "query", "required": false,
        "description": "`1` for one file with all that the receipt rests on, for `sealgate receipt verify`.",
        "schema": {"const": "1"}});
    Operation {
        id: "receipts_retrieve",
        tag: "Nodes",
        summary: "Get a request's receipt",
        description: "Signed inside the TEE, and checked by this gateway. Kept only where receipts are on, and \
            given only to the key that made the request. The reply's header `sealgate-receipt: yes` says that \
            one was asked for.",
        parameters: vec![id, bundle],
        replies: vec![(
            JSON,
            json!({"schema": {"oneOf": [reference("Receipt"), reference("ReceiptBundle")]}}),
        )],
        ..operation("get", "/v1/receipts/{id}", Kind::Receipt)
    }
}

/// What is sealed in the seed's format.
fn confidential(endpoint: Endpoint) -> Operation {
    let (id, summary) = match endpoint {
        Endpoint::Completions => ("confidential_completions_create", "Complete, sealed"),
        Endpoint::ChatCompletions => ("confidential_chat_completions_create", "Chat, sealed"),
        Endpoint::Embeddings => ("confidential_embeddings_create", "Embed, sealed"),
        Endpoint::Images => ("confidential_images_generate", "Draw, sealed"),
    };
    let mut replies = vec![(JSON, schema("ConfidentialResponse"))];
    if endpoint.streams() {
        replies.push((
            EVENTS,
            json!({
                "itemSchema": {"type": "object", "required": ["data"],
                    "properties": {"data": {"type": "string", "contentMediaType": JSON,
                        "contentSchema": {"anyOf":
                            [reference("ConfidentialResponse"), reference("Error")]}}}},
            }),
        ));
    }
    Operation {
        id,
        tag: "Confidential",
        summary,
        description: "What the seed's SDKs seal to the key that a lock gave. The gateway carries it \
            unchanged to the node of that lock and cannot open it. A stream ends without `[DONE]`. \
            What this older format does not protect stands in docs/wire.md.",
        body: Some((JSON, schema("ConfidentialRequest"))),
        replies,
        ..operation("post", endpoint.confidential_path(), Kind::Confidential)
    }
}

fn relay() -> [Operation; 2] {
    let bytes = || json!({});
    [
        Operation {
            id: "nodes_ohttp_keys",
            tag: "Confidential",
            summary: "Get a node's keys",
            description: "For clients of chunked Oblivious HTTP: the keys of its verified statement, the \
                newest first and X-Wing before X25519. Whoever seals to them without \
                judging the node's evidence is not sealed against this gateway.",
            parameters: vec![node()],
            replies: vec![("application/ohttp-keys", bytes())],
            ..operation("get", "/v1/nodes/{id}/ohttp-keys", Kind::Keys)
        },
        Operation {
            id: "nodes_ohttp",
            tag: "Confidential",
            summary: "Carry a sealed request",
            description: "The node's status, media type and body come back unchanged.",
            parameters: vec![node()],
            body: Some(("message/ohttp-chunked-req", bytes())),
            replies: vec![("message/ohttp-chunked-res", bytes())],
            ..operation("post", "/v1/nodes/{id}/ohttp", Kind::Relay)
        },
    ]
}

/// Of a gateway that has evidence of its own.
fn own() -> [Operation; 3] {
    let bytes = || json!({});
    let nonce = json!({"name": "nonce", "in": "query", "required": true,
        "description": "What the evidence must answer.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"}});
    [
        Operation {
            id: "attestation",
            tag: "Confidential",
            summary: "Get the gateway's own evidence",
            description: "Of a gateway that runs in a TEE; another has none, and answers 404. \
                `sealgate verify` judges it.",
            parameters: vec![nonce],
            replies: vec![(JSON, schema("Attestation"))],
            ..operation("get", ATTESTATION, Kind::Own)
        },
        Operation {
            id: "ohttp_keys",
            tag: "Confidential",
            summary: "Get the gateway's own keys",
            description: "Of a gateway that has evidence of its own. Whoever seals to them without \
                judging that evidence is sealed against nobody who can write there.",
            replies: vec![("application/ohttp-keys", bytes())],
            ..operation("get", OHTTP, Kind::Own)
        },
        Operation {
            id: "ohttp",
            tag: "Confidential",
            summary: "Ask under the seal",
            description: "A request of this API that is sealed to the gateway itself, with the API key \
                inside. The answer, errors too, is sealed (docs/wire.md).",
            body: Some(("message/ohttp-chunked-req", bytes())),
            replies: vec![("message/ohttp-chunked-res", bytes())],
            ..operation("post", OHTTP, Kind::Sealed)
        },
    ]
}

fn models() -> [Operation; 2] {
    let id = json!({"name": "id", "in": "path", "required": true,
        "description": "The model's name, percent-encoded where it must be.",
        "schema": {"type": "string", "minLength": 1}});
    [
        Operation {
            id: "models_list",
            tag: "Models",
            summary: "List models",
            description: "What verified nodes serve right now, of what the key may use.",
            replies: vec![(JSON, schema("ModelList"))],
            ..operation("get", "/v1/models", Kind::List)
        },
        Operation {
            id: "models_retrieve",
            tag: "Models",
            summary: "Look one model up",
            description: "Also says whether it is served.",
            parameters: vec![id],
            replies: vec![(JSON, schema("Model"))],
            ..operation("get", "/v1/models/{id}", Kind::Model)
        },
    ]
}

fn health() -> [Operation; 2] {
    let says = json!({"schema": {"type": "object", "required": ["message"],
        "properties": {"message": {"type": "string"}}}});
    [
        Operation {
            id: "health",
            tag: "Health",
            summary: "Whether it runs",
            description: "Says nothing of nodes.",
            replies: vec![(JSON, says.clone())],
            ..operation("get", "/health", Kind::Open)
        },
        Operation {
            id: "readyz",
            tag: "Health",
            summary: "Whether it can answer",
            description: "Ready while a node is verified and the gateway is not shutting down.",
            replies: vec![(JSON, says)],
            ..operation("get", "/readyz", Kind::Readiness)
        },
    ]
}
