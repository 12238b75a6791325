//! What was used, what it comes to, and what gateways tell each other of it.

use super::{super::*, at, new_key, places, query, row};
use crate::config::terms::Period;

#[tokio::test]
async fn usage_is_summed_by_what_is_asked_and_a_row_counts_once() {
    for place in places().await {
        let store = place.open().await;
        let secret = KeySecret::generate();
        let id = store
            .create_key(&new_key("k"), &secret, at(1))
            .await
            .unwrap();
        let day = 86_400_000;
        let mut rows: Vec<_> = (0..600).map(|n| row(&format!("{n:04}"))).collect();
        rows[1].key_id = id.clone();
        rows[1].started_at = day * 3 + 1;
        rows[2].model = None;
        rows[2].tokens = None;
        rows[2].cost = None;
        store.add_usage(&rows, at(1)).await.unwrap();
        store.add_usage(&rows[..10], at(1)).await.unwrap();

        let all = store.usage(&query(&[])).await.unwrap();
        let [all] = all.as_slice() else {
            panic!("{}: {all:?}", place.name)
        };
        assert_eq!((all.requests, all.uncounted), (600, 1), "{}", place.name);
        assert_eq!(
            (all.tokens.prompt, all.tokens.completion),
            (599 * 3, 599 * 2)
        );
        assert_eq!(
            (all.cost, all.bytes_in, all.bytes_out),
            (Some(599 * 5), 6_000, 12_000)
        );

        let sums = store.usage(&query(&[By::Key, By::Day])).await.unwrap();
        let of: Vec<_> = sums
            .iter()
            .map(|sum| (sum.of.clone(), sum.requests))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            (vec![text("k"), Some(id), text("1970-01-04")], 1),
            (vec![text("open"), text("open"), text("1970-01-01")], 599),
        ];
        assert_eq!(of, expected, "{}", place.name);

        let models = store.usage(&query(&[By::Model])).await.unwrap();
        let unknown = models.iter().find(|sum| sum.of == [None]).unwrap();
        assert_eq!(
            (unknown.requests, unknown.uncounted, unknown.cost),
            (1, 1, None)
        );

        let of_key = Query {
            key: Some("k".to_owned()),
            since: Some(at(3 * 86_400)),
            ..query(&[])
        };
        assert_eq!(store.usage(&of_key).await.unwrap()[0].requests, 1);
        let later = Query {
            since: Some(at(4 * 86_400)),
            ..of_key
        };
        assert!(
            store.usage(&later).await.unwrap().is_empty(),
            "{}",
            place.name
        );

        assert_eq!(
            store.prune_usage(at(86_400)).await.unwrap(),
            599,
            "{}",
            place.name
        );
        assert_eq!(store.usage(&query(&[])).await.unwrap()[0].requests, 1);
    }
}

