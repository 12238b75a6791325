//! The archive's folder.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{
    Entry,
    bundles::Bundles,
    files::{
        clear, finish, lock, remove, sync_folder, unfinished_folder, write_inside, write_whole,
    },
    shelf::{Piece, Room, Shelf},
};
use crate::{
    config::archive::{ArchiveConfig, EVIDENCE, LOG, OLD_LOG},
    gateway::rules::Rules,
};

/// Shortest log of verdicts that becomes the old one, in bytes; then the old one goes.
const MIN_LOG: u64 = 64 << 20;
/// The log's part of the room for evidence: a line is a tenth of the shortest evidence, and must not
/// go before what it is about.
const LOG_SHARE: u64 = 4;

/// The folder of policies, and a policy's text in its own.
pub(in crate::gateway) const POLICIES: &str = "policies";
pub(in crate::gateway) const POLICY: &str = "policy.toml";

/// An archive's folder, of which this is the only writer.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Held for as long as it is used.
    _lock: File,
    shelf: Shelf,
    bundles: Bundles,
    log: File,
    log_len: u64,
    max_log: u64,
    /// Whether each line must outlive a loss of power.
    sync: bool,
}

/// A line of the log.
#[derive(Serialize)]
struct Line<'a> {
    at: &'a str,
    node: &'a str,
    node_id: Option<&'a str>,
    evidence: &'a str,
    nonce: String,
    policy: &'a str,
    bundle: Option<&'a str>,
    verdict: &'static str,
    check: Option<&'a str>,
    device: Option<usize>,
}

/// What is read of a line again.
#[derive(Deserialize)]
struct Verdict {
    node: String,
    evidence: String,
    bundle: Option<String>,
    verdict: String,
}

/// What lines say of one piece of evidence.
#[derive(Debug, Default)]
struct Known {
    node: String,
    /// Whether it was ever accepted.
    accepted: bool,
    bundles: BTreeSet<String>,
}

const ACCEPTED: &str = "accepted";
const REFUSED: &str = "refused";

