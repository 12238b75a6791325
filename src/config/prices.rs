//! `[prices."MODEL"]`: what tokens cost, and amounts of money.
//!
//! Amounts are decimal strings, never floating-point numbers, and are kept as whole thousand-millionths
//! (10^-9) of the currency: what is added up is exact.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ConfigError, Loaded, gateway::GatewayConfig};

/// Most models with a price.
const MAX_PRICES: usize = 4096;
/// Most of the currency for a million tokens, and most of an amount of money.
const MAX_PER_MILLION: u64 = 1_000_000;
const MAX_MONEY: u64 = 1_000_000_000;
/// Decimal places: a thousandth of the currency for a million tokens is 10^-9 for one.
const PLACES_PER_MILLION: u32 = 3;
const PLACES_OF_MONEY: u32 = 9;
/// Largest cost of one request: a million of the currency.
pub const MAX_COST: i64 = 1_000_000_000_000_000;

/// What models cost, by their names.
pub type Prices = BTreeMap<String, Price>;

/// What the tokens of a model cost, each in thousand-millionths of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Price {
    prompt: u64,
    cached_prompt: u64,
    completion: u64,
}

/// A price as it stands in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    prompt: PerMillion,
    cached_prompt: Option<PerMillion>,
    completion: PerMillion,
}

impl From<Written> for Price {
    fn from(written: Written) -> Self {
        let Written {
            prompt,
            cached_prompt,
            completion,
        } = written;
        Self {
            prompt: prompt.0,
            cached_prompt: cached_prompt.unwrap_or(prompt).0,
            completion: completion.0,
        }
    }
}

impl Price {
    /// What so many tokens cost, of which `cached` of the prompt were in a cache; [`MAX_COST`] at most.
    #[must_use]
    pub fn of(&self, prompt: u64, cached: u64, completion: u64) -> i64 {
        let cached = cached.min(prompt);
        let fresh = prompt.saturating_sub(cached);
        // A product is below 2^94, so no sum comes near to what 128 bits hold.
        let cost = [
            (fresh, self.prompt),
            (cached, self.cached_prompt),
            (completion, self.completion),
        ]
        .into_iter()
        .map(|(tokens, each)| i128::from(tokens).saturating_mul(i128::from(each)))
        .fold(0, i128::saturating_add);
        i64::try_from(cost).unwrap_or(MAX_COST).min(MAX_COST)
    }
}

/// Thousandths of the currency for a million tokens.
#[derive(Clone, Copy)]
struct PerMillion(u64);

impl<'de> Deserialize<'de> for PerMillion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let price = decimal(&text, PLACES_PER_MILLION, MAX_PER_MILLION).map(Self);
        price.ok_or_else(|| {
            de::Error::custom(
                "a price is a decimal number in a string, with at most 3 decimals, for a million tokens",
            )
        })
    }
}

/// An amount of money, in thousand-millionths of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i64);

/// A text that is no amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount of money is a decimal number with at most 9 decimals, as 12.50")]
pub struct InvalidMoney;

impl Money {
    /// The amount in thousand-millionths of the currency.
    #[must_use]
    pub const fn nano(self) -> i64 {
        self.0
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nano = decimal(text, PLACES_OF_MONEY, MAX_MONEY).ok_or(InvalidMoney)?;
        i64::try_from(nano).map(Self).map_err(|_| InvalidMoney)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10_u64.pow(PLACES_OF_MONEY);
        let (whole, part) = (self.0.unsigned_abs() / one, self.0.unsigned_abs() % one);
        let text = format!("{whole}.{part:09}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A decimal number times 10^`places`; nothing where it has more places, or is above `most`.
fn decimal(text: &str, places: u32, most: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let missing = places.checked_sub(u32::try_from(part.len()).ok()?)?;
    let one = 10_u64.checked_pow(places)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(one)?;
    let part = part.parse::<u64>().ok()?;
    let part = part.checked_mul(10_u64.checked_pow(missing)?)?;
    let number = whole.checked_add(part)?;
    (number <= most.checked_mul(one)?).then_some(number)
}

/// Checks the names.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let prices = &config.value.prices;
    if prices.len() > MAX_PRICES
        || prices
            .keys()
            .any(|name| !super::gateway::is_model_name(name))
    {
        let message =
            format!("at most {MAX_PRICES} models, each name of 1 to 256 visible ASCII characters");
        return Err(config.invalid("prices", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(text: &str) -> Result<Price, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn prices_are_exact_and_nothing_else_is_one() {
        let all = price("prompt = \"0.15\"\ncached_prompt = \"0.075\"\ncompletion = \"0.60\"\n");
        let all = all.unwrap();
        assert_eq!(
            (all.prompt, all.cached_prompt, all.completion),
            (150, 75, 600)
        );
        let few = price("prompt = \"2\"\ncompletion = \"0\"\n").unwrap();
        assert_eq!(
            (few.prompt, few.cached_prompt, few.completion),
            (2_000, 2_000, 0)
        );
        for wrong in [
            "prompt = 0.15\ncompletion = \"1\"\n",
            "prompt = \"1\"\n",
            "prompt = \"1\"\ncompletion = \"1\"\nimage = \"1\"\n",
            "prompt = \"0.1234\"\ncompletion = \"1\"\n",
            "prompt = \"-1\"\ncompletion = \"1\"\n",
            "prompt = \"1.\"\ncompletion = \"1\"\n",
            "prompt = \".1\"\ncompletion = \"1\"\n",
            "prompt = \"1e3\"\ncompletion = \"1\"\n",
            "prompt = \"1000000.001\"\ncompletion = \"1\"\n",
            "prompt = \"99999999999999999999\"\ncompletion = \"1\"\n",
        ] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn costs() {
        let price = Price {
            prompt: 150,
            cached_prompt: 75,
            completion: 600,
        };
        let dearest = Price {
            prompt: MAX_PER_MILLION * 1_000,
            cached_prompt: MAX_PER_MILLION * 1_000,
            completion: MAX_PER_MILLION * 1_000,
        };
        let cases = [
            (price, (0, 0, 0), 0),
            (price, (1, 0, 0), 150),
            (price, (1_000_000, 0, 0), 150_000_000),
            (price, (10, 4, 3), 6 * 150 + 4 * 75 + 3 * 600),
            // More cached than there was is no discount on what there was not.
            (price, (10, 11, 0), 750),
            (price, (u64::MAX, 0, u64::MAX), MAX_COST),
            (dearest, (u64::MAX, u64::MAX, u64::MAX), MAX_COST),
            (dearest, (1, 0, 0), 1_000_000_000),
        ];
        for (price, (prompt, cached, completion), expected) in cases {
            let cost = price.of(prompt, cached, completion);
            assert_eq!(cost, expected, "{price:?} {prompt} {cached} {completion}");
        }
    }

    #[test]
    fn money_is_written_as_it_is_read() {
        for (text, nano, written) in [
            ("0", 0, "0"),
            ("12.50", 12_500_000_000, "12.5"),
            ("0.000000001", 1, "0.000000001"),
            ("1000000000", 1_000_000_000_000_000_000, "1000000000"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!(
                (money.nano(), money.to_string()),
                (nano, written.to_owned())
            );
        }
        for text in [
            "",
            "-1",
            "1,5",
            "0.0000000001",
            "1000000000.1",
            " 1",
            "1 EUR",
        ] {
            assert_eq!(text.parse::<Money>(), Err(InvalidMoney), "{text}");
        }
    }
}
