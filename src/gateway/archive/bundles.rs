//! The bundles that kept evidence was judged by.
//!
//! `bundles/DIGEST` is a bundle's folder as it was, by the digest of its manifest. Bundles have most
//! of their files in common with the one before, so each content is stored once, as `files/SHA256`;
//! what lies in the folders are links to it.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use attestation::bundle::{MANIFEST, SIGNATURE};
use sha2::{Digest as _, Sha256};

use super::{
    BUNDLES,
    files::{
        clear, finish, remove, remove_folder, sync_folder, unfinished_folder, write_inside,
        write_whole,
    },
};
use crate::config::bundle::BundleFiles;

/// The bundles of an archive's folder.
#[derive(Debug)]
pub(super) struct Bundles {
    folders: PathBuf,
    files: PathBuf,
    /// By evidence that is kept, what it was judged by.
    judged: HashMap<String, BTreeSet<String>>,
    /// By bundle, how much kept evidence was judged by it. One that no evidence names any more waits
    /// with 0 to be removed; one that none ever named stands not here, and stays.
    users: HashMap<String, usize>,
}

impl Bundles {
    /// Makes the folders, or takes in what is there.
    ///
    /// # Errors
    /// If they cannot be made or read.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let (folders, files) = (dir.join(BUNDLES), dir.join("files"));
        for folder in [&folders, &files] {
            fs::create_dir_all(folder)?;
            clear(folder)?;
        }
        Ok(Self {
            folders,
            files,
            judged: HashMap::new(),
            users: HashMap::new(),
        })
    }

    /// Takes note that kept evidence was judged by a bundle.
    pub(super) fn note(&mut self, evidence: &str, bundle: &str) {
        let bundles = self.judged.entry(evidence.to_owned()).or_default();
        if bundles.insert(bundle.to_owned()) {
            let users = self.users.entry(bundle.to_owned()).or_default();
            *users = users.saturating_add(1);
        }
    }

    /// Takes note that evidence is kept no longer.
    pub(super) fn forget(&mut self, evidence: &str) {
        for bundle in self.judged.remove(evidence).unwrap_or_default() {
            if let Some(users) = self.users.get_mut(&bundle) {
                *users = users.saturating_sub(1);
            }
        }
    }

    /// Writes down a bundle that is not yet there.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn keep(&self, digest: &str, bundle: &BundleFiles) -> io::Result<()> {
        let place = self.folders.join(digest);
        if place.is_dir() {
            return Ok(());
        }
        let unfinished = unfinished_folder(&self.folders)?;
        for (path, bytes) in &bundle.files {
            self.put(&unfinished.path().join(path), bytes)?;
        }
        sync_folder(&self.files)?;
        write_inside(&unfinished.path().join(SIGNATURE), &bundle.signature)?;
        write_inside(&unfinished.path().join(MANIFEST), &bundle.manifest)?;
        finish(&unfinished, &place)
    }

    /// Puts content into an unfinished folder, and first among the files if it is new there.
    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = hex::encode(Sha256::digest(bytes));
        let stored = self.files.join(&name);
        if !stored.is_file() {
            write_whole(&self.files, &name, bytes)?;
        }
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder)?;
        // Not every file system has links, and the number of one file's has a limit.
        fs::hard_link(&stored, path).or_else(|_| write_inside(path, bytes))?;
        sync_folder(folder)
    }

    /// Removes the bundles that were needed and are no longer. What fails is tried the next time.
    ///
    /// # Errors
    /// The first that the disk gave.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let unused = self.users.iter().filter(|(_, users)| **users == 0);
        let unused: Vec<_> = unused.map(|(bundle, _)| bundle.clone()).collect();
        if unused.is_empty() {
            return Ok(());
        }
        for bundle in unused {
            remove_folder(&self.folders.join(&bundle))?;
            self.users.remove(&bundle);
        }
        for entry in fs::read_dir(&self.files)? {
            let entry = entry?;
            // Its name here is its last.
            if entry.metadata()?.nlink() == 1 {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}
