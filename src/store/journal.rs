//! The journal: a file of what is not in the database yet.
//!
//! It has a place for each request in flight and for each that waits for the database, all of them
//! made, with their room on the disk, when it is opened. A request takes one before anything is done for
//! it, and gives it back when the database has its row. So a request that was let in is never lost: not
//! when the gateway is killed, nor when the database is away or the disk full. What is found at a start
//! is written then: as it ended, or as one of which only the beginning is known. Usage and receipts have
//! a journal each.
//!
//! A write goes to the system at once, and to the disk when the system likes: what a machine loses that
//! loses its power is up to the system.

use std::{
    fs::{File, OpenOptions},
    io,
    marker::PhantomData,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::config;

/// Before the row: magic, state, length, checksum.
const HEAD: usize = 4 + 1 + 2 + 16;

/// What a journal can hold.
pub(crate) trait Journaled: Serialize + DeserializeOwned {
    /// Bytes of a place: whole pages.
    const PLACE: usize;
    /// What a place that holds one begins with.
    const MAGIC: [u8; 4];

    /// Nothing is known of it but its beginning.
    fn was_lost(&mut self);
}

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// A request that was let in.
    Begun = 1,
    /// One that has ended.
    Ended = 2,
}

/// Why nothing can be written down.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("store.journal: {}: {}", path.display(), config::in_words(source))]
    Open { path: PathBuf, source: io::Error },
    #[error("store.journal: {}: another gateway has it: each has its own", .0.display())]
    Locked(PathBuf),
    #[error(
        "store.journal: {}: it is no journal, and would be written over: name a file that holds nothing else",
        .0.display()
    )]
    Foreign(PathBuf),
    #[error("all places of the journal are taken")]
    Full,
    #[error("journal: {0}")]
    Write(#[from] io::Error),
    #[error("a row has no place in the journal")]
    TooLong,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal<R> {
    file: File,
    free: Mutex<Vec<u32>>,
    places: usize,
    holds: PhantomData<fn(R) -> R>,
}

/// What was found in it.
#[derive(Debug)]
pub(crate) struct Found<R> {
    /// With the places that they have.
    pub(crate) rows: Vec<(Place<R>, R)>,
    /// Of those, the ones of which only the beginning is known.
    pub(crate) unfinished: usize,
    /// Places that hold nothing that can be read.
    pub(crate) damaged: usize,
}

impl<R> Default for Found<R> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            unfinished: 0,
            damaged: 0,
        }
    }
}

impl<R> Found<R> {
    /// Says what was found, if anything was.
    pub(crate) fn say(&self, what: &'static str) {
        let (rows, unfinished, damaged) = (self.rows.len(), self.unfinished, self.damaged);
        if rows > 0 || damaged > 0 {
            tracing::warn!(
                what,
                rows,
                unfinished,
                damaged,
                "journal: found what was not in the store yet"
            );
        }
    }
}

impl<R: Journaled> Journal<R> {
    /// Opens the file, or makes it, with so many places at least.
    ///
    /// # Errors
    /// [`JournalError`], also where the disk has no room for it.
    pub(crate) fn open(path: &Path, places: usize) -> Result<(Arc<Self>, Found<R>), JournalError> {
        let failed = |source| JournalError::Open {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o600).open(path).map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => JournalError::Locked(path.to_owned()),
            error => failed(error.into()),
        })?;
        if !is_own::<R>(&file).map_err(failed)? {
            return Err(JournalError::Foreign(path.to_owned()));
        }
        let before = file.metadata().map_err(failed)?.len();
        let before = usize::try_from(before).unwrap_or(usize::MAX) / R::PLACE;
        // What is in flight has a place, also where there were more of them once.
        let places = places.max(before).min(MAX_PLACES);
        let length = places.saturating_mul(R::PLACE);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        fallocate(&file, FallocateFlags::empty(), 0, length).map_err(|e| failed(e.into()))?;
        let journal = Arc::new(Self {
            file,
            free: Mutex::default(),
            places,
            holds: PhantomData,
        });
        let found = journal.read(before.min(places)).map_err(failed)?;
        Ok((journal, found))
    }

    fn read(self: &Arc<Self>, before: usize) -> io::Result<Found<R>> {
        let mut found = Found::default();
        let mut free = Vec::with_capacity(self.places);
        let mut bytes = vec![0; R::PLACE];
        for index in (0..u32::try_from(self.places).unwrap_or(u32::MAX)).rev() {
            if usize::try_from(index).is_ok_and(|index| index >= before) {
                free.push(index);
                continue;
            }
            self.file.read_exact_at(&mut bytes, offset::<R>(index))?;
            let place = || Place {
                journal: Arc::clone(self),
                index,
            };
            match decode::<R>(&bytes) {
                Held::Nothing => free.push(index),
                Held::Damaged => {
                    found.damaged = found.damaged.saturating_add(1);
                    free.push(index);
                }
                Held::Row(state, mut row) => {
                    if state == State::Begun {
                        row.was_lost();
                        found.unfinished = found.unfinished.saturating_add(1);
                    }
                    found.rows.push((place(), *row));
                }
            }
        }
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) = free;
        Ok(found)
    }

    /// Writes down that a request is let in.
    ///
    /// # Errors
    /// [`JournalError::Full`], or that it cannot be written.
    pub(crate) fn begin(self: &Arc<Self>, row: &R) -> Result<Place<R>, JournalError> {
        self.reserve()?.write(State::Begun, row)
    }

    /// Takes a place of which nothing is written down yet.
    ///
    /// # Errors
    /// [`JournalError::Full`].
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Reserved<R>, JournalError> {
        let index = self.lock().pop().ok_or(JournalError::Full)?;
        Ok(Reserved(Some(Place {
            journal: Arc::clone(self),
            index,
        })))
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.places.saturating_sub(self.lock().len())
    }

    /// All places.
    pub(crate) fn places(&self) -> usize {
        self.places
    }
}

