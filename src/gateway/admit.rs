//! How much at once: permits that live as long as the work.
//!
//! A bound can be another from one request to the next; what is held counts on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    authenticate::Caller,
    budget::{RetryBudget, RetryPermit},
    error::Error,
    sources::{self, OfSource, Sources},
};
use crate::{
    attester::{problem::Outside, replay::Source, request},
    telemetry::metrics::Counter,
};

/// Bytes of a request's body that one permit stands for.
const BODY_UNIT: usize = 1024;
/// The part of all places, and of the room for bodies, that requests may hold whose sender is not
/// known yet: they stand under the seal.
const UNKNOWN_PLACES: usize = 4;
const UNKNOWN_BODIES: usize = 2;

/// Room of which so much at once may be taken.
#[derive(Clone, Debug)]
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// Part of a room, until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Taken {
    taken: Arc<AtomicUsize>,
    units: usize,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// The same room with another bound.
    pub(super) fn bounded(&self, most: usize) -> Self {
        Self {
            taken: Arc::clone(&self.taken),
            most,
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, units: usize) -> Option<Taken> {
        let more = |now: usize| now.checked_add(units).filter(|then| *then <= self.most);
        let taken = &self.taken;
        let grown = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        grown.ok().map(|_| Taken {
            taken: Arc::clone(taken),
            units,
        })
    }
}

impl Taken {
    fn merge(&mut self, mut other: Self) {
        self.units = self.units.saturating_add(std::mem::take(&mut other.units));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.units, Ordering::Relaxed);
    }
}

/// The places for requests, and what the bodies of all of them may hold.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    places: Room,
    bodies: Room,
    /// What of both is held by requests whose sender is not known yet.
    unknown_places: Room,
    unknown_bodies: Room,
    sources: Arc<Sources>,
    budget: Arc<RetryBudget>,
    counts: Arc<Counts>,
}

/// What was not admitted, by what there was too little of.
#[derive(Debug, Default)]
struct Counts {
    places: Counter,
    places_of_key: Counter,
    bodies: Counter,
    retries: Counter,
}

/// A place in the gateway, held until the last byte of the reply.
#[must_use]
#[derive(Debug)]
pub(super) struct Permit {
    _total: Taken,
    _of_caller: Taken,
}

/// Room for a body, held as long as the body.
#[must_use]
#[derive(Debug)]
pub(super) struct BodyRoom {
    bodies: Room,
    taken: Option<Taken>,
    bytes: usize,
    counts: Arc<Counts>,
}

/// What a request holds whose sender is not known yet.
#[must_use]
#[derive(Debug)]
pub(super) struct Unknown {
    _place: Taken,
    /// Room in its source's part of what such requests may hold, and in what all of them may.
    of_source: BodyRoom,
    share: BodyRoom,
    room: BodyRoom,
    bytes: usize,
    /// After the room that it counts.
    _place_of_source: OfSource,
}

impl Unknown {
    /// The sender is known: the room for the body is held as any other's.
    pub(super) fn known(self) -> BodyRoom {
        self.room
    }
}

impl request::Room for Unknown {
    fn grow(&mut self, bytes: usize) -> Result<(), Outside> {
        self.bytes = self.bytes.saturating_add(bytes);
        let rooms = [&mut self.of_source, &mut self.share, &mut self.room];
        rooms
            .into_iter()
            .try_for_each(|room| room.grow_to(self.bytes))
            .map_err(|_| Outside::TooMany)
    }
}

fn unknown_places(places: usize) -> usize {
    (places / UNKNOWN_PLACES).max(1)
}

fn unknown_bodies(bodies_bytes: usize) -> usize {
    bodies_bytes / BODY_UNIT / UNKNOWN_BODIES
}

impl Admission {
    pub(super) fn new(places: usize, bodies_bytes: usize) -> Self {
        Self {
            places: Room::new(places),
            bodies: Room::new(bodies_bytes / BODY_UNIT),
            unknown_places: Room::new(unknown_places(places)),
            unknown_bodies: Room::new(unknown_bodies(bodies_bytes)),
            sources: Arc::default(),
            budget: Arc::new(RetryBudget::new()),
            counts: Arc::default(),
        }
    }

