//! What others write into the tables: a row under the next number, and in SQLite what is no number and no text.

use super::*;

/// A row under the number that comes next.
const FOREIGN: &str = "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
                       SELECT MAX(seq) + 1, 1, 'x', 'x', 'x', '{}', 'x', 'x' FROM audit";

#[tokio::test]
async fn a_row_that_something_else_wrote_holds_up_nothing_and_stays_to_be_seen() {
    for place in places().await {
        let store = filled(&place, 2).await;
        let kept: Kept = store.audit_head().await.unwrap().into();
        // One, and then many at once.
        execute(&store, FOREIGN).await;
        let secret = KeySecret::generate();
        store
            .create_key(&new_key("a"), &secret, at(100))
            .await
            .unwrap();
        for _ in 0..40 {
            execute(&store, FOREIGN).await;
        }
        store.revoke_key("a", at(200)).await.unwrap();
        store.append_audit(&[event("last")]).await.unwrap();

        let entries = store.audit(0, None, 100).await.unwrap();
        let own: Vec<_> = entries.iter().filter(|it| it.actor == "test").collect();
        let numbers: Vec<_> = own.iter().map(|it| it.seq).collect();
        assert_eq!(numbers, [1, 2, 4, 45, 46], "{}", place.name);
        for pair in own.windows(2) {
            assert_eq!(pair[1].prev, pair[0].hash, "{}", place.name);
        }
        let audited = store.verify_audit(Some(&kept)).await.unwrap();
        assert_eq!(audited.flaw, Some((3, Wrong::Foreign)), "{}", place.name);
        assert_eq!(audited.head.seq, 46, "the chain leads to its end");
        // A head that was kept since is of the same chain.
        let late = store.audit_head().await.unwrap();
        let audited = store.verify_audit(Some(&late.into())).await.unwrap();
        assert_eq!(audited.flaw, Some((3, Wrong::Foreign)), "{}", place.name);
    }
}

/// A row that is none of the log's: wherever it is, what was cut off behind it is said, by any kept head.
#[tokio::test]
async fn a_row_that_something_else_wrote_hides_no_cut() {
    for place in places().await {
        let store = filled(&place, 2).await;
        execute(&store, FOREIGN).await;
        for name in ["own 4", "own 5", "own 6", "own 7"] {
            store.append_audit(&[event(name)]).await.unwrap();
        }
        let late = store.audit_head().await.unwrap();
        let by_number = late.clone().into();
        let by_hash = Kept::hash(&late.hash).unwrap();
        assert_eq!(late.seq, 7, "{}", place.name);
        unguard(&store).await;
        execute(&store, "DELETE FROM audit WHERE seq > 5").await;
        let cut = (6, Wrong::Also(3, &Wrong::Cut));
        assert_eq!(flaw(&store, None).await, Some(cut), "{}", place.name);
        // With the head that the log names: by a kept one alone, before the row as well as behind it.
        for (end, first) in [(5, (3, Wrong::Foreign)), (2, (3, Wrong::Beside))] {
            let statements = [
                format!("DELETE FROM audit WHERE seq > {end} AND actor <> 'x'"),
                format!(
                    "UPDATE audit_head SET seq = {end}, hash = (SELECT hash FROM audit WHERE seq = {end})"
                ),
            ];
            for statement in &statements {
                alter(&store, statement).await;
            }
            assert_eq!(flaw(&store, None).await, Some(first), "{}", place.name);
            let cut = (end + 1, Wrong::Also(3, &Wrong::Cut));
            assert_eq!(flaw(&store, Some(&by_number)).await, Some(cut));
            let cut = (end, Wrong::Also(3, &Wrong::NotKept));
            assert_eq!(flaw(&store, Some(&by_hash)).await, Some(cut));
        }
        let message = Wrong::Also(3, &Wrong::Cut).to_string();
        assert!(message.contains("its end was cut off. And entry 3 is"));
    }
}

