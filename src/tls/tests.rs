//! The life of a certificate, and what a key made at start is.

use super::*;

#[test]
fn a_certificate_that_callers_refuse_is_warned_of() {
    let mut ready = Pair::generate("node-a").unwrap().serve(None).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    ready.life = Some((100 * day, 200 * day));
    let cases = [
        (
            99,
            Some("the certificate is not valid yet: callers refuse it"),
        ),
        (100, None),
        (192, None),
        (194, Some("the certificate ends within a week")),
        (201, Some("the certificate has ended: callers refuse it")),
    ];
    for (at, expected) in cases {
        assert_eq!(ready.warning(UNIX_EPOCH + at * day), expected, "day {at}");
    }
}

#[test]
fn a_key_made_at_start_is_another_each_time_and_in_its_life() {
    let pair = || Pair::generate("node-a").unwrap().serve(None).unwrap();
    let (one, other) = (pair(), pair());
    assert_ne!(one.spki_sha256, other.spki_sha256);
    let now = Clock::system().now();
    assert_eq!(one.warning(now), None);
    assert_eq!(one.config.alpn_protocols, ALPN.map(<[u8]>::to_vec));
}
