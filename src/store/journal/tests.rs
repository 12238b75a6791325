//! What is written down, and found again.

use super::*;
use crate::store::{UsageRow, tests::row, usage::LOST};

const PLACE: usize = UsageRow::PLACE;

fn open(path: &Path, places: usize) -> (Arc<Journal<UsageRow>>, Found<UsageRow>) {
    Journal::open(path, places).unwrap()
}

fn ids(found: &Found<UsageRow>) -> Vec<(String, String)> {
    let ids = found.rows.iter();
    let mut ids: Vec<_> = ids
        .map(|(_, row)| (row.request_id.clone(), row.outcome.clone()))
        .collect();
    ids.sort();
    ids
}

#[test]
fn what_is_not_given_back_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, found) = open(&path, 4);
    assert!(found.rows.is_empty());
    let begun = journal.begin(&row("begun")).unwrap();
    let ended = journal.begin(&row("ended")).unwrap();
    ended.end(&row("ended")).unwrap();
    let written = journal.begin(&row("written")).unwrap();
    written.end(&row("written")).unwrap();
    written.free();
    assert_eq!((journal.taken(), journal.places()), (2, 4));
    drop((begun, ended, journal));

    let (journal, found) = open(&path, 4);
    let expected = [("begun", LOST), ("ended", "complete")];
    assert_eq!(
        ids(&found),
        expected.map(|(id, end)| (id.to_owned(), end.to_owned()))
    );
    assert_eq!(
        (found.unfinished, found.damaged, journal.taken()),
        (1, 0, 2)
    );
    found.rows.into_iter().for_each(|(place, _)| place.free());
    drop(journal);
    assert!(open(&path, 4).1.rows.is_empty());
}

#[test]
fn a_full_one_takes_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = open(&path, 2);
    let held = [
        journal.begin(&row("a")).unwrap(),
        journal.begin(&row("b")).unwrap(),
    ];
    assert!(matches!(journal.begin(&row("c")), Err(JournalError::Full)));
    let [a, b] = held;
    a.free();
    let c = journal.begin(&row("c")).unwrap();
    drop((b, c, journal));
    // Fewer places than it has are not taken away.
    let (journal, found) = open(&path, 1);
    assert_eq!((found.rows.len(), journal.places()), (2, 2));
}

#[test]
fn one_gateway_alone_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let held = open(&path, 1);
    assert!(matches!(
        Journal::<UsageRow>::open(&path, 1),
        Err(JournalError::Locked(_))
    ));
    drop(held);
    open(&path, 1);
}

#[test]
fn a_row_that_was_written_half_is_told_and_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (journal, _) = open(&path, 3);
    let rows = ["a", "b", "c"].map(|id| {
        let place = journal.begin(&row(id)).unwrap();
        place.end(&row(id)).unwrap();
        place
    });
    let half = rows[1].index;
    journal
        .file
        .write_all_at(b"?", offset::<UsageRow>(half) + 200)
        .unwrap();
    drop((rows, journal));
    let (_, found) = open(&path, 3);
    assert_eq!((found.rows.len(), found.damaged), (2, 1));
}

#[test]
fn a_row_that_has_no_room_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(&dir.path().join("journal"), 1);
    drop(journal.reserve().unwrap());
    let mut long = row("long");
    long.model = Some("m".repeat(PLACE));
    assert!(matches!(journal.begin(&long), Err(JournalError::TooLong)));
    assert_eq!(journal.taken(), 0);
}

#[test]
fn what_is_no_journal_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    let (journal, _) = open(&own, 2);
    let held = journal.begin(&row("a")).unwrap();
    let begun = std::fs::read(&own).unwrap();
    drop((held, journal));
    let mut late = vec![0; 3 * PLACE];
    late.push(b'x');
    let cases = [
        ("pages of another", vec![b'x'; 2 * PLACE], false),
        ("a secret", vec![b'x'; 64], false),
        ("one byte", vec![b'x'], false),
        ("one byte behind pages of zeros", late, false),
        ("receipts", [b"SGR1", &[1; 8188][..]].concat(), false),
        ("nothing", Vec::new(), true),
        ("zeros, not all of them", vec![0; PLACE + 100], true),
        ("its own", begun, true),
    ];
    for (name, bytes, is_own) in cases {
        let path = dir.path().join("it");
        std::fs::write(&path, &bytes).unwrap();
        let opened = Journal::<UsageRow>::open(&path, 1);
        match opened {
            Ok(_) => assert!(is_own, "{name}"),
            Err(error) => {
                assert!(!is_own, "{name}: {error}");
                assert!(error.to_string().contains("no journal"), "{name}: {error}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
            }
        }
    }
}