    /// The same with other bounds.
    pub(super) fn bounded(&self, places: usize, bodies_bytes: usize) -> Self {
        Self {
            places: self.places.bounded(places),
            bodies: self.bodies.bounded(bodies_bytes / BODY_UNIT),
            unknown_places: self.unknown_places.bounded(unknown_places(places)),
            unknown_bodies: self.unknown_bodies.bounded(unknown_bodies(bodies_bytes)),
            sources: Arc::clone(&self.sources),
            budget: Arc::clone(&self.budget),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Admits one request, or sheds it at once.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the gateway is full or this caller has its share.
    pub(super) fn admit(&self, caller: &Caller) -> Result<Permit, Error> {
        match (self.places.take(1), caller.places.take(1)) {
            (Some(total), Some(of_caller)) => Ok(Permit {
                _total: total,
                _of_caller: of_caller,
            }),
            (None, _) => {
                self.counts.places.inc();
                Err(Error::Overloaded)
            }
            (Some(_), None) => {
                self.counts.places_of_key.inc();
                Err(Error::Overloaded)
            }
        }
    }

    /// Admits a request whose sender stands under the seal, until it is opened; then it needs a place
    /// as any other. A source has a quarter of what there is for such requests, and in any case room
    /// for `one_body`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when as many are being opened as may be, in all or of this source.
    pub(super) fn admit_unknown(&self, source: Source, one_body: usize) -> Result<Unknown, Error> {
        let bounds = (
            sources::share(self.unknown_places.most).max(1),
            sources::share(self.unknown_bodies.most).max(one_body.div_ceil(BODY_UNIT)),
        );
        let of_source = self.sources.take(source, bounds);
        let Some(((of_source, bodies), place)) = of_source.zip(self.unknown_places.take(1)) else {
            self.counts.places.inc();
            return Err(Error::Overloaded);
        };
        let room_in = |bodies| BodyRoom {
            bodies,
            ..self.body_room()
        };
        Ok(Unknown {
            _place: place,
            of_source: room_in(bodies),
            share: room_in(self.unknown_bodies.clone()),
            room: self.body_room(),
            bytes: 0,
            _place_of_source: of_source,
        })
    }

    /// Places for requests.
    pub(super) fn places(&self) -> usize {
        self.places.most
    }

    /// Room that bodies hold.
    pub(super) fn bodies_bytes(&self) -> usize {
        self.bodies.taken().saturating_mul(BODY_UNIT)
    }

    /// Room for bodies.
    pub(super) fn most_bodies_bytes(&self) -> usize {
        self.bodies.most.saturating_mul(BODY_UNIT)
    }

    /// Retries whose requests have not ended.
    pub(super) fn retries_in_flight(&self) -> usize {
        self.budget.in_flight()
    }

    /// Retries that were not allowed, so far.
    pub(super) fn refused_retries(&self) -> u64 {
        self.counts.retries.get()
    }

    /// Requests that were not admitted so far, by what there was too little of.
    pub(super) fn shed(&self) -> [(&'static str, u64); 3] {
        let Counts {
            places,
            places_of_key,
            bodies,
            ..
        } = &*self.counts;
        [
            ("places", places.get()),
            ("key", places_of_key.get()),
            ("bodies", bodies.get()),
        ]
    }

    /// Requests that hold a place.
    pub(super) fn in_flight(&self) -> usize {
        self.places.taken()
    }

    /// No room yet, to be grown as the body comes.
    pub(super) fn body_room(&self) -> BodyRoom {
        BodyRoom {
            bodies: self.bodies.clone(),
            taken: None,
            bytes: 0,
            counts: Arc::clone(&self.counts),
        }
    }

    /// A request is tried for the first time, which earns a part of a further try.
    pub(super) fn tried(&self) {
        self.budget.earn();
    }

    /// Leave to try once more, or `None` when too many requests are being tried again: a fleet in
    /// trouble must not get more requests than a healthy one.
    pub(super) fn retry(&self) -> Option<RetryPermit> {
        let permit = self.budget.take(self.in_flight());
        if permit.is_none() {
            self.counts.retries.inc();
        }
        permit
    }
}

impl BodyRoom {
    /// Whether there is room now for a body of `bytes`; none is taken.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the bodies of all requests leave none.
    pub(super) fn fits(&self, bytes: usize) -> Result<(), Error> {
        let all = self.bodies.taken().checked_add(bytes.div_ceil(BODY_UNIT));
        if all.is_none_or(|all| all > self.bodies.most) {
            self.counts.bodies.inc();
            return Err(Error::Overloaded);
        }
        Ok(())
    }

    /// Takes room up to a body of `bytes`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the bodies of all requests leave none.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let units = more.div_ceil(BODY_UNIT);
        let Some(taken) = self.bodies.take(units) else {
            self.counts.bodies.inc();
            return Err(Error::Overloaded);
        };
        self.bytes = self.bytes.saturating_add(units.saturating_mul(BODY_UNIT));
        match &mut self.taken {
            Some(before) => before.merge(taken),
            None => self.taken = Some(taken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::gateway::authenticate::Callers;

    async fn caller(places: usize) -> Arc<Caller> {
        let callers = Callers::anybody(places);
        callers.authenticate(&HeaderMap::new()).await.unwrap()
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::new(2, 0);
        let (one, two) = (caller(1).await, caller(2).await);
        let first = admission.admit(&one).unwrap();
        assert!(admission.admit(&one).is_err(), "its share is used up");
        let second = admission.admit(&two).unwrap();
        assert!(admission.admit(&two).is_err(), "the gateway is full");
        assert_eq!(admission.shed(), [("places", 1), ("key", 1), ("bodies", 0)]);
        assert_eq!((admission.in_flight(), admission.places()), (2, 2));
        drop((first, second));
        let all = [&admission.places, &one.places, &two.places];
        assert_eq!(all.map(Room::taken), [0; 3]);
    }

    #[tokio::test]
    async fn what_is_held_counts_under_another_bound() {
        let (admission, caller) = (Admission::new(4, 0), caller(4).await);
        let held = [(); 3].map(|()| admission.admit(&caller).unwrap());
        let narrow = admission.bounded(2, 0);
        assert!(narrow.admit(&caller).is_err());
        let [first, second, third] = held;
        drop((first, second));
        let fourth = narrow.admit(&caller).unwrap();
        assert!(narrow.admit(&caller).is_err());
        drop((third, fourth));
        assert_eq!((admission.in_flight(), caller.places.taken()), (0, 0));
    }

    #[test]
    fn bodies_share_their_room() {
        let admission = Admission::new(1, 4 * BODY_UNIT);
        let (mut one, mut two) = (admission.body_room(), admission.body_room());
        one.grow_to(1).unwrap();
        one.grow_to(2 * BODY_UNIT).unwrap();
        one.grow_to(BODY_UNIT).unwrap();
        two.fits(2 * BODY_UNIT).unwrap();
        two.grow_to(2 * BODY_UNIT).unwrap();
        assert!(two.grow_to(2 * BODY_UNIT + 1).is_err());
        assert!(admission.body_room().fits(1).is_err());
        assert_eq!(admission.bodies_bytes(), 4 * BODY_UNIT);
        assert_eq!(admission.shed(), [("places", 0), ("key", 0), ("bodies", 2)]);
        drop((one, two));
        assert_eq!(admission.bodies.taken(), 0);
    }

    #[test]
    fn whoever_is_not_known_yet_leaves_room_for_the_others() {
        use request::Room as _;

        let admission = Admission::new(8, 8 * BODY_UNIT);
        let admit = |n: u8| admission.admit_unknown(source(n), 4 * BODY_UNIT);
        let mut first = admit(1).unwrap();
        let second = admit(2).unwrap();
        assert!(admit(3).is_err());
        drop(second);
        first.grow(2 * BODY_UNIT).unwrap();
        first.grow(2 * BODY_UNIT).unwrap();
        assert_eq!(first.grow(1), Err(Outside::TooMany), "half of the room");
        drop(first);
        let mut opened = admit(1).unwrap();
        opened.grow(4 * BODY_UNIT).unwrap();
        let room = opened.known();
        assert_eq!(admission.bodies_bytes(), 4 * BODY_UNIT);
        let mut next = admit(1).unwrap();
        next.grow(4 * BODY_UNIT).unwrap();
        drop((room, next));
        assert_eq!(admission.bodies_bytes(), 0);
        let taken = [&admission.unknown_places, &admission.unknown_bodies];
        assert_eq!(taken.map(Room::taken), [0; 2]);
    }

    #[test]
    fn one_source_leaves_room_for_other_unknown_ones() {
        use request::Room as _;

        let admission = Admission::new(32, 32 * BODY_UNIT);
        let admit = |n: u8| admission.admit_unknown(source(n), BODY_UNIT);
        let mut both = [(); 2].map(|()| admit(1).unwrap());
        assert!(admit(1).is_err(), "a quarter of the eight");
        for (at, one) in both.iter_mut().enumerate() {
            one.grow(2 * BODY_UNIT).unwrap();
            assert_eq!(admission.bodies_bytes(), (at + 1) * 2 * BODY_UNIT);
        }
        assert_eq!(both[0].grow(1), Err(Outside::TooMany), "of the sixteen");
        let others: Vec<_> = [2, 2, 3, 3, 4, 4].map(|n| admit(n).unwrap()).into();
        assert!(admit(5).is_err(), "all eight are taken");
        drop(others);
        let mut other = admit(2).unwrap();
        other.grow(4 * BODY_UNIT).unwrap();
        assert_eq!(admission.bodies_bytes(), 8 * BODY_UNIT);
        drop((both, other));
        assert!(admit(1).is_ok(), "what ended is free");
        assert_eq!(admission.bodies_bytes(), 0);
    }

    fn source(n: u8) -> Source {
        std::net::IpAddr::from([10, 0, 0, n]).into()
    }

    #[tokio::test]
    async fn a_retry_that_is_not_allowed_is_counted() {
        let admission = Admission::new(100, 0);
        let few: Vec<_> = std::iter::from_fn(|| admission.retry()).collect();
        assert_eq!(few.len(), 3);
        assert_eq!(admission.refused_retries(), 1);
        assert_eq!(admission.retries_in_flight(), 3);
    }
}
