use tokio::time::advance;

use super::*;

fn health() -> Health {
    Health::new(HealthConfig::default())
}

fn after(shown: &[Shown]) -> bool {
    let health = health();
    let mut fails = false;
    for shown in shown {
        fails = health.note(*shown);
    }
    fails
}

#[tokio::test(start_paused = true)]
async fn a_node_fails_by_a_row_of_failures_or_by_its_part_of_successes() {
    use Shown::{EngineFailure as E, Failure as F, Success as S};
    let cases: [(&str, Vec<Shown>, bool); 8] = [
        ("four in a row", vec![F; 4], false),
        ("five in a row", vec![F; 5], true),
        (
            "a success between",
            [vec![F; 4], vec![S], vec![F; 4]].concat(),
            false,
        ),
        ("engine failures make no row", vec![E; 9], false),
        ("yet their part counts", vec![E; 10], true),
        ("half of ten", [vec![S; 5], vec![E; 5]].concat(), false),
        ("less than half", [vec![S; 5], vec![E; 6]].concat(), true),
        (
            "nine tell nothing",
            [vec![S; 4], vec![E; 5]].concat(),
            false,
        ),
    ];
    for (name, shown, fails) in cases {
        assert_eq!(after(&shown), fails, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_one_failure_however_many_requests_it_takes_along() {
    let health = health();
    for _ in 0..4 {
        for _ in 0..100 {
            assert!(!health.note(Shown::Lost));
        }
        advance(LOST_TOGETHER).await;
    }
    assert!(health.note(Shown::Lost), "the fifth");
}

#[tokio::test(start_paused = true)]
async fn another_node_at_the_same_place_is_tried_at_once() {
    let health = health();
    for _ in 0..3 {
        health.put_out();
    }
    health.begin_anew();
    assert_eq!(health.standing(), Standing::OnTrial);
    assert!(health.is_out(), "until a request has shown it");
    health.begin_trial();
    assert!(health.began());
    assert!(!health.is_out());
    assert!(
        health.put_out() <= Duration::from_secs(10),
        "for the first time"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_long_ago_does_not_count() {
    let health = health();
    for _ in 0..9 {
        assert!(!health.note(Shown::EngineFailure));
    }
    advance(Duration::from_secs(31)).await;
    assert!(!health.note(Shown::EngineFailure));
    for _ in 0..8 {
        assert!(!health.note(Shown::EngineFailure));
    }
    assert!(health.note(Shown::EngineFailure), "ten of now");
    assert!(health.note(Shown::EngineFailure), "until it is decided");
    health.leave_in();
    assert!(!health.note(Shown::EngineFailure), "decided just now");
    advance(NOT_OUT_REST).await;
    assert!(health.note(Shown::EngineFailure));
}

#[tokio::test(start_paused = true)]
async fn the_window_ends_part_by_part() {
    let now = Instant::now();
    let mut window = Window::new(Duration::from_secs(6), now);
    let at = |ms| now + Duration::from_millis(ms);
    for second in 0..6 {
        window.count(second % 2 == 0, at(second * 1000));
    }
    assert_eq!(window.counted(at(5999)), (3, 3));
    assert_eq!(window.counted(at(6000)), (2, 3));
    assert_eq!(window.counted(at(7000)), (2, 2));
    window.count(true, at(7000));
    assert_eq!(window.counted(at(11_999)), (1, 0));
    assert_eq!(window.counted(at(1_000_000)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_out_comes_back_by_a_probe_and_a_request() {
    let health = health();
    let time = health.put_out();
    assert!(time <= Duration::from_secs(10) && time >= Duration::from_secs(8));
    assert_eq!(health.standing(), Standing::Out);
    assert!(!health.probed(true));
    assert_eq!(health.standing(), Standing::Out, "not yet");
    advance(time).await;
    assert_eq!(health.standing(), Standing::Out, "nobody asked it");
    assert!(!health.probed(true));
    assert_eq!(health.standing(), Standing::OnTrial);
    assert!(health.begin_trial());
    assert!(!health.begin_trial(), "one at a time");
    assert_eq!(health.standing(), Standing::Out);
    health.give_up_trial();
    assert_eq!(health.standing(), Standing::OnTrial);
    assert!(health.begin_trial());
    assert!(health.began());
    assert!(!health.began(), "once");
    assert_eq!(health.standing(), Standing::Good);
}

#[tokio::test(start_paused = true)]
async fn each_time_is_twice_as_long_up_to_a_bound() {
    let health = health();
    let mut last = Duration::ZERO;
    for time in [10, 20, 40, 80, 160, 300, 300] {
        let out = health.put_out();
        let time = Duration::from_secs(time);
        assert!(out <= time && out >= time.mul_f64(0.8), "{out:?}");
        advance(out).await;
        last = out;
        assert!(!health.probed(false), "it is out again");
        advance(health.out_until().unwrap() - Instant::now()).await;
        assert!(!health.probed(true));
        health.lock().times_out -= 1;
        health.begin_trial();
        health.began();
    }
    assert!(last <= Duration::from_secs(300));
    advance(Duration::from_secs(301)).await;
    assert!(
        health.put_out() <= Duration::from_secs(10),
        "it was well for long"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_on_trial_puts_it_out_again() {
    for shown in [Shown::Failure, Shown::EngineFailure] {
        let health = health();
        let time = health.put_out();
        advance(time).await;
        health.probed(true);
        assert!(health.begin_trial());
        assert!(!health.note(shown));
        assert_eq!(health.standing(), Standing::Out);
        health.give_up_trial();
        assert_eq!(health.standing(), Standing::Out);
    }
}

#[tokio::test(start_paused = true)]
async fn three_probes_in_a_row_must_fail() {
    let health = health();
    assert!(!health.probed(false) && !health.probed(false));
    assert!(!health.probed(true));
    assert!(!health.probed(false) && !health.probed(false));
    assert!(health.probed(false));
}

#[tokio::test(start_paused = true)]
async fn being_avoided_or_barred_ends_by_itself() {
    let health = health();
    health.avoid(Duration::from_secs(2));
    health.avoid(Duration::from_secs(1));
    health.bar(Duration::from_secs(1));
    assert_eq!(health.standing(), Standing::Barred);
    advance(Duration::from_secs(1)).await;
    assert_eq!(health.standing(), Standing::Avoided);
    advance(Duration::from_secs(1)).await;
    assert_eq!(health.standing(), Standing::Good);
    health.bar(Duration::from_secs(60));
    health.begin_anew();
    assert_eq!(health.standing(), Standing::Good, "it is another");
}

#[tokio::test(start_paused = true)]
async fn it_is_judged_another_way_from_one_moment_to_the_next() {
    let health = health();
    assert!(!health.note(Shown::Failure));
    let strict = HealthConfig {
        failures_in_row: std::num::NonZeroU32::new(2).unwrap(),
        ..HealthConfig::default()
    };
    health.set_config(strict);
    assert!(health.note(Shown::Failure), "the first one counts on");
    let time = health.put_out();
    let short = HealthConfig {
        out_s: std::num::NonZeroU64::MIN,
        window_s: std::num::NonZeroU64::MIN,
        ..strict
    };
    health.set_config(short);
    advance(time - Duration::from_millis(1)).await;
    assert_eq!(health.standing(), Standing::Out, "as long as was said");
    assert_eq!(health.config().out_s, short.out_s);
    advance(Duration::from_millis(1)).await;
    assert!(!health.probed(true));
    assert_eq!(health.standing(), Standing::OnTrial);
}
