//! What each source holds of what requests share whose sender is not known yet.
//!
//! One that holds nothing is not remembered, so that there are at most as many as there are places.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::admit::{Room, Taken};
use crate::attester::replay::Source;

/// The part of it all that one source may hold.
const SOURCE_SHARE: usize = 4;

/// The sources that hold something.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<HashMap<Source, Held>>);

/// What one of them holds.
#[derive(Clone, Debug)]
struct Held {
    places: Room,
    bodies: Room,
}

/// One of a source's places, until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct OfSource {
    sources: Arc<Sources>,
    source: Source,
    place: Option<Taken>,
}

/// A quarter of what all hold.
pub(super) fn share(of_all: usize) -> usize {
    of_all / SOURCE_SHARE
}

impl Sources {
    /// A place of at most `places` of this source, and its room for bodies, at most `bodies` units.
    pub(super) fn take(
        self: &Arc<Self>,
        source: Source,
        (places, bodies): (usize, usize),
    ) -> Option<(OfSource, Room)> {
        let mut sources = self.lock();
        let held = sources.get(&source).cloned().unwrap_or_else(|| Held {
            places: Room::new(0),
            bodies: Room::new(0),
        });
        let place = held.places.bounded(places).take(1)?;
        let room = held.bodies.bounded(bodies);
        sources.entry(source.clone()).or_insert(held);
        let place = OfSource {
            sources: Arc::clone(self),
            source,
            place: Some(place),
        };
        Some((place, room))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfSource {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        drop(self.place.take());
        let held = sources.get(&self.source);
        if held.is_some_and(|held| held.places.taken() == 0) {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_has_a_share_and_who_holds_nothing_is_forgotten() {
        let sources: Arc<Sources> = Arc::default();
        let take = |text| sources.take(source(text), (2, 1));
        let first = take("2001:db8::1").unwrap();
        let second = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_none(), "all are of one network");
        let other = take("2001:db8:1::1").unwrap();
        assert_eq!(sources.lock().len(), 2);
        let body = first.1.take(1).unwrap();
        assert!(second.1.take(1).is_none() && other.1.take(1).is_some());
        drop(body);
        drop((first, other));
        assert_eq!(sources.lock().len(), 1);
        let third = take("2001:db8::3").unwrap();
        drop((second, third));
        assert!(sources.lock().is_empty());
    }
}
