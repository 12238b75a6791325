//! What is let in, held, given back and spent.

use bytes::Bytes;
use tokio::time::advance;

use super::*;
use crate::openai::Request;

fn metered(terms: &str) -> Metered {
    let terms: KeyTerms = serde_json::from_str(terms).unwrap();
    Metered::new(&Arc::default(), &terms).unwrap()
}

fn tokens(tokens: u64) -> Amount {
    Amount { tokens, cost: 0 }
}

fn spend(period: Period, now: SystemTime, tokens: u64, cost: i64) -> Spend {
    Spend {
        key_id: "k".to_owned(),
        period,
        starts_at: unix_millis(period.start(now)),
        tokens,
        cost,
    }
}

/// Seconds after which it may come again.
fn wait(taken: &Result<Hold, Error>) -> u32 {
    match taken {
        Err(Error::RateLimited { retry_after_s }) => *retry_after_s,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_at_once_and_no_more() {
    let (key, clock) = (metered(r#"{"limits":{"in_flight":2}}"#), Clock::tokio());
    let first = key.take(clock, tokens(5)).unwrap();
    let second = key.take(clock, tokens(5)).unwrap();
    assert_eq!(wait(&key.take(clock, tokens(5))), 1);
    drop(first);
    let third = key.take(clock, tokens(5)).unwrap();
    drop(third.used(tokens(1)));
    let _fourth = key.take(clock, tokens(5)).unwrap();
    drop(second);
    assert_eq!(key.meter.state().in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_minute_come_again_when_they_are_told_to() {
    let key = metered(r#"{"limits":{"requests_per_minute":3}}"#);
    let clock = Clock::tokio();
    for _ in 0..3 {
        drop(key.take(clock, Amount::default()).unwrap());
    }
    let seconds = wait(&key.take(clock, Amount::default()));
    assert!((1..=120).contains(&seconds), "{seconds}");
    advance(Duration::from_secs(seconds.into())).await;
    drop(key.take(clock, Amount::default()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn tokens_in_a_minute_are_those_that_were_used() {
    let key = metered(r#"{"limits":{"tokens_per_minute":100}}"#);
    let clock = Clock::tokio();
    // Half of the minute at most is over, so that all of this is in one.
    let (_, over) = minute(clock.now());
    advance(Duration::from_millis(60_000 - over)).await;
    let first = key.take(clock, tokens(80)).unwrap();
    wait(&key.take(clock, tokens(30)));
    drop(first.used(tokens(10)));
    let second = key.take(clock, tokens(30)).unwrap();
    drop(second.used(tokens(90)));
    let seconds = wait(&key.take(clock, tokens(1)));
    assert_eq!(seconds, 61, "a hundredth of the next minute");
    // What is larger than the limit waits until there is nothing else.
    wait(&key.take(clock, tokens(1_000)));
    advance(Duration::from_secs(120)).await;
    drop(key.take(clock, tokens(1_000)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_budget_holds_what_is_reserved_used_and_spent() {
    let key =
        metered(r#"{"budgets":[{"period":"day","tokens":100},{"period":"ever","tokens":500}]}"#);
    let clock = Clock::tokio();
    let take = |count| key.take(clock, tokens(count));
    let refused = |count| matches!(take(count), Err(Error::BudgetExceeded));
    let first = take(60).unwrap();
    assert!(refused(41));
    let second = take(40).unwrap();
    assert!(refused(1));
    drop(second);
    // It used less than it might have, and that is held until it is spent.
    let used = first.used(tokens(20));
    assert!(refused(81));
    let now = clock.now();
    let spent = [
        spend(Period::Day, now, 20, 0),
        spend(Period::Ever, now, 20, 0),
    ];
    used.settled(&spent);
    assert!(refused(81));
    assert_eq!(key.meter.state().held, Amount::default());
    drop(take(80).unwrap());
    // What was read before says less, and is not believed.
    key.meter.learn(&[spend(Period::Day, now, 5, 0)], now);
    assert!(refused(81));
    // Another day has a budget of its own; all time has not.
    key.meter.learn(&[spend(Period::Ever, now, 450, 0)], now);
    advance(Duration::from_secs(86_400)).await;
    assert!(refused(51));
    drop(take(50).unwrap());
}

/// A clock that stood ahead is put right: what was learnt by it is of a period that has not come.
#[tokio::test(start_paused = true)]
async fn what_the_store_says_of_now_takes_the_place_of_what_was_of_a_later_day() {
    let clock = Clock::tokio();
    let now = clock.now();
    let ahead = now + Duration::from_secs(40 * 86_400);
    for period in [Period::Day, Period::Month] {
        let terms = format!(r#"{{"budgets":[{{"period":"{period}","tokens":100}}]}}"#);
        let key = metered(&terms);
        key.meter.learn(&[spend(period, ahead, 7, 0)], ahead);
        key.meter.learn(&[spend(period, now, 60, 0)], now);
        assert!(matches!(
            key.take(clock, tokens(41)),
            Err(Error::BudgetExceeded)
        ));
        drop(key.take(clock, tokens(40)).unwrap());
        // Nor is it put back by what is not of now.
        key.meter.learn(&[spend(period, ahead, 7, 0)], now);
        assert!(key.take(clock, tokens(41)).is_err(), "{period}");
        // What a request spent while the clock was ahead is learnt by the clock as it is.
        let hold = key.take(clock, tokens(20)).unwrap();
        hold.used(tokens(20))
            .settled(&[spend(period, now, 80, 0), spend(period, ahead, 9, 0)]);
        assert!(key.take(clock, tokens(21)).is_err(), "{period}");
        drop(key.take(clock, tokens(20)).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_told_what_is_left_of_its_limits() {
    let terms = r#"{"limits":{"requests_per_minute":3,"tokens_per_minute":100}}"#;
    let (key, clock) = (metered(terms), Clock::tokio());
    let (_, over) = minute(clock.now());
    advance(Duration::from_millis(60_000 - over)).await;
    let said = || {
        let response = key.rates(clock).on(http::Response::new(()));
        let names = ["requests", "tokens"];
        names.map(|kind| {
            ["limit", "remaining", "reset"].map(|what| {
                let name = format!("x-ratelimit-{what}-{kind}");
                response.headers()[name].to_str().unwrap().to_owned()
            })
        })
    };
    assert_eq!(said(), [["3", "3", "0s"], ["100", "100", "0s"]]);
    let hold = key.take(clock, tokens(80)).unwrap();
    assert_eq!(said(), [["3", "2", "2m0s"], ["100", "20", "2m0s"]]);
    drop(hold.used(tokens(10)));
    let refused = key.take(clock, tokens(91));
    assert_eq!(said(), [["3", "2", "2m0s"], ["100", "90", "2m0s"]]);
    // When it says that there is room, there is.
    advance(Duration::from_secs(wait(&refused).into())).await;
    drop(key.take(clock, tokens(91)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_money_counts_money() {
    let key = metered(r#"{"budgets":[{"period":"month","money":"0.000001"}]}"#);
    assert!(key.counts_money() && key.counts_tokens());
    let clock = Clock::tokio();
    let cost = |cost| Amount {
        tokens: u64::MAX,
        cost,
    };
    drop(key.take(clock, cost(1_000)).unwrap());
    assert!(matches!(
        key.take(clock, cost(1_001)),
        Err(Error::BudgetExceeded)
    ));
}

#[tokio::test(start_paused = true)]
async fn what_other_gateways_told_counts_as_their_own() {
    let key = metered(
        r#"{"limits":{"requests_per_minute":10,"tokens_per_minute":1000,"in_flight":3},"budgets":[{"period":"ever","tokens":100}]}"#,
    );
    let clock = Clock::tokio();
    let other = metered(r#"{"limits":{"in_flight":9}}"#);
    assert_eq!(other.meter.share(clock.now()), None);
    let held = [(); 2].map(|()| other.take(clock, tokens(30)).unwrap());
    let share = other.meter.share(clock.now()).unwrap();
    assert_eq!((share.in_flight, share.held_tokens), (2, 60));
    key.meter.hear(&[share], &[], clock.now());
    assert!(matches!(
        key.take(clock, tokens(41)),
        Err(Error::BudgetExceeded)
    ));
    let own = key.take(clock, tokens(40)).unwrap();
    assert_eq!(wait(&key.take(clock, tokens(0))), 1, "three at once");
    key.meter.hear(
        &[Share {
            in_flight: 0,
            requests: (9, 0),
            ..share
        }],
        &[],
        clock.now(),
    );
    assert!(wait(&key.take(clock, tokens(0))) > 1, "ten in a minute");
    // It has ended there, and counts in what was spent.
    drop(held);
    key.meter
        .hear(&[], &[spend(Period::Ever, clock.now(), 60, 0)], clock.now());
    drop(own);
    drop(key.take(clock, tokens(40)).unwrap());
    assert!(matches!(
        key.take(clock, tokens(41)),
        Err(Error::BudgetExceeded)
    ));
}

#[test]
fn what_a_request_may_use_is_known_before_it_is_asked() {
    use crate::openai::Endpoint::{ChatCompletions as Chat, Completions as Texts, Embeddings};
    let picture = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{}"}}}}]}}],"max_tokens":1}}"#,
        "u".repeat(100_000)
    );
    let text = format!(r#"{{"type":"text","text":"{}"}},"#, "a".repeat(400_000));
    let image = r#"{"type":"image_url""#;
    let both = picture.replace(image, &format!("{text}{image}"));
    let input = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"input_text","text":"{}"}}]}}],"max_tokens":1}}"#,
        "u".repeat(100_000)
    );
    let cases = [
        (Texts, r#"{"model":"m","prompt":"hi"}"#, 7 + 16),
        (
            Texts,
            r#"{"model":"m","prompt":["a","b"],"max_tokens":100,"n":2}"#,
            14 + 400,
        ),
        (
            Texts,
            r#"{"model":"m","prompt":"a","max_tokens":9,"best_of":5}"#,
            14 + 45,
        ),
        (
            Chat,
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2}"#,
            16 + 2_000,
        ),
        // What stands around the picture, and its limit of one.
        (Chat, &picture, 18 + MOST_OF_OTHER_PARTS + 1),
        (Chat, &both, 100_024 + MOST_OF_OTHER_PARTS + 1),
        // By whatever name, a text is a text.
        (Chat, &input, 25_026 + 1),
        (Embeddings, r#"{"model":"m","input":"hi"}"#, 7),
    ];
    for (endpoint, body, expected) in cases {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request::parse(endpoint, body).unwrap();
        let most = at_most(request.asked(), request.body().len(), 1_000, None);
        assert_eq!(most, tokens(expected), "{endpoint:?}");
    }
}
