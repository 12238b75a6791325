//! Remembers accepted requests, so that a copy of one is refused.
//!
//! A claim is kept while a copy could still be accepted: as long as its date is good, or its key
//! opens. A full table refuses new
//! requests: forgetting a live claim would let a copy run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Most seconds between a request's date and the node's clock (docs/wire.md, "Request").
pub(crate) const DATE_WINDOW_S: u64 = 120;
/// Most ended claims that one new claim clears away, so that no claim pays for all the others.
const MAX_CLEARED: usize = 16;
/// The part of the table that one source may hold, where sources are counted.
const SOURCE_SHARE: usize = 4;

/// One of those who share a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Where no credential tells askers apart: an IPv4 address, or the /64 that an IPv6 host can roam
    /// in.
    Network(IpAddr),
    /// The holder of an API key, by the key's name.
    Caller(Arc<str>),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        })
    }
}

/// Why a request was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimError {
    /// It was claimed before.
    #[error("the request was accepted before")]
    Replayed,
    /// There is no room without forgetting a live claim.
    #[error("the replay table is full")]
    Full,
    /// It can no longer be accepted, and a claim of it may be forgotten.
    #[error("the request's time has ended")]
    Ended,
}

/// The digests of the encapsulated keys (`enc`) of accepted requests, or what else they are known by.
#[derive(Debug)]
pub(crate) struct ReplayTable {
    capacity: usize,
    claims: Mutex<Claims>,
}

/// A claimed digest, and its source if sources are counted.
type Claim = ([u8; 32], Option<Source>);

#[derive(Debug, Default)]
struct Claims {
    live: HashSet<[u8; 32]>,
    /// The same claims by the last second in which a copy could be accepted.
    ends: BTreeMap<u64, Vec<Claim>>,
    /// How many live claims each source holds; of sources that are counted.
    held: HashMap<Source, usize>,
    /// The latest time that ended claims were looked for.
    latest: u64,
}

impl ReplayTable {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            claims: Mutex::default(),
        }
    }

    /// Most claims that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Claims that it holds, those among them that ended and were not cleared yet.
    pub(crate) fn len(&self) -> usize {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.live.len()
    }

    /// Claims `enc_digest` for a request that could be accepted until `end`, at `now` (both Unix
    /// seconds).
    ///
    /// `source` is who asks, where several share the table: none is one that has all of it.
    ///
    /// # Errors
    /// [`ClaimError::Replayed`] if it is claimed already, [`ClaimError::Full`] without room,
    /// [`ClaimError::Ended`] if the end is over.
    pub(crate) fn claim(
        &self,
        enc_digest: [u8; 32],
        end: u64,
        now: u64,
        source: Option<Source>,
    ) -> Result<(), ClaimError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.clear_ended(now);
        if claims.live.contains(&enc_digest) {
            return Err(ClaimError::Replayed);
        }
        if end < claims.latest {
            return Err(ClaimError::Ended);
        }
        let held = source
            .as_ref()
            .and_then(|source| claims.held.get(source))
            .copied()
            .unwrap_or(0);
        if claims.live.len() >= self.capacity || held >= (self.capacity / SOURCE_SHARE).max(1) {
            return Err(ClaimError::Full);
        }
        claims.live.insert(enc_digest);
        claims
            .ends
            .entry(end)
            .or_default()
            .push((enc_digest, source.clone()));
        if let Some(source) = source {
            claims.held.insert(source, held.saturating_add(1));
        }
        Ok(())
    }
}

impl Claims {
    /// Not by the caller's own time alone: it may have waited here while a later one cleared.
    fn clear_ended(&mut self, now: u64) {
        self.latest = self.latest.max(now);
        let now = self.latest;
        for _ in 0..MAX_CLEARED {
            let Some(mut first) = self.ends.first_entry() else {
                return;
            };
            if *first.key() >= now {
                return;
            }
            match first.get_mut().pop() {
                None => drop(first.remove()),
                Some((digest, source)) => {
                    self.live.remove(&digest);
                    self.release(source);
                }
            }
        }
    }

