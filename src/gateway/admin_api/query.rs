//! The query of an administrator's request: known parameters, each once.

use std::time::SystemTime;

use attestation::time::from_rfc3339;

use super::{percent_decoded, problem::Problem};

/// Parameters by name, as they were meant.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// # Errors
    /// [`Problem::Query`] for a parameter that is not among `known`, or there twice.
    pub(super) fn read(query: &str, known: &[&'static str]) -> Result<Self, Problem> {
        let mut read: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = known.iter().find(|it| **it == name);
            let name = name.ok_or(Problem::Query)?;
            let value = percent_decoded(&value.replace('+', " ")).ok_or(Problem::Query)?;
            if read.iter().any(|(before, _)| before == name) {
                return Err(Problem::Query);
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// Has no parameter be taken for one that counts, where none does.
    ///
    /// # Errors
    /// [`Problem::Query`].
    pub(super) fn none(query: &str) -> Result<(), Problem> {
        Self::read(query, &[]).map(drop)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A time.
    ///
    /// # Errors
    /// [`Problem::Value`] for what is none.
    pub(super) fn time(&self, name: &str) -> Result<Option<SystemTime>, Problem> {
        self.get(name).map(time).transpose()
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Problem::Value`] for what is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, Problem> {
        let number = |text: &str| {
            text.parse()
                .map_err(|_| Problem::Value("that is no number"))
        };
        self.get(name).map(number).transpose()
    }
}

pub(super) fn time(text: &str) -> Result<SystemTime, Problem> {
    const WRONG: Problem = Problem::Value("a time is in UTC, as 2026-06-01T00:00:00Z (RFC 3339)");
    from_rfc3339(text).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_once_each() {
        let known = ["by", "key"];
        let cases = [
            ("", Some((None, None))),
            ("by=key%2Cday&key=a+b", Some((Some("key,day"), Some("a b")))),
            ("&by=&", Some((Some(""), None))),
            ("by=a&by=b", None),
            ("other=a", None),
            ("key=%ff", None),
            ("key=%4", None),
        ];
        for (query, expected) in cases {
            let read = Parameters::read(query, &known);
            let read = read.as_ref().ok().map(|it| (it.get("by"), it.get("key")));
            assert_eq!(read, expected, "{query}");
        }
    }
}