impl<R> Journal<R> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most places of a journal: 4 GiB.
const MAX_PLACES: usize = 1 << 20;
/// A place that nothing is written to. Dropped, it is free again.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reserved<R>(Option<Place<R>>);

impl<R: Journaled> Reserved<R> {
    /// Writes down what has ended already.
    ///
    /// # Errors
    /// [`JournalError`]: then nothing of it is there.
    pub(crate) fn end(self, row: &R) -> Result<Place<R>, JournalError> {
        self.write(State::Ended, row)
    }

    fn write(mut self, state: State, row: &R) -> Result<Place<R>, JournalError> {
        let place = self.0.take().ok_or(JournalError::Full)?;
        match place.write(state, row) {
            Ok(()) => Ok(place),
            Err(error) => {
                place.free();
                Err(error)
            }
        }
    }
}

impl<R> Drop for Reserved<R> {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            place.journal.lock().push(place.index);
        }
    }
}

/// The place of one request. Only [`Place::free`] gives it back: what is dropped before is found again
/// at the next start.
#[must_use]
#[derive(Debug)]
pub(crate) struct Place<R> {
    journal: Arc<Journal<R>>,
    index: u32,
}

impl<R: Journaled> Place<R> {
    /// Writes down how its request ended.
    ///
    /// # Errors
    /// [`JournalError`]; the beginning is there then.
    pub(crate) fn end(&self, row: &R) -> Result<(), JournalError> {
        self.write(State::Ended, row)
    }

    fn write(&self, state: State, row: &R) -> Result<(), JournalError> {
        let bytes = encode(state, row)?;
        let file = &self.journal.file;
        Ok(file.write_all_at(&bytes, offset::<R>(self.index))?)
    }

    /// Gives it back.
    pub(crate) fn free(self) {
        let file = &self.journal.file;
        // Where even that fails, its row is written once more at the next start, and is there already.
        if let Err(error) = file.write_all_at(&[0; HEAD], offset::<R>(self.index)) {
            tracing::warn!(%error, "journal: a place is not wiped");
        }
        self.journal.lock().push(self.index);
    }
}

/// Whether what a file holds is a journal's: nothing yet, or a place that begins as those of this one do.
fn is_own<R: Journaled>(file: &File) -> io::Result<bool> {
    let mut is_blank = true;
    let mut bytes = vec![0; R::PLACE];
    for index in 0.. {
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let at = offset::<R>(index).saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            match file.read_at(rest, at) {
                Ok(0) => break,
                Ok(n) => read = read.saturating_add(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let head = bytes.get(..read.min(HEAD)).unwrap_or_default();
        if head.is_empty() {
            break;
        }
        if head.starts_with(&R::MAGIC) {
            return Ok(true);
        }
        is_blank &= head.iter().all(|byte| *byte == 0);
    }
    Ok(is_blank)
}

fn offset<R: Journaled>(index: u32) -> u64 {
    u64::from(index).saturating_mul(R::PLACE.try_into().unwrap_or(u64::MAX))
}

fn encode<R: Journaled>(state: State, row: &R) -> Result<Vec<u8>, JournalError> {
    let row = serde_json::to_vec(row).map_err(|_| JournalError::TooLong)?;
    if row.len() > R::PLACE.saturating_sub(HEAD) {
        return Err(JournalError::TooLong);
    }
    let length = u16::try_from(row.len()).map_err(|_| JournalError::TooLong)?;
    let state = state as u8;
    let mut bytes = Vec::with_capacity(HEAD.saturating_add(row.len()));
    bytes.extend(R::MAGIC);
    bytes.push(state);
    bytes.extend(length.to_be_bytes());
    bytes.extend(checksum(state, &row));
    bytes.extend(row);
    Ok(bytes)
}

enum Held<R> {
    Nothing,
    Damaged,
    Row(State, Box<R>),
}

fn decode<R: Journaled>(bytes: &[u8]) -> Held<R> {
    if bytes.iter().take(HEAD).all(|byte| *byte == 0) {
        return Held::Nothing;
    }
    let row = || {
        let rest = bytes.strip_prefix(&R::MAGIC)?;
        let ([state], rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (sum, rest) = rest.split_first_chunk::<16>()?;
        let row = rest.get(..u16::from_be_bytes(*length).into())?;
        let known = match state {
            1 => State::Begun,
            2 => State::Ended,
            _ => return None,
        };
        let is_whole = checksum(*state, row) == *sum;
        let row = is_whole.then(|| serde_json::from_slice(row).ok())??;
        Some((known, Box::new(row)))
    };
    row().map_or(Held::Damaged, |(state, row)| Held::Row(state, row))
}

/// Tells a row that was written half. Nobody who can write the file is held off by it.
fn checksum(state: u8, row: &[u8]) -> [u8; 16] {
    let hash = Sha256::new_with_prefix([state])
        .chain_update(row)
        .finalize();
    let mut sum = [0; 16];
    for (to, from) in sum.iter_mut().zip(hash) {
        *to = from;
    }
    sum
}

#[cfg(test)]
mod tests;