/// Nor what was done to an entry behind it, or a log that was written anew.
#[tokio::test]
async fn a_row_that_something_else_wrote_hides_no_change() {
    for place in places().await {
        let store = filled(&place, 2).await;
        execute(&store, FOREIGN).await;
        store.append_audit(&[event("4"), event("5")]).await.unwrap();
        let anew = Head {
            hash: "ab".repeat(32),
            ..store.audit_head().await.unwrap()
        };
        let found = flaw(&store, Some(&anew.into())).await;
        let expected = (5, Wrong::Also(3, &Wrong::Anew));
        assert_eq!(found, Some(expected), "{}", place.name);
        unguard(&store).await;
        execute(&store, "UPDATE audit SET at = 1 WHERE seq = 5").await;
        let expected = (5, Wrong::Also(3, &Wrong::Changed));
        assert_eq!(flaw(&store, None).await, Some(expected), "{}", place.name);
        execute(&store, "UPDATE audit SET seq = 9 WHERE seq = 5").await;
        execute(&store, "UPDATE audit_head SET seq = 9").await;
        let expected = (5, Wrong::Also(3, &Wrong::Gone));
        assert_eq!(flaw(&store, None).await, Some(expected), "{}", place.name);
    }
}

/// Adds a row whose hash is of what it says, by the next number, as if it followed `prev`.
async fn forge(store: &Store, seq: i64, prev: &str) -> String {
    let forged = Entry::following(seq, prev.to_owned(), "test", &event("forged"));
    let statement = "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    on!(store, pool => sqlx::query(statement)
        .bind(forged.seq).bind(forged.at).bind(&forged.actor).bind(&forged.event)
        .bind(&forged.subject).bind(&forged.detail).bind(&forged.prev).bind(&forged.hash)
        .execute(pool).await.map(drop).unwrap());
    forged.hash
}

#[tokio::test]
async fn a_row_that_is_forged_as_the_next_entry_leads_nobody_astray() {
    // So many that follow each other, and the entry that the first of them follows.
    for (forged, follows) in [(1, 2), (3, 2), (1, 1), (2, 1)] {
        for place in places().await {
            let case = format!("{}: {forged} after {follows}", place.name);
            let store = filled(&place, 2).await;
            let entries = store.audit(0, None, 2).await.unwrap();
            let early = store.audit_head().await.unwrap();
            let followed = entries.iter().find(|entry| entry.seq == follows).unwrap();
            let mut prev = followed.hash.clone();
            for seq in 3..3 + forged {
                prev = forge(&store, seq, &prev).await;
            }
            let beside = Some((3, Wrong::Beside));
            assert_eq!(flaw(&store, None).await, beside, "{case}");
            store
                .append_audit(&[event("own"), event("own")])
                .await
                .unwrap();
            let last = store.audit_head().await.unwrap();
            assert_eq!(last.seq, 4 + forged, "{case}");
            for kept in [None, Some(early.clone().into()), Some(last.clone().into())] {
                let audited = store.verify_audit(kept.as_ref()).await.unwrap();
                assert_eq!(audited.flaw, Some((3, Wrong::Foreign)), "{case}");
                assert_eq!(audited.head, last, "{case}");
            }
            assert_eq!(store.audit_holds(&early).await.unwrap(), Held::Yes);
            // It proves no more than the end that the log names.
            unguard(&store).await;
            let cut = format!("DELETE FROM audit WHERE seq = {}", last.seq);
            alter(&store, &cut).await;
            assert!(flaw(&store, None).await.is_some(), "{case}");
            assert_eq!(store.audit_holds(&early).await.unwrap(), Held::No);
            let back = format!(
                "UPDATE audit_head SET seq = seq - 1, \
                 hash = (SELECT hash FROM audit WHERE seq = {} - 1)",
                last.seq
            );
            alter(&store, &back).await;
            let cut = Some((last.seq, Wrong::Also(3, &Wrong::Cut)));
            let kept = last.into();
            assert_eq!(flaw(&store, Some(&kept)).await, cut, "{case}");
        }
    }
}

