//! Keys in the file that `keys_file` names.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

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
    let mut keys = Keys::open(config)?;
    if keys.names().any(|taken| taken == made.name) {
        return Err(KeysError::Taken(made.name.clone()));
    }
    let key = KeySecret::generate();
    keys.entries().push(entry(&made.name, &key, &made.terms));
    // Shown first: nobody can use a key that was stored and never seen.
    shown.show(&key)?;
    keys.save()
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

pub(super) fn list(config: &Loaded<GatewayConfig>) -> Result<(), KeysError> {
    Keys::open(config)?.names().for_each(terminal::say);
    Ok(())
}

pub(super) fn revoke(config: &Loaded<GatewayConfig>, name: &str) -> Result<(), KeysError> {
    let mut keys = Keys::open(config)?;
    let before = keys.names().count();
    keys.entries()
        .retain(|entry| entry.get("name").and_then(Item::as_str) != Some(name));
    if keys.names().count() == before {
        return Err(KeysError::Unknown(name.to_owned()));
    }
    keys.save()
}

/// The key file as text that keeps its comments.
struct Keys {
    path: PathBuf,
    document: DocumentMut,
}

impl Keys {
    fn open(config: &Loaded<GatewayConfig>) -> Result<Self, KeysError> {
        let Some(path) = &config.value.keys_file else {
            return Err(config
                .invalid("keys_file", "name the file that holds the keys")
                .into());
        };
        let path = config.resolve(path);
        // A link stays one: what it leads to is replaced.
        let path = path.canonicalize().unwrap_or(path);
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

/// Replaces a file at once: a crash leaves the old one or the new. A new file is readable by its
/// owner alone; one that was there keeps its owner, group and mode, so that whoever could read it
/// still can.
pub(in crate::cli) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(dir)?;
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