#[tokio::test]
async fn what_a_key_has_spent_grows_with_its_rows_and_each_counts_once() {
    for place in places().await {
        let store = place.open().await;
        let day = 86_400_000;
        let rows: Vec<_> = (0..300)
            .map(|n| {
                let mut row = row(&format!("{n:04}"));
                row.key_id = if n % 3 == 0 { "a" } else { "b" }.to_owned();
                // 1970-02-01, and from the 290th on 1970-02-02.
                row.started_at = day * if n < 290 { 31 } else { 32 } + 7;
                row
            })
            .collect();
        let now = at(32 * 86_400);
        store.add_usage(&rows[..200], now).await.unwrap();
        let spent = store.add_usage(&rows, now).await.unwrap();
        assert_eq!(spent.len(), 6, "{}: {spent:?}", place.name);
        let of = |key: &str, period: Period| {
            let mut found = spent
                .iter()
                .filter(|it| it.key_id == key && it.period == period);
            let one = found.next().map(|it| (it.starts_at, it.tokens, it.cost));
            assert!(found.next().is_none());
            one.unwrap()
        };
        // A row is 3 and 2 tokens, for 5.
        assert_eq!(of("a", Period::Ever), (0, 500, 500), "{}", place.name);
        assert_eq!(of("a", Period::Month), (31 * day, 500, 500));
        assert_eq!(of("a", Period::Day), (32 * day, 15, 15), "291, 294, 297");
        assert_eq!(of("b", Period::Ever), (0, 1_000, 1_000));

        let mut uncounted = row("uncounted");
        uncounted.key_id = "c".to_owned();
        (uncounted.tokens, uncounted.cost) = (None, None);
        (uncounted.charged_tokens, uncounted.charged_cost) = (Some(70), Some(9));
        let refused = UsageRow {
            request_id: "refused".to_owned(),
            charged_tokens: None,
            charged_cost: None,
            ..uncounted.clone()
        };
        let spent = store.add_usage(&[uncounted, refused], at(1)).await.unwrap();
        let told = spent.iter().map(|it| (it.tokens, it.cost));
        assert_eq!(told.collect::<Vec<_>>(), [(70, 9); 3], "{}", place.name);
        let sums = store.usage(&query(&[By::Key])).await.unwrap();
        let sum = sums.iter().find(|sum| sum.of[1].as_deref() == Some("c"));
        assert_eq!(sum.unwrap().uncounted, 2, "an estimate is no count");

        // What a report says that was charged is what budgets go by.
        let all = ["a", "b", "c"].map(str::to_owned).into();
        let spent = store.spent(&all, now).await.unwrap();
        for sum in &sums {
            let of_sum =
                |it: &&Spend| it.period == Period::Ever && sum.of[1].as_ref() == Some(&it.key_id);
            let spent = spent.iter().find(of_sum).unwrap();
            assert_eq!(
                (sum.charged_tokens, sum.charged_cost),
                (spent.tokens, Some(spent.cost)),
                "{}: {:?}",
                place.name,
                sum.of
            );
        }
        assert_eq!(sums.len(), 3);

        // What is long over goes, and what is for ever stays.
        store.prune_spend(at(100 * 86_400)).await.unwrap();
        let keys = ["a", "b", "c"].map(str::to_owned).into();
        let spent = store.spent(&keys, now).await.unwrap();
        assert!(
            spent.len() == 3 && spent.iter().all(|it| it.period == Period::Ever),
            "{}: {spent:?}",
            place.name
        );
    }
}

#[tokio::test]
async fn gateways_that_write_at_the_same_time_add_up() {
    for place in places().await {
        let (a, b) = (place.open().await, place.open().await);
        let write = |store: Store, prefix: &'static str| async move {
            for n in 0..20 {
                let mut rows = [row(&format!("{prefix}{n}")), row(&format!("{prefix}{n}x"))];
                rows[1].key_id = "other".to_owned();
                store.add_usage(&rows, at(1)).await.unwrap();
            }
        };
        tokio::join!(write(a.clone(), "a"), write(b, "b"));
        let keys = ["open", "other"].map(str::to_owned).into();
        let spent = a.spent(&keys, at(1)).await.unwrap();
        assert_eq!(spent.len(), 6);
        assert!(
            spent.iter().all(|it| (it.tokens, it.cost) == (200, 200)),
            "{}: {spent:?}",
            place.name
        );
    }
}

#[tokio::test]
async fn a_gateway_s_share_is_what_it_wrote_last() {
    for place in places().await {
        let store = place.open().await;
        let share = |in_flight| Share {
            in_flight,
            minute: 29_000_000,
            requests: (3, 4),
            tokens: (u64::MAX, 6),
            held_tokens: 7,
            held_cost: 8,
        };
        let key = |n: u64| (format!("key_{n}"), share(n));
        let all: Vec<_> = (0..600).map(key).collect();
        store.put_shares("one", 1, &all).await.unwrap();
        store.put_shares("two", 9, &[key(5)]).await.unwrap();
        assert_eq!(store.other_shares("two").await.unwrap().len(), 600);
        for beat in [2, 2] {
            store.put_shares("one", beat, &[key(1)]).await.unwrap();
        }
        let mut told = store.other_shares("two").await.unwrap();
        let other = told.pop().unwrap();
        assert!(told.is_empty(), "{}", place.name);
        assert_eq!((other.gateway_id.as_str(), other.beat), ("one", 2));
        assert_eq!((other.key_id.as_str(), other.share.in_flight), ("key_1", 1));
        assert_eq!(other.share.requests, (3, 4));
        assert_eq!((other.share.held_tokens, other.share.held_cost), (7, 8));
        store.put_shares("one", 3, &[]).await.unwrap();
        assert!(store.other_shares("two").await.unwrap().is_empty());
    }
}
