//! Strict TOML configuration, complete at start.
//!
//! A file is read once, before any port opens: an unknown key, a wrong type or a missing member
//! stops the start and says which key. `SEALGATE_*` variables override keys of the file: the name
//! in upper case, `__` between a table and its key (`SEALGATE_LIMITS__BODY_BYTES=1048576`).
//! Secrets never stand in the text: keys of the configuration name the files that hold them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use attestation::toml_error::{TomlError, in_words as in_words_of};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub mod admin;
pub mod archive;
pub mod bundle;
pub mod cors;
pub mod gateway;
pub mod node;
pub mod prices;
pub mod store;
pub mod terms;
pub mod tls;

/// Longest configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Prefix of the variables that override configuration keys.
const ENV_PREFIX: &str = "SEALGATE_";

/// Variables with the prefix that are no configuration keys: they steer the command itself.
const ENV_OF_THE_COMMAND: [&str; 2] = ["SEALGATE_LOG", "SEALGATE_LOG_FORMAT"];

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {}", path.display(), in_words(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: larger than {MAX_FILE} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The text is no TOML, or a key is unknown, missing or of the wrong type.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line and the key.
        message: Box<str>,
    },
    /// A variable of the environment does not fit the configuration.
    #[error("with {variables} from the environment: {message}")]
    Environment {
        /// The variables in force.
        variables: Box<str>,
        /// What is wrong.
        message: Box<str>,
    },
    /// Values that are right one by one do not fit together, or break a bound.
    #[error("{}: {key}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: Box<str>,
        /// What is wrong and what to do.
        message: Box<str>,
    },
}

/// A configuration with the folder that its relative paths start from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values.
    pub value: T,
    /// The file that they came from, for messages.
    pub path: PathBuf,
    /// SHA-256 of its text, as it was read.
    pub sha256: [u8; 32],
}

impl<T> Loaded<T> {
    /// `path` as the configuration means it: relative to the file's own folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| path.to_owned(), |dir| dir.join(path))
    }

    /// The error that says what is wrong with `key`.
    #[must_use]
    pub fn invalid(&self, key: &str, message: impl AsRef<str>) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.clone(),
            key: key.into(),
            message: message.as_ref().into(),
        }
    }
}

/// Reads `path` and the environment's `SEALGATE_*` variables.
///
/// # Errors
/// [`ConfigError`] names the file or variable and the key.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Loaded<T>, ConfigError> {
    let text = read_text(path)?;
    parse(path, &text, std::env::vars())
}

/// Opens a regular file to read. Anything else is refused, and not waited for, as a pipe would have
/// to be.
///
/// # Errors
/// The system's, or [`io::ErrorKind::InvalidInput`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(file)
}

/// A small text file that a configuration names.
///
/// # Errors
/// [`ConfigError::Read`] or [`ConfigError::TooLong`].
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    let mut limited = file.take(MAX_FILE.saturating_add(1));
    let taken = limited.read_to_string(&mut text);
    if limited.limit() == 0 {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
        });
    }
    taken.map_err(read)?;
    Ok(text)
}

/// A small file that holds a secret: its bytes are in one place of memory, which is wiped.
///
/// # Errors
/// As for [`read_text`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = open_regular(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    // Room for all of it at once: a vector that grows leaves copies behind.
    let room = length.saturating_add(1).min(MAX_FILE);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    let mut limited = file.take(room);
    limited.read_to_end(&mut bytes).map_err(read)?;
    if limited.limit() == 0 {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// What the parser says. A line that holds a digest is named and not shown, since somebody may have
/// written the secret itself where its digest belongs; nor is one with a user and a password.
fn explained(text: &str, error: &toml::de::Error) -> Box<str> {
    let start = error.span().map_or(0, |span| span.start);
    let newlines = text.bytes().take(start).filter(|byte| *byte == b'\n');
    let line = text.lines().nth(newlines.count()).unwrap_or_default();
    let said = TomlError::of(text, error);
    if line.contains("sha256") || may_hold_a_password(line) {
        let key = line.split('=').next().unwrap_or_default().trim();
        return without_password(said.showing(key).to_string());
    }
    let is_list = error
        .message()
        .starts_with("invalid type: map, expected a sequence");
    if is_list && line.starts_with('[') {
        return format!("{said}: write [{}]", line.trim()).into();
    }
    without_password(said.to_string())
}

fn may_hold_a_password(text: &str) -> bool {
    text.contains("://") && text.contains('@')
}

/// The parser's words, which quote the value, without it if it may hold a password.
fn without_password(words: String) -> Box<str> {
    let quoted = words.find('"').zip(words.rfind('"'));
    match quoted.filter(|_| may_hold_a_password(&words)) {
        Some((from, to)) => {
            let (before, _) = words.split_at(from);
            let (_, after) = words.split_at(to);
            format!("{before}\"…{after}").into()
        }
        None => words.into(),
    }
}

/// What the system says of a file, in words that tell what to do where that is plain.
pub fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not open it".to_owned(),
        io::ErrorKind::IsADirectory => "a folder, where a file is wanted".to_owned(),
        io::ErrorKind::NotADirectory => "a part of the path is a file, and no folder".to_owned(),
        io::ErrorKind::InvalidData => "not text (UTF-8)".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// The configuration in `text`, with `variables` over it.
///
/// # Errors
/// As for [`load`].
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigError> {
    let wrong = |e: toml::de::Error| ConfigError::Parse {
        path: path.to_owned(),
        message: explained(text, &e),
    };
    let sha256 = Sha256::digest(text).into();
    let overrides: Vec<(String, String)> = variables
        .filter(|(name, _)| {
            name.starts_with(ENV_PREFIX) && !ENV_OF_THE_COMMAND.contains(&name.as_str())
        })
        .collect();
    if overrides.is_empty() {
        let value = toml::from_str(text).map_err(wrong)?;
        return Ok(Loaded {
            value,
            path: path.to_owned(),
            sha256,
        });
    }
    let mut table: toml::Table = toml::from_str(text).map_err(wrong)?;
    let names: Vec<&str> = overrides.iter().map(|(name, _)| name.as_str()).collect();
    let variables: Box<str> = names.join(", ").into();
    for (name, value) in &overrides {
        set(&mut table, name, value).map_err(|message| ConfigError::Environment {
            variables: name.as_str().into(),
            message: message.into(),
        })?;
    }
    let value = table
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Environment {
            variables,
            message: without_password(in_words_of(&e.to_string())),
        })?;
    Ok(Loaded {
        value,
        path: path.to_owned(),
        sha256,
    })
}

