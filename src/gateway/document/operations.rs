//! What can be asked of the gateway.

use serde_json::{Value, json};

use super::errors::Kind;
use crate::openai::{Endpoint, schemas::reference};

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
                "schema": {"type": "string", "contentMediaType": EVENTS},
                "itemSchema": {"type": "object", "required": ["data"],
                    "properties": {"data": {"oneOf": [
                        reference(chunk), reference("Error"), {"const": "[DONE]"},
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
        replies,
        ..operation("post", endpoint.path(), Kind::Inference)
    }
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
