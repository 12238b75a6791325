//! The types and ranges of single members.
//!
//! Every value here is known to be well-formed JSON, so that an error is one of type or range.

use std::{fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MAX_MODEL, RequestError};
use crate::openai::json::{self, Flaw, Text};

/// What an integer member must be.
pub(super) const FROM_0: &str = "a 32-bit integer from 0";
pub(super) const FROM_1: &str = "a 32-bit integer from 1";

/// Most stop sequences.
const MAX_STOPS: usize = 4;

/// What a body, or a member, of too many members must be.
pub(super) const FEWER: &str = "an object of fewer members";

#[derive(Clone, Copy)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    pub(super) include_obfuscation: Option<bool>,
}

/// Reads one value.
pub(super) fn scalar<'a, T: Deserialize<'a>>(
    param: &'static str,
    value: &'a RawValue,
    expected: &'static str,
) -> Result<T, RequestError> {
    serde_json::from_str(value.get()).map_err(|_| RequestError::invalid(param, expected))
}

pub(super) fn boolean(param: &'static str, value: &RawValue) -> Result<bool, RequestError> {
    scalar(param, value, "true or false")
}

pub(super) fn integer(
    param: &'static str,
    value: &RawValue,
    least: i32,
    expected: &'static str,
) -> Result<u32, RequestError> {
    let given = scalar::<i32>(param, value, expected)?;
    match u32::try_from(given) {
        Ok(unsigned) if given >= least => Ok(unsigned),
        _ => Err(RequestError::invalid(param, expected)),
    }
}

pub(super) fn number(
    param: &'static str,
    value: &RawValue,
    range: RangeInclusive<f64>,
    expected: &'static str,
) -> Result<(), RequestError> {
    let given = scalar::<f64>(param, value, expected)?;
    if range.contains(&given) {
        Ok(())
    } else {
        Err(RequestError::invalid(param, expected))
    }
}

/// Checks for a string without copying it: the grammar and the escapes were checked before.
pub(super) fn string(param: &'static str, value: &RawValue) -> Result<(), RequestError> {
    let is_string = value.get().starts_with('"');
    if is_string {
        Ok(())
    } else {
        Err(RequestError::invalid(param, "a string"))
    }
}

/// How many alternatives to show for each token.
pub(super) fn alternatives(param: &'static str, value: &RawValue) -> Result<(), RequestError> {
    const EXPECTED: &str = "an integer from 0 to 20";
    let given = scalar::<u32>(param, value, EXPECTED)?;
    if given <= 20 {
        Ok(())
    } else {
        Err(RequestError::invalid(param, EXPECTED))
    }
}

pub(super) fn seed(value: &RawValue) -> Result<(), RequestError> {
    scalar::<i64>("seed", value, "a 64-bit integer").map(drop)
}

pub(super) fn model(value: &RawValue) -> Result<String, RequestError> {
    const EXPECTED: &str = "a string of 1 to 256 characters";
    // Two escapes are the most that one character takes.
    if value.get().len() > MAX_MODEL * 12 + 2 {
        return Err(RequestError::invalid("model", EXPECTED));
    }
    let name: String = scalar("model", value, EXPECTED)?;
    if (1..=MAX_MODEL).contains(&name.chars().count()) {
        Ok(name)
    } else {
        Err(RequestError::invalid("model", EXPECTED))
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T, const N: usize>(
    param: &'static str,
    value: &RawValue,
    choices: [(&str, T); N],
    expected: &'static str,
) -> Result<T, RequestError> {
    let word: Text<'_> =
        serde_json::from_str(value.get()).map_err(|_| RequestError::invalid(param, expected))?;
    choices
        .into_iter()
        .find_map(|(name, choice)| (word.0 == name).then_some(choice))
        .ok_or_else(|| RequestError::invalid(param, expected))
}

/// Reads the members of an object that matter; a derived struct would take an array of them, too.
pub(super) fn object<'a, T: Deserialize<'a>>(
    at: &str,
    value: &'a RawValue,
    expected: &'static str,
) -> Result<T, RequestError> {
    let read = serde_json::from_str(value.get());
    match read {
        Ok(object) if value.get().starts_with('{') => Ok(object),
        _ => Err(RequestError::invalid(at.to_owned(), expected)),
    }
}

/// Reads the elements of an array, each untouched.
pub(super) fn array<'a>(
    at: &str,
    value: &'a RawValue,
    expected: &'static str,
) -> Result<Vec<&'a RawValue>, RequestError> {
    serde_json::from_str(value.get()).map_err(|_| RequestError::invalid(at.to_owned(), expected))
}

