//! An engine's errors.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::{ErrorObject, json::Text};

/// Longest message given on, in bytes: some engines repeat the whole prompt in it.
const MAX_MESSAGE: usize = 8 * 1024;

/// Longest `type`, `param` or `code` given on, in bytes.
const MAX_WORD: usize = 128;

/// Levels the body of an engine's error to OpenAI's error object.
///
/// The message is the engine's and may repeat the prompt: it is for the caller alone, under the
/// seal, and for no log.
#[must_use]
pub fn level_error(status: u16, body: &[u8]) -> Vec<u8> {
    let flaw = Flaw::read(body).unwrap_or_default();
    let kind = match flaw.kind.as_deref() {
        Some(kind) if kind.ends_with("_error") => kind,
        _ => kind_of(status),
    };
    let too_long = kind == "exceed_context_size_error";
    let object = ErrorObject {
        message: flaw
            .message
            .unwrap_or(Cow::Borrowed("The engine refused the request.")),
        kind: if too_long { kind_of(status) } else { kind },
        param: flaw.param.as_deref(),
        code: if too_long {
            Some("context_length_exceeded")
        } else {
            flaw.code.as_deref()
        },
    };
    object.to_json().into()
}

const fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// What can be made out of an engine's error.
#[derive(Default)]
struct Flaw<'a> {
    message: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    param: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
}

/// `{"error":…}`, `{"detail":…}`, or the members of an error object at the top.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    param: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

/// One entry of the list that FastAPI's validation gives. Its `input` is the prompt: left out.
#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
    #[serde(borrow)]
    loc: Option<Vec<&'a RawValue>>,
}

impl<'a> Flaw<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(body).ok()?;
        let parsed: Body<'a> = serde_json::from_str(text).ok()?;
        match (parsed.error, parsed.detail) {
            (Some(error), _) => Some(Self::of_value(error.get())),
            (None, Some(detail)) => Some(Self::of_detail(detail.get())),
            (None, None) => Some(Self::of_value(text)),
        }
    }

    fn of_value(value: &'a str) -> Self {
        match serde_json::from_str::<Members<'a>>(value) {
            Ok(members) => Self {
                message: members.message.and_then(|raw| words(raw, MAX_MESSAGE)),
                kind: members.kind.and_then(|raw| words(raw, MAX_WORD)),
                param: members.param.and_then(|raw| words(raw, MAX_WORD)),
                code: members.code.and_then(word_or_number),
            },
            Err(_) => Self {
                message: words_of(value, MAX_MESSAGE),
                ..Self::default()
            },
        }
    }

    fn of_detail(value: &'a str) -> Self {
        let first = serde_json::from_str::<Vec<Detail<'a>>>(value)
            .ok()
            .map(|list| list.into_iter().next());
        match first {
            Some(Some(detail)) => Self {
                message: detail.msg.and_then(|raw| words(raw, MAX_MESSAGE)),
                // `["body", "n"]`: the member is the last name.
                param: detail.loc.and_then(|loc| words(loc.last()?, MAX_WORD)),
                ..Self::default()
            },
            Some(None) => Self::default(),
            None => Self::of_value(value),
        }
    }
}

fn words(raw: &RawValue, max: usize) -> Option<Cow<'_, str>> {
    words_of(raw.get(), max)
}

/// A string, cut at `max` bytes; `None` for anything else.
fn words_of(value: &str, max: usize) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(value).ok()?;
    if text.len() <= max {
        return Some(text);
    }
    let ends = text.char_indices().map(|(at, _)| at);
    let cut = text.get(..ends.take_while(|at| *at <= max).last()?)?;
    Some(Cow::Owned(format!("{cut}…")))
}

/// A string, or an integer as one: clients want text.
fn word_or_number(raw: &RawValue) -> Option<Cow<'_, str>> {
    let integer = serde_json::from_str::<i64>(raw.get()).ok();
    integer
        .map(|integer| Cow::Owned(integer.to_string()))
        .or_else(|| words(raw, MAX_WORD))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn level(status: u16, body: &str) -> Value {
        let mut object: Value =
            serde_json::from_slice(&level_error(status, body.as_bytes())).unwrap();
        object["error"].take()
    }

    #[test]
    fn every_engines_shape_becomes_openais() {
        let object = |message: &str, kind: &str, param: Option<&str>, code: Option<&str>| json!({"message": message, "type": kind, "param": param, "code": code});
        let fixed = "The engine refused the request.";
        let cases = [
            (
                400,
                r#"{"error":{"code":400,"message":"bad grammar","type":"invalid_request_error"}}"#,
                object("bad grammar", "invalid_request_error", None, Some("400")),
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":512}}"#,
                object(
                    "too long",
                    "invalid_request_error",
                    None,
                    Some("context_length_exceeded"),
                ),
            ),
            (
                400,
                r#"{"error":{"message":"1 error: 'input': 'the prompt'","type":"BadRequestError","param":"n","code":400}}"#,
                object(
                    "1 error: 'input': 'the prompt'",
                    "invalid_request_error",
                    Some("n"),
                    Some("400"),
                ),
            ),
            (
                404,
                r#"{"object":"error","message":"no such model","type":"NotFoundError","param":null,"code":404}"#,
                object("no such model", "invalid_request_error", None, Some("404")),
            ),
            (
                404,
                r#"{"detail":"Not Found"}"#,
                object("Not Found", "invalid_request_error", None, None),
            ),
            (
                422,
                r#"{"detail":[{"type":"int_type","loc":["body","n"],"msg":"not an integer","input":"the prompt"}]}"#,
                object("not an integer", "invalid_request_error", Some("n"), None),
            ),
            (
                422,
                r#"{"detail":[]}"#,
                object(fixed, "invalid_request_error", None, None),
            ),
            (
                400,
                r#"{"error":"plain"}"#,
                object("plain", "invalid_request_error", None, None),
            ),
            (
                401,
                r#"{"error":{"message":"no key","code":"invalid_api_key"}}"#,
                object(
                    "no key",
                    "authentication_error",
                    None,
                    Some("invalid_api_key"),
                ),
            ),
            (
                429,
                r#"{"error":{"message":5,"code":1.5}}"#,
                object(fixed, "rate_limit_error", None, None),
            ),
            (403, "{}", object(fixed, "permission_error", None, None)),
            (
                400,
                "<html>no</html>",
                object(fixed, "invalid_request_error", None, None),
            ),
            (400, "", object(fixed, "invalid_request_error", None, None)),
            (500, "[1]", object(fixed, "server_error", None, None)),
        ];
        for (status, body, expected) in cases {
            assert_eq!(level(status, body), expected, "{body}");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let body = json!({"error": {"message": "é".repeat(MAX_MESSAGE)}}).to_string();
        let message = level(400, &body)["message"].as_str().unwrap().to_owned();
        assert_eq!(message, format!("{}…", "é".repeat(MAX_MESSAGE / 2)));
    }

    proptest! {
        #[test]
        fn any_bytes_become_an_error_object(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let object: Value = serde_json::from_slice(&level_error(400, &body)).unwrap();
            prop_assert!(object["error"]["message"].is_string());
        }
    }
}
