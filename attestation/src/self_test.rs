//! A standing test of the verifier itself: recorded evidence that must be accepted, and what nobody
//! may ever be able to pass off for it.
//!
//! A build that is broken, a library that was replaced or memory that decays could make a verifier
//! that accepts what it must not. Whoever relies on it runs [`self_test`] at start and from time to
//! time, and stops when it fails. Everything that it needs is compiled in; the times at which the
//! samples are appraised are their own, so it does not age.

use std::time::SystemTime;

use crate::answer::{EvidenceItem, EvidenceKind};
use crate::bundle::Bundle;
use crate::check::Outcome;
use crate::collateral::Collateral;
use crate::input::Expected;
use crate::policy::Policy;
use crate::time::from_rfc3339;
use crate::verify::{Appraisal, appraise_item};

/// What a self-test that passed went through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SelfTest {
    /// Genuine samples, all accepted.
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
    let mut made = SelfTest::default();
    for sample in SAMPLES {
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
    /// DER, leaf first, root left out.
    certificates: &'static [&'static [u8]],
    expected: Expected,
    policy: &'static str,
    /// When it is accepted.
    at: &'static str,
    changes: &'static [Change],
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
    /// These bits of the report's byte, turned over.
    Flipped(usize, u8),
    /// Another time.
    Time(&'static str),
    /// Other certificates.
    Certificates(&'static [&'static [u8]]),
    /// A policy with the first text replaced by the second.
    Policy(&'static str, &'static str),
    /// Another question than the one that it answers.
    Expected(Expected),
}

impl Sample {
    fn test(&self) -> Result<(), SelfTestFailure> {
        let sample = self.name;
        if let Some(refusal) = self.appraise(None)?.refusal() {
            let check = refusal.check;
            return Err(SelfTestFailure::GenuineRefused { sample, check });
        }
        for change in self.changes {
            let appraisal = self.appraise(Some(change.to))?;
            let (change, check) = (change.name, change.check);
            if appraisal.accepted() {
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

    fn appraise(&self, change: Option<To>) -> Result<Appraisal, SelfTestFailure> {
        let unreadable = SelfTestFailure::Unreadable { sample: self.name };
        self.try_appraise(change).ok_or(unreadable)
    }

    fn try_appraise(&self, change: Option<To>) -> Option<Appraisal> {
        let mut report = self.report.to_vec();
        let (mut certificates, mut expected, mut at) = (self.certificates, self.expected, self.at);
        let mut policy = self.policy.to_owned();
        match change {
            None => {}
            Some(To::Flipped(at, bits)) => *report.get_mut(at)? ^= bits,
            Some(To::Time(other)) => at = other,
            Some(To::Certificates(others)) => certificates = others,
            Some(To::Policy(text, other)) => policy = policy.replacen(text, other, 1),
            Some(To::Expected(other)) => expected = other,
        }
        let mut no_files = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let policy = Policy::from_toml(&policy, &mut no_files).ok()?;
        let now: SystemTime = from_rfc3339(at)?;
        let item = EvidenceItem {
            kind: self.kind,
            report,
            certificates: certificates.iter().map(|der| der.to_vec()).collect(),
            collateral: Collateral::default(),
        };
        Some(appraise_item(
            &item,
            Some(&policy),
            &Bundle::empty(),
            expected,
            now,
        ))
    }
}

const NO_DATA: Expected = Expected {
    report_data: Some([0; 64]),
    nonce: None,
};
const OTHER_DATA: Expected = Expected {
    report_data: Some([1; 64]),
    nonce: None,
};
const MILAN_VCEK: &[u8] = include_bytes!("self_test/milan-vcek.der");
const MILAN_OTHER_VCEK: &[u8] = include_bytes!("self_test/milan-vcek-of-another-chip.der");

/// Accepts the Milan sample, and nothing that it does not need.
const MILAN_POLICY: &str = "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"milan\"]\n\
    revocation = \"off\"\nmeasurements = [\"5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f\
    98189887920ab2fa0096903a0c23fca1\"]\n\
    [sev_snp.minimum_tcb.milan]\nbootloader = 4\ntee = 0\nsnp = 24\nmicrocode = 219\n";

/// Every kind of evidence has its row here, and in it a change for each way to be forged.
const SAMPLES: &[Sample] = &[Sample {
    name: "AMD SEV-SNP, Milan",
    kind: EvidenceKind::SevSnp,
    report: include_bytes!("self_test/milan-report.bin"),
    certificates: &[MILAN_VCEK],
    expected: NO_DATA,
    policy: MILAN_POLICY,
    at: "2026-06-01T00:00:00Z",
    changes: MILAN_CHANGES,
}];

#[rustfmt::skip]
const MILAN_CHANGES: &[Change] = &[
    change("a forged measurement", To::Flipped(0x90, 1), "report signature"),
    change("forged report data", To::Flipped(0x8f, 0x80), "report signature"),
    change("the last signed byte forged", To::Flipped(0x29f, 1), "report signature"),
    change("a forged signature", To::Flipped(0x2a0, 1), "report signature"),
    change("debugging allowed", To::Flipped(0x0a, 1 << 3), "debug"),
    change("debugging allowed, under the old signature", To::Flipped(0x0a, 1 << 3), "report signature"),
    change("a time before its certificate", To::Time("2026-02-04T00:00:00Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2033-02-06T00:00:00Z"), "certificate validity"),
    change("the key of another chip", To::Certificates(&[MILAN_OTHER_VCEK]), "report signature"),
    change("no certificate", To::Certificates(&[]), "certificates"),
    change("another measurement in the policy", To::Policy("5feee30d", "5feee30e"), "measurement"),
    change("a higher TCB in the policy", To::Policy("microcode = 219", "microcode = 220"), "reported TCB"),
    change("another product in the policy", To::Policy("products = [\"milan\"]", "products = []"), "product"),
    change("another question", To::Expected(OTHER_DATA), "report data"),
];

const fn change(name: &'static str, to: To, check: &'static str) -> Change {
    Change { name, to, check }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_passes() {
        let changes: usize = SAMPLES.iter().map(|sample| sample.changes.len()).sum();
        let made = self_test().unwrap();
        assert_eq!((made.accepted, made.refused), (SAMPLES.len(), changes));
        assert!(changes >= 14, "{changes}");
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
        const FORGED: &[Change] = &[change("forged", To::Flipped(0x90, 1), "root")];
        const BEYOND: &[Change] = &[change("longer", To::Flipped(1184, 1), "report")];
        let [milan] = SAMPLES else {
            panic!("one sample is used here")
        };
        let sample = milan.name;
        let with = |changes| Sample { changes, ..*milan };
        let late = Sample {
            at: "2033-02-06T00:00:00Z",
            ..*milan
        };
        let mute = Sample {
            policy: "version = 2",
            ..*milan
        };
        let cases = [
            (
                late,
                SelfTestFailure::GenuineRefused {
                    sample,
                    check: "certificate validity",
                },
            ),
            (
                with(LATER),
                SelfTestFailure::Accepted {
                    sample,
                    change: "a day later",
                },
            ),
            (
                with(FORGED),
                SelfTestFailure::Unnoticed {
                    sample,
                    change: "forged",
                    check: "root",
                },
            ),
            (with(BEYOND), SelfTestFailure::Unreadable { sample }),
            (mute, SelfTestFailure::Unreadable { sample }),
        ];
        for (sample, failure) in cases {
            assert_eq!(sample.test(), Err(failure));
        }
    }
}
