//! What gateways hear of each other, for how long, and who takes it back.

use tokio::time::{advance, pause};

use super::*;
use crate::{
    clock::Clock,
    gateway::{book::tests::held, limits::Amount},
    store::tests::hold_all,
};

fn other(gateway_id: &str, beat: i64) -> OtherShare {
    OtherShare {
        gateway_id: gateway_id.to_owned(),
        key_id: "k".to_owned(),
        beat,
        share: Share::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_whose_words_stay_the_same_counts_no_more_and_then_is_gone() {
    let every = Duration::from_secs(1);
    let mut heard = Heard::default();
    // Seconds from the one before, the beats of two gateways, how many count, and who is gone.
    let cases = [
        (0, (1, 7), 2, &[][..]),
        (4, (2, 7), 2, &[]),
        (2, (3, 7), 1, &[]),
        (600, (4, 7), 1, &["b"]),
        (1, (5, 8), 2, &[]),
    ];
    for (at, (seconds, (a, b), count, gone)) in cases.into_iter().enumerate() {
        advance(Duration::from_secs(seconds)).await;
        let (fresh, found) = heard.fresh(vec![other("a", a), other("b", b)], every);
        let fresh = fresh.get("k").map_or(0, Vec::len);
        assert_eq!(
            (fresh, found.as_slice()),
            (
                count,
                &gone.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{at}"
        );
    }
    heard.fresh(Vec::new(), every);
    assert!(heard.beats.is_empty());
}

fn share(in_flight: u64) -> Share {
    Share {
        in_flight,
        ..Share::default()
    }
}

#[tokio::test]
async fn a_process_takes_back_what_the_one_before_told_and_its_own_when_it_ends() {
    let held = held(60).await;
    let journal = held.dir.path().join("journal");
    let told = async || held.store.other_shares("nobody").await.unwrap();
    held.store
        .put_shares("another", 1, &[("k".to_owned(), share(1))])
        .await
        .unwrap();
    let first = Teller::begin(&held.store, &journal).await;
    let shares = [("k".to_owned(), share(2))];
    held.store.put_shares(&first.id, 1, &shares).await.unwrap();
    assert_eq!(told().await.len(), 2);

    // It is killed: nothing of it is done any more.
    let second = Teller::begin(&held.store, &journal).await;
    assert_ne!(
        first.id, second.id,
        "one of a copied disk goes on by itself"
    );
    let left = told().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].gateway_id, "another");

    held.store.put_shares(&second.id, 1, &shares).await.unwrap();
    second.leave(&held.store).await;
    assert_eq!(told().await, left);

    // What is no id takes nothing back, and is not written over.
    fs::write(name_of_teller(&journal), "another").unwrap();
    let _ = Teller::begin(&held.store, &journal).await;
    assert_eq!(told().await, left);
    let file = fs::read_to_string(name_of_teller(&journal)).unwrap();
    assert_eq!(file, "another");
}

#[tokio::test]
async fn where_the_store_hangs_what_others_told_ages_by_time() {
    let held = held(60).await;
    let terms = serde_json::from_str(r#"{"limits":{"in_flight":1}}"#).unwrap();
    let secret = held.make("a", terms, None).await;
    let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
    let metered = caller.metered.as_ref().unwrap();
    let shares = [(caller.id.to_string(), share(1))];
    held.store.put_shares("another", 1, &shares).await.unwrap();
    let every = Duration::from_secs(1);
    let teller = Teller::named("this one");
    let book = Arc::clone(&held.book);
    let sharing = tokio::spawn(async move { book.share(every, &teller).await });
    let is_let_in = || metered.take(Clock::tokio(), Amount::default()).is_ok();
    while is_let_in() {
        tokio::task::yield_now().await;
    }
    let all = hold_all(&held.store).await;
    pause();
    let since = Instant::now();
    while !is_let_in() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Not after so many questions that each wait for long.
    assert!(
        since.elapsed() <= every * (STALE + 1),
        "{:?}",
        since.elapsed()
    );
    sharing.abort();
    drop(all);
}
