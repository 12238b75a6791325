//! A strict reader of JSON: no member twice, at any depth, and no type turned into another.
//!
//! A tree and not derived structs, because those also take arrays for objects and let an unknown
//! member repeat. Inputs are bounded by their readers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// What was wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No JSON, a member twice, or nested too deeply.
    #[error("invalid JSON: {0}")]
    Syntax(#[source] serde_json::Error),
    /// A member that must be there is not.
    #[error("member `{0}` is missing")]
    Missing(&'static str),
    /// A member has another type or range than it must.
    #[error("`{member}` is not {expected}")]
    Type {
        /// The member's name.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// A JSON value.
pub(crate) enum Json {
    Null,
    Bool,
    Unsigned(u64),
    /// A negative number, a fraction, or one beyond 64 bits.
    OtherNumber,
    String(String),
    Array(Vec<Json>),
    Object(Members),
}

/// The members of an object, each name once.
#[derive(Default)]
pub(crate) struct Members(BTreeMap<String, Json>);

/// Reads a document whose top is an object.
pub(crate) fn object(bytes: &[u8]) -> Result<Members, JsonError> {
    let json = serde_json::from_slice::<Json>(bytes).map_err(JsonError::Syntax)?;
    json.into_members("document")
}

impl Json {
    pub(crate) fn into_members(self, member: &'static str) -> Result<Members, JsonError> {
        match self {
            Self::Object(members) => Ok(members),
            _ => Err(JsonError::Type {
                member,
                expected: "an object",
            }),
        }
    }

    pub(crate) fn into_array(self, member: &'static str) -> Result<Vec<Self>, JsonError> {
        match self {
            Self::Array(items) => Ok(items),
            _ => Err(JsonError::Type {
                member,
                expected: "an array",
            }),
        }
    }

    pub(crate) fn into_string(self, member: &'static str) -> Result<String, JsonError> {
        match self {
            Self::String(text) => Ok(text),
            _ => Err(JsonError::Type {
                member,
                expected: "a string",
            }),
        }
    }
}

impl Members {
    /// Whether every member was taken out.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a member out, or `None` where it is absent. `null` is a value, not an absence.
    pub(crate) fn optional(&mut self, member: &'static str) -> Option<Json> {
        self.0.remove(member)
    }

    fn required(&mut self, member: &'static str) -> Result<Json, JsonError> {
        self.optional(member).ok_or(JsonError::Missing(member))
    }

    pub(crate) fn string(&mut self, member: &'static str) -> Result<String, JsonError> {
        self.required(member)?.into_string(member)
    }

    pub(crate) fn members(&mut self, member: &'static str) -> Result<Self, JsonError> {
        self.required(member)?.into_members(member)
    }

    pub(crate) fn array(&mut self, member: &'static str) -> Result<Vec<Json>, JsonError> {
        self.required(member)?.into_array(member)
    }

    pub(crate) fn unsigned(&mut self, member: &'static str) -> Result<u64, JsonError> {
        match self.required(member)? {
            Json::Unsigned(number) => Ok(number),
            _ => Err(JsonError::Type {
                member,
                expected: "an unsigned integer",
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members = Members::default();
        while let Some((name, value)) = entries.next_entry::<String, Json>()? {
            if members.0.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_repeated_member_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[[{"a":1,"a":2}]]}"#,
            r#"{"a":1,"\u0061":1}"#,
        ] {
            let error = object(text.as_bytes()).err().map(|e| e.to_string());
            assert!(
                error.is_some_and(|e| e.contains("duplicate member")),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_object() {
        for text in [
            "",
            "[]",
            "null",
            "1",
            "\"a\"",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "{\"a\":1,}",
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(object(deep.as_bytes()).is_err());
    }

    #[test]
    fn types_are_never_coerced() {
        let mut members = object(br#"{"s":1,"u":"1","f":1.0,"n":-1,"a":{},"o":[]}"#).unwrap();
        assert!(members.string("s").is_err());
        assert!(members.unsigned("u").is_err());
        assert!(members.unsigned("f").is_err());
        assert!(members.unsigned("n").is_err());
        assert!(members.array("a").is_err());
        assert!(members.members("o").is_err());
    }
}
