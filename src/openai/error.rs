//! The one table of errors: what each is to a client.
//!
//! Status, `code`, `type`, message and retry advice of an error stand in one place. A message is
//! fixed by its code and holds nothing of any request; the cause belongs in the log.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::json;

/// Longest `Retry-After` that OpenAI's clients obey; above it they do not retry at all.
pub const MAX_RETRY_AFTER_S: u32 = 120;

/// Every error of the gateway that a client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A member of the body is missing, has the wrong type or is out of range.
    InvalidRequest,
    /// The body is not JSON.
    InvalidJson,
    /// An object in the body has two members of one name.
    DuplicateMember,
    /// No API key, or one that is not known.
    InvalidApiKey,
    /// The key may not use this model.
    ModelNotAllowed,
    /// The key has used up what it may spend.
    BudgetExceeded,
    /// The key sends more than it may in this time.
    RateLimited,
    /// The gateway, or every node that could answer, is full.
    Overloaded,
    /// No node serves a model of this name.
    ModelNotFound,
    /// No such path.
    NotFound,
    /// The path exists and takes another method.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The length of the body was not said.
    LengthRequired,
    /// The body is longer than the limit.
    RequestTooLarge,
    /// The request target is longer than the limit.
    UriTooLong,
    /// The header fields are longer than the limit.
    HeadersTooLarge,
    /// The body is not `application/json`, or is coded.
    UnsupportedMediaType,
    /// What the node sent did not authenticate or broke the protocol.
    NodeReplyInvalid,
    /// The reply was cut before its authenticated end.
    UpstreamTruncated,
    /// The engine behind the node failed.
    EngineError,
    /// No node for this model has evidence that the policy accepts.
    NoAttestedNode,
    /// Attested nodes exist, and none of them can be reached now.
    NoNodeAvailable,
    /// The gateway is shutting down.
    Draining,
    /// The store of keys and budgets does not answer.
    StoreUnavailable,
    /// The node did not begin its reply in time.
    FirstByteTimeout,
    /// The node fell silent in the middle of its reply.
    IdleTimeout,
    /// The key may not use every model of this node, and what is sealed cannot be looked into; or it is not
    /// sealed as the key or the policy requires.
    RelayNotAllowed,
    /// The policy, or the caller's key, forbids the format that this path is for.
    DialectForbidden,
    /// No node may announce itself from this address.
    AnnouncementNotAllowed,
    /// No verified node has this id.
    NodeNotFound,
    /// Another node has the id that an announced one claims.
    NodeIdTaken,
    /// An announced node gave no evidence that the policy accepts.
    EvidenceRefused,
    /// No receipt of this caller is kept for this request.
    ReceiptNotFound,
    /// What a receipt rests on is not in the gateway's archive.
    EvidenceNotArchived,
    /// No such lock of this caller waits for this request.
    LockNotFound,
    /// The key, or all keys together, hold as many locks as they may.
    TooManyLocks,
    /// As many nodes have announced themselves as may.
    TooManyNodes,
    /// A fault of the gateway itself.
    Internal,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    code: &'static str,
    kind: &'static str,
    message: &'static str,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const AUTHENTICATION: &str = "authentication_error";
const PERMISSION: &str = "permission_error";
const QUOTA: &str = "insufficient_quota";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";

const fn row(
    status: StatusCode,
    code: &'static str,
    kind: &'static str,
    message: &'static str,
) -> Row {
    Row {
        status,
        code,
        kind,
        message,
    }
}

