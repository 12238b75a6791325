use std::collections::BTreeSet;

use super::*;

#[test]
fn endpoints_are_told_apart_and_others_are_unknown() {
    let all: BTreeSet<_> = ENDPOINTS.iter().collect();
    assert_eq!(all.len(), ENDPOINTS.len());
    for (place, endpoint) in ENDPOINTS.iter().enumerate() {
        assert_eq!(At::of(endpoint), At(place));
    }
    assert_eq!(At::of("/v1/a-prompt"), At::of(UNKNOWN));
    assert!(
        ENDPOINTS
            .iter()
            .take(RECORDED)
            .all(|it| it.starts_with("/v1/"))
    );
}

#[test]
fn every_end_is_counted_under_its_own_words() {
    let counts = ModelCounts::default();
    let ends = [End::Complete, End::Cancelled].into_iter();
    let ends: Vec<_> = ends.chain(Code::ALL.map(End::Failed)).collect();
    for end in &ends {
        counts.count(At(0), *end, None);
        counts.count(At(1), *end, StatusCode::from_u16(299).ok());
        counts.count(At(1), *end, StatusCode::from_u16(999).ok());
    }
    let counted: Vec<_> = counts.requests().collect();
    assert_eq!(counted.len(), 3 * ends.len());
    assert!(counted.iter().all(|(_, count)| *count == 1));
    let classes: BTreeSet<_> = counted.iter().map(|([.., class], _)| *class).collect();
    assert_eq!(classes, BTreeSet::from(["none", "2xx", "5xx"]));
    let words = |code: Code| ["/v1/completions", "failed", code.code(), "none"];
    for code in Code::ALL {
        assert!(counted.contains(&(words(code), 1)), "{code:?}");
    }
}

#[test]
fn tries_are_told_apart() {
    let metrics = Metrics::new(Clock::system());
    let ended = |tries, reseals, end| Ended {
        at: At(0),
        model: None,
        end,
        status: None,
        took: Duration::from_millis(7),
        first_byte: None,
        bytes_in: 3,
        bytes_out: 0,
        usage: None,
        suite: (tries > 0).then_some("x-wing"),
        padding: (tries > 0).then_some(Padding::Bucket),
        tries,
        reseals,
    };
    metrics.ended(&ended(0, 0, End::Failed(Code::Draining)));
    metrics.ended(&ended(1, 0, End::Complete));
    metrics.ended(&ended(3, 1, End::Complete));
    let counted = [&metrics.tries, &metrics.retries, &metrics.reseals].map(Counter::get);
    assert_eq!(counted, [4, 1, 1]);
    assert_eq!(metrics.sealed.counts(), [(["x-wing"], 2)]);
    assert_eq!(metrics.shed.counts(), [(["draining"], 1)]);
    assert_eq!(metrics.recorded[0].bytes_in.get(), 9);
}
