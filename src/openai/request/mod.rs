//! The strict reading of a `POST /v1/completions` body.
//!
//! A body that passes has the contract's members with the contract's types and ranges, no name
//! twice in any object, and strings that decode. Members that the contract does not name pass with
//! any value. The body itself stays as it came, byte for byte; no copy of the prompt is made.

mod error;
mod members;
mod prompt;

use std::fmt;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

pub use error::RequestError;
use members::StreamOptions;

use super::json::{self, Members};

/// What an absent or null `max_tokens` means.
pub const DEFAULT_MAX_TOKENS: u32 = 16;

/// Longest model name, in bytes.
pub const MAX_MODEL: usize = 256;

/// A valid completion request: the body as it came, and what the way through needs to know of it.
#[derive(Clone)]
pub struct CompletionRequest {
    body: Bytes,
    facts: Facts,
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`RequestError`] for the first flaw found: grammar, then duplicates among the outermost
    /// members, then the members in the order they stand, then those that are missing.
    pub fn parse(body: Bytes) -> Result<Self, RequestError> {
        let (_, facts) = read(&body)?;
        Ok(Self { body, facts })
    }

    /// The body as it came.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.facts.model
    }

    /// Whether the reply is to be a stream.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.facts.stream
    }

    /// Whether the stream is to end with a usage chunk.
    #[must_use]
    pub const fn include_usage(&self) -> bool {
        self.facts.include_usage
    }

    /// Most tokens to make for each choice.
    #[must_use]
    pub const fn max_tokens(&self) -> u32 {
        self.facts.max_tokens
    }

    /// How many prompts there are.
    #[must_use]
    pub const fn prompts(&self) -> u64 {
        self.facts.prompts
    }

    /// How many choices are wanted for each prompt.
    #[must_use]
    pub const fn n(&self) -> u32 {
        self.facts.n
    }

    /// How many choices the reply has: `n` for each prompt.
    #[must_use]
    pub fn choices(&self) -> u64 {
        self.facts.choices()
    }
}

impl fmt::Debug for CompletionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionRequest")
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What a valid body says.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) max_tokens: u32,
    pub(super) n: u32,
    pub(super) prompts: u64,
}

impl Facts {
    pub(super) fn choices(&self) -> u64 {
        self.prompts.saturating_mul(u64::from(self.n))
    }
}

/// Reads a body into its members and what they say.
pub(super) fn read(body: &[u8]) -> Result<(Members<'_>, Facts), RequestError> {
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
    let mut seen = Seen::default();
    for (name, value) in &members.entries {
        seen.member(name, value)?;
    }
    let facts = seen.finish()?;
    Ok((members, facts))
}

/// What the members seen so far say; `None` while absent or null.
#[derive(Default)]
struct Seen {
    model: Option<String>,
    prompts: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    n: Option<u32>,
}

impl Seen {
    fn member(&mut self, name: &str, value: &RawValue) -> Result<(), RequestError> {
        use members as check;
        const FROM_0: &str = "a 32-bit integer from 0";
        const FROM_1: &str = "a 32-bit integer from 1";
        const PENALTY: &str = "a number from -2 to 2";

        let null = value.get() == "null";
        match name {
            "model" => self.model = Some(check::model(value)?),
            "prompt" => self.prompts = Some(prompt::count(value)?),
            _ if null => {}
            "stream" => self.stream = Some(check::boolean("stream", value)?),
            "stream_options" => self.stream_options = Some(check::stream_options(value)?),
            "max_tokens" => self.max_tokens = Some(check::integer("max_tokens", value, 0, FROM_0)?),
            "n" => self.n = Some(check::integer("n", value, 1, FROM_1)?),
            "best_of" => drop(check::integer("best_of", value, 1, FROM_1)?),
            "echo" => drop(check::boolean("echo", value)?),
            "temperature" => {
                check::number("temperature", value, 0.0..=2.0, "a number from 0 to 2")?
            }
            "top_p" => check::number("top_p", value, 0.0..=1.0, "a number from 0 to 1")?,
            "frequency_penalty" => check::number("frequency_penalty", value, -2.0..=2.0, PENALTY)?,
            "presence_penalty" => check::number("presence_penalty", value, -2.0..=2.0, PENALTY)?,
            "logprobs" => check::logprobs(value)?,
            "seed" => check::seed(value)?,
            "logit_bias" => check::logit_bias(value)?,
            "stop" => check::stop(value)?,
            "suffix" => check::string("suffix", value)?,
            "user" => check::string("user", value)?,
            unknown => check::no_duplicates(&json::path_of(unknown), value)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Facts, RequestError> {
        let model = self
            .model
            .ok_or_else(|| RequestError::invalid("model", "given"))?;
        let prompts = self
            .prompts
            .ok_or_else(|| RequestError::invalid("prompt", "given"))?;
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(RequestError::invalid(
                "stream_options",
                "absent unless `stream` is true",
            ));
        }
        Ok(Facts {
            model,
            stream,
            include_usage: self
                .stream_options
                .is_some_and(|options| options.include_usage),
            max_tokens: self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            n: self.n.unwrap_or(1),
            prompts,
        })
    }
}

#[cfg(test)]
mod tests;
