//! Keys in the file that `keys_file` names.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::{KeysError, Made, Shown};
use crate::{
    cli::terminal,
    config::{
        self, Loaded,
        gateway::{GatewayConfig, KeysFile, Label},
        terms::{KeyTerms, Tees},
    },
    store::KeySecret,
};

/// The name of the list of keys in the file.
const LIST: &str = "key";

/// What is stored of a key.
pub(in crate::cli) fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

pub(super) fn create(
    config: &Loaded<GatewayConfig>,
    made: &Made,
    shown: &Shown,
) -> Result<(), KeysError> {
    let is_metered = !made.terms.limits.is_none() || !made.terms.budgets.is_empty();
    let of_store = is_metered || made.terms.receipts.is_some();
    if of_store || made.owner.is_some() || made.expires_at.is_some() {
        return Err(KeysError::OfStore);
    }
    add(&path(config)?, made, |key| shown.show(key))
}

/// Adds a key once it was shown.
fn add(
    path: &Path,
    made: &Made,
    show: impl FnOnce(&KeySecret) -> Result<(), KeysError>,
) -> Result<(), KeysError> {
    let is_free = |keys: &Keys| match keys.names().any(|taken| taken == made.name) {
        true => Err(KeysError::Taken(made.name.clone())),
        false => Ok(()),
    };
    is_free(&Keys::read(path)?)?;
    let key = KeySecret::generate();
    // Shown first: nobody can use a key that was stored and never seen. Whoever is shown it can take his time, and
    // holds nobody back who revokes another one: the file is locked, and read again, behind it.
    show(&key)?;
    Keys::change(path, |keys| {
        is_free(keys)?;
        keys.entries().push(entry(&made.name, &key, &made.terms));
        Ok(())
    })
}

fn entry(name: &str, key: &KeySecret, terms: &KeyTerms) -> Table {
    let mut entry = Table::new();
    entry.insert("name", value(name));
    entry.insert("sha256", value(digest(key.as_str())));
    let labels = |labels: &[Label]| labels.iter().map(|it| it.as_str().to_owned()).collect();
    let models = terms.models.iter().flatten().cloned();
    let tees = terms.tees.iter().flat_map(Tees::iter);
    let lists: [(_, Vec<String>); 4] = [
        ("models", models.collect()),
        (
            "regions",
            labels(terms.regions.as_deref().unwrap_or_default()),
        ),
        ("tags", labels(&terms.tags)),
        ("tees", tees.map(|tee| tee.as_str().to_owned()).collect()),
    ];
    for (member, names) in lists {
        if !names.is_empty() {
            entry.insert(member, value(Array::from_iter(names)));
        }
    }
    if terms.require_pq {
        entry.insert("require_pq", value(true));
    }
    if terms.require_gpu {
        entry.insert("require_gpu", value(true));
    }
    if let Some(padding) = terms.padding {
        entry.insert("padding", value(padding.as_str()));
    }
    entry
}

pub(super) fn list(config: &Loaded<GatewayConfig>, json: bool) -> Result<(), KeysError> {
    let keys = Keys::read(&path(config)?)?;
    if json {
        let keys: Vec<_> = keys.names().map(|name| json!({ "name": name })).collect();
        terminal::say(json!({ "keys": keys }));
    } else {
        keys.names().for_each(terminal::say);
    }
    Ok(())
}

pub(super) fn revoke(config: &Loaded<GatewayConfig>, name: &str) -> Result<(), KeysError> {
    remove(&path(config)?, name)
}

fn remove(path: &Path, name: &str) -> Result<(), KeysError> {
    Keys::change(path, |keys| {
        let before = keys.names().count();
        keys.entries()
            .retain(|entry| entry.get("name").and_then(Item::as_str) != Some(name));
        if keys.names().count() == before {
            return Err(KeysError::Unknown(name.to_owned()));
        }
        Ok(())
    })
}

/// Where the file is. A link stays one: what it leads to is replaced.
fn path(config: &Loaded<GatewayConfig>) -> Result<PathBuf, KeysError> {
    let Some(path) = &config.value.keys_file else {
        let message = "name the file that holds the keys";
        return Err(config.invalid("keys_file", message).into());
    };
    let path = config.resolve(path);
    Ok(path.canonicalize().unwrap_or(path))
}