impl Code {
    /// Every code, for tables, metrics and documentation.
    pub const ALL: [Self; 38] = [
        Self::InvalidRequest,
        Self::InvalidJson,
        Self::DuplicateMember,
        Self::InvalidApiKey,
        Self::ModelNotAllowed,
        Self::BudgetExceeded,
        Self::RateLimited,
        Self::Overloaded,
        Self::ModelNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::LengthRequired,
        Self::RequestTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::UnsupportedMediaType,
        Self::NodeReplyInvalid,
        Self::UpstreamTruncated,
        Self::EngineError,
        Self::NoAttestedNode,
        Self::NoNodeAvailable,
        Self::Draining,
        Self::StoreUnavailable,
        Self::FirstByteTimeout,
        Self::IdleTimeout,
        Self::RelayNotAllowed,
        Self::DialectForbidden,
        Self::AnnouncementNotAllowed,
        Self::NodeNotFound,
        Self::NodeIdTaken,
        Self::EvidenceRefused,
        Self::ReceiptNotFound,
        Self::EvidenceNotArchived,
        Self::LockNotFound,
        Self::TooManyLocks,
        Self::TooManyNodes,
        Self::Internal,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => row(S::BAD_REQUEST, "invalid_request", INVALID_REQUEST,
                "The request is not valid."),
            Self::InvalidJson => row(S::BAD_REQUEST, "invalid_json", INVALID_REQUEST,
                "The body is not valid JSON in UTF-8, or is nested too deeply."),
            Self::DuplicateMember => row(S::BAD_REQUEST, "duplicate_member", INVALID_REQUEST,
                "An object in the body has two members of the same name."),
            Self::InvalidApiKey => row(S::UNAUTHORIZED, "invalid_api_key", AUTHENTICATION,
                "The API key is missing or not known. Send it as `Authorization: Bearer KEY`."),
            Self::ModelNotAllowed => row(S::FORBIDDEN, "model_not_allowed", PERMISSION,
                "This API key may not use this model."),
            Self::BudgetExceeded => row(S::PAYMENT_REQUIRED, "budget_exceeded", QUOTA,
                "The budget of this API key is used up."),
            Self::RateLimited => row(S::TOO_MANY_REQUESTS, "rate_limited", RATE_LIMIT,
                "This API key sends requests faster than it may. Retry after the time given."),
            Self::Overloaded => row(S::TOO_MANY_REQUESTS, "overloaded", RATE_LIMIT,
                "Too many requests are in flight. Retry after the time given."),
            Self::ModelNotFound => row(S::NOT_FOUND, "model_not_found", INVALID_REQUEST,
                "No node serves this model. `GET /v1/models` lists those that are served."),
            Self::NotFound => row(S::NOT_FOUND, "not_found", INVALID_REQUEST,
                "There is nothing at this path. A base URL ends in `/v1`; below it are \
                 `/chat/completions`, `/completions`, `/embeddings`, `/images/generations` \
                 and `/models`."),
            Self::MethodNotAllowed => row(S::METHOD_NOT_ALLOWED, "method_not_allowed",
                INVALID_REQUEST, "This path does not take this method."),
            Self::RequestTimeout => row(S::REQUEST_TIMEOUT, "request_timeout", INVALID_REQUEST,
                "The request came too slowly. Send its whole body at once, or a shorter one."),
            Self::LengthRequired => row(S::LENGTH_REQUIRED, "request_too_large", INVALID_REQUEST,
                "The request does not say how long its body is."),
            Self::RequestTooLarge => row(S::PAYLOAD_TOO_LARGE, "request_too_large",
                INVALID_REQUEST, "The body is longer than this gateway takes."),
            Self::UriTooLong => row(S::URI_TOO_LONG, "uri_too_long", INVALID_REQUEST,
                "The request target is too long."),
            Self::HeadersTooLarge => row(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large",
                INVALID_REQUEST, "The header fields are too many or too long."),
            Self::UnsupportedMediaType => row(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type",
                INVALID_REQUEST,
                "The body must be `application/json`, without a content coding."),
            Self::NodeReplyInvalid => row(S::BAD_GATEWAY, "node_reply_invalid", SERVER,
                "The node's reply did not authenticate or broke the protocol; none of what \
                 was not proved is given on."),
            Self::UpstreamTruncated => row(S::BAD_GATEWAY, "upstream_truncated", SERVER,
                "The reply was cut before its authenticated end."),
            Self::EngineError => row(S::BAD_GATEWAY, "engine_error", SERVER,
                "The model's engine failed."),
            Self::NoAttestedNode => row(S::SERVICE_UNAVAILABLE, "no_attested_node", SERVER,
                "No node for this model has evidence that the policy accepts. Nothing was sent."),
            Self::NoNodeAvailable => row(S::SERVICE_UNAVAILABLE, "no_node_available", SERVER,
                "No attested node for this model can take the request now. Nothing was executed."),
            Self::Draining => row(S::SERVICE_UNAVAILABLE, "draining", SERVER,
                "The gateway is shutting down. Nothing was executed."),
            Self::StoreUnavailable => row(S::SERVICE_UNAVAILABLE, "store_unavailable", SERVER,
                "The key could not be looked up. Nothing was executed."),
            Self::FirstByteTimeout => row(S::GATEWAY_TIMEOUT, "first_byte_timeout", SERVER,
                "The node did not begin its reply in time."),
            Self::IdleTimeout => row(S::GATEWAY_TIMEOUT, "idle_timeout", SERVER,
                "The node fell silent in the middle of its reply."),
            Self::RelayNotAllowed => row(S::FORBIDDEN, "relay_not_allowed", PERMISSION,
                "This API key is held to some models and this node serves others, and what is sealed shows \
                 not which one it asks; or the key or the policy requires another seal."),
            Self::DialectForbidden => row(S::FORBIDDEN, "dialect_forbidden", PERMISSION,
                "The policy of this gateway, or this API key, forbids what is sealed in the format of \
                 this path."),
            Self::AnnouncementNotAllowed => row(S::FORBIDDEN, "announcement_not_allowed",
                PERMISSION,
                "The configuration of this gateway lets no node announce itself with this address."),
            Self::NodeNotFound => row(S::NOT_FOUND, "node_not_found", INVALID_REQUEST,
                "No verified node has this id. `GET /v1/nodes` lists those that are verified."),
            Self::NodeIdTaken => row(S::CONFLICT, "node_id_taken", INVALID_REQUEST,
                "Another node of this gateway has the id that this one claims."),
            Self::EvidenceRefused => row(S::UNPROCESSABLE_ENTITY, "evidence_refused", INVALID_REQUEST,
                "The node gave no evidence that the policy of this gateway accepts."),
            Self::ReceiptNotFound => row(S::NOT_FOUND, "receipt_not_found", INVALID_REQUEST,
                "No receipt of this API key is kept for this request: none was asked for, it was not good, it \
                 was removed since, or the reply has not ended."),
            Self::EvidenceNotArchived => row(S::NOT_FOUND, "evidence_not_archived", INVALID_REQUEST,
                "What this receipt rests on cannot be given: this gateway keeps no archive (`[archive]` in its \
                 configuration), has removed it there since, or it is over 32 MiB."),
            Self::LockNotFound => row(S::LOCKED, "lock_not_found", INVALID_REQUEST,
                "No lock of this API key waits for this request: it was used or has expired, or is for \
                 another model or key. Take a new one with `POST /v1/nodes/lock`."),
            Self::TooManyLocks => row(S::TOO_MANY_REQUESTS, "too_many_locks", RATE_LIMIT,
                "Too many locks wait for their request. Use them, or let them expire."),
            Self::TooManyNodes => row(S::SERVICE_UNAVAILABLE, "too_many_nodes", SERVER,
                "As many nodes have announced themselves as this gateway keeps."),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal_error", SERVER,
                "The gateway made a mistake."),
        }
    }

    /// The status of a reply with this code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// The `code` member.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The `type` member.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        self.row().kind
    }

    /// The fixed `message`.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.row().message
    }

    /// What `x-should-retry` says, where the client's own rule by status would be wrong.
    ///
    /// `Some(false)` where the request may have run: clients repeat any 5xx unless told not to.
    #[must_use]
    pub const fn should_retry(self) -> Option<bool> {
        match self {
            Self::NodeReplyInvalid
            | Self::UpstreamTruncated
            | Self::EngineError
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::Internal => Some(false),
            Self::InvalidRequest
            | Self::InvalidJson
            | Self::DuplicateMember
            | Self::InvalidApiKey
            | Self::ModelNotAllowed
            | Self::BudgetExceeded
            | Self::RateLimited
            | Self::Overloaded
            | Self::ModelNotFound
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::LengthRequired
            | Self::RequestTooLarge
            | Self::UriTooLong
            | Self::HeadersTooLarge
            | Self::UnsupportedMediaType
            | Self::NoAttestedNode
            | Self::NoNodeAvailable
            | Self::Draining
            | Self::StoreUnavailable
            | Self::RelayNotAllowed
            | Self::DialectForbidden
            | Self::AnnouncementNotAllowed
            | Self::NodeNotFound
            | Self::NodeIdTaken
            | Self::EvidenceRefused
            | Self::LockNotFound
            | Self::ReceiptNotFound
            | Self::EvidenceNotArchived
            | Self::TooManyLocks
            | Self::TooManyNodes => None,
        }
    }

    /// Whether a reply with this code carries `Retry-After`.
    #[must_use]
    pub const fn wants_retry_after(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::NoAttestedNode
                | Self::NoNodeAvailable
                | Self::Draining
                | Self::StoreUnavailable
                | Self::TooManyLocks
                | Self::TooManyNodes
        )
    }

    /// The error object of this code, without a `param`.
    #[must_use]
    pub const fn object(self) -> ErrorObject<'static> {
        let Row {
            code,
            kind,
            message,
            ..
        } = self.row();
        ErrorObject {
            message: Cow::Borrowed(message),
            kind,
            param: None,
            code: Some(code),
        }
    }
}

