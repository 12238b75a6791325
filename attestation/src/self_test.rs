//! A standing test of the verifier itself: recorded evidence that must be accepted, and what nobody
//! may ever be able to pass off for it.
//!
//! A build that is broken, a library that was replaced or memory that decays could make a verifier
//! that accepts what it must not. Whoever relies on it runs [`self_test`] at start and from time to
//! time, and stops when it fails. Everything that it needs is compiled in; the times at which the
//! samples are appraised are their own, so it does not age.

mod samples;

use x509_cert::der::pem;

use crate::answer::{EvidenceItem, EvidenceKind};
use crate::bundle::Bundle;
use crate::check::{Check, Outcome};
use crate::collateral::Collateral;
use crate::digest::from_hex;
use crate::input::Expected;
use crate::nvidia::GoldenMeasurements;
use crate::policy::Policy;
use crate::self_test::samples::SAMPLES;
use crate::time::from_rfc3339;
use crate::verify::{Appraisal, appraise_item};

/// What a self-test that passed went through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SelfTest {
    /// Genuine samples, all accepted; one that answers no question, in all but that.
    pub accepted: usize,
    /// Forged, expired and foreign ones, all refused for their own reason.
    pub refused: usize,
}

/// What the verifier did that it must not.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SelfTestFailure {
    /// Genuine evidence did not pass.
    #[error("{sample}: genuine evidence is refused by the check {check:?}")]
    GenuineRefused {
        /// The sample.
        sample: &'static str,
        /// The check.
        check: &'static str,
    },
    /// Evidence that is not genuine, or not for this policy and time, passed.
    #[error("{sample}: accepted with {change}")]
    Accepted {
        /// The sample.
        sample: &'static str,
        /// What is wrong with it.
        change: &'static str,
    },
    /// It was refused, but the check that exists for it saw nothing.
    #[error("{sample}: with {change} the check {check:?} does not fail")]
    Unnoticed {
        /// The sample.
        sample: &'static str,
        /// What is wrong with it.
        change: &'static str,
        /// The check.
        check: &'static str,
    },
    /// What is compiled in cannot be read.
    #[error("{sample}: what is compiled in cannot be read")]
    Unreadable {
        /// The sample.
        sample: &'static str,
    },
}

/// Appraises every sample that is compiled in, as it is and with each of its changes.
///
/// # Errors
/// The first thing that the verifier did wrong: it is not to be relied on any more.
pub fn self_test() -> Result<SelfTest, SelfTestFailure> {
    test_all(SAMPLES)
}

fn test_all(samples: &[Sample]) -> Result<SelfTest, SelfTestFailure> {
    let mut made = SelfTest::default();
    for sample in samples {
        sample.test()?;
        made.accepted = made.accepted.saturating_add(1);
        made.refused = made.refused.saturating_add(sample.changes.len());
    }
    Ok(made)
}

/// Genuine evidence, and a policy that it was made for.
#[derive(Clone, Copy)]
struct Sample {
    name: &'static str,
    kind: EvidenceKind,
    report: &'static [u8],
    /// Files, leaf first, each one certificate in DER or any number in PEM.
    certificates: &'static [&'static [u8]],
    collateral: &'static [&'static [u8]],
    /// Golden measurements of the bundle.
    golden: &'static [&'static [u8]],
    question: Question,
    /// Checks that nothing is given for, since the evidence answers no question: it can be shown to
    /// pass all others, and is not accepted.
    open: &'static [&'static str],
    policy: &'static str,
    /// When it is accepted.
    at: &'static str,
    changes: &'static [Change],
}

/// What evidence must answer, in hex.
#[derive(Clone, Copy)]
struct Question {
    report_data: Option<&'static str>,
    nonce: Option<&'static str>,
}

/// One thing that makes it unacceptable.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    to: To,
    /// The check that must fail, among others or alone.
    check: &'static str,
}

/// What is put in the place of what.
#[derive(Clone, Copy)]
enum To {
    /// These bits of a byte, turned over.
    Flipped(Part, usize, u8),
    /// Another report.
    Report(&'static [u8]),
    /// The first bytes of another report, as many as are given here.
    Head(&'static [u8], usize),
    /// Another time.
    Time(&'static str),
    /// Other certificates.
    Certificates(&'static [&'static [u8]]),
    /// Other collateral.
    Collateral(&'static [&'static [u8]]),
    /// Other golden measurements.
    Golden(&'static [&'static [u8]]),
    /// A policy with the first text replaced by the second.
    Policy(&'static str, &'static str),
    /// Another question than the one that it answers.
    Question(Question),
}

/// A part of a sample, the pieces of each kind counted from 0.
#[derive(Clone, Copy)]
enum Part {
    Report,
    Certificate(usize),
    Collateral(usize),
    Golden(usize),
}