/// Puts one variable over the table: `value` as TOML where it is TOML, else as a string.
fn set(table: &mut toml::Table, name: &str, value: &str) -> Result<(), &'static str> {
    let path = name
        .strip_prefix(ENV_PREFIX)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut parts: Vec<&str> = path.split("__").collect();
    let key = parts
        .pop()
        .filter(|key| !key.is_empty())
        .ok_or("it names no key")?;
    let mut at = table;
    for part in parts {
        at = at
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or("it names a key below something that is no table")?;
    }
    let typed = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"));
    at.insert(
        key.to_owned(),
        typed.unwrap_or_else(|| toml::Value::String(value.to_owned())),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
        limits: Limits,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        body_bytes: u32,
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::RUSR).unwrap();
        for path in [path("pipe"), dir.path().to_owned()] {
            let error = open_regular(&path).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{path:?}");
        }
        let missing = open_regular(&path("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let mut text = String::new();
        let mut file = open_regular(&path("link")).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }

    const TEXT: &str = "listen = \"127.0.0.1:1\"\n[limits]\nbody_bytes = 1\n";

    fn parsed(text: &str, variables: &[(&str, &str)]) -> Result<Sample, String> {
        let variables = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(Path::new("x.toml"), text, variables)
            .map(|l| l.value)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn variables_override_keys() {
        let variables = [
            ("SEALGATE_LISTEN", "127.0.0.1:2"),
            ("SEALGATE_LIMITS__BODY_BYTES", "7"),
            ("SEALGATE_LOG", "debug"),
            ("HOME", "/"),
        ];
        let sample = parsed(TEXT, &variables).unwrap();
        assert_eq!(sample.listen, "127.0.0.1:2");
        assert_eq!(sample.limits.body_bytes, 7);
    }

    #[test]
    fn an_error_names_the_key() {
        let cases = [
            (
                "unknown",
                "listen = \"a\"\nlisten_to = 1\n[limits]\nbody_bytes = 1",
                "listen_to",
            ),
            ("missing", "listen = \"a\"\n[limits]\n", "body_bytes"),
            (
                "wrong type",
                "listen = \"a\"\n[limits]\nbody_bytes = \"many\"",
                "body_bytes",
            ),
            ("no TOML", "listen = ", "x.toml"),
        ];
        for (name, text, named) in cases {
            let error = parsed(text, &[]).unwrap_err();
            assert!(error.contains(named), "{name}: {error}");
        }
        let error = parsed(TEXT, &[("SEALGATE_LIMITS__BODY_BYTE", "7")]).unwrap_err();
        assert!(error.contains("SEALGATE_LIMITS__BODY_BYTE"), "{error}");
    }

    #[test]
    fn a_table_where_a_list_belongs_gets_a_hint() {
        let text = "[key]\nname = \"a\"\n";
        let parsed = parse::<gateway::KeysFile>(Path::new("k.toml"), text, std::iter::empty());
        let error = parsed.unwrap_err().to_string();
        assert!(error.ends_with("write [[key]]"), "{error}");
    }

    #[test]
    fn a_secret_in_a_digests_place_is_not_shown() {
        for text in [
            "[[key]]\nname = \"a\"\nsha256 = \"sk-secret\"\n",
            "[[key]]\nname = \"a\"\nsha256 = sk-secret\n",
        ] {
            let parsed = parse::<gateway::KeysFile>(Path::new("k.toml"), text, std::iter::empty());
            let error = parsed.unwrap_err().to_string();
            assert!(error.contains("line 3: `sha256`"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn paths_start_from_the_file() {
        let loaded = Loaded {
            value: (),
            path: PathBuf::from("/etc/sealgate/gateway.toml"),
            sha256: [0; 32],
        };
        assert_eq!(
            loaded.resolve(Path::new("keys.toml")),
            Path::new("/etc/sealgate/keys.toml")
        );
        assert_eq!(
            loaded.resolve(Path::new("/run/keys.toml")),
            Path::new("/run/keys.toml")
        );
    }
}