/// OpenAI's error object, always with its four members.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorObject<'a> {
    /// For people.
    pub message: Cow<'a, str>,
    /// The class of error, `type` in JSON.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The member of the request that is at fault.
    pub param: Option<&'a str>,
    /// For programs.
    pub code: Option<&'a str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ErrorObject<'a>,
}

impl ErrorObject<'_> {
    /// The body of an error reply: `{"error":{…}}`.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::to_line(&Envelope { error: self }).into()
    }

    /// The same as the last event of a stream that failed.
    #[must_use]
    pub fn sse_event(&self) -> Bytes {
        json::to_event(&Envelope { error: self }).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// DESIGN "Errors", row by row.
    #[test]
    fn every_code_has_the_documented_status_and_type() {
        let expected = [
            ("invalid_request", 400, "invalid_request_error"),
            ("invalid_json", 400, "invalid_request_error"),
            ("duplicate_member", 400, "invalid_request_error"),
            ("invalid_api_key", 401, "authentication_error"),
            ("model_not_allowed", 403, "permission_error"),
            ("budget_exceeded", 402, "insufficient_quota"),
            ("rate_limited", 429, "rate_limit_error"),
            ("overloaded", 429, "rate_limit_error"),
            ("model_not_found", 404, "invalid_request_error"),
            ("not_found", 404, "invalid_request_error"),
            ("method_not_allowed", 405, "invalid_request_error"),
            ("request_timeout", 408, "invalid_request_error"),
            ("request_too_large", 411, "invalid_request_error"),
            ("request_too_large", 413, "invalid_request_error"),
            ("uri_too_long", 414, "invalid_request_error"),
            ("headers_too_large", 431, "invalid_request_error"),
            ("unsupported_media_type", 415, "invalid_request_error"),
            ("node_reply_invalid", 502, "server_error"),
            ("upstream_truncated", 502, "server_error"),
            ("engine_error", 502, "server_error"),
            ("no_attested_node", 503, "server_error"),
            ("no_node_available", 503, "server_error"),
            ("draining", 503, "server_error"),
            ("store_unavailable", 503, "server_error"),
            ("first_byte_timeout", 504, "server_error"),
            ("idle_timeout", 504, "server_error"),
            ("relay_not_allowed", 403, "permission_error"),
            ("dialect_forbidden", 403, "permission_error"),
            ("announcement_not_allowed", 403, "permission_error"),
            ("node_not_found", 404, "invalid_request_error"),
            ("node_id_taken", 409, "invalid_request_error"),
            ("evidence_refused", 422, "invalid_request_error"),
            ("receipt_not_found", 404, "invalid_request_error"),
            ("evidence_not_archived", 404, "invalid_request_error"),
            ("lock_not_found", 423, "invalid_request_error"),
            ("too_many_locks", 429, "rate_limit_error"),
            ("too_many_nodes", 503, "server_error"),
            ("internal_error", 500, "server_error"),
        ];
        let table = Code::ALL.map(|code| (code.code(), code.status().as_u16(), code.kind()));
        assert_eq!(table, expected);
    }

    #[test]
    fn retry_advice_follows_what_may_have_run() {
        for code in Code::ALL {
            let status = code.status().as_u16();
            let may_have_run = matches!(status, 500 | 502 | 504);
            assert_eq!(
                code.should_retry(),
                may_have_run.then_some(false),
                "{code:?}"
            );
            let promised = matches!(status, 429 | 503);
            assert_eq!(code.wants_retry_after(), promised, "{code:?}");
        }
    }

    #[test]
    fn every_object_has_its_four_members_and_an_own_message() {
        let mut messages = HashMap::new();
        for code in Code::ALL {
            let body: serde_json::Value = serde_json::from_slice(&code.object().to_json()).unwrap();
            let error = body["error"].as_object().unwrap();
            assert_eq!(body.as_object().unwrap().len(), 1);
            assert_eq!(error.len(), 4);
            assert_eq!(error["code"], code.code());
            assert_eq!(error["type"], code.kind());
            assert!(error["param"].is_null());
            assert_eq!(messages.insert(code.message(), code), None, "{code:?}");
        }
    }

    #[test]
    fn an_event_is_one_data_line_and_a_blank_line() {
        let object = ErrorObject {
            message: "two\nlines\u{2028}and more".into(),
            kind: "server_error",
            param: Some("prompt"),
            code: None,
        };
        assert_eq!(
            object.sse_event(),
            "data: {\"error\":{\"message\":\"two\\nlines\\u2028and more\",\"type\":\"server_error\",\
             \"param\":\"prompt\",\"code\":null}}\n\n"
        );
    }
}