/// The file whose lock is the key file's. It stays.
fn lock_of(path: &Path) -> io::Result<File> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options.custom_flags(flags).open(folder_of(path).join(name))
}

/// The key file as text that keeps its comments.
struct Keys {
    path: PathBuf,
    document: DocumentMut,
}

impl Keys {
    /// Replaces the file by what `change` makes of it, with nobody else in between.
    fn change(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<(), KeysError>,
    ) -> Result<(), KeysError> {
        let failed = |source| KeysError::Write {
            path: path.to_owned(),
            source,
        };
        // A file beside it, since it is another one after each change; and one that nobody else can open, and so hold.
        let lock = lock_of(path).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let mut keys = Self::read(path)?;
        change(&mut keys)?;
        keys.save()
    }

    fn read(path: &Path) -> Result<Self, KeysError> {
        let path = path.to_owned();
        let text = if path.exists() {
            config::read_text(&path)?
        } else {
            String::new()
        };
        // What the gateway would not read is not edited either.
        config::parse::<KeysFile>(&path, &text, std::iter::empty())?;
        let document: DocumentMut = text.parse().map_err(|source| KeysError::Edit {
            path: path.clone(),
            source,
        })?;
        // Never to be taken for an empty list, which would be written over.
        if document
            .get(LIST)
            .is_some_and(|list| !list.is_array_of_tables())
        {
            return Err(KeysError::Form { path });
        }
        Ok(Self { path, document })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let entries = self.document.get(LIST).and_then(Item::as_array_of_tables);
        entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.get("name")?.as_str())
    }

    fn entries(&mut self) -> &mut ArrayOfTables {
        let list = self
            .document
            .entry(LIST)
            .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if !list.is_array_of_tables() {
            *list = Item::ArrayOfTables(ArrayOfTables::new());
        }
        match list {
            Item::ArrayOfTables(entries) => entries,
            Item::None | Item::Value(_) | Item::Table(_) => unreachable!("made one above"),
        }
    }

    fn save(&self) -> Result<(), KeysError> {
        write_private(&self.path, self.document.to_string().as_bytes()).map_err(|source| {
            KeysError::Write {
                path: self.path.clone(),
                source,
            }
        })
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Replaces a file at once: a crash leaves the old one or the new. A new file is readable by its
/// owner alone; one that was there keeps its owner, group and mode, so that whoever could read it
/// still can.
pub(in crate::cli) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(folder_of(path))?;
    fs::write(file.path(), bytes)?;
    if let Ok(old) = fs::metadata(path) {
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> Made {
        Made {
            name: name.to_owned(),
            owner: None,
            expires_at: None,
            terms: KeyTerms::default(),
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let keys = Keys::read(path).unwrap();
        let mut names: Vec<_> = keys.names().map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn a_key_that_is_revoked_while_another_is_shown_stays_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        add(&path, &made("leaked"), |_| Ok(())).unwrap();
        add(&path, &made("new"), |_| remove(&path, "leaked")).unwrap();
        assert_eq!(names(&path), ["new"]);
        let taken = add(&path, &made("other"), |_| {
            add(&path, &made("other"), |_| Ok(()))
        });
        assert!(matches!(taken, Err(KeysError::Taken(name)) if name == "other"));
        assert_eq!(names(&path), ["new", "other"]);
    }

    #[test]
    fn of_changes_at_the_same_time_none_is_lost() {
        const EACH: usize = 10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        let name = |thread: usize, n: usize| format!("{thread}-{n}");
        for thread in 0..4 {
            add(&path, &made(&format!("old-{thread}")), |_| Ok(())).unwrap();
        }
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for n in 0..EACH {
                        add(path, &made(&name(thread, n)), |_| Ok(())).unwrap();
                    }
                    remove(path, &format!("old-{thread}")).unwrap();
                });
            }
        });
        let mut expected: Vec<_> = (0..4)
            .flat_map(|thread| (0..EACH).map(move |n| name(thread, n)))
            .collect();
        expected.sort();
        assert_eq!(names(&path), expected);
    }
}
