//! Finds what was done to an audit log.
//!
//! The walk goes from entry to entry by their hashes. A row that is none of the chain's is what is wrong, and
//! where a later entry goes on from the one before it, the walk does too: it ends at the last entry that the
//! chain leads to. Who forges a row as the next entry leads it astray: where that may be, it goes again, by the entries
//! that the last one leads back to. Such a row hides nothing: what is wrong with the end, or with a kept head, is said before it.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::{Entry, Head, NOTHING, Read, What};
use crate::store::{Store, StoreError, on};

/// Entries that are read at once.
const PAGE: u32 = 1000;

/// Most rows beside a chain with which it is looked for from its end: each is kept in memory.
const MAX_STRAYS: usize = 100_000;

/// A head that was kept elsewhere; its number, where that was kept too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    seq: Option<i64>,
    hash: String,
}

impl From<Head> for Kept {
    fn from(head: Head) -> Self {
        Self {
            seq: Some(head.seq),
            hash: head.hash,
        }
    }
}

impl Kept {
    /// A head of which the hash alone is known, if this is one.
    pub(crate) fn hash(text: &str) -> Option<Self> {
        let is_hash = text.len() == NOTHING.len() && hex::decode(text).is_ok();
        is_hash.then(|| Self {
            seq: None,
            hash: text.to_ascii_lowercase(),
        })
    }
}

/// What a log was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Audited {
    /// The entry after which it begins; number 0 while all are there.
    pub(crate) anchor: Head,
    /// The last entry that the chain leads to.
    pub(crate) head: Head,
    /// The first entry that is wrong, and what is.
    pub(crate) flaw: Option<(i64, Wrong)>,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it is missing: the next one there is {0}")]
    Missing(i64),
    #[error("it was changed: its hash is not that of what it says")]
    Changed,
    #[error("it does not follow the one before, which it names by another hash")]
    Elsewhere,
    #[error("it holds what this program does not write")]
    Unreadable,
    #[error(
        "it is none of the log's, and something else wrote it there: the next one goes on from the one before it"
    )]
    Foreign,
    #[error("it is missing, and the log ends before it: its end was cut off")]
    Cut,
    #[error("it is not the one that the log names as its last")]
    NotTheHead,
    #[error("the log does not name its last entry")]
    NoHead,
    #[error("the log does not say where it begins")]
    NoAnchor,
    #[error("the log begins with it, and no entry says that those before were removed")]
    NotSaid,
    #[error("it is missing")]
    Gone,
    #[error("there are entries beside the chain")]
    Beside,
    #[error("it is not the one whose hash was kept: the log was written anew")]
    Anew,
    #[error(
        "it is the last one, and none has the hash that was kept: the end was cut off, or the log written anew"
    )]
    NotKept,
    #[error(
        "it is the last one, and none of those that are still kept has the hash: it may be older than them, else \
         the end was cut off, or the log written anew"
    )]
    NotKeptSince,
    #[error(
        "its hash was kept, and it was removed since, as it is kept no longer (store.audit.days): a later head proves \
         the log"
    )]
    Pruned,
    /// That, and before it a row that the chain goes on behind.
    #[error("{1}. And entry {0} is missing, or what is there is none of the log's")]
    Also(i64, &'static Wrong),
}

/// What is wrong with the end of a chain.
type Ending = (i64, &'static Wrong);

/// A row that the chain does not go on with.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    seq: i64,
    wrong: &'static Wrong,
    /// The next one there, where `seq` is missing.
    next: Option<i64>,
}

impl Suspect {
    fn flaw(self) -> (i64, Wrong) {
        (self.seq, self.next.map_or(*self.wrong, Wrong::Missing))
    }
}

/// How far the chain leads.
pub(super) struct Walk<'a> {
    anchor: Head,
    head: Head,
    /// The number of the last row that was looked at.
    last: i64,
    /// How many were.
    rows: i64,
    /// What is wrong first, where the chain goes on behind it.
    flaw: Option<(i64, Wrong)>,
    /// The first row behind `head`, as long as none goes on from it.
    suspect: Option<Suspect>,
    /// Rows that are known to be none of the chain's, whatever they say.
    strays: BTreeSet<i64>,
    /// Whether an entry says that the log begins at the anchor.
    is_said: bool,
    kept: Option<&'a Kept>,
    met: bool,
}

impl From<Head> for Walk<'_> {
    /// From where a log begins.
    fn from(anchor: Head) -> Self {
        Self {
            head: anchor.clone(),
            last: anchor.seq,
            rows: 0,
            anchor,
            flaw: None,
            suspect: None,
            strays: BTreeSet::new(),
            is_said: false,
            kept: None,
            met: false,
        }
    }
}

