//! The strict reading of a request's body.
//!
//! A body that passes has the contract's members with the contract's types and ranges, no name
//! twice in any object, and strings that decode. Members that the contract does not name pass with
//! any value. The body itself stays as it came, byte for byte; no copy of the prompt is made.

mod chat;
mod completions;
mod embeddings;
mod error;
mod images;
mod members;
mod messages;
mod prompt;
mod sampling;

use std::fmt;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

pub use error::RequestError;
pub(super) use images::MAX_IMAGES;
use members::StreamOptions;
pub(super) use messages::ROLES;

use super::{
    Endpoint,
    json::{self, Members},
};

/// What an absent or null `max_tokens` means.
pub const DEFAULT_MAX_TOKENS: u32 = 16;

/// Longest model name, in characters.
pub const MAX_MODEL: usize = 256;

/// A valid request: the body as it came, and what the way through needs to know of it.
#[derive(Clone)]
pub struct Request {
    body: Bytes,
    asked: Asked,
}

impl Request {
    /// Reads a body that came to an endpoint.
    ///
    /// # Errors
    /// [`RequestError`] for the first flaw found: grammar, then duplicates among the outermost
    /// members, then the members in the order they stand, then those that are missing.
    pub fn parse(endpoint: Endpoint, body: Bytes) -> Result<Self, RequestError> {
        let (_, asked) = read(endpoint, &body)?;
        Ok(Self { body, asked })
    }

    /// The body as it came.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it asks.
    #[must_use]
    pub const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.asked.model
    }

    /// Whether the reply is to be a stream.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.asked.stream
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("endpoint", &self.asked.endpoint)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What a valid body asks, without its texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where it came.
    pub endpoint: Endpoint,
    /// The caller's name for the model.
    pub model: String,
    /// Whether the reply is to be a stream.
    pub stream: bool,
    /// Whether the stream is to end with a usage chunk.
    pub include_usage: bool,
    /// Whether the lengths of its events are to be levelled, if it is said.
    pub include_obfuscation: Option<bool>,
    /// Most tokens to make for each choice; `None` for as many as the model has room for.
    pub max_tokens: Option<u32>,
    /// How many choices are wanted for each input.
    pub n: u32,
    /// How many are made for each input, to give the best of them; `n` at least.
    pub candidates: u32,
    /// Bytes of the body in parts that are no text: pictures, sounds, or links to them.
    pub other_bytes: usize,
    /// How many prompts, conversations or texts to embed there are.
    pub inputs: u64,
    /// The length that embeddings are to have.
    pub dimensions: Option<u32>,
    /// How vectors or images are to be written, if it is said.
    pub encoding: Option<Encoding>,
}

/// How vectors or images are written into a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Vectors as arrays of numbers.
    Float,
    /// Vectors as little-endian `f32`, images as their file; either in base64.
    Base64,
    /// Images by their address.
    Url,
}

impl Asked {
    /// How many choices the reply has: `n` for each input.
    #[must_use]
    pub fn choices(&self) -> u64 {
        self.inputs.saturating_mul(u64::from(self.n))
    }

    /// Most tokens that are made in all, the best of which are given; `None` for as many as the model has
    /// room for.
    #[must_use]
    pub fn most_completion_tokens(&self) -> Option<u64> {
        if self.endpoint == Endpoint::Embeddings {
            return Some(0);
        }
        let each = u64::from(self.max_tokens?);
        Some(each.saturating_mul(self.made()))
    }

    /// Whether all that the model works on is text, or tokens, that stands in the body.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        self.other_bytes == 0
    }

    /// How many texts are made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.inputs.saturating_mul(u64::from(self.candidates))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Reads a body into its members, none of them twice.
pub(super) fn members_of(body: &[u8]) -> Result<Members<'_>, RequestError> {
    let text = str::from_utf8(body).map_err(|_| RequestError::InvalidJson)?;
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| {
        if error.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() {
            RequestError::Invalid {
                param: None,
                expected: "a JSON object",
            }
        } else {
            RequestError::InvalidJson
        }
    })?;
    if !json::surrogates_pair(text) {
        return Err(RequestError::InvalidJson);
    }
    if let Some(name) = &members.duplicate {
        return Err(RequestError::DuplicateMember(json::path_of(name)));
    }
    if members.too_many {
        return Err(RequestError::Invalid {
            param: None,
            expected: members::FEWER,
        });
    }
    Ok(members)
}

