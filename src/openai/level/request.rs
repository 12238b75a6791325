//! Requests, from the caller's body to what an engine understands.

use std::{fmt, time::SystemTime};

use super::ReplyContext;
use crate::{
    ids::RequestId,
    openai::{Asked, Endpoint, RequestError, json, request},
};

/// What a node's configuration says of the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestOptions<'a> {
    /// The engine's name for the model, where it is not the caller's.
    pub engine_model: Option<&'a str>,
    /// Members that the engine would ignore without a word: a request that needs one is refused.
    pub ignores: &'a [String],
    /// Where given, what keeps the callers of the engine's prefix cache apart.
    pub cache_salt: Option<CacheSalt<'a>>,
}

/// Makes a `cache_salt` for the engine from the caller's own, if he sent one.
#[derive(Clone, Copy)]
pub struct CacheSalt<'a>(pub &'a (dyn Fn(Option<&str>) -> String + Sync));

impl fmt::Debug for CacheSalt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheSalt(..)")
    }
}

/// A request as the engine gets it, and what its reply is levelled by.
#[derive(Clone)]
pub struct LevelledRequest {
    /// The body for the engine.
    pub body: Vec<u8>,
    /// What the caller asked.
    pub asked: Asked,
}

impl LevelledRequest {
    /// The context to level the reply in.
    #[must_use]
    pub fn context(&self, request_id: RequestId, now: SystemTime) -> ReplyContext {
        ReplyContext {
            asked: self.asked.clone(),
            request_id,
            now,
        }
    }
}

impl fmt::Debug for LevelledRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelledRequest").finish_non_exhaustive()
    }
}

/// Levels a request for an engine.
///
/// Null members are dropped, since some engines refuse them; a prompt's absent `max_tokens` is 16,
/// since some take it for "no limit"; a chat's limit stands under its old name, too, which is all
/// that some know; a stream is always asked for its usage; text is made under the salt that `options`
/// gives. All other members, unknown ones too, keep their values byte for byte and their order.
///
/// # Errors
/// [`RequestError`] for a body that is no valid request, or that needs a member in `ignores`.
pub fn level_request(
    endpoint: Endpoint,
    body: &[u8],
    options: &RequestOptions<'_>,
) -> Result<LevelledRequest, RequestError> {
    let (members, asked) = request::read(endpoint, body)?;
    let mut out = Writer::with_capacity(body.len());
    let mut limited = false;
    let salting = options.cache_salt.filter(|_| makes_text(endpoint));
    let mut own_salt = None;
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
            (SALT, _) if salting.is_some() => own_salt = Some(salt_of(value)?),
            // The newer name's limit is the one that counts; it stands below under both.
            ("max_tokens", _) if endpoint == Endpoint::ChatCompletions => {}
            _ => out.member(name, value.as_bytes()),
        }
        limited |= name == "max_tokens" && endpoint == Endpoint::Completions;
    }
    if let Some(most) = asked.max_tokens.filter(|_| !limited) {
        out.member("max_tokens", most.to_string().as_bytes());
    }
    if asked.stream {
        out.member("stream_options", br#"{"include_usage":true}"#);
    }
    if let Some(CacheSalt(salt)) = salting {
        let salt = salt(own_salt.as_deref());
        out.member(SALT, &json::to_line(&salt));
    }
    Ok(LevelledRequest {
        body: out.finish(),
        asked,
    })
}

/// vLLM's name for what its prefix cache is told apart by.
const SALT: &str = "cache_salt";

/// Whether an engine makes text of a prompt, by way of a cache of prompts.
fn makes_text(endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::Completions | Endpoint::ChatCompletions => true,
        Endpoint::Embeddings | Endpoint::Images => false,
    }
}

/// The caller's own salt.
fn salt_of(value: &str) -> Result<String, RequestError> {
    let text: Option<String> = serde_json::from_str(value).ok();
    let text = text.filter(|text| !text.is_empty());
    text.ok_or_else(|| RequestError::invalid(SALT, "a string with something in it"))
}

/// Whether a member asks for anything: its default asks for nothing that could be ignored.
fn asks(name: &str, value: &str) -> bool {
    let default: &[&str] = match name {
        "best_of" | "n" | "top_p" => &["1", "1.0"],
        "echo" | "stream" | "logprobs" => &["false"],
        "suffix" | "user" => &["\"\""],
        "frequency_penalty" | "presence_penalty" => &["0", "0.0", "-0.0"],
        "logit_bias" => &["{}"],
        "stop" | "tools" => &["[]"],
        "top_logprobs" => &["0"],
        "encoding_format" => &["\"float\""],
        _ => &[],
    };
    !default.contains(&value)
}

/// Writes the members of one object.
struct Writer(Vec<u8>);