    fn release(&mut self, source: Option<Source>) {
        let Some(source) = source else { return };
        if let Some(held) = self.held.get_mut(&source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    /// The last second in which a request of that date is accepted.
    fn end(date: u64) -> u64 {
        date + DATE_WINDOW_S
    }

    fn enc(n: u8) -> [u8; 32] {
        [n; 32]
    }

    fn address(text: &str) -> Option<Source> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn a_claim_lasts_while_its_date_is_acceptable() {
        let table = ReplayTable::new(8);
        for date in [NOW - DATE_WINDOW_S, NOW, NOW + DATE_WINDOW_S] {
            let digest = enc(u8::try_from(date % 251).unwrap());
            let end = end(date);
            assert_eq!(table.claim(digest, end, NOW, None), Ok(()));
            assert_eq!(
                table.claim(digest, end, end, None),
                Err(ClaimError::Replayed)
            );
            assert_eq!(
                table.claim(digest, end, end + 1, None),
                Err(ClaimError::Ended),
                "after its end"
            );
            assert!(!table.claims.lock().unwrap().live.contains(&digest));
        }
    }

    #[test]
    fn a_copy_whose_claim_was_cleared_while_it_waited_is_refused() {
        let table = ReplayTable::new(8);
        assert_eq!(table.claim(enc(1), end(NOW), NOW, None), Ok(()));
        let later = end(NOW) + 1;
        assert_eq!(table.claim(enc(2), end(later), later, None), Ok(()));
        assert_eq!(
            table.claim(enc(1), end(NOW), end(NOW), None),
            Err(ClaimError::Ended),
            "its date was good when it was looked at"
        );
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing() {
        let table = ReplayTable::new(2);
        assert_eq!(table.claim(enc(1), end(NOW), NOW, None), Ok(()));
        assert_eq!(table.claim(enc(2), end(NOW), NOW, None), Ok(()));
        assert_eq!(
            table.claim(enc(3), end(NOW), NOW, None),
            Err(ClaimError::Full)
        );
        assert_eq!(
            table.claim(enc(1), end(NOW), NOW, None),
            Err(ClaimError::Replayed)
        );
        let later = NOW + DATE_WINDOW_S + 1;
        assert_eq!(table.claim(enc(3), end(later), later, None), Ok(()));
    }

    #[test]
    fn one_source_holds_a_quarter() {
        let table = ReplayTable::new(8);
        let first = address("2001:db8::1");
        let same_network = address("2001:db8::2");
        assert_eq!(table.claim(enc(1), end(NOW), NOW, first.clone()), Ok(()));
        assert_eq!(table.claim(enc(2), end(NOW), NOW, same_network), Ok(()));
        assert_eq!(
            table.claim(enc(3), end(NOW), NOW, first.clone()),
            Err(ClaimError::Full)
        );
        assert_eq!(
            table.claim(enc(3), end(NOW), NOW, address("10.0.0.1")),
            Ok(())
        );
        assert_eq!(
            table.claim(enc(4), end(NOW), NOW, address("::ffff:10.0.0.1")),
            Ok(())
        );
        assert_eq!(
            table.claim(enc(5), end(NOW), NOW, address("10.0.0.1")),
            Err(ClaimError::Full)
        );
        let later = NOW + DATE_WINDOW_S + 1;
        assert_eq!(table.claim(enc(5), end(later), later, first), Ok(()));
        let claims = table.claims.lock().unwrap();
        assert_eq!((claims.live.len(), claims.held.len()), (1, 1));
    }

    #[test]
    fn one_key_leaves_room_for_the_others() {
        let table = ReplayTable::new(8);
        let caller = |name: &str| Some(Source::Caller(name.into()));
        for n in 1..=2 {
            assert_eq!(table.claim(enc(n), end(NOW), NOW, caller("a")), Ok(()));
        }
        let full = table.claim(enc(3), end(NOW), NOW, caller("a"));
        assert_eq!(full, Err(ClaimError::Full));
        assert_eq!(table.claim(enc(3), end(NOW), NOW, caller("b")), Ok(()));
    }

    #[test]
    fn ended_claims_are_cleared_a_few_at_a_time() {
        let table = ReplayTable::new(1000);
        for n in 0..200 {
            assert_eq!(table.claim(enc(n), end(NOW), NOW, None), Ok(()));
        }
        assert_eq!((table.len(), table.capacity()), (200, 1000));
        let later = NOW + DATE_WINDOW_S + 1;
        assert_eq!(table.claim(enc(255), end(later), later, None), Ok(()));
        assert_eq!(
            table.claims.lock().unwrap().live.len(),
            200 - MAX_CLEARED + 1
        );
    }
}
