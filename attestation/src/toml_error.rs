//! What a TOML parser says, on one line and in words for whoever writes the file.

use std::fmt;

/// Longest part of a line of the file that is shown, in characters.
const MAX_LINE: usize = 60;
/// Longest message, in characters: a list of all keys of a table has under 600.
const MAX_MESSAGE: usize = 1024;

/// The parser's words, and what they mean to somebody who does not know the program's types; the
/// first that fits is taken.
#[rustfmt::skip]
const WORDS: &[(&str, &str)] = &[
    ("invalid type: map, expected variant identifier", "a table stands where a word in quotes belongs"),
    ("invalid type: map", "a table stands here"),
    ("invalid type: sequence", "a list stands here"),
    ("invalid socket address syntax", "not an IP address and port, such as 127.0.0.1:8080"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a table"),
    ("expected a nonzero u32", "expected a whole number from 1 to 4294967295"),
    ("expected a nonzero u64", "expected a whole number of at least 1"),
    ("expected a nonzero usize", "expected a whole number of at least 1"),
    ("expected u8", "expected a whole number from 0 to 255"),
    ("expected u16", "expected a whole number from 0 to 65535"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number of at least 0"),
    ("expected usize", "expected a whole number of at least 0"),
];

/// What is wrong with a TOML text, and in which line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TomlError {
    line: usize,
    shown: String,
    message: String,
}

impl TomlError {
    /// Of what the parser says of `text`.
    pub fn of(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let newlines = text.bytes().take(start).filter(|byte| *byte == b'\n');
        let at = newlines.count();
        let line = text.lines().nth(at).unwrap_or_default().trim();
        // The parser points at the table that lacks a key, or at the beginning of the file.
        let is_missing = error.message().starts_with("missing field");
        let shown = match is_missing && !line.starts_with('[') {
            true => "",
            false => line,
        };
        Self {
            line: at.saturating_add(1),
            shown: cut(shown, MAX_LINE),
            message: in_words(error.message()),
        }
    }

    /// The same with less of the line: it may hold a secret.
    #[must_use]
    pub fn showing(self, shown: &str) -> Self {
        Self {
            shown: cut(shown, MAX_LINE),
            ..self
        }
    }
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            shown,
            message,
        } = self;
        match shown.as_str() {
            "" => write!(f, "line {line}: {message}"),
            shown => write!(f, "line {line}: `{shown}`: {message}"),
        }
    }
}

impl std::error::Error for TomlError {}

/// A parser's message on one line and without the program's types.
pub fn in_words(message: &str) -> String {
    let one_line = message.trim().replace('\n', ", ");
    let plain = WORDS
        .iter()
        .fold(one_line, |text, (from, to)| match text.strip_suffix(from) {
            Some(before) => format!("{before}{to}"),
            None => text.replace(&format!("{from},"), &format!("{to},")),
        });
    cut(&without_type(&plain), MAX_MESSAGE)
}

/// `expected struct Section` means a table.
fn without_type(message: &str) -> String {
    let Some((before, name)) = message.split_once("expected struct ") else {
        return message.to_owned();
    };
    let after = name.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    format!("{before}expected a table{after}")
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what goes wrong is looked at")]
    struct File {
        small: u8,
        list: Option<Vec<u8>>,
        address: Option<SocketAddr>,
        table: Option<Table>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what goes wrong is looked at")]
    struct Table {
        key: u8,
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line_and_without_types() {
        let long = format!("small = \"{}\"", "x".repeat(7000));
        let cases = [
            (
                "small = 300",
                "line 1: `small = 300`: invalid value: integer `300`, expected a whole number from 0 to 255",
            ),
            (
                "small = 1\nlist = 2",
                "line 2: `list = 2`: invalid type: integer `2`, expected a list",
            ),
            (
                "small = 1\n[list]\na = 1",
                "line 2: `[list]`: a table stands here, expected a list",
            ),
            (
                "small = 1\naddress = \"localhost:1\"",
                "line 2: `address = \"localhost:1\"`: not an IP address and port, such as 127.0.0.1:8080",
            ),
            (
                "small = 1\ntable = 2",
                "line 2: `table = 2`: invalid type: integer `2`, expected a table",
            ),
            ("list = []", "line 1: missing field `small`"),
            (
                "small = 1\n[table]",
                "line 2: `[table]`: missing field `key`",
            ),
        ];
        for (text, expected) in cases {
            let error = toml::from_str::<File>(text).unwrap_err();
            assert_eq!(TomlError::of(text, &error).to_string(), expected);
        }
        for text in [long.as_str(), "small = ", "{\"a\": 1}"] {
            let error = toml::from_str::<File>(text).unwrap_err();
            let shown = TomlError::of(text, &error).to_string();
            assert!(!shown.contains('\n') && shown.len() < 1500, "{shown}");
        }
    }
}
