//! Keys that are followed, turned and summed by, whatever becomes of the database and of their names.

use super::{super::*, at, execute, new_key, places, query, row};

async fn make(store: &Store, name: &str) -> String {
    let secret = KeySecret::generate();
    let made = store.create_key(&new_key(name), &secret, at(1)).await;
    made.unwrap()
}

#[tokio::test]
async fn who_follows_an_older_copy_reads_all_of_it() {
    for place in places().await {
        let store = place.open().await;
        let a = make(&store, "a").await;
        let b = make(&store, "b").await;
        let seen = store.changes(None).await.unwrap().last;
        execute(
            &store,
            "DELETE FROM api_key_secret WHERE key_id IN (SELECT id FROM api_key WHERE name = 'b')",
        )
        .await;
        execute(&store, "DELETE FROM api_key WHERE name = 'b'").await;
        execute(&store, "UPDATE change_count SET n = n - 1").await;
        let ids = |changes: &Changes| -> Vec<_> {
            let keys = changes.keys.iter();
            keys.map(|key| (key.id.clone(), key.revoked_at.is_some()))
                .collect()
        };
        let now = store.changes(Some(&seen)).await.unwrap();
        assert!(now.is_all, "{}", place.name);
        assert_eq!(ids(&now), [(a.clone(), false)], "{}: not {b}", place.name);

        // A change that has the number of the one that was seen, and one beyond it.
        assert_eq!(store.revoke_key("a", at(2)).await.unwrap(), a);
        let same = store.changes(Some(&seen)).await.unwrap();
        assert!(same.is_all, "{}", place.name);
        assert_eq!(ids(&same), [(a.clone(), true)], "{}", place.name);
        let c = make(&store, "c").await;
        let beyond = store.changes(Some(&seen)).await.unwrap();
        assert!(beyond.is_all, "{}", place.name);
        assert_eq!(ids(&beyond).len(), 2, "{}", place.name);

        // Who saw these reads what is new again.
        let next = store.changes(Some(&same.last)).await.unwrap();
        assert!(!next.is_all, "{}", place.name);
        assert_eq!(ids(&next), [(c, false)], "{}", place.name);
        let none = store.changes(Some(&next.last)).await.unwrap();
        assert!(none.keys.is_empty() && !none.is_all, "{}", place.name);
    }
}

#[tokio::test]
async fn a_key_that_has_expired_gets_no_other_secret() {
    for place in places().await {
        let store = place.open().await;
        make(&store, "a").await;
        let before = store.changes(None).await.unwrap();
        let hour = Duration::from_secs(3600);
        // It ends at 500.
        let turned = store
            .rotate_key("a", &KeySecret::generate(), hour, at(500))
            .await;
        assert!(
            matches!(turned, Err(KeyError::Expired(name)) if name == "a"),
            "{}",
            place.name
        );
        let after = store.changes(None).await.unwrap();
        assert_eq!((after.last, after.keys[0].secrets.len()), (before.last, 1));
        store
            .rotate_key("a", &KeySecret::generate(), hour, at(499))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_name_that_no_key_can_have_is_that_of_no_key() {
    for place in places().await {
        let store = place.open().await;
        let long = "n".repeat(65);
        for name in ["a\0b", "\0", "two words", "", long.as_str()] {
            let hour = Duration::from_secs(3600);
            let turned = store
                .rotate_key(name, &KeySecret::generate(), hour, at(1))
                .await;
            assert!(
                matches!(turned, Err(KeyError::Unknown(_))),
                "{}: {name:?}",
                place.name
            );
            let revoked = store.revoke_key(name, at(1)).await;
            assert!(
                matches!(revoked, Err(KeyError::Unknown(_))),
                "{}: {name:?}",
                place.name
            );
        }
    }
}

#[tokio::test]
async fn keys_that_had_one_name_are_summed_apart() {
    for place in places().await {
        let store = place.open().await;
        let first = make(&store, "team").await;
        store.revoke_key("team", at(2)).await.unwrap();
        let second = make(&store, "team").await;
        let rows = [(&first, "1"), (&second, "2"), (&second, "3")].map(|(key, id)| {
            let mut row = row(id);
            row.key_id.clone_from(key);
            row
        });
        store.add_usage(&rows, at(3)).await.unwrap();
        let sums = store.usage(&query(&[By::Key])).await.unwrap();
        let mut told: Vec<_> = sums
            .iter()
            .map(|sum| (sum.of.clone(), sum.requests))
            .collect();
        let of = |id: &String| vec![Some("team".to_owned()), Some(id.clone())];
        let mut expected = vec![(of(&first), 1), (of(&second), 2)];
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "{}", place.name);
        let csv = report::usage_csv(&query(&[By::Key]), &sums);
        assert!(csv[0].starts_with("key,key_id,requests,"), "{}", csv[0]);
        assert!(
            csv[1..]
                .iter()
                .any(|line| line.starts_with(&format!("team,{first},1,")))
        );
        let json = report::usage(&query(&[By::Key]), &sums);
        assert!(
            json["usage"]
                .as_array()
                .unwrap()
                .iter()
                .any(|row| row["key_id"] == second)
        );

        let requests = async |key: &str| {
            let key = Some(key.to_owned());
            let sums = store.usage(&Query { key, ..query(&[]) }).await.unwrap();
            sums.iter().map(|sum| sum.requests).sum::<u64>()
        };
        let cases = [
            ("team", 2),
            (first.as_str(), 1),
            (second.as_str(), 2),
            ("other", 0),
        ];
        for (key, expected) in cases {
            assert_eq!(requests(key).await, expected, "{}: {key}", place.name);
        }
        // Nobody has the name now: it is that of the last one that had it.
        store.revoke_key("team", at(4)).await.unwrap();
        assert_eq!(requests("team").await, 2, "{}", place.name);
    }
}
