//! Receipts on their way into the database.

use super::*;
use crate::store::tests::{Place as Database, at, execute, places};

fn receipt(id: &str, jws: &str, checked_at: u64) -> ReceiptRow {
    ReceiptRow {
        request_id: id.to_owned(),
        key_id: "key".to_owned(),
        node: "node".to_owned(),
        jws: jws.to_owned(),
        salts: None,
        statement: String::new(),
        evidence: String::new(),
        nonce: String::new(),
        policy: String::new(),
        bundle: None,
        asked_at: at(1),
        appraised_at: at(2),
        checked_at: at(checked_at),
    }
}

/// The journal of a test, opened anew, and who writes what is in it.
fn open(database: &Database, store: &Store, places: usize) -> (ReceiptWriter, ReceiptQueue) {
    let path = journal_beside(&database.dir.path().join("journal"));
    ReceiptWriter::new(store.clone(), Journal::open(&path, places).unwrap())
}

/// Writes all that waits, and ends.
async fn write((writer, queue): (ReceiptWriter, ReceiptQueue)) {
    drop(queue);
    writer.run(CancellationToken::new()).await;
}

async fn kept(store: &Store, id: &str) -> Option<String> {
    let found = store.receipt(id, "key").await.unwrap();
    found.map(|row| row.jws)
}

#[tokio::test]
async fn what_waits_for_the_database_outlives_the_process() {
    for database in places().await {
        let store = database.open().await;
        let (writer, queue) = open(&database, &store, 4);
        let (one, two) = (queue.reserve().unwrap(), queue.reserve().unwrap());
        let (three, four) = (queue.reserve().unwrap(), queue.reserve().unwrap());
        assert!(matches!(queue.reserve(), Err(JournalError::Full)));
        // A place without a receipt is free again.
        drop(four);
        let four = queue.reserve().unwrap();
        queue.add(two, receipt("a", "second", 9)).unwrap();
        queue.add(one, receipt("a", "first", 8)).unwrap();
        queue.add(three, receipt("b", "b", 7)).unwrap();
        let long = receipt("c", &"j".repeat(ReceiptRow::PLACE), 7);
        let refused = queue.add(four, long);
        assert!(matches!(refused, Err(JournalError::TooLong)));
        // Killed: nothing of it was written.
        drop((writer, queue));

        let (mut writer, queue) = open(&database, &store, 4);
        let name = database.name;
        assert_eq!(kept(&store, "a").await, None, "{name}");
        writer.write_found().await;
        assert_eq!(queue.journal.taken(), 0, "{name}");
        // Of two, the one that was checked first.
        assert_eq!(kept(&store, "a").await.as_deref(), Some("first"), "{name}");
        assert_eq!(kept(&store, "b").await.as_deref(), Some("b"), "{name}");
        let row = store.receipt("b", "key").await.unwrap().unwrap();
        assert_eq!(row, receipt("b", "b", 7), "{name}");
        let again = queue.reserve().unwrap();
        queue.add(again, receipt("a", "third", 1)).unwrap();
        let journal = Arc::clone(&queue.journal);
        write((writer, queue)).await;
        assert_eq!(journal.taken(), 0, "{name}");
        assert_eq!(kept(&store, "a").await.as_deref(), Some("first"), "{name}");
    }
}

#[tokio::test]
async fn a_stop_while_the_database_is_away_leaves_receipts_in_the_journal() {
    for database in places().await {
        let store = database.open().await;
        let (writer, queue) = open(&database, &store, 2);
        execute(&store, "ALTER TABLE receipt RENAME TO elsewhere").await;
        let place = queue.reserve().unwrap();
        queue.add(place, receipt("a", "a", 1)).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await;
        assert_eq!(queue.journal.taken(), 1, "{}", database.name);
        drop(queue);
        let (mut writer, queue) = open(&database, &store, 2);
        writer.write_found().await;
        assert_eq!(queue.journal.taken(), 1, "still away");
        execute(&store, "ALTER TABLE elsewhere RENAME TO receipt").await;
        let journal = Arc::clone(&queue.journal);
        write((writer, queue)).await;
        assert_eq!(journal.taken(), 0, "{}", database.name);
        assert_eq!(kept(&store, "a").await.as_deref(), Some("a"));
    }
}

#[tokio::test]
async fn a_receipt_that_the_database_refuses_holds_up_no_other() {
    for database in places().await {
        // SQLite refuses no text.
        if database.name == "SQLite" {
            continue;
        }
        let store = database.open().await;
        let (writer, queue) = open(&database, &store, 4);
        for id in ["a", "bad\0", "c"] {
            let place = queue.reserve().unwrap();
            queue.add(place, receipt(id, id, 1)).unwrap();
        }
        let journal = Arc::clone(&queue.journal);
        write((writer, queue)).await;
        assert_eq!(journal.taken(), 1);
        assert_eq!(kept(&store, "c").await.as_deref(), Some("c"));
    }
}

#[test]
fn the_longest_receipt_has_room() {
    let digest = "f".repeat(64);
    let longest = ReceiptRow {
        request_id: "f".repeat(32),
        key_id: "k".repeat(256),
        node: "n".repeat(64),
        jws: "j".repeat(crate::seal::MAX_RECEIPT),
        salts: Some("s".repeat(87)),
        statement: digest.clone(),
        evidence: digest.clone(),
        nonce: digest.clone(),
        policy: digest.clone(),
        bundle: Some(digest),
        ..receipt("", "", u32::MAX.into())
    };
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("journal"), 1).unwrap();
    let place = journal.reserve().unwrap().end(&longest).unwrap();
    drop((place, journal));
    let (_, found) = Journal::<ReceiptRow>::open(&dir.path().join("journal"), 1).unwrap();
    assert_eq!(found.rows.first().map(|(_, row)| row), Some(&longest));
}