/// Reads a body into its members and what they say.
pub(super) fn read(endpoint: Endpoint, body: &[u8]) -> Result<(Members<'_>, Asked), RequestError> {
    let members = members_of(body)?;
    let mut seen = Seen::default();
    for (name, value) in &members.entries {
        seen.member(endpoint, name, value)?;
    }
    let asked = seen.finish(endpoint)?;
    Ok((members, asked))
}

/// What the members seen so far say; `None` while absent or null.
#[derive(Default)]
struct Seen {
    model: Option<String>,
    inputs: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// A chat's `logprobs`, without which its `top_logprobs` has no meaning.
    logprobs: bool,
    top_logprobs: bool,
    n: Option<u32>,
    best_of: Option<u32>,
    /// Bytes of the messages' parts that are no text.
    other_bytes: usize,
    dimensions: Option<u32>,
    encoding: Option<Encoding>,
}

impl Seen {
    fn member(
        &mut self,
        endpoint: Endpoint,
        name: &str,
        value: &RawValue,
    ) -> Result<(), RequestError> {
        if is_another_limit(endpoint, name) && value.get() != "null" {
            return Err(RequestError::invalid(
                json::path_of(name),
                "left out: `max_tokens` and `n` say how much is made",
            ));
        }
        if name == "model" {
            self.model = Some(members::model(value)?);
        } else if name == input_of(endpoint) {
            self.inputs = Some(match endpoint {
                Endpoint::Completions | Endpoint::Embeddings => {
                    prompt::count(input_of(endpoint), value)?
                }
                Endpoint::ChatCompletions => {
                    self.other_bytes = messages::check(value)?;
                    1
                }
                Endpoint::Images => members::string("prompt", value).map(|()| 1)?,
            });
        } else if value.get() != "null" {
            let is_named = match endpoint {
                Endpoint::Completions => completions::member(self, name, value)?,
                Endpoint::ChatCompletions => chat::member(self, name, value)?,
                Endpoint::Embeddings => embeddings::member(self, name, value)?,
                Endpoint::Images => images::member(self, name, value)?,
            };
            if !is_named {
                members::no_duplicates(&json::path_of(name), value)?;
            }
        }
        Ok(())
    }

    fn finish(self, endpoint: Endpoint) -> Result<Asked, RequestError> {
        let given = |name| move || RequestError::invalid(name, "given");
        let model = self.model.ok_or_else(given("model"))?;
        let inputs = self.inputs.ok_or_else(given(input_of(endpoint)))?;
        let stream = self.stream.unwrap_or(false);
        if stream && !endpoint.streams() {
            return Err(RequestError::invalid("stream", "absent or false"));
        }
        if self.stream_options.is_some() && !stream {
            return Err(RequestError::invalid(
                "stream_options",
                "absent unless `stream` is true",
            ));
        }
        if self.top_logprobs && !self.logprobs {
            return Err(RequestError::invalid(
                "top_logprobs",
                "absent unless `logprobs` is true",
            ));
        }
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        let default = (endpoint == Endpoint::Completions).then_some(DEFAULT_MAX_TOKENS);
        Ok(Asked {
            endpoint,
            model,
            stream,
            include_usage: self
                .stream_options
                .is_some_and(|options| options.include_usage),
            include_obfuscation: self
                .stream_options
                .and_then(|options| options.include_obfuscation),
            max_tokens: max_tokens.or(default),
            n: self.n.unwrap_or(1),
            candidates: self.n.unwrap_or(1).max(self.best_of.unwrap_or(1)),
            other_bytes: self.other_bytes,
            inputs,
            dimensions: self.dimensions,
            encoding: self.encoding,
        })
    }
}

/// Names by which one engine or another takes how long a text may be, or how many are made, in place of the
/// contract's. A request's limits, and what it holds of a budget, are by the contract's alone, so nothing may say
/// otherwise past them: llama.cpp's `n_predict` and `n_cmpl`, and of a prompt a chat's name; `max_new_tokens`;
/// vLLM's `best_of` of a chat.
fn is_another_limit(endpoint: Endpoint, name: &str) -> bool {
    match name {
        "n_predict" | "n_cmpl" | "max_new_tokens" => true,
        "max_completion_tokens" => endpoint != Endpoint::ChatCompletions,
        "best_of" => endpoint != Endpoint::Completions,
        _ => false,
    }
}

/// The member that holds what the model works on.
const fn input_of(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Completions | Endpoint::Images => "prompt",
        Endpoint::ChatCompletions => "messages",
        Endpoint::Embeddings => "input",
    }
}

#[cfg(test)]
mod tests;
