//! JSON as this contract needs it: members with their raw values, no duplicates, one line out.
//!
//! An object is read once into names and untouched values. No tree of a body is ever built.

use std::{borrow::Cow, collections::HashSet, fmt, io};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{ser::Formatter, value::RawValue};

/// Most members that all objects of one text may have together.
///
/// Larger than any model's vocabulary, so that a `logit_bias` may name every token.
pub(super) const MAX_MEMBERS: usize = 1 << 18;

/// Longest member name given back in a path, in bytes; a longer one is written `?`.
const MAX_SEGMENT: usize = 40;

/// Longest path given back, in bytes.
const MAX_PATH: usize = 200;

/// How many names a set compares one by one before it hashes them.
const FEW_NAMES: usize = 16;

/// A string, borrowed where the text has no escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A number exactly as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a>(&'a RawValue);

impl<'de: 'a, 'a> Deserialize<'de> for Number<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let number = raw
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if number {
            Ok(Self(raw))
        } else {
            Err(D::Error::custom("not a number"))
        }
    }
}

impl Serialize for Number<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The members of one object in the order they stand, with their values untouched.
pub(super) struct Members<'a> {
    /// Names as they read after unescaping, and values as they are written.
    pub(super) entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The first member whose name had been there before.
    pub(super) duplicate: Option<Cow<'a, str>>,
    /// There were over [`MAX_MEMBERS`], and the rest was left out.
    pub(super) too_many: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut seen = Names::default();
                let mut members = Members {
                    entries: Vec::new(),
                    duplicate: None,
                    too_many: false,
                };
                while let Some(Text(name)) = map.next_key()? {
                    if members.entries.len() >= MAX_MEMBERS {
                        members.too_many = true;
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if !seen.insert(name.clone()) && members.duplicate.is_none() {
                        members.duplicate = Some(name.clone());
                    }
                    members.entries.push((name, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The names seen in one object: a short list first, a hash set when it grows.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    /// Adds a name; `false` if it was there.
    fn insert(&mut self, name: Cow<'a, str>) -> bool {
        if self.few.len() < FEW_NAMES {
            let new = !self.few.contains(&name);
            if new {
                self.few.push(name);
            }
            return new;
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().cloned());
        }
        self.many.insert(name)
    }
}

/// Why a value was refused by [`check`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Two members of one name; the path to it, in names that are safe to show.
    Duplicate(String),
    /// More than [`MAX_MEMBERS`].
    TooManyMembers,
    /// Not JSON that can be read: too deep, or a number that no double holds.
    Unreadable,
}

/// Checks a value of any shape: no object in it, at any depth, has two members of one name.
///
/// `path` is where the value stands.
pub(super) fn check(path: &str, value: &RawValue) -> Result<(), Flaw> {
    let mut found = None;
    let mut left = MAX_MEMBERS;
    let mut reader = serde_json::Deserializer::from_str(value.get());
    let walk = Walk {
        found: &mut found,
        left: &mut left,
    };
    match (walk.deserialize(&mut reader), found) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(Found::Duplicate(segments))) => {
            Err(Flaw::Duplicate(join(path, segments.into_iter().rev())))
        }
        (Err(_), Some(Found::TooMany)) => Err(Flaw::TooManyMembers),
        (Err(_), None) => Err(Flaw::Unreadable),
    }
}

/// A path of one name, fit to show.
pub(super) fn path_of(name: &str) -> String {
    safe(name).to_owned()
}

/// A name if it looks like one, else `?`: an error must not repeat a text at length.
fn safe(name: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let short = (1..=MAX_SEGMENT).contains(&name.len());
    if short && name.bytes().all(plain) {
        name
    } else {
        "?"
    }
}

fn join(root: &str, segments: impl Iterator<Item = String>) -> String {
    let mut path = root.to_owned();
    for segment in segments {
        if path.len() + segment.len() > MAX_PATH {
            path.push('…');
            break;
        }
        path.push_str(&segment);
    }
    path
}

/// What the walk stopped at, with the path from the inside out.
enum Found {
    Duplicate(Vec<String>),
    TooMany,
}

impl Found {
    fn inside(&mut self, segment: impl FnOnce() -> String) {
        if let Self::Duplicate(segments) = self {
            segments.push(segment());
        }
    }
}