impl Sample {
    fn test(&self) -> Result<(), SelfTestFailure> {
        let sample = self.name;
        let appraisal = self.appraise(None)?;
        if let Some(check) = self.unmet(&appraisal) {
            let check = check.name;
            return Err(SelfTestFailure::GenuineRefused { sample, check });
        }
        if appraisal.accepted() != self.open.is_empty() {
            let change = "a check left open";
            return Err(SelfTestFailure::Accepted { sample, change });
        }
        for change in self.changes {
            let appraisal = self.appraise(Some(change.to))?;
            let (change, check) = (change.name, change.check);
            if appraisal.accepted() || self.unmet(&appraisal).is_none() {
                return Err(SelfTestFailure::Accepted { sample, change });
            }
            let mut failed = appraisal.checks().iter();
            if !failed.any(|made| made.name == check && made.outcome == Outcome::Failed) {
                return Err(SelfTestFailure::Unnoticed {
                    sample,
                    change,
                    check,
                });
            }
        }
        Ok(())
    }

    /// The first check that should have passed.
    fn unmet<'a>(&self, appraisal: &'a Appraisal) -> Option<&'a Check> {
        let may_be = |check: &Check| match check.outcome {
            Outcome::Passed => true,
            Outcome::NotChecked => self.open.contains(&check.name),
            Outcome::Failed => false,
        };
        appraisal.checks().iter().find(|check| !may_be(check))
    }

    fn appraise(&self, change: Option<To>) -> Result<Appraisal, SelfTestFailure> {
        let unreadable = SelfTestFailure::Unreadable { sample: self.name };
        self.changed(change)
            .and_then(|changed| changed.appraise())
            .ok_or(unreadable)
    }

    /// Everything that an appraisal takes, with one thing in it changed.
    fn changed(&self, change: Option<To>) -> Option<Changed> {
        let mut sample = *self;
        let mut policy = self.policy.to_owned();
        let (mut flipped, mut head) = (None, None);
        match change {
            None => {}
            Some(To::Flipped(part, at, bits)) => flipped = Some((part, at, bits)),
            Some(To::Report(other)) => sample.report = other,
            Some(To::Head(other, len)) => head = Some(other.get(..len)?),
            Some(To::Time(other)) => sample.at = other,
            Some(To::Certificates(others)) => sample.certificates = others,
            Some(To::Collateral(others)) => sample.collateral = others,
            Some(To::Golden(others)) => sample.golden = others,
            Some(To::Policy(text, other)) => policy = policy.replacen(text, other, 1),
            Some(To::Question(other)) => sample.question = other,
        }
        let copied = |files: &[&[u8]]| files.iter().map(|file| file.to_vec()).collect();
        let mut changed = Changed {
            certificates: certificates(sample.certificates)?,
            report: sample.report.to_vec(),
            collateral: copied(sample.collateral),
            golden: copied(sample.golden),
            sample,
            policy,
        };
        if let Some(head) = head {
            changed.report.get_mut(..head.len())?.copy_from_slice(head);
        }
        if let Some((part, at, bits)) = flipped {
            *changed.part(part)?.get_mut(at)? ^= bits;
        }
        Some(changed)
    }
}

/// A sample on its way to be appraised.
struct Changed {
    sample: Sample,
    report: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    collateral: Vec<Vec<u8>>,
    golden: Vec<Vec<u8>>,
    policy: String,
}

impl Changed {
    fn part(&mut self, part: Part) -> Option<&mut Vec<u8>> {
        match part {
            Part::Report => Some(&mut self.report),
            Part::Certificate(number) => self.certificates.get_mut(number),
            Part::Collateral(number) => self.collateral.get_mut(number),
            Part::Golden(number) => self.golden.get_mut(number),
        }
    }

    fn appraise(self) -> Option<Appraisal> {
        let mut no_files = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let policy = Policy::from_toml(&self.policy, &mut no_files).ok()?;
        let mut collateral = Collateral::default();
        for piece in self.collateral {
            collateral.take(piece).ok()?;
        }
        let golden = self.golden.iter();
        let golden = golden.map(|file| GoldenMeasurements::from_json(file).ok());
        let bundle = Bundle::of_golden(golden.collect::<Option<_>>()?);
        let item = EvidenceItem {
            kind: self.sample.kind,
            report: self.report,
            certificates: self.certificates,
            collateral,
        };
        let expected = self.sample.question.expected()?;
        let now = from_rfc3339(self.sample.at)?;
        Some(appraise_item(&item, Some(&policy), &bundle, expected, now))
    }
}