impl Store {
    /// Makes the folder, or takes in what is there.
    ///
    /// # Errors
    /// If it cannot be made, read or written, or somebody else uses it.
    pub(super) fn open(dir: &Path, config: &ArchiveConfig) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let lock = lock(dir)?;
        for folder in [EVIDENCE, POLICIES] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)?;
            clear(&folder)?;
        }
        let max_bytes = config.max_bytes.get();
        let mut bundles = Bundles::open(dir)?;
        let room = Room {
            all: max_bytes,
            per_node: config.max_bytes_per_node.map_or(max_bytes, Into::into),
        };
        let shelf = shelve(dir, room, &mut bundles)?;
        let mut log = open_log(dir)?;
        let mut log_len = log.metadata()?.len();
        if !ends_a_line(&dir.join(LOG), log_len)? {
            log.write_all(b"\n")?;
            log_len = log_len.saturating_add(1);
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
            shelf,
            bundles,
            log,
            log_len,
            sync: config.required,
            max_log: longest_log(max_bytes),
        })
    }

    /// Writes a verdict down. Every part of it is tried, whatever came of the others.
    ///
    /// # Errors
    /// The first that the disk gave.
    pub(super) fn keep(&mut self, entry: &Entry) -> io::Result<()> {
        let evidence = self.keep_evidence(entry);
        let policy = self.keep_policy(&entry.rules);
        let bundle = self.keep_bundle(entry);
        let line = self.keep_line(entry);
        evidence.and(policy).and(bundle).and(line)
    }

    fn keep_evidence(&mut self, entry: &Entry) -> io::Result<()> {
        // Where nothing can be removed, nothing must be added.
        self.make_room()?;
        let accepted = entry.refused.is_none();
        if self.shelf.holds(&entry.digest) {
            if accepted {
                self.shelf.accept(&entry.node, &entry.digest);
            }
        } else {
            let folder = self.dir.join(EVIDENCE);
            write_whole(&folder, &file_of(&entry.digest), &entry.evidence)?;
            self.shelf.add(Piece {
                digest: entry.digest.clone(),
                len: u64::try_from(entry.evidence.len()).unwrap_or(u64::MAX),
                node: entry.node.clone(),
                accepted,
            });
            sync_folder(&folder)?;
        }
        self.make_room()
    }

    /// Removes evidence until the rest fits. What cannot be removed is there, and counts.
    fn make_room(&mut self) -> io::Result<()> {
        while let Some(piece) = self.shelf.surplus() {
            let path = self.dir.join(EVIDENCE).join(file_of(&piece.digest));
            match remove(&path) {
                Ok(()) => self.bundles.forget(&piece.digest),
                Err(error) => {
                    self.shelf.add(piece);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn keep_bundle(&mut self, entry: &Entry) -> io::Result<()> {
        let mut kept = Ok(());
        if let Some(digest) = &entry.rules.bundle_digest
            && self.shelf.holds(&entry.digest)
        {
            self.bundles.note(&entry.digest, digest);
            kept = self.bundles.keep(digest, &entry.rules.bundle_files);
        }
        // What stays too long is no fault of this verdict.
        if let Err(error) = self.bundles.sweep() {
            tracing::warn!(%error, "bundle not removed from the archive");
        }
        kept
    }

    fn keep_policy(&self, rules: &Rules) -> io::Result<()> {
        let policies = self.dir.join(POLICIES);
        let place = policies.join(&rules.policy_digest);
        if place.is_dir() {
            return Ok(());
        }
        let unfinished = unfinished_folder(&policies)?;
        let inside = unfinished.path();
        write_inside(&inside.join(POLICY), rules.text.as_bytes())?;
        for (number, (name, bytes)) in rules.named.iter().enumerate() {
            let path = inside.join(place_of(name, number));
            let folder = path.parent().unwrap_or(inside);
            fs::create_dir_all(folder)?;
            write_inside(&path, bytes)?;
            sync_folder(folder)?;
        }
        finish(&unfinished, &place)
    }

    fn keep_line(&mut self, entry: &Entry) -> io::Result<()> {
        let line = Line {
            at: &entry.at,
            node: &entry.node,
            node_id: entry.node_id.as_deref(),
            evidence: &entry.digest,
            nonce: entry.nonce.to_string(),
            policy: &entry.rules.policy_digest,
            bundle: entry.rules.bundle_digest.as_deref(),
            verdict: if entry.refused.is_none() {
                ACCEPTED
            } else {
                REFUSED
            },
            check: entry.refused.map(|(check, _)| check),
            device: entry.refused.and_then(|(_, device)| device),
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.log_len.saturating_add(len) > self.max_log {
            match fs::rename(self.dir.join(LOG), self.dir.join(OLD_LOG)) {
                // Somebody moved it away, or it could not be opened anew the last time.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.log = open_log(&self.dir)?;
            self.log_len = 0;
        }
        let mut written = self.log.write_all(&line);
        if self.sync {
            written = written.and_then(|()| self.log.sync_data());
        }
        if let Err(error) = written {
            // Half a line would spoil the next one.
            self.log.set_len(self.log_len)?;
            return Err(error);
        }
        self.log_len = self.log_len.saturating_add(len);
        Ok(())
    }
}

fn longest_log(max_bytes: u64) -> u64 {
    (max_bytes / LOG_SHARE).max(MIN_LOG)
}

fn open_log(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(LOG))
}

/// Whether the last line was written to its end, as after a crash it may not be.
fn ends_a_line(path: &Path, len: u64) -> io::Result<bool> {
    use io::{Read as _, Seek as _, SeekFrom};
    let Some(last) = len.checked_sub(1) else {
        return Ok(true);
    };
    let mut file = File::open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

fn file_of(digest: &str) -> String {
    format!("{digest}.json")
}

/// Where a file that a policy names is kept beside it: where the policy looks for it, unless that is
/// outside of the policy's own folder.
pub(in crate::gateway) fn place_of(name: &str, number: usize) -> PathBuf {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    let is_name = |part: &Component<'_>| *part != Component::CurDir;
    let plain: PathBuf = Path::new(name).components().filter(is_name).collect();
    let is_taken = plain == Path::new(POLICY) || plain == Path::new("");
    if plain.components().all(inside) && !is_taken {
        return plain;
    }
    let last = Path::new(name).file_name().unwrap_or_default();
    let mut place = std::ffi::OsString::from(format!("{number}-"));
    place.push(last);
    Path::new("elsewhere").join(place)
}

/// The evidence that is there. What only lines of refusal name counts as refused; what no line
/// names, a crash or a hand in the log has left, and it may be the last of its node.
fn shelve(dir: &Path, room: Room, bundles: &mut Bundles) -> io::Result<Shelf> {
    let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
    for entry in fs::read_dir(dir.join(EVIDENCE))? {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| name.strip_suffix(".json"));
        if let Some(digest) = digest.filter(|it| it.len() == 64) {
            let metadata = entry.metadata()?;
            found.push((metadata.modified()?, digest.to_owned(), metadata.len()));
        }
    }
    found.sort_unstable();
    let mut known = found.iter().map(|it| (it.1.clone(), None)).collect();
    for log in [OLD_LOG, LOG] {
        read_verdicts(&dir.join(log), longest_log(room.all), &mut known)?;
    }
    let mut shelf = Shelf::new(room);
    for (_, digest, len) in found {
        let known = known.remove(&digest).flatten().unwrap_or_else(|| Known {
            accepted: true,
            ..Known::default()
        });
        for bundle in &known.bundles {
            bundles.note(&digest, bundle);
        }
        shelf.add(Piece {
            digest,
            len,
            node: known.node,
            accepted: known.accepted,
        });
    }
    Ok(shelf)
}

/// Notes what a log says of evidence.
fn read_verdicts(
    log: &Path,
    longest: u64,
    all: &mut HashMap<String, Option<Known>>,
) -> io::Result<()> {
    let file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // The log's own bound is the bound of a line.
    for line in BufReader::new(io::Read::take(file, longest)).split(b'\n') {
        if let Ok(line) = serde_json::from_slice::<Verdict>(&line?)
            && let Some(known) = all.get_mut(&line.evidence)
        {
            let known = known.get_or_insert_default();
            known.accepted |= line.verdict == ACCEPTED;
            known.node = line.node;
            known.bundles.extend(line.bundle);
        }
    }
    Ok(())
}

#[cfg(test)]
impl Store {
    /// The same with a log that is replaced sooner.
    pub(super) fn with_log(mut self, max_log: u64) -> Self {
        self.max_log = max_log;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_stays_where_the_policy_looks_for_it_but_inside() {
        let cases = [
            ("ark.pem", "ark.pem"),
            ("roots/ark.pem", "roots/ark.pem"),
            ("./ark.pem", "ark.pem"),
            ("./policy.toml", "elsewhere/3-policy.toml"),
            ("../ark.pem", "elsewhere/3-ark.pem"),
            ("a/../../ark.pem", "elsewhere/3-ark.pem"),
            ("/etc/ark.pem", "elsewhere/3-ark.pem"),
            ("policy.toml", "elsewhere/3-policy.toml"),
            ("..", "elsewhere/3-"),
        ];
        for (name, place) in cases {
            assert_eq!(place_of(name, 3), Path::new(place), "{name}");
        }
    }
}