/// Walks over any value and looks for duplicate names.
struct Walk<'s> {
    found: &'s mut Option<Found>,
    left: &'s mut usize,
}

impl Walk<'_> {
    fn again(&mut self) -> Walk<'_> {
        Walk {
            found: self.found,
            left: self.left,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            match seq.next_element_seed(self.again()) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if let Some(found) = self.found {
                        found.inside(|| format!("[{index}]"));
                    }
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(Text(name)) = map.next_key()? {
            let Some(left) = self.left.checked_sub(1) else {
                *self.found = Some(Found::TooMany);
                return Err(A::Error::custom("too many members"));
            };
            *self.left = left;
            if !names.insert(name.clone()) {
                *self.found = Some(Found::Duplicate(vec![format!(".{}", safe(&name))]));
                return Err(A::Error::custom("duplicate member"));
            }
            if let Err(error) = map.next_value_seed(self.again()) {
                if let Some(found) = self.found {
                    found.inside(|| format!(".{}", safe(&name)));
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Whether every `\u` escape of a surrogate in a well-formed text has its other half.
///
/// In well-formed JSON a backslash stands only in strings, so one pass over them is enough.
pub(super) fn surrogates_pair(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (unit, after) = escape(rest.get(at..).unwrap_or_default());
        rest = after;
        match unit {
            Some(0xDC00..=0xDFFF) => return false,
            Some(0xD800..=0xDBFF) => match escape(rest) {
                (Some(0xDC00..=0xDFFF), after) => rest = after,
                _ => return false,
            },
            _ => {}
        }
    }
    true
}

/// Takes one escape off the front: its code unit if it is `\uXXXX`, and what follows.
fn escape(text: &[u8]) -> (Option<u16>, &[u8]) {
    match text {
        [b'\\', b'u', a, b, c, d, rest @ ..] => {
            let digits = [*a, *b, *c, *d];
            let unit = str::from_utf8(&digits)
                .ok()
                .and_then(|s| u16::from_str_radix(s, 16).ok());
            (unit, rest)
        }
        [b'\\', _, rest @ ..] => (None, rest),
        other => (None, other.get(1..).unwrap_or_default()),
    }
}

/// Writes a value on one line.
///
/// Beside line feeds, which JSON escapes by itself, no other character at which some clients break
/// lines stands in it raw: U+0085, U+2028 and U+2029 are escaped.
pub(super) fn to_line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    write_line(&mut line, value);
    line
}

/// Writes a value as one server-sent event.
pub(super) fn to_event<T: Serialize>(value: &T) -> Vec<u8> {
    let mut event = Vec::with_capacity(256);
    event.extend_from_slice(b"data: ");
    write_line(&mut event, value);
    event.extend_from_slice(b"\n\n");
    event
}

fn write_line<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    let mut serializer = serde_json::Serializer::with_formatter(out, OneLine);
    let written = value.serialize(&mut serializer);
    debug_assert!(
        written.is_ok(),
        "a buffer takes all, and no key is other than a string"
    );
}

struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, escape, len)) = line_break(rest) {
            let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
            writer.write_all(before.as_bytes())?;
            writer.write_all(escape)?;
            rest = after.get(len..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    /// What stands in an engine's text between its values may be line breaks: they are left out.
    fn write_raw_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for line in fragment.split(['\n', '\r']) {
            self.write_string_fragment(writer, line)?;
        }
        Ok(())
    }
}

