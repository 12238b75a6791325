//! Images: each by its address or as a file in base64.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{LevelError, LevelledReply, ReplyContext};
use crate::openai::{
    Encoding, Usage,
    json::{self, Text},
};

#[derive(Deserialize)]
struct EngineReply<'a> {
    #[serde(borrow)]
    object: Option<Text<'a>>,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<Vec<Image<'a>>>,
    usage: Option<ImageUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
struct Image<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    b64_json: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    url: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<Text<'a>>,
}

/// Images are counted under other names than texts.
#[derive(Clone, Copy, Deserialize, Serialize)]
struct ImageUsage {
    input_tokens: u64,
    output_tokens: u64,
    #[serde(default)]
    total_tokens: u64,
}

#[derive(Serialize)]
struct Reply<'a> {
    created: u64,
    data: Vec<Image<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ImageUsage>,
}

/// Levels an engine's reply, which begins with `{`.
pub(super) fn level(body: &[u8], context: &ReplyContext) -> Result<LevelledReply, LevelError> {
    let reply: EngineReply<'_> = serde_json::from_slice(body).map_err(|_| LevelError::Malformed)?;
    let failed = reply.object.is_some_and(|object| object.0 == "error");
    if failed || reply.error.is_some() {
        return Err(LevelError::Engine);
    }
    let data = reply.data.filter(|images| !images.is_empty());
    let data = data.ok_or(LevelError::Malformed)?;
    for image in &data {
        let said = |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| !text.0.is_empty());
        let as_asked = match context.asked.encoding {
            Some(Encoding::Base64) => said(&image.b64_json),
            Some(Encoding::Url) => said(&image.url),
            _ => true,
        };
        match (said(&image.b64_json) || said(&image.url), as_asked) {
            (true, true) => {}
            (true, false) => return Err(LevelError::Ignored("response_format")),
            (false, _) => return Err(LevelError::Malformed),
        }
    }
    let created = reply.created.and_then(|created| created.get().parse().ok());
    let usage = reply.usage.map(|usage| ImageUsage {
        total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
        ..usage
    });
    let reply = Reply {
        created: created.unwrap_or_else(|| context.created()),
        data,
        usage,
    };
    Ok(LevelledReply {
        body: json::to_line(&reply),
        usage: usage.map(|usage| Usage::new(usage.input_tokens, usage.output_tokens)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::{Endpoint, level::test_context};

    fn leveled(body: &Value, encoding: Option<Encoding>) -> Result<Value, LevelError> {
        let mut context = test_context();
        context.asked.endpoint = Endpoint::Images;
        context.asked.encoding = encoding;
        let reply = level(body.to_string().as_bytes(), &context)?;
        Ok(serde_json::from_slice(&reply.body).unwrap())
    }

    #[test]
    fn images_are_given_on_with_what_the_contract_names() {
        let body = json!({
            "created": 5, "output_format": "png",
            "data": [
                {"b64_json": "AAAA", "revised_prompt": "a cat", "seed": 3},
                {"url": "https://images.example/1", "b64_json": null},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {}},
        });
        let expected = json!({
            "created": 5,
            "data": [
                {"b64_json": "AAAA", "revised_prompt": "a cat"},
                {"url": "https://images.example/1"},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        });
        assert_eq!(leveled(&body, None), Ok(expected));
        let least = json!({"data": [{"url": "x"}]});
        let filled = json!({"created": 1_763_000_000, "data": [{"url": "x"}]});
        assert_eq!(leveled(&least, Some(Encoding::Url)), Ok(filled));
    }

    #[test]
    fn what_was_not_asked_for_is_no_answer() {
        let (url, file) = (json!({"url": "x"}), json!({"b64_json": "AAAA"}));
        let ignored = Err(LevelError::Ignored("response_format"));
        assert_eq!(
            leveled(&json!({"data": [url]}), Some(Encoding::Base64)),
            ignored
        );
        assert_eq!(
            leveled(&json!({"data": [file]}), Some(Encoding::Url)),
            ignored
        );
        for body in [
            json!({}),
            json!({"data": []}),
            json!({"data": [{}]}),
            json!({"data": [{"url": ""}]}),
            json!({"data": [{"url": 5}]}),
            json!({"data": [url, {"revised_prompt": "x"}]}),
        ] {
            assert_eq!(leveled(&body, None), Err(LevelError::Malformed), "{body}");
        }
        let failed = leveled(&json!({"error": {"message": "x"}}), None);
        assert_eq!(failed, Err(LevelError::Engine));
    }
}
