//! What a key's requests may be, wherever the key is kept.

use std::{
    collections::BTreeSet,
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    time::SystemTime,
};

use attestation::time::to_rfc3339;

use serde::{Deserialize, Serialize};

use super::gateway::{KeyConfig, Label, ReceiptMode};
use super::prices::Money;
use crate::{
    clock::{from_unix_seconds, unix_seconds},
    seal::Padding,
};

/// What a key's requests may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyTerms {
    /// The models that it may ask; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<String>>,
    /// The regions that its requests may go to; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<Label>>,
    /// Tags that a node must have to get its requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Label>,
    /// Whether its requests may only be sealed with X-Wing.
    #[serde(skip_serializing_if = "is_false")]
    pub require_pq: bool,
    /// The kinds of TEE that its requests may go to, by verified evidence; left out, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tees: Option<Tees>,
    /// Whether its requests may only go to nodes in whose verified evidence is an NVIDIA GPU.
    #[serde(skip_serializing_if = "is_false")]
    pub require_gpu: bool,
    /// How its requests and their replies are padded, unless a request says so itself; left out, as the
    /// gateway's are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Whether nodes are asked for receipts; left out, as the gateway's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ReceiptMode>,
    /// How much at a time.
    #[serde(skip_serializing_if = "KeyLimits::is_none")]
    pub limits: KeyLimits,
    /// How much in all; each of them holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
}

/// A kind of TEE, as evidence names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// AWS Nitro Enclaves.
    Nitro,
}

/// A text that names no [`Tee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TEE is sev-snp, tdx or nitro")]
pub struct UnknownTee;

impl Tee {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SevSnp, Self::Tdx, Self::Nitro];

    /// Its name in evidence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
            Self::Nitro => "nitro",
        }
    }
}

impl FromStr for Tee {
    type Err = UnknownTee;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.as_str() == text).ok_or(UnknownTee)
    }
}

/// Kinds of TEE, at least one: of a list that is empty nobody could tell whether it means all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeSet<Tee>", into = "BTreeSet<Tee>")]
pub struct Tees(BTreeSet<Tee>);

impl Tees {
    /// Each of them once.
    pub fn iter(&self) -> impl Iterator<Item = Tee> {
        self.0.iter().copied()
    }
}

impl TryFrom<BTreeSet<Tee>> for Tees {
    type Error = &'static str;

    fn try_from(tees: BTreeSet<Tee>) -> Result<Self, Self::Error> {
        let wrong = "tees names at least one of sev-snp, tdx and nitro; left out, all will do";
        (!tees.is_empty()).then_some(Self(tees)).ok_or(wrong)
    }
}

impl From<Tees> for BTreeSet<Tee> {
    fn from(tees: Tees) -> Self {
        tees.0
    }
}

/// How much a key's requests may be at a time; left out, as much as the gateway takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Requests in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute, of prompts and completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<NonZeroU32>,
}

impl KeyLimits {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How much may be spent in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenBudget", into = "WrittenBudget")]
pub struct Budget {
    /// In which time.
    pub period: Period,
    /// How much.
    pub most: Most,
}

/// What a budget counts, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// Tokens of prompts and completions.
    Tokens(u64),
    /// What they cost.
    Money(Money),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBudget {
    period: Period,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    money: Option<Money>,
}

impl TryFrom<WrittenBudget> for Budget {
    type Error = &'static str;

    fn try_from(written: WrittenBudget) -> Result<Self, Self::Error> {
        let most = match (written.tokens, written.money) {
            (Some(tokens), None) => Most::Tokens(tokens),
            (None, Some(money)) => Most::Money(money),
            _ => return Err("a budget is of tokens, or of money"),
        };
        let period = written.period;
        Ok(Self { period, most })
    }
}

impl From<Budget> for WrittenBudget {
    fn from(budget: Budget) -> Self {
        let (tokens, money) = match budget.most {
            Most::Tokens(tokens) => (Some(tokens), None),
            Most::Money(money) => (None, Some(money)),
        };
        Self {
            period: budget.period,
            tokens,
            money,
        }
    }
}

/// A time that a budget is for, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// A month of the calendar.
    Month,
    /// All time.
    Ever,
}

