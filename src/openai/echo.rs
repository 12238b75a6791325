//! The built-in engine: it repeats the prompt's words, and says so.
//!
//! For demonstrations and tests, where no model is at hand. A token is a word with the blanks
//! before it. Every choice repeats its prompt from the beginning, until its words or `max_tokens`
//! are used up or a stop sequence comes. What it makes is in the contract's own form.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::{CompletionRequest, RequestError, Usage, json, json::Text, sse};

/// The name of its one model.
pub const MODEL: &str = "echo";

/// Its `system_fingerprint`.
pub const FINGERPRINT: &str = "sealgate-echo";

/// Most choices in one reply.
const MAX_CHOICES: u64 = 1024;

/// Most bytes of text in one reply.
const MAX_TEXT: usize = 32 * 1024 * 1024;

/// The answer to one request, ready to be given whole or as a stream.
pub struct Echo {
    id: String,
    created: u64,
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

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    prompt: Prompt<'a>,
    echo: Option<bool>,
    logprobs: Option<u8>,
    #[serde(borrow)]
    stop: Option<Stop<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Texts(#[serde(borrow)] Vec<Text<'a>>),
    Tokens(Vec<u32>),
    TokenArrays(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop<'a> {
    One(#[serde(borrow)] Text<'a>),
    Some(#[serde(borrow)] Vec<Text<'a>>),
}

#[derive(Serialize)]
struct Reply<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'static str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    system_fingerprint: &'static str,
}

#[derive(Serialize)]
struct Choice<'a> {
    text: Cow<'a, str>,
    index: u32,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
}

/// It is always sure of itself.
#[derive(Serialize)]
struct Logprobs<'a> {
    tokens: &'a [String],
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<std::collections::BTreeMap<&'a str, f32>>,
    text_offset: Vec<usize>,
}

impl Echo {
    /// Answers a request. `id` and `created` go into the reply.
    ///
    /// # Errors
    /// [`RequestError`] if the reply would be larger than this engine makes.
    pub fn new(
        request: &CompletionRequest,
        id: String,
        created: u64,
    ) -> Result<Self, RequestError> {
        if request.choices() > MAX_CHOICES {
            return Err(RequestError::invalid("n", "at most 1024 choices in all"));
        }
        let members: Members<'_> =
            serde_json::from_slice(request.body()).map_err(|_| RequestError::InvalidJson)?;
        let stops = stops(members.stop);
        let limit = usize::try_from(request.max_tokens()).unwrap_or(usize::MAX);
        let mut echo = Self {
            id,
            created,
            choices: Vec::new(),
            with_logprobs: members.logprobs.is_some(),
            stream: request.stream(),
            include_usage: request.include_usage(),
            usage: Usage::default(),
        };
        let mut size = 0_usize;
        for prompt in prompts(members.prompt) {
            let words = words(&prompt);
            let (made, finish_reason) = answer(&words, limit, &stops);
            let echoed = if members.echo == Some(true) {
                words.clone()
            } else {
                Vec::new()
            };
            echo.usage.add(&Usage::new(count(&words), 0), true);
            for _ in 0..request.n() {
                echo.usage.add(&Usage::new(0, count(&made)), false);
                let tokens = [&echoed[..], &made[..]].concat();
                size = size.saturating_add(tokens.iter().map(String::len).sum());
                if size > MAX_TEXT {
                    return Err(RequestError::invalid(
                        "prompt",
                        "shorter for so many choices",
                    ));
                }
                echo.choices.push(Answer {
                    tokens,
                    finish_reason,
                });
            }
        }
        Ok(echo)
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
        let choices = (0..).zip(&self.choices).map(|(index, answer)| Choice {
            text: answer.tokens.concat().into(),
            index,
            logprobs: self.with_logprobs.then(|| logprobs(&answer.tokens, 0)),
            finish_reason: Some(answer.finish_reason),
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
        let texts = answer.tokens.chunks(1).scan(0, move |offset, token| {
            let start = *offset;
            *offset += token.concat().chars().count();
            Some(Choice {
                text: token.concat().into(),
                index,
                logprobs: self.with_logprobs.then(|| logprobs(token, start)),
                finish_reason: None,
            })
        });
        let end = Choice {
            text: Cow::Borrowed(""),
            index,
            logprobs: None,
            finish_reason: Some(answer.finish_reason),
        };
        let null = self.include_usage.then_some(None);
        texts
            .chain(std::iter::once(end))
            .map(move |choice| json::to_event(&self.object(vec![choice], null)))
    }

    fn object<'a>(&'a self, choices: Vec<Choice<'a>>, usage: Option<Option<Usage>>) -> Reply<'a> {
        Reply {
            id: &self.id,
            object: "text_completion",
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

fn prompts(prompt: Prompt<'_>) -> Vec<String> {
    let numbers = |tokens: Vec<u32>| {
        tokens
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    match prompt {
        Prompt::Text(text) => vec![text.0.into_owned()],
        Prompt::Texts(texts) => texts.into_iter().map(|text| text.0.into_owned()).collect(),
        Prompt::Tokens(tokens) => vec![numbers(tokens)],
        Prompt::TokenArrays(arrays) => arrays.into_iter().map(numbers).collect(),
    }
}

fn stops(stop: Option<Stop<'_>>) -> Vec<String> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Some(stops)) => stops,
    };
    stops
        .into_iter()
        .map(|stop| stop.0.into_owned())
        .filter(|stop| !stop.is_empty())
        .collect()
}

/// Cuts a text before the blanks that begin each word; together the parts are the text.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_word = true;
    for character in text.chars() {
        let blank = character.is_whitespace();
        match words.last_mut() {
            Some(word) if !(blank && in_word) => word.push(character),
            _ => words.push(character.into()),
        }
        in_word = !blank;
    }
    words
}

/// The tokens made, and why they end.
fn answer(words: &[String], limit: usize, stops: &[String]) -> (Vec<String>, &'static str) {
    let mut made = words.to_vec();
    let mut finish_reason = "stop";
    if made.len() > limit {
        made.truncate(limit);
        finish_reason = "length";
    }
    let text = made.concat();
    let Some(mut left) = stops.iter().filter_map(|stop| text.find(stop)).min() else {
        return (made, finish_reason);
    };
    let kept = made.into_iter().map_while(|mut word| {
        let room = left;
        left = left.saturating_sub(word.len());
        word.truncate(room);
        (room > 0).then_some(word)
    });
    (kept.collect(), "stop")
}

fn count(words: &[String]) -> u64 {
    u64::try_from(words.len()).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::{
        level::{level_reply, test_context},
        sse::ReplyEvents,
    };

    fn echo(members: &Value) -> Echo {
        let mut body = json!({"model": "echo", "prompt": "one two  three\n"});
        body.as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        let request = CompletionRequest::parse(body.to_string().into()).unwrap();
        Echo::new(&request, "cmpl-1".to_owned(), 7).unwrap()
    }

    fn texts(echo: &Echo) -> Vec<(String, String)> {
        let reply: Value = serde_json::from_slice(&echo.reply()).unwrap();
        let choices = reply["choices"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        choices
            .map(|choice| (text(&choice["text"]), text(&choice["finish_reason"])))
            .collect()
    }

    #[test]
    fn it_repeats_words_within_the_callers_limits() {
        let cases = [
            (json!({}), vec![("one two  three\n", "stop")], (4, 4)),
            (
                json!({"max_tokens": 2}),
                vec![("one two", "length")],
                (4, 2),
            ),
            (json!({"max_tokens": 0}), vec![("", "length")], (4, 0)),
            (
                json!({"max_tokens": 0, "echo": true}),
                vec![("one two  three\n", "length")],
                (4, 0),
            ),
            (
                json!({"max_tokens": 1, "echo": true}),
                vec![("one two  three\none", "length")],
                (4, 1),
            ),
            (
                json!({"n": 2, "max_tokens": 1}),
                vec![("one", "length"); 2],
                (4, 2),
            ),
            (json!({"stop": "wo"}), vec![("one t", "stop")], (4, 2)),
            (
                json!({"stop": ["three", "two"]}),
                vec![("one ", "stop")],
                (4, 2),
            ),
            (json!({"stop": ["one", "x"]}), vec![("", "stop")], (4, 0)),
            (
                json!({"stop": ["", "x"], "max_tokens": 1}),
                vec![("one", "length")],
                (4, 1),
            ),
            (json!({"prompt": ""}), vec![("", "stop")], (0, 0)),
            (
                json!({"prompt": ["a b", "c"]}),
                vec![("a b", "stop"), ("c", "stop")],
                (3, 3),
            ),
            (json!({"prompt": [5, 60]}), vec![("5 60", "stop")], (2, 2)),
            (
                json!({"prompt": [[5], [6, 7]]}),
                vec![("5", "stop"), ("6 7", "stop")],
                (3, 3),
            ),
            (
                json!({"prompt": "\u{1F600} é"}),
                vec![("\u{1F600} é", "stop")],
                (2, 2),
            ),
        ];
        for (members, expected, (prompt, completion)) in cases {
            let echo = echo(&members);
            let expected = expected
                .iter()
                .map(|(text, why)| ((*text).into(), (*why).into()));
            assert_eq!(texts(&echo), expected.collect::<Vec<_>>(), "{members}");
            assert_eq!(echo.usage(), Usage::new(prompt, completion), "{members}");
        }
    }

    #[test]
    fn it_says_what_it_is() {
        let reply: Value = serde_json::from_slice(&echo(&json!({})).reply()).unwrap();
        assert_eq!(reply["model"], "echo");
        assert_eq!(reply["system_fingerprint"], "sealgate-echo");
        assert_eq!(
            (&reply["id"], &reply["created"]),
            (&json!("cmpl-1"), &json!(7))
        );
    }

    #[test]
    fn a_stream_holds_the_same_as_the_whole() {
        for members in [
            json!({"stream": true}),
            json!({"stream": true, "n": 2, "stop": "thr", "logprobs": 0}),
            json!({"stream": true, "stream_options": {"include_usage": true}, "prompt": ["a", "é b"]}),
        ] {
            let echo = echo(&members);
            assert!(echo.stream());
            let all = echo.events().collect::<Vec<_>>().concat();
            let given = ReplyEvents::new().finish(&all).unwrap();
            assert_eq!(given, all, "valid, and without comments");
            let mut texts_of = vec![String::new(); texts(&echo).len()];
            let mut usage = None;
            for event in str::from_utf8(&all).unwrap().split_terminator("\n\n") {
                let data = event.strip_prefix("data: ").unwrap();
                if data == "[DONE]" {
                    continue;
                }
                let chunk: Value = serde_json::from_str(data).unwrap();
                for choice in chunk["choices"].as_array().unwrap() {
                    let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
                    texts_of[index].push_str(choice["text"].as_str().unwrap());
                }
                usage = chunk.get("usage").cloned();
            }
            let whole = texts(&echo)
                .into_iter()
                .map(|(text, _)| text)
                .collect::<Vec<_>>();
            assert_eq!(texts_of, whole, "{members}");
            let asked = members.get("stream_options").is_some();
            let expected = asked.then(|| serde_json::to_value(echo.usage()).unwrap());
            assert_eq!(usage, expected, "{members}");
        }
    }

    #[test]
    fn logprobs_are_of_the_legacy_shape() {
        let reply: Value =
            serde_json::from_slice(&echo(&json!({"prompt": "é b", "logprobs": 1})).reply())
                .unwrap();
        let expected = json!({
            "tokens": ["é", " b"], "token_logprobs": [0.0, 0.0],
            "top_logprobs": [{"é": 0.0}, {" b": 0.0}], "text_offset": [0, 1],
        });
        assert_eq!(reply["choices"][0]["logprobs"], expected);
    }

    #[test]
    fn what_would_be_too_large_is_refused() {
        let long = "x".repeat(MAX_TEXT / 1000);
        for (body, param) in [
            (json!({"model": "echo", "prompt": "x", "n": 1025}), "n"),
            (
                json!({"model": "echo", "prompt": long, "n": 1024}),
                "prompt",
            ),
        ] {
            let request = CompletionRequest::parse(body.to_string().into()).unwrap();
            let error = Echo::new(&request, String::new(), 0).err().unwrap();
            assert_eq!(error.param(), Some(param));
        }
    }

    proptest! {
        #[test]
        fn words_together_are_the_text(text in any::<String>()) {
            prop_assert_eq!(words(&text).concat(), text);
        }

        #[test]
        fn any_prompt_and_stop_make_a_reply_that_levels(
            prompt in any::<String>(),
            stop in any::<String>(),
            max_tokens in 0..20_u32,
        ) {
            let echo = echo(&json!({"prompt": prompt, "stop": stop, "max_tokens": max_tokens}));
            prop_assert!(level_reply(&echo.reply(), &test_context()).is_ok());
        }
    }
}
