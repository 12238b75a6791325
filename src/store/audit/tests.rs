//! The audit log over both databases: many who write, and everything that can be done to it.

use std::time::Duration;

use super::{verify::Wrong, *};
use crate::store::{
    Database, KeyError, KeySecret,
    tests::{Place, at, execute, new_key, places},
};

mod beside;
mod prune;

fn event(subject: &str) -> Event {
    Event::new(at(100), What::NodeAdded, subject).with(json!({ "url": subject }))
}

async fn filled(place: &Place, entries: usize) -> Store {
    let store = place.open().await.acting("test");
    let events: Vec<_> = (1..=entries).map(|n| event(&format!("node-{n}"))).collect();
    store.append_audit(&events).await.unwrap();
    store
}

/// Takes away what keeps entries from being changed by mistake, as whoever changes them would.
async fn unguard(store: &Store) {
    match store.database {
        Database::Sqlite(_) => {
            execute(store, "DROP TRIGGER audit_is_not_changed").await;
            execute(store, "DROP TRIGGER audit_is_not_shortened").await;
        }
        Database::Postgres(_) => execute(store, "ALTER TABLE audit DISABLE TRIGGER USER").await,
    }
}

/// What is put together for a case.
async fn alter(store: &Store, statement: &str) {
    on!(store, pool => {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(pool).await.unwrap();
    });
}

impl Store {
    /// Whoever may write into the database does so, with nothing that keeps him from it.
    pub(crate) async fn tamper_with_audit(&self, statements: &[&str]) {
        unguard(self).await;
        for statement in statements {
            alter(self, statement).await;
        }
    }
}

/// The number of what is wrong, and what is.
async fn flaw(store: &Store, kept: Option<&Kept>) -> Option<(i64, Wrong)> {
    store.verify_audit(kept).await.unwrap().flaw
}

#[tokio::test]
async fn many_who_write_at_once_make_one_chain() {
    const EACH: usize = 15;
    for place in places().await {
        let stores = [place.open().await, place.open().await, place.open().await];
        let writing = stores.into_iter().enumerate().map(|(n, store)| {
            let store = store.acting(&format!("writer {n}"));
            tokio::spawn(async move {
                for k in 0..EACH {
                    store.append_audit(&[event("a"), event("b")]).await.unwrap();
                    let key = new_key(&format!("k{n}-{k}"));
                    let secret = KeySecret::generate();
                    store.create_key(&key, &secret, at(1)).await.unwrap();
                }
            })
        });
        for writing in writing.collect::<Vec<_>>() {
            writing.await.unwrap();
        }
        let store = place.open().await;
        let audited = store.verify_audit(None).await.unwrap();
        assert_eq!(audited.flaw, None, "{}", place.name);
        assert_eq!(audited.head.seq, 3 * 3 * 15, "{}", place.name);
        assert_eq!(audited.head, store.audit_head().await.unwrap());
        let entries = store.audit(0, None, 1000).await.unwrap();
        for n in 0..3 {
            let actor = format!("writer {n}");
            let own = entries.iter().filter(|entry| entry.actor == actor);
            assert_eq!(own.count(), 3 * EACH, "{}", place.name);
        }
    }
}

#[tokio::test]
async fn a_change_of_a_key_and_its_entry_are_there_together_or_not_at_all() {
    for place in places().await {
        let store = place.open().await.acting("cli tester (7)");
        let secrets = [KeySecret::generate(), KeySecret::generate()];
        let id = store.create_key(&new_key("a"), &secrets[0], at(100)).await;
        let id = id.unwrap();
        let taken = store.create_key(&new_key("a"), &secrets[1], at(100)).await;
        assert!(matches!(taken, Err(KeyError::Taken(_))), "{}", place.name);
        let hour = Duration::from_secs(3600);
        store
            .rotate_key("a", &secrets[1], hour, at(200))
            .await
            .unwrap();
        store.revoke_key("a", at(300)).await.unwrap();
        let unknown = store.revoke_key("a", at(400)).await;
        assert!(matches!(unknown, Err(KeyError::Unknown(_))));

        let entries = store.audit(0, None, 10).await.unwrap();
        let told: Vec<_> = entries
            .iter()
            .map(|it| (it.seq, it.event.as_str(), it.subject.as_str(), it.at()))
            .collect();
        let expected = [
            (1, "key.created", "a", at(100)),
            (2, "key.rotated", "a", at(200)),
            (3, "key.revoked", "a", at(300)),
        ];
        assert_eq!(told, expected, "{}", place.name);
        for entry in &entries {
            let detail: Value = serde_json::from_str(&entry.detail).unwrap();
            assert_eq!(
                (&detail["id"], entry.actor.as_str()),
                (&json!(id), "cli tester (7)")
            );
            for secret in &secrets {
                let hash = store.hash(secret.as_str().as_bytes()).to_hex();
                let all = format!("{entry:?}");
                assert!(!all.contains(secret.as_str()) && !all.contains(&hash));
            }
        }
        assert_eq!(flaw(&store, None).await, None);
        // No entry, no change.
        execute(&store, "ALTER TABLE audit RENAME TO elsewhere").await;
        let made = store.create_key(&new_key("b"), &secrets[0], at(500)).await;
        assert!(matches!(made, Err(KeyError::Store(_))), "{}", place.name);
        execute(&store, "ALTER TABLE elsewhere RENAME TO audit").await;
        let names = store.keys().await.unwrap().into_iter().map(|key| key.name);
        assert_eq!(names.collect::<Vec<_>>(), ["a"], "{}", place.name);
        assert_eq!(flaw(&store, None).await, None);
    }
}

