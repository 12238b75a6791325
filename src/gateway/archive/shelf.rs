//! Which evidence is kept, and which goes when there is too much.

use std::collections::{HashSet, VecDeque};

/// The part of the room that refused evidence may hold against accepted evidence: anybody on the
/// way to a node can send what is refused.
const REFUSED_SHARE: u64 = 4;

/// What is kept, by digest.
#[derive(Debug)]
pub(super) struct Shelf {
    max_bytes: u64,
    kept: HashSet<String>,
    accepted: Row,
    refused: Row,
}

/// Pieces of one verdict, the oldest first.
#[derive(Debug, Default)]
struct Row {
    pieces: VecDeque<(String, u64)>,
    bytes: u64,
}

impl Shelf {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            kept: HashSet::new(),
            accepted: Row::default(),
            refused: Row::default(),
        }
    }

    pub(super) fn holds(&self, digest: &str) -> bool {
        self.kept.contains(digest)
    }

    /// Adds what is not yet there.
    pub(super) fn add(&mut self, digest: &str, len: u64, accepted: bool) {
        if self.kept.insert(digest.to_owned()) {
            let row = if accepted {
                &mut self.accepted
            } else {
                &mut self.refused
            };
            row.pieces.push_back((digest.to_owned(), len));
            row.bytes = row.bytes.saturating_add(len);
        }
    }

    /// Counts as accepted what is there as refused: another policy may let it pass.
    pub(super) fn accept(&mut self, digest: &str) {
        let mut refused = self.refused.pieces.iter();
        let place = refused.position(|(other, _)| other == digest);
        if let Some((digest, len)) = place.and_then(|place| self.refused.pieces.remove(place)) {
            self.refused.bytes = self.refused.bytes.saturating_sub(len);
            self.accepted.bytes = self.accepted.bytes.saturating_add(len);
            self.accepted.pieces.push_back((digest, len));
        }
    }

    /// What must go for the rest to fit: taken out here, to be removed by the caller.
    pub(super) fn surplus(&mut self) -> Option<String> {
        if self.accepted.bytes.saturating_add(self.refused.bytes) <= self.max_bytes {
            return None;
        }
        let too_many = self.refused.bytes > self.max_bytes / REFUSED_SHARE;
        let first = if too_many || self.accepted.pieces.is_empty() {
            self.refused.take_oldest()
        } else {
            self.accepted.take_oldest()
        };
        let digest = first?;
        self.kept.remove(&digest);
        Some(digest)
    }
}

impl Row {
    fn take_oldest(&mut self) -> Option<String> {
        let (digest, len) = self.pieces.pop_front()?;
        self.bytes = self.bytes.saturating_sub(len);
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surplus(shelf: &mut Shelf) -> Vec<String> {
        std::iter::from_fn(|| shelf.surplus()).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_refused_evidence_before_accepted_beyond_its_share() {
        let mut shelf = Shelf::new(100);
        for (digest, len, accepted) in [("a", 40, true), ("b", 40, true), ("r", 20, false)] {
            shelf.add(digest, len, accepted);
            shelf.add(digest, len, accepted);
        }
        assert!(
            surplus(&mut shelf).is_empty(),
            "all of it fits, each counted once"
        );
        shelf.add("s", 20, false);
        assert_eq!(
            surplus(&mut shelf),
            ["r"],
            "40 refused of 100 are beyond the share"
        );
        shelf.add("c", 10, true);
        assert_eq!(surplus(&mut shelf), ["a"], "20 are not");
        assert!(shelf.holds("b") && shelf.holds("s") && !shelf.holds("a") && !shelf.holds("r"));
        shelf.accept("s");
        shelf.accept("b");
        shelf.add("flood", 1000, false);
        assert_eq!(surplus(&mut shelf), ["flood"], "another policy let s pass");
        assert!(shelf.holds("b") && shelf.holds("c") && shelf.holds("s"));
        shelf.add("a", 101, true);
        assert_eq!(
            surplus(&mut shelf),
            ["b", "c", "s", "a"],
            "what was taken out can come again"
        );
    }
}
