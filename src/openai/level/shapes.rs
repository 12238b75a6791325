//! The JSON of both sides: what engines are known to send, and what the contract has.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    FINGERPRINT, LevelError, ReplyContext,
    chat::{EngineMessage, Message},
    logprobs::{ChatLogprobs, EngineLogprobs, Logprobs},
};
use crate::openai::{
    Endpoint, Usage,
    json::Text,
    usage::{CompletionTokensDetails, PromptTokensDetails},
};

/// Longest `id` (after its prefix) or `system_fingerprint` taken from an engine, in bytes.
const MAX_LABEL: usize = 256;

/// A completion, or a chunk of one, as an engine sends it. What is not named here is dropped.
#[derive(Deserialize)]
pub(super) struct EngineCompletion<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    object: Option<Text<'a>>,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<EngineChoice<'a>>>,
    pub(super) usage: Option<EngineUsage>,
    #[serde(borrow)]
    system_fingerprint: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A choice of either endpoint: a prompt's has a text, a chat's a message or a piece of one.
#[derive(Deserialize)]
pub(super) struct EngineChoice<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<EngineMessage<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<EngineMessage<'a>>,
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) logprobs: Option<EngineLogprobs<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<Text<'a>>,
}

impl<'a> EngineCompletion<'a> {
    /// Reads a reply or an event that begins with `{`.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, LevelError> {
        let read: Self = serde_json::from_slice(json).map_err(|_| LevelError::Malformed)?;
        let failed = read
            .object
            .as_ref()
            .is_some_and(|object| object.0 == "error");
        if failed || read.error.is_some() {
            Err(LevelError::Engine)
        } else {
            Ok(read)
        }
    }

    /// What the contract has beside the choices.
    pub(super) fn head(&self, context: &ReplyContext) -> Head {
        let fingerprint = self.system_fingerprint.as_ref().map_or("", |text| &text.0);
        let usable = (1..=MAX_LABEL).contains(&fingerprint.len());
        let id = self.id.as_ref().map_or("", |text| &text.0);
        let created = self.created.and_then(|created| created.get().parse().ok());
        Head {
            id: completion_id(id, context),
            object: object(context),
            created: created.unwrap_or_else(|| context.created()),
            fingerprint: if usable { fingerprint } else { FINGERPRINT }.to_owned(),
        }
    }
}

/// The same in every chunk of a stream.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    fingerprint: String,
}

impl Head {
    /// For a reply of which the engine sent nothing but its end.
    pub(super) fn empty(context: &ReplyContext) -> Self {
        Self {
            id: completion_id("", context),
            object: object(context),
            created: context.created(),
            fingerprint: FINGERPRINT.to_owned(),
        }
    }

    pub(super) fn completion<'a>(
        &'a self,
        context: &'a ReplyContext,
        choices: Vec<Choice<'a>>,
        usage: Option<Option<Usage>>,
    ) -> Completion<'a> {
        Completion {
            id: &self.id,
            object: self.object,
            created: self.created,
            model: &context.asked.model,
            choices,
            usage,
            system_fingerprint: &self.fingerprint,
        }
    }
}

/// What the reply calls itself.
fn object(context: &ReplyContext) -> &'static str {
    match (context.asked.endpoint, context.asked.stream) {
        (Endpoint::ChatCompletions, true) => "chat.completion.chunk",
        (Endpoint::ChatCompletions, false) => "chat.completion",
        _ => "text_completion",
    }
}

/// A completion's id begins with `cmpl-`, a chat's with `chatcmpl-`; some engines mix them up.
fn completion_id(id: &str, context: &ReplyContext) -> String {
    let prefix = match context.asked.endpoint {
        Endpoint::ChatCompletions => "chatcmpl",
        _ => "cmpl",
    };
    let rest = id
        .strip_prefix("cmpl-")
        .or(id.strip_prefix("chatcmpl-"))
        .unwrap_or(id);
    if rest.is_empty() || rest.len() > MAX_LABEL {
        format!("{prefix}-{}", context.request_id)
    } else {
        format!("{prefix}-{rest}")
    }
}

/// A completion, or a chunk of one, as the contract has it.
#[derive(Serialize)]
pub(super) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    /// `None` is no member, `Some(None)` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    system_fingerprint: &'a str,
}

/// A choice of the contract, by the kind of reply that it stands in.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    /// Of a prompt's completion, whole or a chunk.
    Text(TextChoice<'a>),
    /// Of a chat's reply.
    Message(MessageChoice<'a>),
    /// Of a chunk of a chat's reply.
    Delta(DeltaChoice<'a>),
}

#[derive(Serialize)]
pub(super) struct TextChoice<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) index: u32,
    pub(super) logprobs: Option<Logprobs<'a>>,
    pub(super) finish_reason: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
pub(super) struct MessageChoice<'a> {
    pub(super) index: u32,
    pub(super) message: Message<'a>,
    pub(super) logprobs: Option<ChatLogprobs<'a>>,
    pub(super) finish_reason: Cow<'a, str>,
}

#[derive(Serialize)]
pub(super) struct DeltaChoice<'a> {
    pub(super) index: u32,
    pub(super) delta: Message<'a>,
    pub(super) logprobs: Option<ChatLogprobs<'a>>,
    pub(super) finish_reason: Option<Cow<'a, str>>,
}

/// Usage as engines send it: details null, absent, or half there.
#[derive(Deserialize)]
pub(super) struct EngineUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<EnginePromptDetails>,
    completion_tokens_details: Option<EngineCompletionDetails>,
}

#[derive(Deserialize)]
struct EnginePromptDetails {
    audio_tokens: Option<u64>,
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct EngineCompletionDetails {
    accepted_prediction_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    rejected_prediction_tokens: Option<u64>,
}

impl EngineUsage {
    /// The contract's counters, or `None` if the engine counted nothing at all: that is not zero.
    pub(super) fn level(&self) -> Option<Usage> {
        if self.prompt_tokens.is_none() && self.completion_tokens.is_none() {
            return None;
        }
        let or_zero = Option::unwrap_or_default;
        let mut usage = Usage::new(or_zero(self.prompt_tokens), or_zero(self.completion_tokens));
        if let Some(details) = &self.prompt_tokens_details {
            usage.prompt_tokens_details = PromptTokensDetails {
                audio_tokens: or_zero(details.audio_tokens),
                cached_tokens: or_zero(details.cached_tokens),
            };
        }
        if let Some(details) = &self.completion_tokens_details {
            usage.completion_tokens_details = CompletionTokensDetails {
                accepted_prediction_tokens: or_zero(details.accepted_prediction_tokens),
                audio_tokens: or_zero(details.audio_tokens),
                reasoning_tokens: or_zero(details.reasoning_tokens),
                rejected_prediction_tokens: or_zero(details.rejected_prediction_tokens),
            };
        }
        Some(usage)
    }
}
