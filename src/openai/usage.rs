//! Token counters, as the contract has them: both detail objects, all six counters in them.

use serde::{Deserialize, Serialize};

use super::json;

/// What a request has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens made.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
    /// What the tokens made were.
    #[serde(default)]
    pub completion_tokens_details: CompletionTokensDetails,
    /// What the tokens of the prompt were.
    #[serde(default)]
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What the tokens made were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompletionTokensDetails {
    /// Tokens of a prediction that stood in the completion.
    pub accepted_prediction_tokens: u64,
    /// Tokens of sound.
    pub audio_tokens: u64,
    /// Tokens of reasoning.
    pub reasoning_tokens: u64,
    /// Tokens of a prediction that did not stand in the completion.
    pub rejected_prediction_tokens: u64,
}

/// What the tokens of the prompt were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTokensDetails {
    /// Tokens of sound.
    pub audio_tokens: u64,
    /// Tokens that were in a cache.
    pub cached_tokens: u64,
}

/// A text that is no [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usage object")]
pub struct MalformedUsage;

impl Usage {
    /// The counters that a chunk of a stream tells; `None` if it tells none.
    #[must_use]
    pub fn of_chunk(chunk: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Chunk {
            usage: Option<Usage>,
        }
        serde_json::from_slice::<Chunk>(chunk).ok()?.usage
    }

    /// Counters of a prompt and a completion, without details.
    #[must_use]
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            ..Self::default()
        }
    }

    /// Adds what another choice used, with its prompt or without.
    pub(super) fn add(&mut self, other: &Self, with_prompt: bool) {
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        if with_prompt {
            let (to, more) = (
                &mut self.prompt_tokens_details,
                &other.prompt_tokens_details,
            );
            add(&mut self.prompt_tokens, other.prompt_tokens);
            add(&mut to.audio_tokens, more.audio_tokens);
            add(&mut to.cached_tokens, more.cached_tokens);
        }
        let (to, more) = (
            &mut self.completion_tokens_details,
            &other.completion_tokens_details,
        );
        add(&mut self.completion_tokens, other.completion_tokens);
        add(
            &mut to.accepted_prediction_tokens,
            more.accepted_prediction_tokens,
        );
        add(&mut to.audio_tokens, more.audio_tokens);
        add(&mut to.reasoning_tokens, more.reasoning_tokens);
        add(
            &mut to.rejected_prediction_tokens,
            more.rejected_prediction_tokens,
        );
        self.total_tokens = self.prompt_tokens.saturating_add(self.completion_tokens);
    }

    /// Reads what [`Self::to_json`] writes: the `sealgate-usage` trailer, a `:usage` comment.
    ///
    /// # Errors
    /// [`MalformedUsage`] for anything but an object with the three counters.
    pub fn from_json(text: &[u8]) -> Result<Self, MalformedUsage> {
        // A derived struct would take an array of its fields, too.
        if !text.starts_with(b"{") {
            return Err(MalformedUsage);
        }
        serde_json::from_slice(text).map_err(|_| MalformedUsage)
    }

    /// The counters as JSON on one line.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json::to_line(self)
    }

    /// The comment that tells a sealer what a stream has used so far, with its line feed.
    #[must_use]
    pub fn to_comment(&self) -> Vec<u8> {
        let mut line = b":usage ".to_vec();
        line.extend(self.to_json());
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_counters_are_written_and_read_back() {
        let usage = Usage::new(3, 4);
        let text = usage.to_json();
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            "{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,\
             \"completion_tokens_details\":{\"accepted_prediction_tokens\":0,\"audio_tokens\":0,\
             \"reasoning_tokens\":0,\"rejected_prediction_tokens\":0},\
             \"prompt_tokens_details\":{\"audio_tokens\":0,\"cached_tokens\":0}}"
        );
        assert_eq!(Usage::from_json(&text), Ok(usage));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"prompt_tokens":-1}"#,
            r#"{"prompt_tokens":1}"#,
            "[1,2,3]",
        ] {
            assert_eq!(
                Usage::from_json(text.as_bytes()),
                Err(MalformedUsage),
                "{text}"
            );
        }
    }
}
