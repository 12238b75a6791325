//! The built-in engine: it repeats the prompt's words, and says so.
//!
//! For demonstrations and tests, where no model is at hand. A token is a word with the blanks
//! before it. Every choice repeats its prompt, or what the user said last, from the beginning, until
//! its words or `max_tokens` are used up or a stop sequence comes. What it makes is in the contract's
//! own form.

mod members;
mod shapes;
mod vectors;
mod words;

use std::fmt;

pub use self::vectors::embed;
use self::{
    members::{Wanted, read},
    shapes::{Choice, Reply},
    words::{answer, count, words},
};
use super::{Endpoint, Request, RequestError, Usage, json, sse};

/// The name of its one model.
pub const MODEL: &str = "echo";

/// Its `system_fingerprint`.
pub const FINGERPRINT: &str = "sealgate-echo";

/// Most choices in one reply.
const MAX_CHOICES: u64 = 1024;

/// Most bytes of text in one reply.
const MAX_TEXT: usize = 32 * 1024 * 1024;

/// The answer to one request for text, ready to be given whole or as a stream.
pub struct Echo {
    id: String,
    created: u64,
    endpoint: Endpoint,
    choices: Vec<Answer>,
    with_logprobs: bool,
    stream: bool,
    include_usage: bool,
    usage: Usage,
}

/// What one choice answers.
struct Answer {
    /// Tokens, the prompt's first if it is to be echoed.
    tokens: Vec<String>,
    finish_reason: &'static str,
}

impl Echo {
    /// Answers a request. `id` and `created` go into the reply.
    ///
    /// # Errors
    /// [`RequestError`] if the reply would be larger than this engine makes.
    pub fn new(request: &Request, id: String, created: u64) -> Result<Self, RequestError> {
        let asked = request.asked();
        if asked.choices() > MAX_CHOICES {
            return Err(RequestError::invalid("n", "at most 1024 choices in all"));
        }
        let Wanted {
            prompts,
            echo,
            with_logprobs,
            stops,
        } = read(asked.endpoint, request.body())?;
        let limit = asked.max_tokens.and_then(|most| usize::try_from(most).ok());
        let limit = limit.unwrap_or(usize::MAX);
        let mut all = Self {
            id,
            created,
            endpoint: asked.endpoint,
            choices: Vec::new(),
            with_logprobs,
            stream: asked.stream,
            include_usage: asked.include_usage,
            usage: Usage::default(),
        };
        let mut size = 0_usize;
        for prompt in prompts {
            let words = words(&prompt.text);
            let (made, finish_reason) = answer(&words, limit, &stops);
            let echoed: &[String] = if echo { &words } else { &[] };
            let read = count(&words).saturating_add(count(&self::words(&prompt.read)));
            all.usage.add(&Usage::new(read, 0), true);
            for _ in 0..asked.n {
                all.usage.add(&Usage::new(0, count(&made)), false);
                let tokens = [echoed, &made[..]].concat();
                size = size.saturating_add(tokens.iter().map(String::len).sum());
                if size > MAX_TEXT {
                    let param = match asked.endpoint {
                        Endpoint::ChatCompletions => "messages",
                        _ => "prompt",
                    };
                    return Err(RequestError::invalid(param, "shorter for so many choices"));
                }
                all.choices.push(Answer {
                    tokens,
                    finish_reason,
                });
            }
        }
        Ok(all)
    }

    /// Whether a stream was asked for.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// What was used.
    #[must_use]
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// The whole reply's body.
    #[must_use]
    pub fn reply(&self) -> Vec<u8> {
        let choices = (0..)
            .zip(&self.choices)
            .map(|(index, answer)| match self.endpoint {
                Endpoint::ChatCompletions => Choice::message(index, answer, self.with_logprobs),
                _ => {
                    let end = Some(answer.finish_reason);
                    Choice::text(index, &answer.tokens, 0, end, self.with_logprobs)
                }
            });
        json::to_line(&self.object(choices.collect(), Some(Some(self.usage))))
    }

    /// The reply as events, one for each token and one for each choice's end, and `[DONE]`.
    pub fn events(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let chunks = (0..)
            .zip(&self.choices)
            .flat_map(|(index, answer)| self.chunks(index, answer));
        let usage = self
            .include_usage
            .then(|| json::to_event(&self.object(Vec::new(), Some(Some(self.usage)))));
        chunks
            .chain(usage)
            .chain(std::iter::once(sse::END.to_vec()))
    }

    fn chunks<'a>(
        &'a self,
        index: u32,
        answer: &'a Answer,
    ) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        let is_chat = self.endpoint == Endpoint::ChatCompletions;
        let begin = is_chat.then(|| Choice::begin(index));
        let texts = answer.tokens.chunks(1).scan(0, move |offset, token| {
            let start = *offset;
            *offset += token.concat().chars().count();
            Some(if is_chat {
                Choice::delta(index, token, self.with_logprobs)
            } else {
                Choice::text(index, token, start, None, self.with_logprobs)
            })
        });
        let end = Some(answer.finish_reason);
        let end = if is_chat {
            Choice::end(index, end)
        } else {
            Choice::text(index, &[], 0, end, false)
        };
        let null = self.include_usage.then_some(None);
        begin
            .into_iter()
            .chain(texts)
            .chain(std::iter::once(end))
            .map(move |choice| json::to_event(&self.object(vec![choice], null)))
    }

    fn object<'a>(&'a self, choices: Vec<Choice<'a>>, usage: Option<Option<Usage>>) -> Reply<'a> {
        Reply {
            id: &self.id,
            object: match (self.endpoint, self.stream) {
                (Endpoint::ChatCompletions, true) => "chat.completion.chunk",
                (Endpoint::ChatCompletions, false) => "chat.completion",
                _ => "text_completion",
            },
            created: self.created,
            model: MODEL,
            choices,
            usage,
            system_fingerprint: FINGERPRINT,
        }
    }
}

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
