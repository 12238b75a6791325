//! Embeddings of the built-in engine: which words a text has, and how often.
//!
//! Each word points in a direction of its own, taken from its digest; a text is the sum of its
//! words, of length 1. Texts that share words are near each other, and that is all it knows.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    MODEL,
    members::inputs,
    words::{count, words},
};
use crate::openai::{Request, RequestError, json};

/// The length of a vector unless another is asked for, and the longest.
const DIMENSIONS: u32 = 64;
const MAX_DIMENSIONS: u32 = 4096;
/// Most numbers in one reply.
const MAX_NUMBERS: u64 = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Reply {
    object: &'static str,
    data: Vec<Vector>,
    model: &'static str,
    usage: Counted,
}

#[derive(Serialize)]
struct Vector {
    object: &'static str,
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Serialize)]
struct Counted {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The whole reply's body.
///
/// # Errors
/// [`RequestError`] if the reply would be larger than this engine makes.
pub fn embed(request: &Request) -> Result<Vec<u8>, RequestError> {
    let asked = request.asked();
    let dimensions = asked.dimensions.unwrap_or(DIMENSIONS);
    if dimensions > MAX_DIMENSIONS {
        return Err(RequestError::invalid("dimensions", "at most 4096"));
    }
    if asked.inputs.saturating_mul(dimensions.into()) > MAX_NUMBERS {
        return Err(RequestError::invalid("input", "fewer texts"));
    }
    let mut prompt_tokens = 0_u64;
    let vectors = inputs(request.body())?.into_iter().enumerate();
    let data = vectors.map(|(index, text)| {
        let words = words(&text);
        prompt_tokens = prompt_tokens.saturating_add(count(&words));
        Vector {
            object: "embedding",
            index,
            embedding: vector(&words, dimensions),
        }
    });
    let data = data.collect();
    Ok(json::to_line(&Reply {
        object: "list",
        data,
        model: MODEL,
        usage: Counted {
            prompt_tokens,
            total_tokens: prompt_tokens,
        },
    }))
}

fn vector(words: &[String], dimensions: u32) -> Vec<f32> {
    let mut sum: Vec<f32> = (0..dimensions).map(|_| 0.0).collect();
    for word in words {
        let digest = Sha256::digest(word.trim().to_lowercase());
        let place = digest.first_chunk().copied().map_or(0, u32::from_le_bytes) % dimensions;
        let sign = if digest.last().is_some_and(|byte| byte % 2 == 0) {
            1.0
        } else {
            -1.0
        };
        let place = usize::try_from(place).ok().and_then(|at| sum.get_mut(at));
        if let Some(number) = place {
            *number += sign;
        }
    }
    let length = sum.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|number| *number /= length);
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::Endpoint;

    fn embedded(body: &Value) -> Value {
        let request = Request::parse(Endpoint::Embeddings, body.to_string().into()).unwrap();
        serde_json::from_slice(&embed(&request).unwrap()).unwrap()
    }

    fn product(reply: &Value, one: usize, other: usize) -> f64 {
        let numbers = |at: usize| {
            let vector = reply["data"][at]["embedding"].as_array().unwrap();
            vector
                .iter()
                .map(|n| n.as_f64().unwrap())
                .collect::<Vec<_>>()
        };
        let pairs = numbers(one).into_iter().zip(numbers(other));
        pairs.map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_that_share_words_are_near_each_other() {
        let reply = embedded(&json!({"model": "echo",
            "input": ["the red fox", "The red dog", "seven apples"]}));
        assert!((product(&reply, 0, 0) - 1.0).abs() < 1e-5);
        assert!(product(&reply, 0, 1) > product(&reply, 0, 2) + 0.3);
        assert_eq!(
            reply["usage"],
            json!({"prompt_tokens": 8, "total_tokens": 8})
        );
        assert_eq!(reply["data"][2]["index"], 2);
    }

    #[test]
    fn a_vector_has_the_length_that_was_asked_for() {
        for (dimensions, length) in [(Value::Null, 64), (json!(3), 3), (json!(4096), 4096)] {
            let body = json!({"model": "echo", "input": [1, 2], "dimensions": dimensions});
            let vector = &embedded(&body)["data"][0]["embedding"];
            assert_eq!(vector.as_array().unwrap().len(), length);
        }
        let many = vec!["x"; 1025];
        for (body, param) in [
            (
                json!({"model": "echo", "input": "x", "dimensions": 4097}),
                "dimensions",
            ),
            (
                json!({"model": "echo", "input": many, "dimensions": 4096}),
                "input",
            ),
        ] {
            let request = Request::parse(Endpoint::Embeddings, body.to_string().into()).unwrap();
            assert_eq!(embed(&request).unwrap_err().param(), Some(param));
        }
    }
}
