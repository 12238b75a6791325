//! Requests, from the caller's body to what an engine understands.

use std::{fmt, time::SystemTime};

use super::ReplyContext;
use crate::{
    ids::RequestId,
    openai::{
        DEFAULT_MAX_TOKENS, RequestError, json,
        request::{self, Facts},
    },
};

/// What a node's configuration says of the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOptions<'a> {
    /// The engine's name for the model, where it is not the caller's.
    pub engine_model: Option<&'a str>,
    /// Members that the engine would ignore without a word: a request that needs one is refused.
    pub ignores: &'a [String],
}

/// A request as the engine gets it, and what its reply is levelled by.
#[derive(Clone)]
pub struct LevelledRequest {
    /// The body for the engine.
    pub body: Vec<u8>,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// Whether the caller asked for a usage chunk.
    pub include_usage: bool,
    /// The caller's name for the model.
    pub model: String,
    /// How many choices were asked for each prompt.
    pub n: u32,
    /// How many choices were asked in all.
    pub choices: u64,
}

impl LevelledRequest {
    /// The context to level the reply in.
    #[must_use]
    pub fn context(&self, request_id: RequestId, now: SystemTime) -> ReplyContext {
        ReplyContext {
            model: self.model.clone(),
            request_id,
            now,
            include_usage: self.include_usage,
            n: self.n,
            choices: self.choices,
        }
    }
}

impl fmt::Debug for LevelledRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelledRequest").finish_non_exhaustive()
    }
}

