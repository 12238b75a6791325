//! Which evidence is kept, and which goes when there is too much.

use std::collections::{BTreeMap, HashSet, VecDeque};

/// The part of the room that refused evidence may hold against accepted evidence: anybody on the
/// way to a node can send what is refused.
const REFUSED_SHARE: u64 = 4;

/// How much is kept, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) all: u64,
    /// Accepted evidence of one node.
    pub(super) per_node: u64,
}

/// What is kept, by digest.
#[derive(Debug)]
pub(super) struct Shelf {
    room: Room,
    kept: HashSet<String>,
    accepted: Row,
    refused: Row,
}

/// A file of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) digest: String,
    pub(super) len: u64,
    /// Whose it is; empty where nothing tells.
    pub(super) node: String,
    pub(super) accepted: bool,
}

/// Pieces of one verdict.
#[derive(Debug, Default)]
struct Row {
    nodes: BTreeMap<String, Pieces>,
    bytes: u64,
}

/// Pieces of one node, the oldest first.
#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<(String, u64)>,
    bytes: u64,
}

impl Shelf {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            kept: HashSet::new(),
            accepted: Row::default(),
            refused: Row::default(),
        }
    }

    pub(super) fn holds(&self, digest: &str) -> bool {
        self.kept.contains(digest)
    }

    /// Adds what is not yet there, as the newest of its node.
    pub(super) fn add(&mut self, piece: Piece) {
        if self.kept.insert(piece.digest.clone()) {
            self.row(piece.accepted)
                .add(piece.node, piece.digest, piece.len);
        }
    }

    /// Counts as accepted what is there as refused: another policy may let it pass.
    pub(super) fn accept(&mut self, node: &str, digest: &str) {
        if let Some(len) = self.refused.take(node, digest) {
            self.accepted.add(node.to_owned(), digest.to_owned(), len);
        }
    }

    /// What must go for the rest to fit: taken out here, to be removed by the caller, or added again
    /// if that fails. It is the oldest of the node that holds most: no node pushes out the evidence
    /// of others while it holds more than they do.
    pub(super) fn surplus(&mut self) -> Option<Piece> {
        let (accepted, node) = match self.accepted.beyond(self.room.per_node) {
            Some(node) => (true, node),
            None => self.beyond_all()?,
        };
        let (digest, len) = self.row(accepted).take_at(&node, 0)?;
        self.kept.remove(&digest);
        Some(Piece {
            digest,
            len,
            node,
            accepted,
        })
    }

    /// Of which verdict and node a piece must go, if all together are too much.
    fn beyond_all(&self) -> Option<(bool, String)> {
        if self.accepted.bytes.saturating_add(self.refused.bytes) <= self.room.all {
            return None;
        }
        let too_many = self.refused.bytes > self.room.all / REFUSED_SHARE;
        let accepted = !too_many && self.accepted.bytes > 0;
        let row = if accepted {
            &self.accepted
        } else {
            &self.refused
        };
        Some((accepted, row.fullest()?))
    }

    fn row(&mut self, accepted: bool) -> &mut Row {
        if accepted {
            &mut self.accepted
        } else {
            &mut self.refused
        }
    }
}

impl Row {
    fn add(&mut self, node: String, digest: String, len: u64) {
        let of_node = self.nodes.entry(node).or_default();
        of_node.pieces.push_back((digest, len));
        of_node.bytes = of_node.bytes.saturating_add(len);
        self.bytes = self.bytes.saturating_add(len);
    }

    /// The node that holds most.
    fn fullest(&self) -> Option<String> {
        let fullest = self.nodes.iter().max_by_key(|(_, of_node)| of_node.bytes);
        fullest.map(|(node, _)| node.clone())
    }

    /// A node that holds more than so much. Evidence of which nothing tells whose it is may be of
    /// many nodes.
    fn beyond(&self, per_node: u64) -> Option<String> {
        let too_much =
            |(node, of_node): &(&String, &Pieces)| of_node.bytes > per_node && !node.is_empty();
        self.nodes
            .iter()
            .find(too_much)
            .map(|(node, _)| node.clone())
    }

    fn take(&mut self, node: &str, digest: &str) -> Option<u64> {
        let mut pieces = self.nodes.get(node)?.pieces.iter();
        let place = pieces.position(|(other, _)| other == digest)?;
        Some(self.take_at(node, place)?.1)
    }