/// A text that names no [`Period`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a period is day, month or ever")]
pub struct UnknownPeriod;

/// Seconds of a day.
const DAY: u64 = 86_400;

impl Period {
    /// Every period.
    pub const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Ever];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Ever => "ever",
        }
    }

    /// When the period began that `time` is in.
    #[must_use]
    pub fn start(self, time: SystemTime) -> SystemTime {
        let seconds = unix_seconds(time);
        let day = seconds.saturating_sub(seconds % DAY);
        let start = match self {
            Self::Day => day,
            Self::Month => {
                // YYYY-MM-DD: the days of the month that are over.
                let date = to_rfc3339(time);
                let of_month: u64 = date.get(8..10).and_then(|it| it.parse().ok()).unwrap_or(1);
                day.saturating_sub(of_month.saturating_sub(1).saturating_mul(DAY))
            }
            Self::Ever => 0,
        };
        from_unix_seconds(start).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl FromStr for Period {
    type Err = UnknownPeriod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.as_str() == text).ok_or(UnknownPeriod)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<&KeyConfig> for KeyTerms {
    fn from(key: &KeyConfig) -> Self {
        Self {
            models: key.models.as_ref().map(|it| it.iter().cloned().collect()),
            regions: key.regions.clone(),
            tags: key.tags.clone(),
            require_pq: key.require_pq,
            tees: key.tees.clone(),
            require_gpu: key.require_gpu,
            padding: key.padding,
            receipts: None,
            // Keys in a file have none: there is no store to keep what was spent.
            limits: KeyLimits::default(),
            budgets: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use attestation::time::from_rfc3339;

    use super::*;

    #[test]
    fn periods_begin_in_utc() {
        let cases = [
            ("2024-02-29T23:59:59Z", "2024-02-29", "2024-02-01"),
            ("2024-03-01T00:00:00Z", "2024-03-01", "2024-03-01"),
            ("2026-12-31T12:00:00Z", "2026-12-31", "2026-12-01"),
            ("1970-01-01T00:00:00Z", "1970-01-01", "1970-01-01"),
        ];
        for (time, day, month) in cases {
            let time = from_rfc3339(time).unwrap();
            let begins = |period: Period| to_rfc3339(period.start(time));
            assert_eq!(begins(Period::Day), format!("{day}T00:00:00Z"));
            assert_eq!(begins(Period::Month), format!("{month}T00:00:00Z"));
            assert_eq!(Period::Ever.start(time), SystemTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn terms_are_written_as_they_are_read_and_without_what_is_not_there() {
        let none = serde_json::to_string(&KeyTerms::default()).unwrap();
        assert_eq!(none, "{}");
        let text = r#"{"limits":{"requests_per_minute":60,"in_flight":2},"budgets":[{"period":"day","tokens":5},{"period":"month","money":"12.5"}]}"#;
        let terms: KeyTerms = serde_json::from_str(text).unwrap();
        assert_eq!(terms.budgets[1].most, Most::Money("12.5".parse().unwrap()));
        assert_eq!(serde_json::to_string(&terms).unwrap(), text);
        let demanded = r#"{"tees":["sev-snp","tdx"],"require_gpu":true}"#;
        let terms: KeyTerms = serde_json::from_str(demanded).unwrap();
        assert_eq!(serde_json::to_string(&terms).unwrap(), demanded);
        for wrong in [
            r#"{"tees":[]}"#,
            r#"{"tees":["sev_snp"]}"#,
            r#"{"tees":["azure-snp"]}"#,
            r#"{"limits":{"requests_per_minute":0}}"#,
            r#"{"limits":{"requests_per_hour":1}}"#,
            r#"{"budgets":[{"period":"day"}]}"#,
            r#"{"budgets":[{"period":"week","tokens":1}]}"#,
            r#"{"budgets":[{"period":"day","tokens":1,"money":"1"}]}"#,
            r#"{"budgets":[{"period":"day","money":1.5}]}"#,
        ] {
            assert!(serde_json::from_str::<KeyTerms>(wrong).is_err(), "{wrong}");
        }
    }
}
