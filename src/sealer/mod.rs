//! What whoever seals to nodes needs, the gateway and the [`client`](crate::client) alike: the way
//! to a node, one exchange with it, and its reply proved to the end (docs/wire.md).
//!
//! `exchange` seals a request, sends it through `upstream` and opens the reply as far as it must be
//! known before anything is given on; `reading` gives an event stream on as it opens. `problem` reads
//! a node's refusals, and `error` says what may follow them. `tls` and `dial` say whom a connection
//! must end at, `proxy` leads there, and `prior` finds out what is spoken without TLS.
//!
//! Whom to seal to is decided elsewhere: an exchange takes a key that verification made usable.

mod credential;
mod dial;
mod error;
mod exchange;
mod multiplexed;
mod prior;
mod problem;
mod proxy;
mod reading;
mod tls;
mod upstream;

pub(crate) use self::{
    credential::Credential,
    dial::Route,
    error::Next,
    exchange::{Ask, Bounds, OHTTP, Reply, Unread, Way, WholeContent, exchange, usage},
    prior::Spoken,
    proxy::Proxy,
    reading::{Gathered, Grows, KeptContent, Passing, Progress, Reading},
    tls::{Roots, Shown, to_anybody, to_key, to_name},
    upstream::{Channel, NodeBody},
};
pub use self::{
    credential::InvalidCredential,
    error::{ExchangeError, Incomplete},
    problem::Problem,
    proxy::ProxyError,
    tls::TlsError,
    upstream::SendError,
};

/// Whether a `Content-Type` is `expected`, whatever its parameters.
pub(crate) fn is_media_type(value: &[u8], expected: &[u8]) -> bool {
    let end = value
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(value.len());
    let (essence, _) = value.split_at(end);
    essence.trim_ascii().eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_compared_without_its_parameters() {
        let cases: [(&[u8], bool); 6] = [
            (b"application/json", true),
            (b"Application/JSON; charset=utf-8", true),
            (b"application/json ;a=b", true),
            (b"application/jsonp", false),
            (b"text/plain", false),
            (b"", false),
        ];
        for (value, expected) in cases {
            let seen = is_media_type(value, b"application/json");
            assert_eq!(seen, expected, "{}", String::from_utf8_lossy(value));
        }
    }
}