/// Levels a completion request for an engine.
///
/// Null members are dropped, since some engines refuse them; an absent `max_tokens` is 16, since
/// some take it for "no limit"; a stream is always asked for its usage. All other members, unknown
/// ones too, keep their values byte for byte and their order.
///
/// # Errors
/// [`RequestError`] for a body that is no valid request, or that needs a member in `ignores`.
pub fn level_request(
    body: &[u8],
    options: &RequestOptions<'_>,
) -> Result<LevelledRequest, RequestError> {
    let (members, facts) = request::read(body)?;
    let mut out = Writer::with_capacity(body.len());
    let mut limited = false;
    for (name, value) in &members.entries {
        let value = value.get();
        if value == "null" {
            continue;
        }
        if options.ignores.iter().any(|ignored| ignored == name) && asks(name, value) {
            return Err(RequestError::Unsupported(json::path_of(name)));
        }
        match (name.as_ref(), options.engine_model) {
            ("model", Some(model)) => out.member("model", &json::to_line(&model)),
            ("stream_options", _) => {}
            _ => out.member(name, value.as_bytes()),
        }
        limited |= name == "max_tokens";
    }
    if !limited {
        out.member("max_tokens", DEFAULT_MAX_TOKENS.to_string().as_bytes());
    }
    if facts.stream {
        out.member("stream_options", br#"{"include_usage":true}"#);
    }
    let choices = facts.choices();
    let Facts {
        model,
        stream,
        include_usage,
        n,
        ..
    } = facts;
    Ok(LevelledRequest {
        body: out.finish(),
        stream,
        include_usage,
        model,
        n,
        choices,
    })
}

/// Whether a member asks for anything: its default asks for nothing that could be ignored.
fn asks(name: &str, value: &str) -> bool {
    let default: &[&str] = match name {
        "best_of" | "n" | "top_p" => &["1", "1.0"],
        "echo" | "stream" => &["false"],
        "suffix" | "user" => &["\"\""],
        "frequency_penalty" | "presence_penalty" => &["0", "0.0", "-0.0"],
        "logit_bias" => &["{}"],
        "stop" => &["[]"],
        _ => &[],
    };
    !default.contains(&value)
}

/// Writes the members of one object.
struct Writer(Vec<u8>);

impl Writer {
    fn with_capacity(body: usize) -> Self {
        // Room for the two members that may join.
        Self(Vec::with_capacity(body + 80))
    }

    fn member(&mut self, name: &str, value: &[u8]) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.0.extend(json::to_line(&name));
        self.0.push(b':');
        self.0.extend_from_slice(value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(body: &str) -> String {
        levelled(body, &RequestOptions::default()).unwrap()
    }

    fn levelled(body: &str, options: &RequestOptions<'_>) -> Result<String, RequestError> {
        level_request(body.as_bytes(), options).map(|level| String::from_utf8(level.body).unwrap())
    }

    #[test]
    fn an_absent_or_null_max_tokens_is_16() {
        for body in [
            r#"{"model":"m","prompt":"p"}"#,
            r#"{"model":"m","max_tokens":null,"prompt":"p"}"#,
        ] {
            assert_eq!(level(body), r#"{"model":"m","prompt":"p","max_tokens":16}"#);
        }
        let given = r#"{"model":"m","prompt":"p","max_tokens":0}"#;
        assert_eq!(level(given), given);
    }

    #[test]
    fn nulls_are_dropped_and_all_else_keeps_bytes_and_order() {
        let body = "{ \"seed\":null, \"x\\u0079\" : { \"a\": null , \"b\":[1e5,  \"\\u00e9\"] },\n\
                    \"prompt\":\"\\u0041 \u{1F600}\",\"n\":null,\"model\":\"m\",\"max_tokens\": 5 }";
        assert_eq!(
            level(body),
            "{\"xy\":{ \"a\": null , \"b\":[1e5,  \"\\u00e9\"] },\
             \"prompt\":\"\\u0041 \u{1F600}\",\"model\":\"m\",\"max_tokens\":5}"
        );
    }

    #[test]
    fn a_stream_is_always_asked_for_its_usage() {
        let asked = r#"{"model":"m","prompt":"p","max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#;
        let options = [
            "",
            r#","stream_options":null"#,
            r#","stream_options":{}"#,
            r#","stream_options":{"include_usage":false,"continuous_usage_stats":true}"#,
        ];
        for options in options {
            let body =
                format!(r#"{{"model":"m","prompt":"p","max_tokens":5,"stream":true{options}}}"#);
            assert_eq!(level(&body), asked);
            let levelled = level_request(body.as_bytes(), &RequestOptions::default()).unwrap();
            assert!(levelled.stream && !levelled.include_usage);
        }
        let levelled = level_request(asked.as_bytes(), &RequestOptions::default()).unwrap();
        assert!(levelled.stream && levelled.include_usage);
        assert_eq!(levelled.body, asked.as_bytes());
    }

    #[test]
    fn the_model_gets_the_engines_name_and_keeps_the_callers() {
        let options = RequestOptions {
            engine_model: Some("/models/\"m\""),
            ignores: &[],
        };
        let body = br#"{"model":"m","prompt":["a","b"],"n":3,"max_tokens":5}"#;
        let levelled = level_request(body, &options).unwrap();
        assert_eq!(
            String::from_utf8(levelled.body).unwrap(),
            r#"{"model":"/models/\"m\"","prompt":["a","b"],"n":3,"max_tokens":5}"#
        );
        assert_eq!(
            (levelled.model.as_str(), levelled.n, levelled.choices),
            ("m", 3, 6)
        );
    }

    #[test]
    fn what_the_engine_would_ignore_is_refused_if_it_asks_for_something() {
        let ignores = ["suffix", "echo", "best_of", "guided_json"].map(str::to_owned);
        let options = RequestOptions {
            engine_model: None,
            ignores: &ignores,
        };
        let with = |member: &str| format!(r#"{{"model":"m","prompt":"p",{member}}}"#);
        for member in [
            "\"suffix\":null",
            "\"suffix\":\"\"",
            "\"echo\":false",
            "\"best_of\":1",
            "\"guided_json\":null",
            "\"n\":2",
        ] {
            assert!(levelled(&with(member), &options).is_ok(), "{member}");
        }
        for (name, value) in [
            ("suffix", "\"}\""),
            ("echo", "true"),
            ("best_of", "2"),
            ("guided_json", "{}"),
        ] {
            let error = levelled(&with(&format!("\"{name}\":{value}")), &options).unwrap_err();
            assert_eq!(
                (error.code(), error.param()),
                ("invalid_request", Some(name))
            );
        }
    }

    #[test]
    fn a_body_that_is_no_request_is_refused_here_too() {
        let error = levelled(r#"{"model":"m","prompt":[]}"#, &RequestOptions::default());
        assert_eq!(error.unwrap_err().param(), Some("prompt"));
    }
}
