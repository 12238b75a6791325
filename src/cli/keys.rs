//! `sealgate keys`: API keys of a gateway, stored as digests in the file that its config names.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
    process::ExitCode,
};

use attestation::Padding;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Subcommand;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use super::terminal;
use crate::config::{
    self, ConfigError, Loaded,
    gateway::{GatewayConfig, KeysFile, Label},
};

/// What a key begins with, so that people and secret scanners recognise one.
const PREFIX: &str = "sk-sealgate-";

/// The name of the list of keys in the file.
const LIST: &str = "key";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key, show it once, store its digest.
    Create {
        #[command(flatten)]
        file: File,
        /// What logs and lists call it.
        #[arg(long)]
        name: String,
        /// A model that it may ask, and again for another; all without one.
        #[arg(long, value_name = "MODEL")]
        model: Vec<String>,
        /// A region that its requests may go to, and again for another; all without one.
        #[arg(long, value_name = "REGION", value_parser = label)]
        region: Vec<String>,
        /// A tag that a node must have to get its requests, and again for another.
        #[arg(long, value_name = "TAG", value_parser = label)]
        tag: Vec<String>,
        /// Seal its requests with X-Wing alone, so only to nodes that have a key for it.
        #[arg(long)]
        require_pq: bool,
        /// How its requests and their replies are padded, unless a request says so itself: off, bucket
        /// or paced; as the gateway's without it.
        #[arg(long, value_name = "PADDING")]
        padding: Option<Padding>,
        /// Print `{"key": …}` instead of words.
        #[arg(long)]
        json: bool,
    },
    /// List the names of the keys.
    List {
        #[command(flatten)]
        file: File,
    },
    /// Remove a key; a running gateway forgets it within seconds, or at once on SIGHUP.
    Revoke {
        #[command(flatten)]
        file: File,
        /// The key's name.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct File {
    /// The gateway's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What can be wrong with the keys.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {source}", path.display())]
    Edit {
        path: PathBuf,
        source: toml_edit::TomlError,
    },
    #[error(
        "{}: `key` is a list in one line: write each key as a [[key]] table, which can be edited",
        path.display()
    )]
    Form { path: PathBuf },
    #[error("{}: {}", path.display(), config::in_words(source))]
    Write { path: PathBuf, source: io::Error },
    #[error("the key could not be shown, so none is stored: {0}")]
    Unshown(io::Error),
    #[error("a key named {0:?} exists already: choose another name, or revoke it first")]
    Taken(String),
    #[error("no key is named {0:?}: see `sealgate keys list`")]
    Unknown(String),
    #[error("a name is 1 to 64 visible ASCII characters")]
    BadName,
}

/// A new API key: 256 random bits behind a prefix.
pub(super) fn generate() -> Zeroizing<String> {
    let bits = Zeroizing::new(rand::rng().random::<[u8; 32]>());
    Zeroizing::new(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(*bits)))
}

/// What is stored of a key.
pub(super) fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

pub(super) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Create {
            file,
            name,
            model,
            region,
            tag,
            require_pq,
            padding,
            json,
        } => {
            let lists = [("models", model), ("regions", region), ("tags", tag)];
            let held_to = HeldTo {
                lists,
                require_pq,
                padding,
            };
            create(&file, &name, held_to, json)
        }
        Command::List { file } => list(&file),
        Command::Revoke { file, name } => revoke(&file, &name),
    };
    done.map_or_else(terminal::fail, |()| ExitCode::SUCCESS)
}

fn label(text: &str) -> Result<String, &'static str> {
    let label = Label::new(text).ok_or("1 to 64 of a-z, 0-9 and -")?;
    Ok(label.as_str().to_owned())
}

/// What a key's requests may be.
struct HeldTo {
    lists: [(&'static str, Vec<String>); 3],
    require_pq: bool,
    padding: Option<Padding>,
}

fn create(file: &File, name: &str, held_to: HeldTo, json: bool) -> Result<(), KeysError> {
    if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeysError::BadName);
    }
    let mut keys = Keys::open(file)?;
    if keys.names().any(|taken| taken == name) {
        return Err(KeysError::Taken(name.to_owned()));
    }
    let key = generate();
    let mut entry = Table::new();
    entry.insert("name", value(name));
    entry.insert("sha256", value(digest(&key)));
    for (member, names) in held_to.lists {
        if !names.is_empty() {
            entry.insert(member, value(Array::from_iter(names)));
        }
    }
    if held_to.require_pq {
        entry.insert("require_pq", value(true));
    }
    if let Some(padding) = held_to.padding {
        entry.insert("padding", value(padding.as_str()));
    }
    keys.entries().push(entry);
    // Shown first: nobody can use a key that was stored and never seen.
    let shown = if json {
        terminal::show(serde_json::json!({ "key": key.as_str() }))
    } else {
        terminal::show(key.as_str())
    };
    shown.map_err(KeysError::Unshown)?;
    keys.save()?;
    if !json {
        terminal::note(
            "this is the only time the key is shown; a running gateway takes it within seconds, or at \
             once on SIGHUP",
        );
    }
    Ok(())
}

fn list(file: &File) -> Result<(), KeysError> {
    Keys::open(file)?.names().for_each(terminal::say);
    Ok(())
}

fn revoke(file: &File, name: &str) -> Result<(), KeysError> {
    let mut keys = Keys::open(file)?;
    let before = keys.names().count();
    keys.entries()
        .retain(|entry| entry.get("name").and_then(Item::as_str) != Some(name));
    if keys.names().count() == before {
        return Err(KeysError::Unknown(name.to_owned()));
    }
    keys.save()?;
    terminal::note("revoked; a running gateway forgets it within seconds, or at once on SIGHUP");
    Ok(())
}

/// The key file as text that keeps its comments.
struct Keys {
    path: PathBuf,
    document: DocumentMut,
}

impl Keys {
    fn open(file: &File) -> Result<Self, KeysError> {
        let config: Loaded<GatewayConfig> = config::load(&file.config)?;
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
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
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