    fn take_at(&mut self, node: &str, place: usize) -> Option<(String, u64)> {
        let of_node = self.nodes.get_mut(node)?;
        let (digest, len) = of_node.pieces.remove(place)?;
        of_node.bytes = of_node.bytes.saturating_sub(len);
        self.bytes = self.bytes.saturating_sub(len);
        if of_node.pieces.is_empty() {
            self.nodes.remove(node);
        }
        Some((digest, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(per_node: u64) -> Shelf {
        let all = 100;
        Shelf::new(Room { all, per_node })
    }

    fn piece(node: &str, digest: &str, len: u64, accepted: bool) -> Piece {
        let (node, digest) = (node.to_owned(), digest.to_owned());
        Piece {
            digest,
            len,
            node,
            accepted,
        }
    }

    fn surplus(shelf: &mut Shelf) -> Vec<String> {
        let surplus = std::iter::from_fn(|| shelf.surplus());
        surplus.map(|piece| piece.digest).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_refused_evidence_before_accepted_beyond_its_share() {
        let mut shelf = shelf(100);
        let one = |digest: &str, len, accepted| piece("one", digest, len, accepted);
        for (digest, len, accepted) in [("a", 40, true), ("b", 40, true), ("r", 20, false)] {
            shelf.add(one(digest, len, accepted));
            shelf.add(one(digest, len, accepted));
        }
        assert!(
            surplus(&mut shelf).is_empty(),
            "all of it fits, each counted once"
        );
        shelf.add(one("s", 20, false));
        assert_eq!(
            surplus(&mut shelf),
            ["r"],
            "40 refused of 100 are beyond the share"
        );
        shelf.add(one("c", 10, true));
        assert_eq!(surplus(&mut shelf), ["a"], "20 are not");
        assert!(shelf.holds("b") && shelf.holds("s") && !shelf.holds("a") && !shelf.holds("r"));
        shelf.accept("one", "s");
        shelf.accept("one", "b");
        shelf.add(one("flood", 1000, false));
        assert_eq!(surplus(&mut shelf), ["flood"], "another policy let s pass");
        assert!(shelf.holds("b") && shelf.holds("c") && shelf.holds("s"));
        shelf.add(one("a", 101, true));
        assert_eq!(
            surplus(&mut shelf),
            ["b", "c", "s", "a"],
            "what was taken out can come again"
        );
    }

    #[test]
    fn a_node_that_sends_much_pushes_out_its_own_evidence_alone() {
        for accepted in [true, false] {
            let mut shelf = shelf(100);
            shelf.add(piece("quiet", "q1", 10, accepted));
            shelf.add(piece("quiet", "q2", 10, accepted));
            let mut gone = Vec::new();
            for flood in ["f1", "f2", "f3", "f4"] {
                shelf.add(piece("loud", flood, 45, accepted));
                gone.extend(surplus(&mut shelf));
            }
            assert!(shelf.holds("q1") && shelf.holds("q2"), "{gone:?}");
        }
    }

    #[test]
    fn a_node_holds_no_more_than_its_own_room_though_there_is_more() {
        let mut shelf = shelf(50);
        for (node, digest) in [("one", "a"), ("two", "b"), ("one", "c"), ("one", "d")] {
            shelf.add(piece(node, digest, 20, true));
        }
        assert_eq!(surplus(&mut shelf), ["a"]);
        shelf.add(piece("one", "r", 20, false));
        let mut unknown = self::shelf(10);
        unknown.add(piece("", "u", 20, true));
        for mut shelf in [shelf, unknown] {
            assert!(shelf.surplus().is_none());
        }
    }

    #[test]
    fn what_could_not_be_removed_counts_on_and_is_no_longer_the_first_to_go() {
        let mut shelf = shelf(100);
        for digest in ["a", "b", "c"] {
            shelf.add(piece("one", digest, 40, true));
        }
        let stuck = shelf.surplus().unwrap();
        assert_eq!(stuck, piece("one", "a", 40, true));
        shelf.add(stuck);
        assert!(shelf.holds("a"));
        assert_eq!(surplus(&mut shelf), ["b"]);
    }
}
