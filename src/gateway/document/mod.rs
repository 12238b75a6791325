//! The contract as a document: `/openapi.json`, and `/docs` that shows it to people.
//!
//! Both are made from what the code is made of: endpoints, schemas with their bounds, the one table of
//! errors. They are the same for everybody, tell nothing of this gateway's keys, nodes or models, and
//! are made once.

mod errors;
mod operations;
mod page;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use serde_json::{Map, Value, json};

use self::{
    errors::Kind,
    operations::{Operation, operations},
};
use super::body::ReplyBody;
use crate::openai::schemas::{reference, schemas};

/// The page brings its own style and loads and runs nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static JSON: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&*DOCUMENT).unwrap_or_default().into());
static PAGE: LazyLock<Bytes> = LazyLock::new(|| page::render(&DOCUMENT).into());

/// `GET /openapi.json`.
pub(super) fn json_reply() -> Response<ReplyBody> {
    reply("application/json", JSON.clone(), &[])
}

/// `GET /docs`.
pub(super) fn page_reply() -> Response<ReplyBody> {
    let policy = (CONTENT_SECURITY_POLICY, PAGE_POLICY);
    reply("text/html; charset=utf-8", PAGE.clone(), &[policy])
}

fn reply(
    media_type: &'static str,
    body: Bytes,
    more: &[(HeaderName, &'static str)],
) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in more {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths
            .entry(operation.path)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_owned(), describe(&operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sealgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A private endpoint for confidential inference. Requests are those of \
                OpenAI's API; each is sealed to a key that attestation evidence vouches for before \
                it leaves.",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": operations::TAGS.map(|(name, description)| {
            json!({"name": name, "description": description})
        }),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let security: &[Value] = if operation.kind.is_open() {
        &[]
    } else {
        &[json!({"bearerAuth": []})]
    };
    let members = [
        ("tags", json!([operation.tag])),
        ("summary", json!(operation.summary)),
        ("description", json!(operation.description)),
        ("operationId", json!(operation.id)),
        ("security", json!(security)),
        ("parameters", json!(operation.parameters)),
    ];
    let body = operation.body.as_ref().map(|(media_type, content)| {
        let body = json!({"required": true, "content": {*media_type: content}});
        ("requestBody", body)
    });
    let responses = ("responses", responses(operation));
    let members = members.into_iter().chain(body).chain([responses]);
    members
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<Map<_, _>>()
        .into()
}

fn responses(operation: &Operation) -> Value {
    let content: Map<String, Value> = operation
        .replies
        .iter()
        .map(|(media_type, schema)| ((*media_type).to_owned(), schema.clone()))
        .collect();
    let id = json!({"description": "The request's id, for logs and questions.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}});
    let mut all = Map::new();
    all.insert(
        "200".to_owned(),
        json!({"description": "As asked.", "content": content, "headers": {"x-request-id": id}}),
    );
    for (status, codes) in errors::by_status(operation.kind) {
        let described = errors::description(&codes);
        all.insert(status.to_string(), refusal(operation.kind, &described));
    }
    let others = match operation.kind {
        Kind::Inference => Some("What the engine says of the request."),
        kind if kind.is_carried() => Some("What the node says, unchanged."),
        _ => None,
    };
    if let Some(description) = others {
        all.insert("4XX".to_owned(), refusal(operation.kind, description));
    }
    Value::Object(all)
}

fn refusal(kind: Kind, description: &str) -> Value {
    let mut content = json!({"application/json": {"schema": reference("Error")}});
    if kind.is_carried() || kind.is_own() {
        // A node's own refusals come through as they are, and the gateway's own have their form.
        let problem = json!({"schema": reference("Problem")});
        let members = content.as_object_mut();
        members.map(|it| it.insert("application/problem+json".to_owned(), problem));
    }
    json!({"description": description, "content": content})
}
