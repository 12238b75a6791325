//! Streamed replies.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::de::IgnoredAny;

use super::{
    LevelError, ReplyContext,
    chat::Message,
    logprobs::{ChatLogprobs, EngineLogprobs, Logprobs, characters},
    shapes::{Choice, DeltaChoice, EngineChoice, EngineCompletion, Head, TextChoice},
};
use crate::openai::{Endpoint, Usage, json, sse};

/// Most choices that one stream can have.
const MAX_CHOICES: usize = 65_536;

/// Most tokens between two usage comments (WIRE section 4).
const TOKENS_PER_COMMENT: u64 = 64;

/// Levels an engine's stream, event by event.
///
/// Every event of the engine's that has choices becomes one event of the contract at once; usage is
/// taken out, and stands in a chunk of its own at the end, if it was asked for.
#[must_use]
#[derive(Debug)]
pub struct StreamLeveller {
    context: ReplyContext,
    /// Taken from the engine's first chunk, the same in all of ours.
    head: Option<Head>,
    choices: BTreeMap<u32, ChoiceState>,
    /// What the engine says of the whole.
    usage: Option<Usage>,
    /// Tokens seen, for engines that do not count.
    counted: u64,
    /// As many of them were told in a comment.
    commented: u64,
    done: bool,
}

#[derive(Debug, Default)]
struct ChoiceState {
    /// Characters of text so far; for a chat, whether anything came at all.
    characters: u64,
    finished: bool,
    /// Some engines count each choice by itself.
    usage: Option<Usage>,
}

impl ChoiceState {
    /// A chunk of a text, and how many tokens it must have taken at least.
    fn text<'a>(
        &mut self,
        choice: EngineChoice<'a>,
        index: u32,
    ) -> Result<(Choice<'a>, usize), LevelError> {
        let EngineChoice {
            text,
            logprobs,
            finish_reason,
            ..
        } = choice;
        // Only a choice's end can do without a text; else it is some other reply (a chat's, say),
        // and its empty answer would be a lie.
        let text = match text {
            Some(text) => text.0,
            None if finish_reason.is_some() && self.characters > 0 => Cow::Borrowed(""),
            None => return Err(LevelError::Malformed),
        };
        let logprobs = logprobs.and_then(|logprobs| logprobs.level(self.characters));
        self.characters = self.characters.saturating_add(characters(&text));
        let tokens = logprobs
            .as_ref()
            .map_or(0, Logprobs::len)
            .max(usize::from(!text.is_empty()));
        let choice = TextChoice {
            text,
            index,
            logprobs,
            finish_reason: finish_reason.map(|reason| reason.0),
        };
        Ok((Choice::Text(choice), tokens))
    }

    /// A chunk of a message, and how many tokens it must have taken at least.
    fn delta<'a>(
        &mut self,
        choice: EngineChoice<'a>,
        index: u32,
    ) -> Result<(Choice<'a>, usize), LevelError> {
        let EngineChoice {
            delta,
            logprobs,
            finish_reason,
            ..
        } = choice;
        let delta = match delta {
            Some(delta) => delta.piece()?,
            None if finish_reason.is_some() && self.characters > 0 => Message::default(),
            None => return Err(LevelError::Malformed),
        };
        self.characters = self.characters.saturating_add(1);
        let logprobs = logprobs.and_then(EngineLogprobs::chat);
        let tokens = logprobs
            .as_ref()
            .map_or(0, ChatLogprobs::len)
            .max(usize::from(delta.has_tokens()));
        let choice = DeltaChoice {
            index,
            delta,
            logprobs,
            finish_reason: finish_reason.map(|reason| reason.0),
        };
        Ok((Choice::Delta(choice), tokens))
    }
}

/// The end of a whole stream.
#[derive(Clone)]
pub struct StreamEnd {
    /// The last events: the usage chunk if it was asked for, and `[DONE]`.
    pub events: Vec<u8>,
    /// What was used; `None` if the engine neither said so nor made a token.
    pub usage: Option<Usage>,
}

impl fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEnd").finish_non_exhaustive()
    }
}

impl StreamLeveller {
    /// A leveller at the start of a stream.
    pub fn new(context: ReplyContext) -> Self {
        Self {
            context,
            head: None,
            choices: BTreeMap::new(),
            usage: None,
            counted: 0,
            commented: 0,
            done: false,
        }
    }

    /// Takes the data of one event of the engine's, and gives whole events to send; often one,
    /// sometimes none.
    ///
    /// # Errors
    /// [`LevelError`] if the event is an error, or cannot be read. The stream is lost then.
    pub fn event(&mut self, data: &[u8]) -> Result<Vec<u8>, LevelError> {
        let data = data.trim_ascii();
        if self.done {
            return Ok(Vec::new());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(Vec::new());
        }
        if !data.starts_with(b"{") {
            // llama.cpp begins a batch with `null`; but a text that is no JSON is a broken engine.
            let json = serde_json::from_slice::<IgnoredAny>(data);
            return json.map(|_| Vec::new()).map_err(|_| LevelError::Malformed);
        }
        self.chunk(EngineCompletion::read(data)?)
    }

