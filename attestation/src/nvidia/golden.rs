//! Golden measurements: what the firmware of a device must measure, from NVIDIA's reference
//! integrity manifests.
//!
//! The manifests are XML, and their signatures are verified when a bundle is made; what stands here
//! is what they said, and is believed because the bundle's signer vouches for it.

use serde::Serialize;

use crate::digest::{InvalidHex, from_hex_any};
use crate::json::{self, Json, JsonError};

/// Longest form in JSON, in bytes.
pub(super) const MAX_GOLDEN: usize = 256 * 1024;
/// Most measurements of one manifest; an SPDM index is one byte.
const MAX_MEASUREMENTS: usize = 256;
/// Most values that one index may have.
const MAX_VALUES: usize = 64;

/// What one manifest says that must be measured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoldenMeasurements {
    /// The manifest's id, for instance `NV_GPU_DRIVER_GH100_550.90.07`.
    pub id: String,
    /// The version of driver or VBIOS that it is for, as it says.
    pub version: String,
    /// The active measurements, by rising index.
    pub measurements: Vec<GoldenMeasurement>,
}

/// One index, and what may be measured there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoldenMeasurement {
    /// The SPDM measurement index: one more than the manifest's own.
    pub index: u8,
    /// Digests, any of which is right.
    pub values: Vec<Vec<u8>>,
}

/// Why bytes are no golden measurements.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Longer than any manifest gives.
    #[error("golden measurements of {len} bytes exceed the limit of {MAX_GOLDEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the JSON that golden measurements are.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A digest that is none.
    #[error("a value is {0}")]
    Value(#[from] InvalidHex),
    /// An index beyond one byte, or not above the one before it.
    #[error("measurement index {0} is out of order or range")]
    Index(u64),
    /// No measurement, too many, or one without a value.
    #[error("a list of measurements or values is empty or too long")]
    Count,
}

impl GoldenMeasurements {
    /// Reads what [`GoldenMeasurements::to_json`] wrote.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, or a member breaks its rule.
    pub fn from_json(bytes: &[u8]) -> Result<Self, GoldenError> {
        if bytes.len() > MAX_GOLDEN {
            return Err(GoldenError::TooLong { len: bytes.len() });
        }
        let mut members = json::object(bytes)?;
        let items = members.array("measurements")?;
        if items.is_empty() || items.len() > MAX_MEASUREMENTS {
            return Err(GoldenError::Count);
        }
        let mut measurements: Vec<GoldenMeasurement> = Vec::with_capacity(items.len());
        for item in items {
            let measurement = measurement(item)?;
            let last = measurements.last().map(|last| last.index);
            if last.is_some_and(|last| last >= measurement.index) {
                return Err(GoldenError::Index(measurement.index.into()));
            }
            measurements.push(measurement);
        }
        Ok(Self {
            id: members.string("id")?,
            version: members.string("version")?,
            measurements,
        })
    }

    /// Writes them for a bundle.
    ///
    /// # Errors
    /// [`GoldenError::Json`] if the writer fails, which memory does not.
    pub fn to_json(&self) -> Result<Vec<u8>, GoldenError> {
        let measurements = self.measurements.iter().map(|it| MeasurementOut {
            index: it.index,
            values: it.values.iter().map(hex::encode).collect(),
        });
        let out = Out {
            id: &self.id,
            version: &self.version,
            measurements: measurements.collect(),
        };
        Ok(serde_json::to_vec(&out).map_err(JsonError::Syntax)?)
    }
}

fn measurement(item: Json) -> Result<GoldenMeasurement, GoldenError> {
    let mut members = item.into_members("measurements")?;
    let index = members.unsigned("index")?;
    let values = members.array("values")?;
    if values.is_empty() || values.len() > MAX_VALUES {
        return Err(GoldenError::Count);
    }
    let value = |json: Json| Ok::<_, GoldenError>(from_hex_any(&json.into_string("values")?)?);
    Ok(GoldenMeasurement {
        index: u8::try_from(index).map_err(|_| GoldenError::Index(index))?,
        values: values.into_iter().map(value).collect::<Result<_, _>>()?,
    })
}

#[derive(Serialize)]
struct Out<'a> {
    id: &'a str,
    version: &'a str,
    measurements: Vec<MeasurementOut>,
}

#[derive(Serialize)]
struct MeasurementOut {
    index: u8,
    values: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(measurements: &str) -> String {
        format!("{{\"id\":\"ID\",\"version\":\"1\",\"measurements\":[{measurements}]}}")
    }

    fn measurement(index: usize, values: usize) -> String {
        let value = format!("\"{}\"", "ab".repeat(48));
        let values = vec![value; values].join(",");
        format!("{{\"index\":{index},\"values\":[{values}]}}")
    }

    #[test]
    fn reads_what_it_writes() {
        let both = [measurement(1, 64), measurement(255, 1)].join(",");
        let golden = GoldenMeasurements::from_json(json(&both).as_bytes()).unwrap();
        assert_eq!((golden.id.as_str(), golden.version.as_str()), ("ID", "1"));
        assert_eq!(golden.measurements[0].values.len(), 64);
        assert_eq!(golden.measurements[1].index, 255);
        assert_eq!(golden.measurements[1].values, [[0xab; 48]]);
        let written = golden.to_json().unwrap();
        assert_eq!(written, json(&both).into_bytes());
        let short = json(&measurement(1, 1).replace(&"ab".repeat(48), &"ab".repeat(32)));
        assert!(GoldenMeasurements::from_json(short.as_bytes()).is_ok());
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let one = measurement(1, 1);
        let rising = |count| {
            let all: Vec<_> = (0..count).map(|index| measurement(index, 1)).collect();
            json(&all.join(","))
        };
        let cases = [
            (
                "none",
                json(""),
                "a list of measurements or values is empty or too long",
            ),
            (
                "no value",
                json(&measurement(1, 0)),
                "a list of measurements or values is empty or too long",
            ),
            (
                "many values",
                json(&measurement(1, 65)),
                "a list of measurements or values is empty or too long",
            ),
            (
                "many",
                rising(257),
                "a list of measurements or values is empty or too long",
            ),
            (
                "twice",
                json(&format!("{one},{one}")),
                "measurement index 1 is out of order or range",
            ),
            (
                "falling",
                json(&format!("{},{one}", measurement(2, 1))),
                "measurement index 1 is out of order or range",
            ),
            (
                "beyond a byte",
                json(&measurement(256, 1)),
                "measurement index 256 is out of order or range",
            ),
            (
                "no digest",
                json(&one.replace("abab", "ab")),
                "a value is not 48 bytes of lower-case hex",
            ),
            (
                "no id",
                json(&one).replace("\"id\"", "\"it\""),
                "member `id` is missing",
            ),
            (
                "no version",
                json(&one).replace("version", "v"),
                "member `version` is missing",
            ),
        ];
        for (name, text, expected) in cases {
            let error = GoldenMeasurements::from_json(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{name}");
        }
        assert!(GoldenMeasurements::from_json(rising(256).as_bytes()).is_ok());
        let mut longest = json(&one).into_bytes();
        longest.resize(MAX_GOLDEN, b' ');
        assert!(GoldenMeasurements::from_json(&longest).is_ok());
        longest.push(b' ');
        let error = GoldenMeasurements::from_json(&longest).unwrap_err();
        assert!(matches!(error, GoldenError::TooLong { len } if len == MAX_GOLDEN + 1));
    }
}
