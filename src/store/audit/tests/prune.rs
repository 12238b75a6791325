//! The oldest entries removed, so that what is left is proved.

use super::*;
use crate::store::audit::Held;

const DAY: u64 = 86_400;

/// A log with an entry a day, from day 1 on.
async fn daily(place: &Place, days: u64) -> Store {
    let store = place.open().await.acting("test");
    let made = (1..=days).map(|day| Event::new(at(day * DAY), What::NodeAdded, "a"));
    store.append_audit(&made.collect::<Vec<_>>()).await.unwrap();
    store
}

async fn head_at(store: &Store, seq: i64) -> Head {
    let entry = store.audit(seq - 1, None, 1).await.unwrap().remove(0);
    Head {
        seq,
        hash: entry.hash,
    }
}

async fn numbers(store: &Store) -> Vec<i64> {
    let entries = store.audit(0, None, 1000).await.unwrap();
    entries.iter().map(|entry| entry.seq).collect()
}

#[tokio::test]
async fn what_is_kept_no_longer_goes_and_the_rest_is_proved_from_its_anchor() {
    for place in places().await {
        let store = daily(&place, 10).await;
        let heads = [3, 6, 7, 8].map(|seq| head_at(&store, seq));
        let [early, anchor, first, late] = futures_util::future::join_all(heads)
            .await
            .try_into()
            .unwrap();
        let pruned = store.prune_audit(at(7 * DAY), at(11 * DAY)).await;
        assert_eq!(pruned.unwrap(), Pruned::Removed(6), "{}", place.name);
        assert_eq!(numbers(&store).await, [7, 8, 9, 10, 11]);
        let said = store.audit(10, None, 1).await.unwrap().remove(0);
        assert_eq!(
            (said.event.as_str(), said.subject.as_str()),
            ("audit.pruned", anchor.to_string().as_str())
        );
        let audited = store.verify_audit(None).await.unwrap();
        assert_eq!(audited.flaw, None, "{}", place.name);
        assert_eq!((&audited.anchor, audited.head.seq), (&anchor, 11));

        // Heads that were kept: of what is there, of where it begins, of what is gone, and of no log.
        let another = |head: &Head| Head {
            hash: "ab".repeat(32),
            ..head.clone()
        };
        for (head, held, found) in [
            (late.clone(), Held::Yes, None),
            (first.clone(), Held::Yes, None),
            (anchor.clone(), Held::Yes, None),
            (early.clone(), Held::Pruned, Some((3, Wrong::Pruned))),
            (another(&late), Held::No, Some((8, Wrong::Anew))),
            (another(&anchor), Held::No, Some((6, Wrong::Anew))),
            (
                Head {
                    seq: 12,
                    ..late.clone()
                },
                Held::No,
                Some((12, Wrong::Cut)),
            ),
        ] {
            assert_eq!(store.audit_holds(&head).await.unwrap(), held, "{head}");
            let kept = head.clone().into();
            assert_eq!(
                flaw(&store, Some(&kept)).await,
                found,
                "{}: {head}",
                place.name
            );
        }
        for (head, found) in [
            (&late, None),
            (&anchor, None),
            (&early, Some((11, Wrong::NotKeptSince))),
        ] {
            let kept = Kept::hash(&head.hash).unwrap();
            assert_eq!(flaw(&store, Some(&kept)).await, found, "{}", place.name);
        }
        // What is left can be removed in its turn, with what said so.
        let pruned = store.prune_audit(at(10 * DAY), at(12 * DAY)).await;
        assert_eq!(pruned.unwrap(), Pruned::Removed(3), "{}", place.name);
        let pruned = store.prune_audit(at(40 * DAY), at(41 * DAY)).await;
        assert_eq!(pruned.unwrap(), Pruned::Removed(3), "{}", place.name);
        assert_eq!(numbers(&store).await, [13]);
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
        store.append_audit(&[event("more")]).await.unwrap();
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
    }
}

#[tokio::test]
async fn nothing_goes_before_it_is_a_day_too_old_nor_from_a_log_that_is_not_whole() {
    for place in places().await {
        let store = daily(&place, 5).await;
        let none = store.prune_audit(at(2 * DAY), at(6 * DAY)).await.unwrap();
        assert_eq!(none, Pruned::Nothing, "{}", place.name);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
        unguard(&store).await;
        execute(&store, "UPDATE audit SET actor = 'x' WHERE seq = 2").await;
        let none = store.prune_audit(at(4 * DAY), at(6 * DAY)).await.unwrap();
        assert_eq!(none, Pruned::NotWhole(2, Wrong::Changed), "{}", place.name);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
    }
}