/// Checks a value of any shape for duplicates in it.
pub(super) fn no_duplicates(path: &str, value: &RawValue) -> Result<(), RequestError> {
    json::check(path, value).map_err(|flaw| match flaw {
        Flaw::Duplicate(path) => RequestError::DuplicateMember(path),
        Flaw::TooManyMembers => RequestError::invalid(path.to_owned(), FEWER),
        Flaw::Unreadable => RequestError::InvalidJson,
    })
}

pub(super) fn stream_options(value: &RawValue) -> Result<StreamOptions, RequestError> {
    #[derive(Deserialize)]
    struct Options<'a> {
        #[serde(borrow)]
        include_usage: Option<&'a RawValue>,
        #[serde(borrow)]
        include_obfuscation: Option<&'a RawValue>,
    }
    no_duplicates("stream_options", value)?;
    if !value.get().starts_with('{') {
        return Err(RequestError::invalid("stream_options", "an object"));
    }
    let options: Options<'_> = scalar("stream_options", value, "an object")?;
    let choice = |name, value: Option<&RawValue>| {
        value
            .filter(|value| value.get() != "null")
            .map(|value| boolean(name, value))
            .transpose()
    };
    let usage = choice("stream_options.include_usage", options.include_usage)?;
    let obfuscation = choice(
        "stream_options.include_obfuscation",
        options.include_obfuscation,
    )?;
    Ok(StreamOptions {
        include_usage: usage.unwrap_or(false),
        include_obfuscation: obfuscation,
    })
}

pub(super) fn logit_bias(value: &RawValue) -> Result<(), RequestError> {
    struct Biases;
    impl<'de> Deserialize<'de> for Biases {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Self)
        }
    }
    impl<'de> Visitor<'de> for Biases {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
            while let Some((IgnoredAny, bias)) = map.next_entry::<IgnoredAny, f64>()? {
                if !(-100.0..=100.0).contains(&bias) {
                    return Err(A::Error::custom("out of range"));
                }
            }
            Ok(self)
        }
    }
    if !value.get().starts_with('{') {
        return Err(RequestError::invalid("logit_bias", BIASES));
    }
    no_duplicates("logit_bias", value)?;
    scalar::<Biases>("logit_bias", value, BIASES).map(drop)
}

const BIASES: &str = "an object of numbers from -100 to 100";

pub(super) fn stop(value: &RawValue) -> Result<(), RequestError> {
    const EXPECTED: &str = "a string or an array of at most 4 strings";
    if value.get().starts_with('"') {
        return Ok(());
    }
    let mut strings = 0;
    let mut array = serde_json::Deserializer::from_str(value.get());
    let read = array.deserialize_seq(Stops(&mut strings));
    match read {
        Ok(()) => Ok(()),
        // The first that is no string stands after `strings` good ones.
        Err(_) if value.get().starts_with('[') && strings < MAX_STOPS => Err(
            RequestError::invalid(format!("stop[{strings}]"), "a string"),
        ),
        Err(_) => Err(RequestError::invalid("stop", EXPECTED)),
    }
}

/// Counts the strings of an array, at most [`MAX_STOPS`].
struct Stops<'s>(&'s mut usize);

impl<'de> Visitor<'de> for Stops<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of at most 4 strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while *self.0 < MAX_STOPS {
            if seq.next_element::<Text<'_>>()?.is_none() {
                return Ok(());
            }
            *self.0 += 1;
        }
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(IgnoredAny) => Err(A::Error::custom("too many")),
        }
    }
}
