//! Finds what was done to an audit log.
//!
//! The walk goes from entry to entry by their hashes. A row that is none of the chain's is what is wrong, and
//! where a later entry goes on from the one before it, the walk does too: it ends at the last entry that the
//! chain leads to.

use sqlx::Row as _;

use super::{Entry, Head, NOTHING, Read, What};
use crate::store::{Store, StoreError, on};

/// Entries that are read at once.
const PAGE: u32 = 1000;

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
}

/// How far the chain leads.
pub(super) struct Walk<'a> {
    anchor: Head,
    head: Head,
    /// The number of the last row that was looked at.
    last: i64,
    /// What is wrong, where the chain goes on behind it.
    flaw: Option<(i64, Wrong)>,
    /// What is wrong with the rows behind `head`, as long as none goes on from it.
    suspect: Option<(i64, Wrong)>,
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
            anchor,
            flaw: None,
            suspect: None,
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

    /// What is wrong so far.
    pub(super) fn flaw(&self) -> Option<(i64, Wrong)> {
        self.flaw.or(self.suspect)
    }

    /// Where the chain leads to.
    pub(super) fn into_head(self) -> Head {
        self.head
    }

    pub(super) fn step(&mut self, read: Read) -> Result<(), (i64, Wrong)> {
        let expected = self.last.saturating_add(1);
        self.last = match &read {
            Ok(entry) => entry.seq,
            Err(seq) => *seq,
        };
        let is_next = self.last == expected;
        match self.judged(read) {
            Ok(entry) => {
                let beside = self.suspect.take().map(|(seq, _)| (seq, Wrong::Foreign));
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
                let wrong = match is_next {
                    true => (self.last, wrong),
                    false => (expected, Wrong::Missing(self.last)),
                };
                self.suspect.get_or_insert(wrong);
                Ok(())
            }
        }
    }

    /// The entry, if the chain goes on with it.
    fn judged(&self, read: Read) -> Result<Entry, Wrong> {
        let entry = read.map_err(|_| Wrong::Unreadable)?;
        if entry.digest() != entry.hash {
            return Err(Wrong::Changed);
        }
        if entry.prev != self.head.hash {
            return Err(Wrong::Elsewhere);
        }
        Ok(entry)
    }

    /// Holds the kept head against the entry that was reached.
    fn meet(&mut self) -> Result<(), (i64, Wrong)> {
        let Some(kept) = self.kept else { return Ok(()) };
        let is_same = kept.hash == self.head.hash;
        match kept.seq {
            None => self.met |= is_same,
            Some(seq) if seq == self.head.seq && is_same => self.met = true,
            Some(seq) if self.anchor.seq <= seq && seq <= self.head.seq && !self.met => {
                return Err((seq, Wrong::Anew));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether all is there that was to be.
    fn end(&self, last: &Head, rows: i64) -> Result<(), (i64, Wrong)> {
        if let Some(flaw) = self.flaw() {
            return Err(flaw);
        }
        let after = self.head.seq.saturating_add(1);
        if self.head.seq < last.seq {
            return Err((after, Wrong::Cut));
        }
        if self.head != *last {
            return Err((last.seq, Wrong::NotTheHead));
        }
        if rows != last.seq.saturating_sub(self.anchor.seq) {
            return Err((after, Wrong::Beside));
        }
        if self.anchor.seq > 0 && !self.is_said {
            return Err((self.anchor.seq.saturating_add(1), Wrong::NotSaid));
        }
        match self.kept {
            Some(kept) if !self.met => Err(match kept.seq {
                Some(seq) if seq < self.anchor.seq => (seq, Wrong::Pruned),
                Some(_) => (after, Wrong::Cut),
                None if self.anchor.seq > 0 => (self.head.seq, Wrong::NotKeptSince),
                None => (self.head.seq, Wrong::NotKept),
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
        let mut walk = Walk {
            kept,
            ..Walk::from(anchor)
        };
        let Some(last) = said.head else {
            let flaw = (walk.head.seq, Wrong::NoHead);
            return Ok(found(walk, Some(flaw)));
        };
        if let Err(flaw) = walk.meet() {
            return Ok(found(walk, Some(flaw)));
        }
        loop {
            let page = self.page((walk.last, last.seq), None, PAGE).await?;
            if page.is_empty() {
                let flaw = walk.end(&last, said.rows).err();
                return Ok(found(walk, flaw));
            }
            for read in page {
                if let Err(flaw) = walk.step(read) {
                    let flaw = walk.flaw().unwrap_or(flaw);
                    return Ok(found(walk, Some(flaw)));
                }
            }
        }
    }
}
