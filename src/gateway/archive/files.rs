//! Files that are there whole or not at all, and that a loss of power does not take.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tempfile::{NamedTempFile, TempDir};

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".tmp";
/// What is locked while a gateway uses a folder.
const LOCK: &str = "lock";

/// Keeps others out of a folder until it is dropped, or the process ends.
///
/// # Errors
/// [`ErrorKind::ResourceBusy`] if somebody else has it, or the system's.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "another gateway that runs keeps its archive here: give each a folder of its own, \
             or stop the other",
        )),
        Err(error) => Err(error.into()),
    }
}

/// A file that its `persist` makes whole: everything in it is on the disk.
pub(super) fn unfinished_file(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A folder for what [`finish`] makes whole.
pub(super) fn unfinished_folder(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(parent)
}

/// Gives a folder, whose files are synced, its name.
pub(super) fn finish(unfinished: &TempDir, place: &Path) -> io::Result<()> {
    sync_folder(unfinished.path())?;
    fs::rename(unfinished.path(), place)?;
    sync_folder(place.parent().unwrap_or(place))
}

/// All of the file or none of it; what is not certain yet is its name, until its folder is synced.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = unfinished_file(folder, bytes)?;
    file.persist(folder.join(name))
        .map(drop)
        .map_err(|error| error.error)
}

/// A file of an unfinished folder.
pub(super) fn write_inside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// So that a name is there after a loss of power, not only what it names.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file, unless somebody did.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    gone(fs::remove_file(path))
}

/// Removes a folder with all in it, unless somebody did.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(path))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a crash left unfinished.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            let path = entry.path();
            fs::remove_dir_all(&path).or_else(|_| remove(&path))?;
        }
    }
    Ok(())
}