impl Walk<'_> {
    /// The number of the last row that was looked at.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// What is wrong first, so far.
    pub(super) fn flaw(&self) -> Option<(i64, Wrong)> {
        self.flaw.or(self.suspect.map(Suspect::flaw))
    }

    /// What is wrong with all of it: a row that the chain goes on behind is less than what ends the chain.
    fn whole(&self, ending: Option<Ending>) -> Option<(i64, Wrong)> {
        let stuck = self.suspect.map(|it| (it.seq, it.wrong));
        match (self.flaw, stuck.or(ending)) {
            (Some((first, _)), Some((seq, wrong))) => Some((seq, Wrong::Also(first, wrong))),
            _ => self.flaw().or(ending.map(|(seq, wrong)| (seq, *wrong))),
        }
    }

    /// Where the chain leads to.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn step(&mut self, read: Read) -> Result<(), Ending> {
        self.rows = self.rows.saturating_add(1);
        let expected = self.last.saturating_add(1);
        self.last = match &read {
            Ok(entry) => entry.seq,
            Err(seq) => *seq,
        };
        let is_next = self.last == expected;
        match self.judged(read) {
            Ok(entry) => {
                let beside = self.suspect.take().map(|it| (it.seq, Wrong::Foreign));
                let missing = (!is_next).then_some((expected, Wrong::Missing(entry.seq)));
                self.flaw = self.flaw.or(beside).or(missing);
                self.is_said |= entry.event == What::AuditPruned.as_str()
                    && entry.subject == self.anchor.to_string();
                self.head = Head {
                    seq: entry.seq,
                    hash: entry.hash,
                };
                self.meet()
            }
            Err(wrong) => {
                self.suspect.get_or_insert(match is_next {
                    true => Suspect {
                        seq: self.last,
                        wrong,
                        next: None,
                    },
                    false => Suspect {
                        seq: expected,
                        wrong: &Wrong::Gone,
                        next: Some(self.last),
                    },
                });
                Ok(())
            }
        }
    }

    /// The entry, if the chain goes on with it.
    fn judged(&self, read: Read) -> Result<Entry, &'static Wrong> {
        let entry = read.map_err(|_| &Wrong::Unreadable)?;
        if entry.digest() != entry.hash {
            return Err(&Wrong::Changed);
        }
        if entry.prev != self.head.hash {
            return Err(&Wrong::Elsewhere);
        }
        if self.strays.contains(&entry.seq) {
            return Err(&Wrong::Foreign);
        }
        Ok(entry)
    }

    /// Holds the kept head against the entry that was reached.
    fn meet(&mut self) -> Result<(), Ending> {
        let Some(kept) = self.kept else { return Ok(()) };
        let is_same = kept.hash == self.head.hash;
        match kept.seq {
            None => self.met |= is_same,
            Some(seq) if seq == self.head.seq && is_same => self.met = true,
            Some(seq) if self.anchor.seq <= seq && seq <= self.head.seq && !self.met => {
                return Err((seq, &Wrong::Anew));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether all is there that was to be, up to `last` and of so many rows.
    fn end(&mut self, last: &Head, rows: i64) -> Result<(), Ending> {
        let after = self.head.seq.saturating_add(1);
        if self.head.seq < last.seq {
            return Err((after, &Wrong::Cut));
        }
        if self.head != *last {
            return Err((last.seq, &Wrong::NotTheHead));
        }
        if rows != self.rows {
            // As with any row that is none of the chain's, it may still be that its end is cut off.
            self.flaw = self.flaw.or(Some((after, Wrong::Beside)));
        }
        if self.anchor.seq > 0 && !self.is_said {
            return Err((self.anchor.seq.saturating_add(1), &Wrong::NotSaid));
        }
        match self.kept {
            Some(kept) if !self.met => Err(match kept.seq {
                Some(seq) if seq < self.anchor.seq => (seq, &Wrong::Pruned),
                Some(_) => (after, &Wrong::Cut),
                None if self.anchor.seq > 0 => (self.head.seq, &Wrong::NotKeptSince),
                None => (self.head.seq, &Wrong::NotKept),
            }),
            _ => Ok(()),
        }
    }
}

/// What a log says of itself.
struct Said {
    anchor: Option<Head>,
    head: Option<Head>,
    /// All rows, whatever they are.
    rows: i64,
}

impl Store {
    /// Walks the whole log, and holds it against a head that was kept. What is added meanwhile is not
    /// looked at.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub(crate) async fn verify_audit(&self, kept: Option<&Kept>) -> Result<Audited, StoreError> {
        loop {
            let said = self.said().await?;
            let anchor = said.anchor.clone();
            let audited = self.walk(said, kept).await?;
            // Whoever removes the oldest ones meanwhile makes no flaw.
            if audited.flaw.is_none() || self.said().await?.anchor == anchor {
                return Ok(audited);
            }
        }
    }

    async fn said(&self) -> Result<Said, StoreError> {
        // In one statement, so that no entry is added in between.
        let statement = "SELECT h.seq, SUBSTR(h.hash, 1, 65), a.seq, SUBSTR(a.hash, 1, 65), \
                         (SELECT CAST(COUNT(*) AS BIGINT) FROM audit) \
                         FROM (SELECT 1 AS one) o LEFT JOIN audit_head h ON h.only_row = o.one \
                         LEFT JOIN audit_anchor a ON a.only_row = o.one";
        on!(self, pool => {
            let row = sqlx::query(statement).fetch_one(pool).await?;
            // SQLite takes what is no number, and no text.
            let head = |seq, hash| {
                let seq = row.try_get::<Option<i64>, _>(seq).ok()?.filter(|seq| *seq >= 0)?;
                let hash = row.try_get::<Option<String>, _>(hash).ok()??;
                Some(Head { seq, hash })
            };
            Ok(Said { head: head(0, 1), anchor: head(2, 3), rows: row.try_get(4)? })
        })
    }

    async fn walk(&self, said: Said, kept: Option<&Kept>) -> Result<Audited, StoreError> {
        let beginning = Head {
            seq: 0,
            hash: NOTHING.to_owned(),
        };
        let found = |walk: Walk<'_>, flaw| Audited {
            flaw,
            anchor: walk.anchor,
            head: walk.head,
        };
        let Some(anchor) = said.anchor else {
            return Ok(found(beginning.into(), Some((0, Wrong::NoAnchor))));
        };
        let Some(last) = said.head else {
            let flaw = (anchor.seq, Wrong::NoHead);
            return Ok(found(anchor.into(), Some(flaw)));
        };
        let mut strays = BTreeSet::new();
        loop {
            let is_first = strays.is_empty();
            let mut walk = Walk {
                kept,
                strays,
                ..Walk::from(anchor.clone())
            };
            let followed = self.follow(&mut walk, &last).await?;
            let ending = followed.and_then(|()| walk.end(&last, said.rows));
            let flaw = walk.whole(ending.err());
            if flaw.is_none() || !is_first {
                return Ok(found(walk, flaw));
            }
            strays = self.strays(&anchor, &last).await?;
            if strays.is_empty() {
                return Ok(found(walk, flaw));
            }
        }
    }

    /// The rows that are none of the chain's that leads back from `last` to `anchor`, by their hashes; none if it
    /// does not lead there.
    async fn strays(&self, anchor: &Head, last: &Head) -> Result<BTreeSet<i64>, StoreError> {
        let mut strays = BTreeSet::new();
        let mut wanted = last.hash.clone();
        let mut until = last.seq;
        loop {
            let page = self.page_back((anchor.seq, until), PAGE).await?;
            if page.is_empty() {
                let is_chain = wanted == anchor.hash;
                return Ok(if is_chain { strays } else { BTreeSet::new() });
            }
            for read in page {
                let seq = read.as_ref().map_or_else(|seq| *seq, |entry| entry.seq);
                until = seq.saturating_sub(1);
                match read {
                    Ok(entry) if entry.hash == wanted && entry.digest() == wanted => {
                        wanted = entry.prev;
                    }
                    // What the log names as its last is no stray.
                    _ if seq == last.seq || strays.len() >= MAX_STRAYS => {
                        return Ok(BTreeSet::new());
                    }
                    _ => {
                        strays.insert(seq);
                    }
                }
            }
        }
    }

    /// Walks on up to `last`, or until something else than the rows is wrong.
    async fn follow(
        &self,
        walk: &mut Walk<'_>,
        last: &Head,
    ) -> Result<Result<(), Ending>, StoreError> {
        if let Err(ending) = walk.meet() {
            return Ok(Err(ending));
        }
        loop {
            let page = self.page((walk.last, last.seq), None, PAGE).await?;
            if page.is_empty() {
                return Ok(Ok(()));
            }
            for read in page {
                if let Err(ending) = walk.step(read) {
                    return Ok(Err(ending));
                }
            }
        }
    }

    /// Whether a chain leads from one entry to another, whatever rows are beside it.
    pub(super) async fn leads(&self, from: &Head, to: &Head) -> Result<bool, StoreError> {
        let mut strays = BTreeSet::new();
        loop {
            let is_first = strays.is_empty();
            let mut walk = Walk {
                strays,
                ..Walk::from(from.clone())
            };
            let followed = self.follow(&mut walk, to).await?;
            let is_chain = matches!(walk.flaw(), None | Some((_, Wrong::Foreign)));
            if followed.is_ok() && is_chain && walk.head == *to {
                return Ok(true);
            }
            if !is_first {
                return Ok(false);
            }
            strays = self.strays(from, to).await?;
            if strays.is_empty() {
                return Ok(false);
            }
        }
    }
}