/// The first line break beyond ASCII: where it is, how it is escaped, how long it is in bytes.
fn line_break(text: &str) -> Option<(usize, &'static [u8], usize)> {
    let bytes = text.as_bytes();
    memchr::memchr2_iter(0xC2, 0xE2, bytes).find_map(|at| match bytes.get(at..)? {
        [0xC2, 0x85, ..] => Some((at, &b"\\u0085"[..], 2)),
        [0xE2, 0x80, 0xA8, ..] => Some((at, &b"\\u2028"[..], 3)),
        [0xE2, 0x80, 0xA9, ..] => Some((at, &b"\\u2029"[..], 3)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(text: &str) -> Result<(), Flaw> {
        check("x", serde_json::from_str(text).unwrap())
    }

    #[test]
    fn duplicates_are_found_at_every_depth() {
        let dup = |path: &str| Err(Flaw::Duplicate(path.to_owned()));
        let many = (0..40).map(|i| format!("\"k{i}\":1,")).collect::<String>();
        let cases = [
            ("{}".to_owned(), Ok(())),
            (r#"{"a":{"a":{"a":1}}}"#.to_owned(), Ok(())),
            (r#"[{"a":1},{"a":1}]"#.to_owned(), Ok(())),
            (r#"{"a":1,"a":1}"#.to_owned(), dup("x.a")),
            (r#"{"a":1,"\u0061":1}"#.to_owned(), dup("x.a")),
            (
                r#"{"b":[0,{"c":{"d":1,"e":2,"d":3}}]}"#.to_owned(),
                dup("x.b[1].c.d"),
            ),
            (
                r#"{"my secret":{"s s":1,"s s":2}}"#.to_owned(),
                dup("x.?.?"),
            ),
            (r#"{"":0,"":1}"#.to_owned(), dup("x.?")),
            (format!("{{{many}\"last\":1}}"), Ok(())),
            (format!("{{{many}\"k3\":1}}"), dup("x.k3")),
            (format!("{{{many}\"k39\":1}}"), dup("x.k39")),
            ("1e999".to_owned(), Err(Flaw::Unreadable)),
            (format!("{}{}", "[".repeat(127), "]".repeat(127)), Ok(())),
            (
                format!("{}{}", "[".repeat(128), "]".repeat(128)),
                Err(Flaw::Unreadable),
            ),
            (
                format!("{}{}", "[".repeat(99_999), "]".repeat(99_999)),
                Err(Flaw::Unreadable),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                checked(&text),
                expected,
                "{}",
                text.get(..40).unwrap_or(&text)
            );
        }
    }

    #[test]
    fn paths_stay_short() {
        let deep = (0..100).fold(r#"{"k":1,"k":2}"#.to_owned(), |inner, i| {
            format!(r#"{{"a_rather_long_member_name_{i}":{inner}}}"#)
        });
        let Err(Flaw::Duplicate(path)) = checked(&deep) else {
            panic!("not found")
        };
        assert!(
            path.len() <= MAX_PATH + '…'.len_utf8() && path.ends_with('…'),
            "{path}"
        );
    }

    #[test]
    fn members_in_all_objects_are_counted_together() {
        let half = (0..=MAX_MEMBERS / 2)
            .map(|i| format!("\"{i}\":0"))
            .collect::<Vec<_>>();
        let half = half.join(",");
        assert_eq!(checked(&format!("{{{half}}}")), Ok(()));
        assert_eq!(
            checked(&format!("[{{{half}}},{{{half}}}]")),
            Err(Flaw::TooManyMembers)
        );
    }

    #[test]
    fn line_breaks_of_all_kinds_are_escaped() {
        let text = "a\nb\r\u{85}c\u{2028}\u{2029}d\u{2027}é…\u{1F600}\u{c2}";
        let line = String::from_utf8(to_line(&text)).unwrap();
        assert_eq!(
            line,
            "\"a\\nb\\r\\u0085c\\u2028\\u2029d\u{2027}é…\u{1F600}\u{c2}\""
        );
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn values_that_are_kept_as_they_stand_are_put_on_one_line() {
        let raw = "{\n  \"a\": [1,\r\n 2.50],\r \"b\\n\": \"x\u{2028}y\" }";
        let raw: &RawValue = serde_json::from_str(raw).unwrap();
        let line = String::from_utf8(to_line(&[raw])).unwrap();
        assert_eq!(line, "[{  \"a\": [1, 2.50], \"b\\n\": \"x\\u2028y\" }]");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_on_one_line(text in any::<String>()) {
            let line = String::from_utf8(to_line(&text)).unwrap();
            let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
            prop_assert!(!line.contains(breaks));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }

        /// serde_json's own decoder is the oracle.
        #[test]
        fn lone_surrogates_are_those_that_do_not_decode(
            units in proptest::collection::vec(
                prop_oneof![
                    Just("\\ud83d"), Just("\\uDE00"), Just("\\ude00"), Just("\\uD800"),
                    Just("\\\\"), Just("\\n"), Just("u"), Just("d83d"), Just("x"), Just("\\u0041"),
                    Just("é"),
                ],
                0..8,
            )
        ) {
            let text = format!("\"{}\"", units.concat());
            prop_assert_eq!(
                surrogates_pair(&text),
                serde_json::from_str::<String>(&text).is_ok(),
                "{}", text
            );
        }
    }
}
