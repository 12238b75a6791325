//! Messages of a chat: whole, or the pieces that a stream brings.
//!
//! What a message says is taken from an allow-list. Reasoning has no place in OpenAI's contract, and
//! clients read it under the names that engines gave it, so these pass.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{LevelError, ReplyContext};
use crate::openai::json::Text;

/// A message, or a piece of one, as an engine sends it.
#[derive(Deserialize)]
pub(super) struct EngineMessage<'a> {
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<EngineCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<EngineFunction<'a>>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EngineCall<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    function: Option<EngineFunction<'a>>,
    #[serde(borrow)]
    custom: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EngineFunction<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// A message of the contract, or a piece of one.
#[derive(Default, Serialize)]
pub(super) struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    /// `None` is no member, `Some(None)` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_details: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<Function<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Call<'a> {
    /// In pieces only: which call the piece is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Cow<'a, str>>,
}

impl<'a> EngineMessage<'a> {
    /// The whole message.
    pub(super) fn whole(self, context: &ReplyContext) -> Result<Message<'a>, LevelError> {
        let says_something = self.content.is_some()
            || self.refusal.is_some()
            || self.reasoning.is_some()
            || self.reasoning_content.is_some()
            || self
                .tool_calls
                .as_ref()
                .is_some_and(|calls| !calls.is_empty())
            || self.function_call.is_some()
            || self.audio.is_some();
        // Some other object, and an empty answer would be a lie.
        if !says_something && self.role.is_none() {
            return Err(LevelError::Malformed);
        }
        let calls = (0_u32..).zip(self.tool_calls.unwrap_or_default());
        let calls = calls.map(|(at, call)| call.whole(at, context));
        Ok(Message {
            role: Some(self.role.map_or(Cow::Borrowed("assistant"), |role| role.0)),
            content: Some(self.content),
            refusal: Some(self.refusal),
            reasoning: self.reasoning,
            reasoning_content: self.reasoning_content,
            reasoning_details: self.reasoning_details,
            tool_calls: calls.collect::<Result<_, _>>()?,
            function_call: self.function_call.map(EngineFunction::level).transpose()?,
            annotations: self.annotations,
            audio: self.audio,
        })
    }

    /// A piece of a message: what the engine sent, and nothing more.
    pub(super) fn piece(self) -> Result<Message<'a>, LevelError> {
        let calls = (0_u32..).zip(self.tool_calls.unwrap_or_default());
        let calls = calls.map(|(at, call)| call.piece(at));
        Ok(Message {
            role: self.role.map(|role| role.0),
            content: self.content.map(Some),
            refusal: self.refusal.map(Some),
            reasoning: self.reasoning,
            reasoning_content: self.reasoning_content,
            reasoning_details: self.reasoning_details,
            tool_calls: calls.collect::<Result<_, _>>()?,
            function_call: self.function_call.map(EngineFunction::level).transpose()?,
            annotations: self.annotations,
            audio: self.audio,
        })
    }
}

impl<'a> EngineCall<'a> {
    fn whole(self, at: u32, context: &ReplyContext) -> Result<Call<'a>, LevelError> {
        // Clients send the id back with the call's result.
        let id = self.id.filter(|id| !id.0.is_empty());
        let id = id.map_or_else(
            || format!("call_{}_{at}", context.request_id).into(),
            |id| id.0,
        );
        Ok(Call {
            index: None,
            id: Some(id),
            kind: Some(self.kind.map_or(Cow::Borrowed("function"), |kind| kind.0)),
            function: self.function.map(EngineFunction::level).transpose()?,
            custom: self.custom,
        })
    }

    fn piece(self, at: u32) -> Result<Call<'a>, LevelError> {
        Ok(Call {
            index: Some(self.index.unwrap_or(at)),
            id: self.id.map(|id| id.0),
            kind: self.kind.map(|kind| kind.0),
            function: self.function.map(EngineFunction::level).transpose()?,
            custom: self.custom,
        })
    }
}

impl<'a> EngineFunction<'a> {
    /// The contract has arguments as the text of a JSON object; some engines send the object.
    fn level(self) -> Result<Function<'a>, LevelError> {
        let arguments = match self.arguments.map(RawValue::get) {
            None => None,
            Some(text) if text.starts_with('"') => {
                let text: Text<'a> =
                    serde_json::from_str(text).map_err(|_| LevelError::Malformed)?;
                Some(text.0)
            }
            Some(object) => Some(Cow::Borrowed(object)),
        };
        Ok(Function {
            name: self.name,
            arguments,
        })
    }
}

impl Message<'_> {
    /// Whether a tool or a function is called.
    pub(super) fn calls(&self) -> bool {
        !self.tool_calls.is_empty() || self.function_call.is_some()
    }

    /// Whether it says anything that a model must have made tokens for.
    pub(super) fn has_tokens(&self) -> bool {
        let said = |text: &Option<Text<'_>>| text.as_ref().is_some_and(|text| !text.0.is_empty());
        self.calls()
            || self.content.as_ref().is_some_and(said)
            || self.refusal.as_ref().is_some_and(said)
            || said(&self.reasoning)
            || said(&self.reasoning_content)
    }
}

#[cfg(test)]
mod tests;
