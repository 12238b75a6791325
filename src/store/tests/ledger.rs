//! Rows on their way into the database, while it is there and while it is not.

use tokio_util::sync::CancellationToken;

use super::{super::*, execute, places, postgres, query, row};
use crate::clock::Clock;

async fn requests(store: &Store) -> u64 {
    let sums = store.usage(&query(&[])).await.unwrap();
    sums.first().map_or(0, |sum| sum.requests)
}

#[tokio::test]
async fn what_waits_while_the_database_is_away_is_there_once_it_is_back() {
    for place in places().await {
        let store = place.open().await;
        let path = place.dir.path().join("journal");
        let (journal, found) = Journal::open(&path, 8).unwrap();
        let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
        let watch = ledger.watch();
        let stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(stop.clone()));

        execute(&store, "ALTER TABLE usage_row RENAME TO elsewhere").await;
        ledger.begin(&row("a")).unwrap().end(row("a"), None);
        let open = ledger.begin(&row("b")).unwrap();
        while watch.failed() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((watch.taken(), watch.written()), (2, 0), "{}", place.name);
        execute(&store, "ALTER TABLE elsewhere RENAME TO usage_row").await;
        while watch.written() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(requests(&store).await, 1, "{}", place.name);

        // Stopped while it is away: what waits is found at the next start, and so is what never ended.
        execute(&store, "ALTER TABLE usage_row RENAME TO elsewhere").await;
        ledger.begin(&row("c")).unwrap().end(row("c"), None);
        drop(open);
        stop.cancel();
        writing.await.unwrap();
        drop((ledger, watch));
        execute(&store, "ALTER TABLE elsewhere RENAME TO usage_row").await;
        let (journal, found) = Journal::open(&path, 8).unwrap();
        assert_eq!(
            (found.rows.len(), found.unfinished),
            (2, 1),
            "{}",
            place.name
        );
        let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
        let watch = ledger.watch();
        drop(ledger);
        writer.run(CancellationToken::new()).await;
        assert_eq!(
            (watch.taken(), requests(&store).await),
            (0, 3),
            "{}",
            place.name
        );
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_holds_up_no_other() {
    // SQLite refuses no text.
    let Some(place) = postgres().await else {
        return;
    };
    let store = place.open().await;
    let path = place.dir.path().join("journal");
    let (journal, found) = Journal::open(&path, 8).unwrap();
    let (ledger, writer) = Ledger::new(store.clone(), Clock::system(), (journal, found));
    let watch = ledger.watch();
    for id in ["a", "bad\0", "c"] {
        ledger.begin(&row(id)).unwrap().end(row(id), None);
    }
    drop(ledger);
    writer.run(CancellationToken::new()).await;
    assert_eq!(
        (watch.written(), watch.set_aside(), watch.taken()),
        (2, 1, 1)
    );
    assert_eq!(requests(&store).await, 2);
}