#[tokio::test]
async fn entries_are_not_changed_by_mistake() {
    for place in places().await {
        let store = filled(&place, 2).await;
        for statement in [
            "UPDATE audit SET at = 1 WHERE seq = 1",
            "DELETE FROM audit WHERE seq = 2",
        ] {
            let done = on!(store, pool => sqlx::query(statement).execute(pool).await.map(drop));
            let error = done.unwrap_err().to_string();
            assert!(error.contains("only ever added"), "{}: {error}", place.name);
        }
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
    }
}

/// What somebody does to a log of six entries, and what is found: the number, and what is wrong.
const DEEDS: [(&[&str], i64, Wrong); 20] = [
    (
        &["UPDATE audit SET at = at + 1 WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET actor = 'x' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET event = 'x' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET subject = 'x' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET detail = '{}' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET prev = UPPER(prev) || 'A' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET hash = UPPER(hash) || 'A' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    // Its number: it is missing where it was.
    (
        &["UPDATE audit SET seq = 30 WHERE seq = 3"],
        3,
        Wrong::Missing(4),
    ),
    (&["UPDATE audit SET seq = 30 WHERE seq = 6"], 6, Wrong::Cut),
    // A byte that moves from one field into the next.
    (
        &["UPDATE audit SET actor = 'tes', event = 'tnode.added' WHERE seq = 3"],
        3,
        Wrong::Changed,
    ),
    (&["DELETE FROM audit WHERE seq = 3"], 3, Wrong::Missing(4)),
    (&["DELETE FROM audit WHERE seq = 1"], 1, Wrong::Missing(2)),
    (&["DELETE FROM audit WHERE seq > 4"], 5, Wrong::Cut),
    (&["DELETE FROM audit"], 1, Wrong::Cut),
    // Two that change places.
    (
        &[
            "UPDATE audit SET seq = 99 WHERE seq = 3",
            "UPDATE audit SET seq = 3 WHERE seq = 4",
            "UPDATE audit SET seq = 4 WHERE seq = 99",
        ],
        3,
        Wrong::Changed,
    ),
    // One that comes between, all behind it moved on.
    (
        &[
            "UPDATE audit SET seq = seq + 100 WHERE seq >= 3",
            "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
             SELECT 3, at, actor, event, subject, detail, prev, hash FROM audit WHERE seq = 2",
            "UPDATE audit SET seq = seq - 99 WHERE seq > 100",
            "UPDATE audit_head SET seq = 7",
        ],
        3,
        Wrong::Changed,
    ),
    // Beside the chain.
    (
        &[
            "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
           SELECT 7, at, actor, event, subject, detail, hash, hash FROM audit WHERE seq = 6",
        ],
        7,
        Wrong::Beside,
    ),
    (
        &[
            "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
           SELECT -1, at, actor, event, subject, detail, hash, hash FROM audit WHERE seq = 6",
        ],
        7,
        Wrong::Beside,
    ),
    (&["UPDATE audit_head SET hash = 'x'"], 6, Wrong::NotTheHead),
    (&["DELETE FROM audit_head"], 0, Wrong::NoHead),
];

#[tokio::test]
async fn whatever_is_done_to_a_log_is_found() {
    let found: Vec<_> = places().await.into_iter().map(|place| place.name).collect();
    for name in found {
        for (statements, seq, wrong) in DEEDS {
            let mut all = places().await.into_iter();
            let place = all.find(|place| place.name == name).unwrap();
            let store = filled(&place, 6).await;
            assert_eq!(flaw(&store, None).await, None);
            unguard(&store).await;
            for statement in statements {
                execute(&store, statement).await;
            }
            assert_eq!(
                flaw(&store, None).await,
                Some((seq, wrong)),
                "{name}: {statements:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_kept_head_tells_a_cut_end_and_a_log_that_was_written_anew() {
    for place in places().await {
        let store = filled(&place, 3).await;
        let early = store.audit_head().await.unwrap();
        store.append_audit(&[event("4"), event("5")]).await.unwrap();
        let late = store.audit_head().await.unwrap();
        let by_hash = |head: &Head| Kept::hash(&head.hash).unwrap();
        for kept in [
            early.clone().into(),
            late.clone().into(),
            by_hash(&early),
            by_hash(&late),
        ] {
            assert_eq!(flaw(&store, Some(&kept)).await, None, "{}", place.name);
        }
        let none = Kept::hash(&"ab".repeat(32)).unwrap();
        assert_eq!(flaw(&store, Some(&none)).await, Some((5, Wrong::NotKept)));

        // The end goes, with the head that the log names: nothing in it tells.
        unguard(&store).await;
        execute(&store, "DELETE FROM audit WHERE seq > 3").await;
        execute(
            &store,
            "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)",
        )
        .await;
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
        assert_eq!(flaw(&store, Some(&early.clone().into())).await, None);
        assert_eq!(
            flaw(&store, Some(&late.clone().into())).await,
            Some((4, Wrong::Cut))
        );
        assert_eq!(
            flaw(&store, Some(&by_hash(&late))).await,
            Some((3, Wrong::NotKept))
        );

        // And other entries come in its place.
        store
            .append_audit(&[event("four"), event("five")])
            .await
            .unwrap();
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
        assert_eq!(
            flaw(&store, Some(&late.into())).await,
            Some((5, Wrong::Anew))
        );
        assert_eq!(flaw(&store, Some(&early.into())).await, None);
    }
}

#[tokio::test]
async fn a_log_longer_than_a_page_is_walked_to_its_end() {
    for place in places().await {
        let store = filled(&place, 2100).await;
        let audited = store.verify_audit(None).await.unwrap();
        assert_eq!(
            (audited.head.seq, audited.flaw),
            (2100, None),
            "{}",
            place.name
        );
        let page = store.audit(2000, Some(at(100)), 10).await.unwrap();
        let numbers: Vec<_> = page.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, (2001..=2010).collect::<Vec<_>>(), "{}", place.name);
        assert!(store.audit(0, Some(at(101)), 10).await.unwrap().is_empty());
        unguard(&store).await;
        execute(&store, "UPDATE audit SET at = 0 WHERE seq = 2050").await;
        assert_eq!(flaw(&store, None).await, Some((2050, Wrong::Changed)));
    }
}

#[tokio::test]
async fn what_others_say_is_bounded_and_is_no_control_character() {
    for place in places().await {
        let store = place.open().await.acting("a\nb");
        let event = Event::new(at(1), What::NodeAnnounced, &"\u{1b}\0ü".repeat(2000))
            .with(json!({ "long": "x".repeat(MAX_DETAIL) }));
        store.append_audit(&[event]).await.unwrap();
        let entry = store.audit(0, None, 1).await.unwrap().remove(0);
        assert_eq!(entry.actor, "a\u{fffd}b");
        assert!(entry.subject.len() <= MAX_SUBJECT && !entry.subject.contains(char::is_control));
        let detail: Value = serde_json::from_str(&entry.detail).unwrap();
        assert_eq!(
            detail["sha256"].as_str().map(str::len),
            Some(64),
            "{detail}"
        );
        assert_eq!(flaw(&store, None).await, None, "{}", place.name);
    }
}

/// The encoding is fixed: what was written by an earlier version is verified by a later one.
#[test]
fn the_hash_of_an_entry_is_what_it_was() {
    let event = Event::new(at(1), What::KeyCreated, "team").with(json!({ "id": "key_1" }));
    let entry = Entry::following(1, NOTHING.to_owned(), "cli root (0)", &event);
    let mut expected = Sha256::new();
    for field in [
        b"sealgate audit entry v1".as_slice(),
        NOTHING.as_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 3, 232],
        b"cli root (0)",
        b"key.created",
        b"team",
        br#"{"id":"key_1"}"#,
    ] {
        expected.update((field.len() as u64).to_be_bytes());
        expected.update(field);
    }
    assert_eq!(entry.hash, hex::encode(expected.finalize()));
}
