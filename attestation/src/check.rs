//! Named checks: what was expected, what was seen, and whether it passed.

use std::fmt;

use crate::text::printable;

/// One check of an appraisal.
///
/// What was seen can be a stranger's text, such as a name in a certificate: it is made
/// [`printable`], so that it can neither end a log line nor steer a terminal, and is cut where it is
/// long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// What is checked; the same name for the same check, always.
    pub name: &'static str,
    /// Which device it is about, counted from 1; `None` for all that is not about one device.
    pub device: Option<usize>,
    /// What would pass.
    pub expected: String,
    /// What the evidence shows.
    pub seen: String,
    /// What came of it.
    pub outcome: Outcome,
}

impl Check {
    /// Whether the check was made and passed.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

/// What came of a check. Anything but [`Outcome::Passed`] refuses the evidence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Seen is as expected.
    Passed,
    /// Seen is not as expected.
    Failed,
    /// There was nothing to compare with: no policy, or no expected value, was given.
    NotChecked,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        })
    }
}

/// The first check that refuses the evidence.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}{check} {outcome}: expected {expected}, seen {seen}", of_device(*device))]
pub struct Refusal {
    /// The name of the check.
    pub check: &'static str,
    /// Which device it is about, counted from 1.
    pub device: Option<usize>,
    /// What would have passed.
    pub expected: String,
    /// What the evidence shows.
    pub seen: String,
    /// [`Outcome::Failed`], or [`Outcome::NotChecked`] where no check failed.
    pub outcome: Outcome,
}

/// Goes before the name of a check: which device it is about, if it is about one.
fn of_device(device: Option<usize>) -> String {
    device.map_or_else(String::new, |number| format!("device {number}: "))
}

/// The checks made so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    made: Vec<Check>,
    /// What the next ones are about.
    device: Option<usize>,
}

impl Checks {
    /// Makes checks that are about one device, counted from 1.
    pub(crate) fn of_device<T>(&mut self, number: usize, make: impl FnOnce(&mut Self) -> T) -> T {
        self.device = Some(number);
        let made = make(self);
        self.device = None;
        made
    }

    /// Records a check, and returns whether it passed.
    pub(crate) fn record(
        &mut self,
        name: &'static str,
        passed: bool,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) -> bool {
        let outcome = if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.push(name, expected.into(), seen.into(), outcome);
        passed
    }

    /// Records a step that yields a value or an error; the error is what was seen.
    pub(crate) fn step<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        expected: &str,
        result: Result<(T, String), E>,
    ) -> Option<T> {
        match result {
            Ok((value, seen)) => {
                self.record(name, true, expected, seen);
                Some(value)
            }
            Err(error) => {
                self.record(name, false, expected, error.to_string());
                None
            }
        }
    }

    /// Records a check against `reference`; without one, that it was not made and what it needs.
    pub(crate) fn against<R>(
        &mut self,
        name: &'static str,
        reference: Option<R>,
        needed: &str,
        seen: impl Into<String>,
        judge: impl FnOnce(R) -> (bool, String),
    ) {
        match reference.map(judge) {
            Some((passed, expected)) => {
                self.record(name, passed, expected, seen);
            }
            None => self.push(name, needed.to_owned(), seen.into(), Outcome::NotChecked),
        }
    }

    /// Records that a check was not made, and what it needs.
    pub(crate) fn open(&mut self, name: &'static str, needed: &str, seen: impl Into<String>) {
        self.push(name, needed.to_owned(), seen.into(), Outcome::NotChecked);
    }

    fn push(&mut self, name: &'static str, expected: String, seen: String, outcome: Outcome) {
        self.made.push(Check {
            name,
            device: self.device,
            expected: printable(&expected).into_owned(),
            seen: printable(&seen).into_owned(),
            outcome,
        });
    }

    /// The first check that failed; where none did, the first that was not made.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let first = |outcome| self.made.iter().find(move |check| check.outcome == outcome);
        let check = first(Outcome::Failed).or_else(|| first(Outcome::NotChecked))?;
        Some(Refusal {
            check: check.name,
            device: check.device,
            expected: check.expected.clone(),
            seen: check.seen.clone(),
            outcome: check.outcome,
        })
    }

    /// Goes on after checks that were made before.
    pub(crate) fn after(made: Vec<Check>) -> Self {
        Self { made, device: None }
    }

    pub(crate) fn into_vec(self) -> Vec<Check> {
        self.made
    }
}

/// What stands for a policy in a check that could not be made without one.
pub(crate) const NEEDS_POLICY: &str = "a policy to compare with";

/// What a list of allowed values expects.
pub(crate) fn one_of(list: &[impl fmt::Display]) -> String {
    match list {
        [] => "nothing: the policy's list is empty".to_owned(),
        [one] => one.to_string(),
        several => format!("one of {}", joined(several)),
    }
}

/// [`one_of`] for values that are written in hex.
pub(crate) fn one_of_hex<const N: usize>(list: &[[u8; N]]) -> String {
    let list: Vec<_> = list.iter().map(hex::encode).collect();
    one_of(&list)
}

pub(crate) fn joined(list: &[impl fmt::Display]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_stays_on_its_line() {
        let mut checks = Checks::default();
        checks.record(
            "root",
            false,
            "one",
            "a\nINFO node verified\r\x1b[2J\u{85}é",
        );
        checks.against("report data", None::<()>, "some", "\0", |()| {
            (true, String::new())
        });
        let refusal = checks.refusal().unwrap().to_string();
        let seen = "a\u{fffd}INFO node verified\u{fffd}\u{fffd}[2J\u{fffd}é";
        assert_eq!(refusal, format!("root failed: expected one, seen {seen}"));
        assert_eq!(checks.into_vec()[1].seen, "\u{fffd}");
    }

    #[test]
    fn a_refusal_says_which_device_it_is_about() {
        let mut checks = Checks::default();
        checks.of_device(2, |checks| checks.record("root", false, "one", "none"));
        checks.record("devices", false, "2", "1");
        let refusal = checks.refusal().unwrap().to_string();
        assert_eq!(refusal, "device 2: root failed: expected one, seen none");
    }
}
