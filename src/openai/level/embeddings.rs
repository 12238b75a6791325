//! Embeddings: vectors in the encoding that was asked for, one for each input.
//!
//! Some engines know one encoding only, or take no notice of the length that was asked for. The
//! first is mended here; the second is an error, since a vector of another length is another answer.

use base64::{Engine as _, prelude::BASE64_STANDARD};
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
    data: Option<Vec<EngineVector<'a>>>,
    usage: Option<EngineUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EngineVector<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct EngineUsage {
    prompt_tokens: Option<u64>,
}

#[derive(Serialize)]
struct Reply<'a> {
    object: &'static str,
    data: Vec<Vector<'a>>,
    model: &'a str,
    usage: Counted,
}

#[derive(Serialize)]
struct Vector<'a> {
    object: &'static str,
    index: u32,
    embedding: Written<'a>,
}

/// A vector as it is written.
#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    /// As the engine wrote it.
    Kept(&'a RawValue),
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Counted {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Levels an engine's reply, which begins with `{`.
pub(super) fn level(body: &[u8], context: &ReplyContext) -> Result<LevelledReply, LevelError> {
    let reply: EngineReply<'_> = serde_json::from_slice(body).map_err(|_| LevelError::Malformed)?;
    let failed = reply.object.is_some_and(|object| object.0 == "error");
    if failed || reply.error.is_some() {
        return Err(LevelError::Engine);
    }
    let vectors = reply.data.ok_or(LevelError::Malformed)?;
    if u64::try_from(vectors.len()) != Ok(context.asked.inputs) {
        return Err(LevelError::Malformed);
    }
    let vectors = (0..).zip(vectors).map(|(at, vector)| {
        Ok(Vector {
            object: "embedding",
            index: vector.index.unwrap_or(at),
            embedding: write(vector.embedding, context)?,
        })
    });
    let mut data = vectors.collect::<Result<Vec<_>, LevelError>>()?;
    data.sort_by_key(|vector| vector.index);
    // Each input has its own, or the caller would take one text's vector for another's.
    if !(0..).zip(&data).all(|(at, vector)| vector.index == at) {
        return Err(LevelError::Malformed);
    }
    let prompt_tokens = reply.usage.and_then(|usage| usage.prompt_tokens);
    let counted = prompt_tokens.unwrap_or(0);
    let reply = Reply {
        object: "list",
        data,
        model: &context.asked.model,
        usage: Counted {
            prompt_tokens: counted,
            total_tokens: counted,
        },
    };
    Ok(LevelledReply {
        body: json::to_line(&reply),
        usage: prompt_tokens.map(|tokens| Usage::new(tokens, 0)),
    })
}

fn write<'a>(vector: &'a RawValue, context: &ReplyContext) -> Result<Written<'a>, LevelError> {
    let in_base64 = vector.get().starts_with('"');
    let numbers = if in_base64 {
        decode(vector)?
    } else {
        serde_json::from_str::<Vec<f32>>(vector.get()).map_err(|_| LevelError::Malformed)?
    };
    if numbers.is_empty() {
        return Err(LevelError::Malformed);
    }
    let dimensions = context.asked.dimensions;
    if dimensions.is_some_and(|asked| usize::try_from(asked) != Ok(numbers.len())) {
        return Err(LevelError::Ignored("dimensions"));
    }
    let wants_base64 = context.asked.encoding == Some(Encoding::Base64);
    Ok(match (in_base64, wants_base64) {
        (true, true) | (false, false) => Written::Kept(vector),
        (true, false) => Written::Numbers(numbers),
        (false, true) => Written::Base64(encode(&numbers)),
    })
}

/// Little-endian `f32`, one after the other.
fn decode(vector: &RawValue) -> Result<Vec<f32>, LevelError> {
    let text: Text<'_> = serde_json::from_str(vector.get()).map_err(|_| LevelError::Malformed)?;
    let bytes = BASE64_STANDARD
        .decode(text.0.as_bytes())
        .map_err(|_| LevelError::Malformed)?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<f32> = numbers.iter().copied().map(f32::from_le_bytes).collect();
    if rest.is_empty() && numbers.iter().all(|number| number.is_finite()) {
        Ok(numbers)
    } else {
        Err(LevelError::Malformed)
    }
}