impl Question {
    fn expected(self) -> Option<Expected> {
        let report_data = self.report_data.map(from_hex).transpose();
        let nonce = self.nonce.map(from_hex::<32>).transpose();
        Some(Expected {
            report_data: report_data.ok()?,
            nonce: nonce.ok()?.map(Into::into),
        })
    }
}

/// Each certificate of the files, as DER.
fn certificates(files: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let mut certificates = Vec::new();
    for file in files {
        if !file.starts_with(b"-----BEGIN") {
            certificates.push(file.to_vec());
            continue;
        }
        for block in str::from_utf8(file).ok()?.split_inclusive(END) {
            certificates.push(pem::decode_vec(block.as_bytes()).ok()?.1);
        }
    }
    Some(certificates)
}

#[cfg(test)]
mod tests {
    use super::samples::{MILAN, NITRO, change};
    use super::*;

    #[test]
    fn the_verifier_passes() {
        let changes: usize = SAMPLES.iter().map(|sample| sample.changes.len()).sum();
        let made = self_test().unwrap();
        assert_eq!((made.accepted, made.refused), (SAMPLES.len(), changes));
        assert!(changes >= 100, "{changes}");
        // Any sample that is not judged as it should be ends it.
        let wrong = Sample {
            policy: "version = 1",
            ..MILAN
        };
        assert!(test_all(&[NITRO, wrong]).is_err());
    }

    /// A verifier that accepts or refuses wrongly looks to the test like a sample that is wrongly
    /// described, so that is how each failure is shown to be noticed.
    #[test]
    fn every_failure_is_noticed() {
        const LATER: &[Change] = &[change(
            "a day later",
            To::Time("2026-06-02T00:00:00Z"),
            "root",
        )];
        const A_SECOND_LATER: &[Change] = &[change(
            "a second later",
            To::Time("2025-01-06T16:07:06Z"),
            "nonce",
        )];
        const FORGED: &[Change] = &[change("forged", To::Flipped(Part::Report, 0x90, 1), "root")];
        let unreadable = [
            To::Flipped(Part::Report, 1184, 1),
            To::Flipped(Part::Certificate(1), 0, 1),
            To::Flipped(Part::Collateral(0), 0, 1),
            To::Flipped(Part::Golden(0), 0, 1),
            To::Head(&[], 1),
            To::Collateral(&[b"neither"]),
            To::Certificates(&[b"-----BEGIN CERTIFICATE-----"]),
            To::Golden(&[b"{}"]),
            To::Time("2026"),
            To::Policy("version = 1", "version = 2"),
            To::Question(Question {
                report_data: Some("00"),
                nonce: None,
            }),
            To::Question(Question {
                report_data: None,
                nonce: Some("00"),
            }),
        ];
        for to in unreadable {
            let sample = MILAN.name;
            let appraisal = MILAN.appraise(Some(to));
            assert_eq!(
                appraisal.err(),
                Some(SelfTestFailure::Unreadable { sample })
            );
        }

        let refused = |check| SelfTestFailure::GenuineRefused {
            sample: MILAN.name,
            check,
        };
        let late = Sample {
            at: "2033-02-06T00:00:00Z",
            ..MILAN
        };
        let unasked = Sample {
            question: NITRO.question,
            ..MILAN
        };
        let asked = Sample {
            question: Question {
                nonce: Some("0101010101010101010101010101010101010101010101010101010101010101"),
                ..NITRO.question
            },
            ..NITRO
        };
        let with = |changes| Sample { changes, ..MILAN };
        let cases = [
            (late, refused("certificate validity")),
            (unasked, refused("report data")),
            (
                asked,
                SelfTestFailure::GenuineRefused {
                    sample: NITRO.name,
                    check: "nonce",
                },
            ),
            (
                Sample {
                    open: &["report data"],
                    ..MILAN
                },
                SelfTestFailure::Accepted {
                    sample: MILAN.name,
                    change: "a check left open",
                },
            ),
            (
                with(LATER),
                SelfTestFailure::Accepted {
                    sample: MILAN.name,
                    change: "a day later",
                },
            ),
            (
                Sample {
                    changes: A_SECOND_LATER,
                    ..NITRO
                },
                SelfTestFailure::Accepted {
                    sample: NITRO.name,
                    change: "a second later",
                },
            ),
            (
                with(FORGED),
                SelfTestFailure::Unnoticed {
                    sample: MILAN.name,
                    change: "forged",
                    check: "root",
                },
            ),
            (
                Sample {
                    policy: "version = 2",
                    ..MILAN
                },
                SelfTestFailure::Unreadable { sample: MILAN.name },
            ),
        ];
        for (sample, failure) in cases {
            assert_eq!(sample.test(), Err(failure));
        }
    }
}