/// What something else wrote there says any time: it is told, however young it is.
#[tokio::test]
async fn a_row_of_another_time_does_not_end_pruning_without_a_word() {
    for time in [0, i64::MAX] {
        for place in places().await {
            let store = daily(&place, 3).await;
            let pruned = store.prune_audit(at(3 * DAY), at(4 * DAY)).await;
            assert_eq!(pruned.unwrap(), Pruned::Removed(2), "{}", place.name);
            unguard(&store).await;
            let foreign = format!("UPDATE audit SET actor = 'x', at = {time} WHERE seq = 3");
            alter(&store, &foreign).await;
            let none = store.prune_audit(at(40 * DAY), at(41 * DAY)).await;
            let expected = Pruned::NotWhole(3, Wrong::Changed);
            assert_eq!(none.unwrap(), expected, "{}: {time}", place.name);
        }
    }
}

#[tokio::test]
async fn gateways_that_prune_at_once_make_one_log() {
    for place in places().await {
        daily(&place, 50).await;
        let stores = [place.open().await, place.open().await, place.open().await];
        let pruning = stores.into_iter().map(|store| {
            tokio::spawn(async move { store.prune_audit(at(40 * DAY), at(60 * DAY)).await })
        });
        let mut removed = 0;
        for pruning in pruning.collect::<Vec<_>>() {
            // SQLite refuses one that read before another wrote: it comes again.
            if let Ok(Pruned::Removed(entries)) = pruning.await.unwrap() {
                removed += entries;
            }
        }
        let store = place.open().await;
        assert_eq!(removed, 39, "{}", place.name);
        assert_eq!(numbers(&store).await, (40..=51).collect::<Vec<_>>());
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
    }
}

/// What the triggers refuse of a log of which the first two of six entries are removed.
const REFUSED: [&str; 8] = [
    "DELETE FROM audit WHERE seq = 3",
    "DELETE FROM audit",
    "UPDATE audit SET at = 1 WHERE seq = 3",
    "UPDATE audit_anchor SET seq = 4, hash = (SELECT hash FROM audit WHERE seq = 4)",
    "UPDATE audit_anchor SET seq = 1",
    "UPDATE audit_anchor SET seq = 0",
    "UPDATE audit_anchor SET seq = 2000000",
    "DELETE FROM audit_anchor",
];

#[tokio::test]
async fn entries_go_only_up_to_where_an_entry_says() {
    for place in places().await {
        let store = daily(&place, 5).await;
        let pruned = store.prune_audit(at(3 * DAY), at(6 * DAY)).await;
        assert_eq!(pruned.unwrap(), Pruned::Removed(2), "{}", place.name);
        for statement in REFUSED {
            let done = on!(store, pool => sqlx::query(statement).execute(pool).await.map(drop));
            let error = done.unwrap_err().to_string();
            let is_told = error.contains("only ever added") || error.contains("begins where");
            assert!(is_told, "{}: {statement}: {error}", place.name);
        }
        let written = store.audit(0, None, 10).await.unwrap();
        let anchored = store.audit_anchor().await.unwrap();
        if let Database::Sqlite(_) = store.database {
            let over = "INSERT OR REPLACE INTO audit_anchor VALUES (1, 4, (SELECT hash FROM audit WHERE seq = 4))";
            let done = on!(store, pool => sqlx::query(over).execute(pool).await.map(drop));
            let error = done.unwrap_err().to_string();
            assert!(error.contains("begins where"), "{error}");
            for to in ["seq", "4"] {
                let over = format!(
                    "INSERT OR REPLACE INTO audit \
                     SELECT {to}, 1, 'x', 'x', 'x', '{{}}', prev, hash FROM audit WHERE seq = 3"
                );
                alter(&store, &over).await;
            }
        }
        assert_eq!(store.audit_anchor().await.unwrap(), anchored);
        assert_eq!(store.audit(0, None, 10).await.unwrap(), written);
        assert_eq!(numbers(&store).await, [3, 4, 5, 6], "{}", place.name);
        // Without the triggers, a beginning that no entry tells of is seen.
        unguard(&store).await;
        match store.database {
            Database::Sqlite(_) => execute(&store, "DROP TRIGGER audit_begins_where_it_says").await,
            Database::Postgres(_) => {
                execute(&store, "ALTER TABLE audit_anchor DISABLE TRIGGER USER").await;
            }
        }
        execute(&store, "DELETE FROM audit WHERE seq = 3").await;
        assert_eq!(flaw(&store, None).await, Some((3, Wrong::Missing(4))));
        execute(
            &store,
            "UPDATE audit_anchor SET seq = 3, hash = (SELECT prev FROM audit WHERE seq = 4)",
        )
        .await;
        assert_eq!(
            flaw(&store, None).await,
            Some((4, Wrong::NotSaid)),
            "{}",
            place.name
        );
    }
}