impl Writer {
    fn with_capacity(body: usize) -> Self {
        // Room for the three members that may join.
        Self(Vec::with_capacity(body + 160))
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
        level_request(Endpoint::Completions, body.as_bytes(), options)
            .map(|level| String::from_utf8(level.body).unwrap())
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
    fn a_chats_limit_stands_under_both_names() {
        let level = |limits: &str| {
            let body =
                format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}]{limits}}}"#);
            let options = RequestOptions::default();
            let levelled = level_request(Endpoint::ChatCompletions, body.as_bytes(), &options);
            let body = String::from_utf8(levelled.unwrap().body).unwrap();
            let at = body.find("}]").unwrap() + 2;
            body[at..].to_owned()
        };
        assert_eq!(level(""), "}", "as many as the model has room for");
        assert_eq!(level(r#","max_tokens":5"#), r#","max_tokens":5}"#);
        let newer = r#","max_completion_tokens":6,"max_tokens":6}"#;
        assert_eq!(level(r#","max_completion_tokens":6"#), newer);
        assert_eq!(level(r#","max_tokens":9,"max_completion_tokens":6"#), newer);
        let stream = r#","stream":true,"max_tokens":5,"stream_options":{"include_usage":true}}"#;
        assert_eq!(level(r#","stream":true,"max_tokens":5,"n":null"#), stream);
    }

    #[test]
    fn requests_for_vectors_and_images_pass_as_they_are() {
        for (endpoint, body) in [
            (
                Endpoint::Embeddings,
                r#"{"model":"m","input":["a"],"encoding_format":"base64"}"#,
            ),
            (
                Endpoint::Images,
                r#"{"model":"m","prompt":"p","size":"1x1","x":[]}"#,
            ),
        ] {
            let options = RequestOptions::default();
            let levelled = level_request(endpoint, body.as_bytes(), &options).unwrap();
            assert_eq!(String::from_utf8(levelled.body).unwrap(), body);
        }
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
            let levelled = level_request(
                Endpoint::Completions,
                body.as_bytes(),
                &RequestOptions::default(),
            )
            .unwrap();
            assert!(levelled.asked.stream && !levelled.asked.include_usage);
        }
        let levelled = level_request(
            Endpoint::Completions,
            asked.as_bytes(),
            &RequestOptions::default(),
        )
        .unwrap();
        assert!(levelled.asked.stream && levelled.asked.include_usage);
        assert_eq!(levelled.body, asked.as_bytes());
    }

    #[test]
    fn the_model_gets_the_engines_name_and_keeps_the_callers() {
        let options = RequestOptions {
            engine_model: Some("/models/\"m\""),
            ..RequestOptions::default()
        };
        let body = br#"{"model":"m","prompt":["a","b"],"n":3,"max_tokens":5}"#;
        let levelled = level_request(Endpoint::Completions, body, &options).unwrap();
        assert_eq!(
            String::from_utf8(levelled.body).unwrap(),
            r#"{"model":"/models/\"m\"","prompt":["a","b"],"n":3,"max_tokens":5}"#
        );
        assert_eq!(
            (
                levelled.asked.model.as_str(),
                levelled.asked.n,
                levelled.asked.choices()
            ),
            ("m", 3, 6)
        );
    }

    #[test]
    fn a_salt_is_put_in_and_the_callers_own_goes_into_it() {
        let salt = |own: Option<&str>| format!("salt of {own:?}");
        let salted = RequestOptions {
            cache_salt: Some(CacheSalt(&salt)),
            ..RequestOptions::default()
        };
        let prompt = r#""prompt":"\u0041","max_tokens":5"#;
        let chat = r#""messages":[{"role":"user","content":"\u0041"}]"#;
        let cases = [
            (Endpoint::Completions, prompt, "", "None"),
            (
                Endpoint::Completions,
                prompt,
                r#""cache_salt":null,"#,
                "None",
            ),
            (
                Endpoint::Completions,
                prompt,
                r#""cache_salt":"a\u0062","#,
                r#"Some(\"ab\")"#,
            ),
            (Endpoint::ChatCompletions, chat, "", "None"),
            (
                Endpoint::ChatCompletions,
                chat,
                r#""cache_salt":"x","#,
                r#"Some(\"x\")"#,
            ),
        ];
        for (endpoint, asked, own, expected) in cases {
            let body = format!(r#"{{"model":"m",{own}{asked}}}"#);
            let levelled = level_request(endpoint, body.as_bytes(), &salted).unwrap();
            assert_eq!(
                String::from_utf8(levelled.body).unwrap(),
                format!(r#"{{"model":"m",{asked},"cache_salt":"salt of {expected}"}}"#),
            );
        }
        for own in [r#""""#, "5", "[]", "{}", "true"] {
            let body = format!(r#"{{"model":"m",{prompt},"cache_salt":{own}}}"#);
            let refused = level_request(Endpoint::Completions, body.as_bytes(), &salted);
            assert_eq!(refused.unwrap_err().param(), Some("cache_salt"), "{own}");
            assert_eq!(
                level(&body),
                body,
                "without salting it is the engine's to judge"
            );
        }
        let body = r#"{"model":"m","input":"a","cache_salt":"x"}"#;
        let levelled = level_request(Endpoint::Embeddings, body.as_bytes(), &salted).unwrap();
        assert_eq!(levelled.body, body.as_bytes());
    }

    #[test]
    fn what_the_engine_would_ignore_is_refused_if_it_asks_for_something() {
        let ignores = ["suffix", "echo", "best_of", "guided_json"].map(str::to_owned);
        let options = RequestOptions {
            ignores: &ignores,
            ..RequestOptions::default()
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
