//! Finds what was done to an audit log.

use super::{Entry, Head, NOTHING, Read};
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
    /// Up to where it is whole.
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
    #[error("it is missing, and the log ends before it: its end was cut off")]
    Cut,
    #[error("it is not the one that the log names as its last")]
    NotTheHead,
    #[error("the log does not name its last entry")]
    NoHead,
    #[error("there are entries beside the chain")]
    Beside,
    #[error("it is not the one whose hash was kept: the log was written anew")]
    Anew,
    #[error(
        "it is the last one, and none has the hash that was kept: the end was cut off, or the log written anew"
    )]
    NotKept,
}

/// How far the log is whole.
struct Walk<'a> {
    head: Head,
    kept: Option<&'a Kept>,
    met: bool,
}

impl Walk<'_> {
    fn step(&mut self, read: Read) -> Result<(), (i64, Wrong)> {
        let expected = self.head.seq.saturating_add(1);
        let seq = match &read {
            Ok(entry) => entry.seq,
            Err(seq) => *seq,
        };
        if seq != expected {
            return Err((expected, Wrong::Missing(seq)));
        }
        let entry: Entry = read.map_err(|seq| (seq, Wrong::Unreadable))?;
        if entry.digest() != entry.hash {
            return Err((seq, Wrong::Changed));
        }
        if entry.prev != self.head.hash {
            return Err((seq, Wrong::Elsewhere));
        }
        self.head = Head {
            seq,
            hash: entry.hash,
        };
        self.meet()
    }

    /// Holds the kept head against the entry that was reached.
    fn meet(&mut self) -> Result<(), (i64, Wrong)> {
        let Some(kept) = self.kept else { return Ok(()) };
        let is_same = kept.hash == self.head.hash;
        match kept.seq {
            Some(seq) if seq == self.head.seq && !is_same => Err((seq, Wrong::Anew)),
            Some(seq) if seq != self.head.seq => Ok(()),
            _ => {
                self.met |= is_same;
                Ok(())
            }
        }
    }

    /// Whether all is there that was to be.
    fn end(&self, last: &Head, count: i64) -> Result<(), (i64, Wrong)> {
        let after = self.head.seq.saturating_add(1);
        if self.head.seq < last.seq {
            return Err((after, Wrong::Cut));
        }
        if self.head != *last {
            return Err((last.seq, Wrong::NotTheHead));
        }
        if count != last.seq {
            return Err((after, Wrong::Beside));
        }
        match self.kept {
            Some(kept) if !self.met => Err(match kept.seq {
                Some(_) => (after, Wrong::Cut),
                None => (self.head.seq, Wrong::NotKept),
            }),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Walks the whole log, and holds it against a head that was kept. What is added meanwhile is not
    /// looked at.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub(crate) async fn verify_audit(&self, kept: Option<&Kept>) -> Result<Audited, StoreError> {
        let head = Head {
            seq: 0,
            hash: NOTHING.to_owned(),
        };
        let mut walk = Walk {
            head,
            kept,
            met: false,
        };
        let flaw = self.walk(&mut walk).await?.err();
        let head = walk.head;
        Ok(Audited { head, flaw })
    }

    async fn walk(&self, walk: &mut Walk<'_>) -> Result<Result<(), (i64, Wrong)>, StoreError> {
        // In one statement, so that no entry is added in between.
        let statement =
            "SELECT seq, hash, (SELECT CAST(COUNT(*) AS BIGINT) FROM audit) FROM audit_head";
        let found: Option<(i64, String, i64)> =
            on!(self, pool => sqlx::query_as(statement).fetch_optional(pool).await?);
        let Some((seq, hash, count)) = found else {
            return Ok(Err((walk.head.seq, Wrong::NoHead)));
        };
        let last = Head { seq, hash };
        if let Err(flaw) = walk.meet() {
            return Ok(Err(flaw));
        }
        loop {
            let page = self.page((walk.head.seq, last.seq), None, PAGE).await?;
            if page.is_empty() {
                return Ok(walk.end(&last, count));
            }
            for read in page {
                if let Err(flaw) = walk.step(read) {
                    return Ok(Err(flaw));
                }
            }
        }
    }
}
