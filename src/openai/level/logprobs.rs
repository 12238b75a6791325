//! Log probabilities, from either shape that engines use to the legacy one of completions, and
//! within the shape of chats.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

use crate::openai::json::{Number, Text};

/// Logprobs as an engine sends them: the members of the chat shape, or those of the legacy one.
#[derive(Deserialize)]
pub(super) struct EngineLogprobs<'a> {
    #[serde(borrow)]
    content: Option<Vec<ChatToken<'a>>>,
    #[serde(borrow)]
    tokens: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    token_logprobs: Option<Vec<Option<Number<'a>>>>,
    #[serde(borrow)]
    top_logprobs: Option<Vec<Option<Alternatives<'a>>>>,
    text_offset: Option<Vec<u64>>,
}

/// One token in the chat shape.
#[derive(Deserialize)]
struct ChatToken<'a> {
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    logprob: Option<Number<'a>>,
    bytes: Option<Vec<u8>>,
    #[serde(borrow)]
    top_logprobs: Option<Vec<ChatAlternative<'a>>>,
}

#[derive(Deserialize)]
struct ChatAlternative<'a> {
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    logprob: Option<Number<'a>>,
    bytes: Option<Vec<u8>>,
}

/// The contract's shape of a completion's. The first entries of an echoed prompt are null.
#[derive(Serialize)]
pub(super) struct Logprobs<'a> {
    tokens: Vec<Text<'a>>,
    token_logprobs: Vec<Option<Number<'a>>>,
    top_logprobs: Vec<Option<Alternatives<'a>>>,
    text_offset: Vec<u64>,
}

/// The contract's shape of a chat's.
#[derive(Serialize)]
pub(super) struct ChatLogprobs<'a> {
    content: Vec<Token<'a>>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct Token<'a> {
    token: Text<'a>,
    #[serde(serialize_with = "or_unlikely")]
    logprob: Option<Number<'a>>,
    bytes: Option<Vec<u8>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Token<'a>>>,
}

/// OpenAI writes this number where it has none.
fn or_unlikely<S: Serializer>(logprob: &Option<Number<'_>>, to: S) -> Result<S::Ok, S::Error> {
    match logprob {
        Some(logprob) => logprob.serialize(to),
        None => to.serialize_f64(-9999.0),
    }
}

impl ChatLogprobs<'_> {
    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.content.len()
    }
}

impl<'a> EngineLogprobs<'a> {
    /// The shape of chats, or `None` if there are no tokens in it.
    pub(super) fn chat(self) -> Option<ChatLogprobs<'a>> {
        let content = self.content?.into_iter().map(|it| {
            let top = it.top_logprobs.unwrap_or_default().into_iter();
            let top = top.map(|it| Token {
                token: it.token,
                logprob: it.logprob,
                bytes: it.bytes,
                top_logprobs: None,
            });
            Token {
                token: it.token,
                logprob: it.logprob,
                bytes: it.bytes,
                top_logprobs: Some(top.collect()),
            }
        });
        Some(ChatLogprobs {
            content: content.collect(),
            refusal: None,
        })
    }

    /// The contract's shape of completions, or `None` if there are no tokens in either.
    ///
    /// `start` is how many characters of the choice's text came before.
    pub(super) fn level(self, start: u64) -> Option<Logprobs<'a>> {
        if let Some(content) = self.content {
            return Some(from_chat(content, start));
        }
        let tokens = self.tokens?;
        let offsets = self
            .text_offset
            .filter(|offsets| offsets.len() == tokens.len());
        let top = self.top_logprobs.unwrap_or_else(|| {
            tokens
                .iter()
                .map(|_| Some(Alternatives(Vec::new())))
                .collect()
        });
        Some(Logprobs {
            text_offset: offsets.unwrap_or_else(|| text_offsets(&tokens, start)),
            token_logprobs: self
                .token_logprobs
                .unwrap_or_else(|| vec![None; tokens.len()]),
            top_logprobs: top,
            tokens,
        })
    }
}

impl Logprobs<'_> {
    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

fn from_chat(content: Vec<ChatToken<'_>>, start: u64) -> Logprobs<'_> {
    let mut tokens = Vec::with_capacity(content.len());
    let mut token_logprobs = Vec::with_capacity(content.len());
    let mut top_logprobs = Vec::with_capacity(content.len());
    for ChatToken {
        token,
        logprob,
        bytes: _,
        top_logprobs: top,
    } in content
    {
        let mut alternatives = Alternatives(Vec::new());
        for ChatAlternative { token, logprob, .. } in top.unwrap_or_default() {
            if let Some(logprob) = logprob {
                alternatives.insert(token.0, logprob);
            }
        }
        // The token that was chosen is always among the legacy shape's alternatives.
        if let Some(logprob) = logprob {
            alternatives.insert(token.0.clone(), logprob);
        }
        tokens.push(token);
        token_logprobs.push(logprob);
        top_logprobs.push(Some(alternatives));
    }
    let text_offset = text_offsets(&tokens, start);
    Logprobs {
        tokens,
        token_logprobs,
        top_logprobs,
        text_offset,
    }
}

/// Where each token begins in the choice's text, in characters.
fn text_offsets(tokens: &[Text<'_>], start: u64) -> Vec<u64> {
    tokens
        .iter()
        .scan(start, |at, token| {
            let offset = *at;
            *at = at.saturating_add(characters(&token.0));
            Some(offset)
        })
        .collect()
}

/// The length of a text in characters, as `text_offset` counts.
pub(super) fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

/// Tokens that could have stood there, each once, in the engine's order.
struct Alternatives<'a>(Vec<(Cow<'a, str>, Number<'a>)>);

impl<'a> Alternatives<'a> {
    /// Adds one. Tokens that are parts of a character can look alike: the likeliest comes first.
    fn insert(&mut self, token: Cow<'a, str>, logprob: Number<'a>) {
        if !self.0.iter().any(|(known, _)| *known == token) {
            self.0.push((token, logprob));
        }
    }
}

impl Serialize for Alternatives<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Alternatives<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Alternatives<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Alternatives<'de>, A::Error> {
                let mut alternatives = Alternatives(Vec::new());
                while let Some((Text(token), logprob)) =
                    map.next_entry::<_, Option<Number<'_>>>()?
                {
                    if let Some(logprob) = logprob {
                        alternatives.insert(token, logprob);
                    }
                }
                Ok(alternatives)
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}
