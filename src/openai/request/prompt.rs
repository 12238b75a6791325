//! The four forms of a prompt, and of what is to be embedded.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Unexpected, Visitor},
};
use serde_json::value::RawValue;

use super::{RequestError, members::scalar};

const PROMPT: &str =
    "a string, or an array, not empty, of strings, of tokens (integers from 0), or of token arrays";

/// Checks the prompt, or the input, and counts how many there are.
pub(super) fn count(param: &'static str, value: &RawValue) -> Result<u64, RequestError> {
    if value.get().starts_with('"') {
        return Ok(1);
    }
    scalar::<PromptArray>(param, value, PROMPT).map(|array| array.prompts)
}

/// An array of strings, of tokens, or of token arrays: not empty, not mixed.
struct PromptArray {
    prompts: u64,
}

impl<'de> Deserialize<'de> for PromptArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor;
        impl<'de> Visitor<'de> for ArrayVisitor {
            type Value = PromptArray;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PROMPT)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptArray, A::Error> {
                let first: Element = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let mut count = 1;
                while let Some(next) = seq.next_element::<Element>()? {
                    if next != first {
                        return Err(A::Error::custom("mixed"));
                    }
                    count += 1;
                }
                Ok(PromptArray {
                    prompts: if first == Element::Token { 1 } else { count },
                })
            }
        }
        deserializer.deserialize_seq(ArrayVisitor)
    }
}

/// What an array prompt can hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Text,
    Token,
    Tokens,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PROMPT)
            }

            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Text)
            }

            fn visit_u64<E: serde::de::Error>(self, token: u64) -> Result<Element, E> {
                match i32::try_from(token) {
                    Ok(_) => Ok(Element::Token),
                    Err(_) => Err(E::invalid_value(Unexpected::Unsigned(token), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut tokens = 0_u64;
                while let Some(element) = seq.next_element::<Element>()? {
                    if element != Element::Token {
                        return Err(A::Error::custom("not a token"));
                    }
                    tokens += 1;
                }
                if tokens == 0 {
                    Err(A::Error::invalid_length(0, &self))
                } else {
                    Ok(Element::Tokens)
                }
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}
