//! Versions of drivers and of VBIOS, which have an order.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::digest::from_hex;

/// Most numbers in a driver's version.
const MAX_PARTS: usize = 4;

/// A driver's version: numbers with dots between, such as `550.90.07`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct DriverVersion(Vec<u32>);

/// A VBIOS version: five bytes in hex with dots between, such as `96.00.9f.00.01`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct VbiosVersion([u8; 5]);

/// The text is no version.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not a version of the form {0}")]
pub(crate) struct InvalidVersion(&'static str);

impl FromStr for DriverVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let error = InvalidVersion("550.90.07");
        let number = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| is_number).ok_or(error)
        };
        let parts: Vec<_> = text.split('.').map(number).collect::<Result<_, _>>()?;
        let fits = parts.len() <= MAX_PARTS;
        fits.then_some(Self(parts)).ok_or(error)
    }
}

impl FromStr for VbiosVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let error = InvalidVersion("96.00.9f.00.01");
        let mut bytes = [0; 5];
        let mut parts = text.split('.');
        for byte in &mut bytes {
            let part = parts.next().ok_or(error)?;
            [*byte] = from_hex(part).map_err(|_| error)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(error),
        }
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|part| format!("{part:02}")).collect();
        f.write_str(&parts.join("."))
    }
}

impl fmt::Display for VbiosVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join("."))
    }
}

impl<'de> Deserialize<'de> for DriverVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for VbiosVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_ordered_by_their_numbers() {
        let rising = [
            "9",
            "550",
            "550.54",
            "550.90",
            "550.90.07",
            "550.90.10",
            "550.90.10.1",
            "575.1",
        ];
        let parsed: Vec<DriverVersion> = rising.iter().map(|it| it.parse().unwrap()).collect();
        assert!(parsed.is_sorted_by(|a, b| a < b));
        assert_eq!(parsed[4].to_string(), "550.90.07");
        let refused = [
            "",
            ".",
            "550.",
            "+5.1",
            "5 .1",
            "550.90.07-beta",
            "1.2.3.4.5",
            "4294967296",
        ];
        for text in refused {
            assert!(text.parse::<DriverVersion>().is_err(), "{text}");
        }
        assert!("4294967295.2.3.4".parse::<DriverVersion>().is_ok());
    }

    #[test]
    fn vbios_versions_are_ordered_by_their_bytes() {
        let rising = [
            "96.00.9f.00.01",
            "96.00.9f.00.02",
            "96.00.a0.00.00",
            "97.00.00.00.00",
        ];
        let parsed: Vec<VbiosVersion> = rising.iter().map(|it| it.parse().unwrap()).collect();
        assert!(parsed.is_sorted_by(|a, b| a < b));
        assert_eq!(parsed[0].to_string(), rising[0]);
        for text in [
            "",
            "96.00.9f.00",
            "96.00.9f.00.01.02",
            "96.00.9F.00.01",
            "9.00.9f.00.01",
        ] {
            assert!(text.parse::<VbiosVersion>().is_err(), "{text}");
        }
    }
}