fn encode(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::{Endpoint, level::test_context};

    const NUMBERS: &str = "[0.5, -1.25e0,2]";
    const BASE64: &str = "\"AAAAPwAAoL8AAABA\"";

    fn context(inputs: u64, encoding: Option<Encoding>, dimensions: Option<u32>) -> ReplyContext {
        let mut context = test_context();
        context.asked.endpoint = Endpoint::Embeddings;
        context.asked.inputs = inputs;
        context.asked.encoding = encoding;
        context.asked.dimensions = dimensions;
        context
    }

    fn one(vector: &str, context: &ReplyContext) -> Result<String, LevelError> {
        let body = format!(r#"{{"data":[{{"embedding":{vector}}}]}}"#);
        let reply = level(body.as_bytes(), context)?;
        let reply: Value = serde_json::from_slice(&reply.body).unwrap();
        Ok(reply["data"][0]["embedding"].to_string())
    }

    #[test]
    fn vectors_come_in_the_encoding_that_was_asked_for() {
        let (float, base64) = (Some(Encoding::Float), Some(Encoding::Base64));
        for (vector, encoding, expected) in [
            (NUMBERS, None, "[0.5,-1.25,2]"),
            (NUMBERS, float, "[0.5,-1.25,2]"),
            (NUMBERS, base64, BASE64),
            (BASE64, base64, BASE64),
            (BASE64, float, "[0.5,-1.25,2.0]"),
            (BASE64, None, "[0.5,-1.25,2.0]"),
        ] {
            let written = one(vector, &context(1, encoding, Some(3)));
            assert_eq!(written.as_deref(), Ok(expected), "{vector} {encoding:?}");
        }
    }

    #[test]
    fn the_reply_is_the_contracts_and_in_the_order_of_the_inputs() {
        let body = r#"{"object":"list","model":"./m","data":[
            {"object":"embedding","index":1,"embedding":[1]},{"index":0,"embedding":[2]}],
            "usage":{"prompt_tokens":7,"total_tokens":7,"completion_tokens":0},"timings":{}}"#;
        let reply = level(body.as_bytes(), &context(2, None, None)).unwrap();
        let expected = json!({
            "object": "list", "model": "caller/model",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [2]},
                {"object": "embedding", "index": 1, "embedding": [1]},
            ],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        });
        assert_eq!(
            serde_json::from_slice::<Value>(&reply.body).unwrap(),
            expected
        );
        assert_eq!(reply.usage, Some(Usage::new(7, 0)));
    }

    #[test]
    fn another_length_than_was_asked_for_is_no_answer() {
        for vector in [NUMBERS, BASE64] {
            let written = one(vector, &context(1, None, Some(2)));
            assert_eq!(written, Err(LevelError::Ignored("dimensions")));
        }
    }

    #[test]
    fn what_are_no_embeddings_of_the_inputs_is_an_error() {
        let vector = |index: u32| json!({"index": index, "embedding": [1.0]});
        let cases = [
            (json!({}), LevelError::Malformed),
            (json!({"data": []}), LevelError::Malformed),
            (json!({"data": [vector(0)]}), LevelError::Malformed),
            (
                json!({"data": [vector(0), vector(0)]}),
                LevelError::Malformed,
            ),
            (
                json!({"data": [vector(1), vector(2)]}),
                LevelError::Malformed,
            ),
            (
                json!({"data": [vector(0), vector(1), vector(2)]}),
                LevelError::Malformed,
            ),
            (json!({"data": [{}, vector(1)]}), LevelError::Malformed),
            (json!({"choices": [], "error": {}}), LevelError::Engine),
            (
                json!({"object": "error", "message": "x"}),
                LevelError::Engine,
            ),
        ];
        for (body, expected) in cases {
            let outcome = level(body.to_string().as_bytes(), &context(2, None, None));
            assert_eq!(outcome.map(|reply| reply.usage), Err(expected), "{body}");
        }
        for vector in [
            "[]",
            "\"\"",
            "[[1]]",
            "[\"1\"]",
            "[null]",
            "null",
            "{}",
            "\"AAAAPw\"",
            "\"AAAA\"",
            "\"AADAfw==\"",
        ] {
            let written = one(vector, &context(1, None, None));
            assert_eq!(written, Err(LevelError::Malformed), "{vector}");
        }
    }
}
