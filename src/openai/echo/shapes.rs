//! The JSON of the engine's replies.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::Answer;
use crate::openai::Usage;

#[derive(Serialize)]
pub(super) struct Reply<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'static str,
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<Usage>>,
    pub(super) system_fingerprint: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    Text {
        text: Cow<'a, str>,
        index: u32,
        logprobs: Option<Logprobs<'a>>,
        finish_reason: Option<&'static str>,
    },
    Message {
        index: u32,
        message: Message<'a>,
        logprobs: Option<ChatLogprobs<'a>>,
        finish_reason: Option<&'static str>,
    },
    Delta {
        index: u32,
        delta: Message<'a>,
        logprobs: Option<ChatLogprobs<'a>>,
        finish_reason: Option<&'static str>,
    },
}

#[derive(Default, Serialize)]
pub(super) struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
}

/// It is always sure of itself.
#[derive(Serialize)]
pub(super) struct Logprobs<'a> {
    tokens: &'a [String],
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<&'a str, f32>>,
    text_offset: Vec<usize>,
}

#[derive(Serialize)]
pub(super) struct ChatLogprobs<'a> {
    content: Vec<Token<'a>>,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    logprob: f32,
    bytes: &'a [u8],
    top_logprobs: [(); 0],
}

impl<'a> Choice<'a> {
    /// A text, or a piece of one that begins after `start` characters.
    pub(super) fn text(
        index: u32,
        tokens: &'a [String],
        start: usize,
        finish_reason: Option<&'static str>,
        with_logprobs: bool,
    ) -> Self {
        Self::Text {
            text: joined(tokens),
            index,
            logprobs: with_logprobs.then(|| logprobs(tokens, start)),
            finish_reason,
        }
    }

    /// A whole message.
    pub(super) fn message(index: u32, answer: &'a Answer, with_logprobs: bool) -> Self {
        Self::Message {
            index,
            message: Message {
                role: Some("assistant"),
                content: Some(joined(&answer.tokens)),
            },
            logprobs: with_logprobs.then(|| chat_logprobs(&answer.tokens)),
            finish_reason: Some(answer.finish_reason),
        }
    }

    /// The first piece of a message.
    pub(super) fn begin(index: u32) -> Self {
        Self::Delta {
            index,
            delta: Message {
                role: Some("assistant"),
                content: Some(Cow::Borrowed("")),
            },
            logprobs: None,
            finish_reason: None,
        }
    }

    /// A piece of a message.
    pub(super) fn delta(index: u32, tokens: &'a [String], with_logprobs: bool) -> Self {
        Self::Delta {
            index,
            delta: Message {
                role: None,
                content: Some(joined(tokens)),
            },
            logprobs: with_logprobs.then(|| chat_logprobs(tokens)),
            finish_reason: None,
        }
    }

    /// The end of a message.
    pub(super) fn end(index: u32, finish_reason: Option<&'static str>) -> Self {
        Self::Delta {
            index,
            delta: Message::default(),
            logprobs: None,
            finish_reason,
        }
    }
}

fn joined(tokens: &[String]) -> Cow<'_, str> {
    match tokens {
        [] => Cow::Borrowed(""),
        [one] => Cow::Borrowed(one),
        many => Cow::Owned(many.concat()),
    }
}

fn chat_logprobs(tokens: &[String]) -> ChatLogprobs<'_> {
    let content = tokens.iter().map(|token| Token {
        token,
        logprob: 0.0,
        bytes: token.as_bytes(),
        top_logprobs: [],
    });
    ChatLogprobs {
        content: content.collect(),
    }
}

fn logprobs(tokens: &[String], start: usize) -> Logprobs<'_> {
    Logprobs {
        tokens,
        token_logprobs: vec![0.0; tokens.len()],
        top_logprobs: tokens
            .iter()
            .map(|token| [(token.as_str(), 0.0)].into())
            .collect(),
        text_offset: tokens
            .iter()
            .scan(start, |at, token| {
                Some(std::mem::replace(at, *at + token.chars().count()))
            })
            .collect(),
    }
}
