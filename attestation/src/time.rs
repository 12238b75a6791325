//! Times as text: RFC 3339 in UTC with whole seconds, for checks and for `--at`.

use std::str::FromStr;
use std::time::SystemTime;

use x509_cert::der::DateTime;

/// Writes a time as `2026-06-01T00:00:00Z`; fractions of a second are cut off.
pub fn to_rfc3339(time: SystemTime) -> String {
    DateTime::from_system_time(time).map_or_else(
        |_| "a time out of range".to_owned(),
        |date| date.to_string(),
    )
}

/// Reads `2026-06-01T00:00:00Z`; no other offset and no fraction.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    DateTime::from_str(text)
        .ok()
        .map(|date| date.to_system_time())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let time = UNIX_EPOCH + Duration::from_secs(1_780_272_000);
        assert_eq!(to_rfc3339(time), "2026-06-01T00:00:00Z");
        assert_eq!(from_rfc3339("2026-06-01T00:00:00Z"), Some(time));
        for text in [
            "",
            "2026-06-01",
            "2026-13-01T00:00:00Z",
            "2026-06-01T00:00:00+01:00",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }
}
