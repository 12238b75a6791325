//! What a reply says of its key's limits of a minute, in the fields that OpenAI's clients know.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::Minutes;

/// Where the limit, what is left of it, and when all of it is there again stand.
type Names = [&'static str; 3];
const REQUESTS: Names = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];
const TOKENS: Names = [
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

/// How a key's limits stood when a request was let in, or was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Rates {
    pub(super) requests: Option<Rate>,
    pub(super) tokens: Option<Rate>,
}

/// How one of them stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    limit: u64,
    remaining: u64,
    reset: Duration,
}

impl Rate {
    pub(super) fn of(counted: Minutes, limit: u64, now: SystemTime) -> Self {
        Self {
            limit,
            remaining: counted.left(now, limit),
            reset: counted.over_in(now),
        }
    }
}

impl Rates {
    /// The same reply with them.
    pub(in crate::gateway) fn on<B>(self, mut response: Response<B>) -> Response<B> {
        self.say(response.headers_mut());
        response
    }

    /// Says them in a reply's head; nothing of a limit that there is not.
    pub(in crate::gateway) fn say(self, headers: &mut HeaderMap) {
        for (names, rate) in [(REQUESTS, self.requests), (TOKENS, self.tokens)] {
            let Some(rate) = rate else { continue };
            let [limit, remaining, reset] = names.map(HeaderName::from_static);
            headers.insert(limit, rate.limit.into());
            headers.insert(remaining, rate.remaining.into());
            if let Ok(value) = HeaderValue::try_from(in_words(rate.reset)) {
                headers.insert(reset, value);
            }
        }
    }
}

/// Whole seconds, rounded up, as OpenAI writes them: `0s`, `59s`, `1m0s`.
fn in_words(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1_000);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let cases = [
            (0, "0s"),
            (1, "1s"),
            (1_000, "1s"),
            (59_001, "1m0s"),
            (61_000, "1m1s"),
            (360_000, "6m0s"),
        ];
        for (millis, expected) in cases {
            assert_eq!(in_words(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_reply_says_what_is_left_and_nothing_of_what_is_not_limited() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(6_000 + seconds);
        let mut counted = Minutes::default();
        counted.add(at(0), 6);
        // At which second, and what is left of ten until when.
        for (seconds, remaining, reset) in [
            (0, "4", "2m0s"),
            (30, "4", "1m30s"),
            (60, "4", "1m0s"),
            (90, "7", "30s"),
            (120, "10", "0s"),
        ] {
            let rates = Rates {
                requests: None,
                tokens: Some(Rate::of(counted, 10, at(seconds))),
            };
            let headers = rates.on(Response::new(())).headers().clone();
            let said = TOKENS.map(|name| headers[name].to_str().unwrap().to_owned());
            assert_eq!(said, ["10", remaining, reset], "{seconds}");
            assert_eq!(headers.len(), 3, "{seconds}");
        }
        assert!(Rates::default().on(Response::new(())).headers().is_empty());
    }
}
