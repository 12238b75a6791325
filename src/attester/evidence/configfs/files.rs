//! The few file operations that configfs is spoken with.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    path::Path,
    thread,
    time::Duration,
};

/// What is done with the files of an entry, so that a test can be the kernel.
pub(in crate::attester::evidence) trait Files:
    fmt::Debug + Send + Sync
{
    /// Makes an entry.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Ends an entry; the kernel takes its files with it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes an attribute at once.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Opens an attribute, to be read to its end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// Waits before the next try.
    fn pause(&self, duration: Duration);
}

/// The system's own.
#[derive(Clone, Copy, Debug)]
pub(in crate::attester::evidence) struct SystemFiles;

impl Files for SystemFiles {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Nothing is created: an attribute that is not there is an error.
        OpenOptions::new().write(true).open(path)?.write_all(bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }

    fn pause(&self, duration: Duration) {
        thread::sleep(duration);
    }
}