#[tokio::test]
async fn a_row_at_the_end_of_all_numbers_takes_none() {
    for place in places().await {
        let store = filled(&place, 2).await;
        let statement = "INSERT INTO audit (seq, at, actor, event, subject, detail, prev, hash) \
                         VALUES (9223372036854775807, 1, 'x', 'x', 'x', '{}', 'x', 'x')";
        execute(&store, statement).await;
        execute(&store, "UPDATE audit_head SET seq = 1").await;
        store.append_audit(&[event("a"), event("b")]).await.unwrap();
        assert_eq!(store.audit_head().await.unwrap().seq, 4, "{}", place.name);
        assert_eq!(
            flaw(&store, None).await,
            Some((5, Wrong::Beside)),
            "{}",
            place.name
        );
    }
}

/// SQLite takes anything anywhere: what somebody does, and what is found in a log of three entries.
const NONSENSE: [(&[&str], i64, Wrong); 18] = [
    (
        &["UPDATE audit SET seq = 'two' WHERE seq = 2"],
        2,
        Wrong::Missing(3),
    ),
    (
        &["UPDATE audit SET seq = 2.5 WHERE seq = 2"],
        2,
        Wrong::Missing(3),
    ),
    (
        &["UPDATE audit SET seq = NULL WHERE seq = 2"],
        2,
        Wrong::Missing(3),
    ),
    (
        &["UPDATE audit SET seq = -2 WHERE seq = 2"],
        2,
        Wrong::Missing(3),
    ),
    (
        &["UPDATE audit SET seq = x'02' WHERE seq = 2"],
        2,
        Wrong::Missing(3),
    ),
    (
        &["UPDATE audit SET seq = NULL WHERE seq = 3"],
        3,
        Wrong::Cut,
    ),
    (
        &[
            "INSERT INTO audit SELECT NULL, at, actor, event, subject, detail, prev, hash FROM audit WHERE seq = 3",
        ],
        4,
        Wrong::Beside,
    ),
    (
        &[
            "INSERT INTO audit SELECT 1.5, at, actor, event, subject, detail, prev, hash FROM audit WHERE seq = 3",
        ],
        4,
        Wrong::Beside,
    ),
    (
        &["UPDATE audit SET at = 'then' WHERE seq = 2"],
        2,
        Wrong::Unreadable,
    ),
    (
        &["UPDATE audit SET at = 1.5 WHERE seq = 2"],
        2,
        Wrong::Unreadable,
    ),
    (
        &["UPDATE audit SET at = -5 WHERE seq = 2"],
        2,
        Wrong::Changed,
    ),
    (
        &["UPDATE audit SET actor = x'ff' WHERE seq = 2"],
        2,
        Wrong::Unreadable,
    ),
    (
        &["UPDATE audit SET actor = CAST(x'ff' AS TEXT) WHERE seq = 2"],
        2,
        Wrong::Unreadable,
    ),
    (
        &["UPDATE audit SET detail = hex(zeroblob(5000000)) WHERE seq = 2"],
        2,
        Wrong::Changed,
    ),
    (&["UPDATE audit_head SET seq = 'three'"], 0, Wrong::NoHead),
    (&["UPDATE audit_head SET seq = -3"], 0, Wrong::NoHead),
    (&["UPDATE audit_head SET hash = x'00'"], 0, Wrong::NoHead),
    (
        &[
            "DROP TRIGGER audit_begins_where_it_says",
            "UPDATE audit_anchor SET seq = 'a'",
        ],
        0,
        Wrong::NoAnchor,
    ),
];

#[tokio::test]
async fn what_is_no_number_and_no_text_is_a_flaw_of_the_log() {
    for (statements, seq, wrong) in NONSENSE {
        let place = places().await.remove(0);
        let store = filled(&place, 3).await;
        unguard(&store).await;
        for statement in statements {
            execute(&store, statement).await;
        }
        assert_eq!(
            flaw(&store, None).await,
            Some((seq, wrong)),
            "{statements:?}"
        );
    }
}