    /// A comment that tells what was used so far, if one is due: ask after every event.
    pub fn usage_comment(&mut self) -> Option<Vec<u8>> {
        if self.counted.saturating_sub(self.commented) < TOKENS_PER_COMMENT {
            return None;
        }
        self.commented = self.counted;
        self.usage().map(|usage| usage.to_comment())
    }

    /// What was used so far, as far as it is known.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        if self.usage.is_some() {
            return self.usage;
        }
        let told = self.sum_of_choices();
        if told.is_none() && self.counted == 0 {
            return None;
        }
        let mut usage = told.unwrap_or_default();
        // Choices that have not finished are not in the sum.
        if self.choices.values().any(|choice| choice.usage.is_none()) {
            usage.completion_tokens = usage.completion_tokens.max(self.counted);
            usage.total_tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        }
        Some(usage)
    }

    /// Ends the stream. `clean_end` says that the engine's body ended as HTTP has it, and was not
    /// cut.
    ///
    /// # Errors
    /// [`LevelError::Incomplete`] unless the engine said `[DONE]`, or ended cleanly after every
    /// choice that was asked for had its finish reason.
    pub fn finish(self, clean_end: bool) -> Result<StreamEnd, LevelError> {
        let proved = self.done || (clean_end && self.all_finished());
        if !proved {
            return Err(LevelError::Incomplete);
        }
        let usage = self.usage();
        let mut events = Vec::new();
        if self.context.asked.include_usage {
            let head = self.head.unwrap_or_else(|| Head::empty(&self.context));
            let last = Some(Some(usage.unwrap_or_default()));
            events = json::to_event(&head.completion(&self.context, Vec::new(), last));
        }
        events.extend_from_slice(sse::END);
        Ok(StreamEnd { events, usage })
    }

    fn chunk(&mut self, mut chunk: EngineCompletion<'_>) -> Result<Vec<u8>, LevelError> {
        let usage = chunk.usage.as_ref().and_then(|usage| usage.level());
        let choices = chunk.choices.take().unwrap_or_default();
        // Beside one choice, usage is of that choice; beside none or several, of the whole.
        let own = if choices.len() == 1 { usage } else { None };
        if own.is_none() {
            self.usage = usage.or(self.usage);
        }
        if choices.is_empty() {
            return Ok(Vec::new());
        }
        let choices = choices.into_iter().map(|choice| self.choice(choice, own));
        let choices = choices.collect::<Result<_, _>>()?;
        let head = self.head.get_or_insert_with(|| chunk.head(&self.context));
        let null = self.context.asked.include_usage.then_some(None);
        Ok(json::to_event(&head.completion(
            &self.context,
            choices,
            null,
        )))
    }

    fn choice<'a>(
        &mut self,
        choice: EngineChoice<'a>,
        usage: Option<Usage>,
    ) -> Result<Choice<'a>, LevelError> {
        let index = choice.index.unwrap_or(0);
        if self.choices.len() >= MAX_CHOICES && !self.choices.contains_key(&index) {
            return Err(LevelError::TooManyChoices);
        }
        let state = self.choices.entry(index).or_default();
        let is_end = choice.finish_reason.is_some();
        let (choice, tokens) = match self.context.asked.endpoint {
            Endpoint::ChatCompletions => state.delta(choice, index)?,
            _ => state.text(choice, index)?,
        };
        state.finished |= is_end;
        state.usage = usage.or(state.usage);
        self.counted = self
            .counted
            .saturating_add(u64::try_from(tokens).unwrap_or(u64::MAX));
        Ok(choice)
    }

    /// The sum of what the choices used, where the engine counts each by itself.
    ///
    /// Choices of one prompt share it: its tokens count once.
    fn sum_of_choices(&self) -> Option<Usage> {
        let counted = self
            .choices
            .iter()
            .filter_map(|(index, state)| Some((*index, state.usage?)));
        let mut sum: Option<Usage> = None;
        for (index, usage) in counted {
            let shares_prompt = index.checked_rem(self.context.asked.n) != Some(0);
            let sum = sum.get_or_insert_default();
            sum.add(&usage, !shares_prompt);
        }
        sum
    }

    fn all_finished(&self) -> bool {
        let seen = u64::try_from(self.choices.len()).unwrap_or(u64::MAX);
        seen >= self.context.asked.choices() && self.choices.values().all(|choice| choice.finished)
    }
}

#[cfg(test)]
mod tests;
