//! Which files of a store must not be one.

use std::path::{Path, PathBuf};

use super::{StoreConfig, StoreUrl, name_of_teller, receipts_journal, resolved};
use crate::config::{ConfigError, Loaded, gateway::GatewayConfig};

/// What SQLite writes beside its file.
const BESIDE_SQLITE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Checks that what is written has a file of its own, which nothing else is read from.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key of one, and that of the other.
pub(super) fn check(
    config: &Loaded<GatewayConfig>,
    store: &StoreConfig,
) -> Result<(), ConfigError> {
    let store = resolved(config, store);
    let mut written = vec![
        ("store.journal", store.journal.clone()),
        (
            "store.journal (with -receipts at its end)",
            receipts_journal(&store.journal),
        ),
        (
            "store.journal (with .id at its end)",
            name_of_teller(&store.journal),
        ),
    ];
    let mut read = vec![
        ("the configuration", config.path.clone()),
        ("policy", config.resolve(&config.value.policy)),
    ];
    if let StoreUrl::Sqlite(file) = &store.url {
        written.push(("store.url", file.clone()));
        let beside = |end| {
            let mut name = file.as_os_str().to_owned();
            name.push(end);
            (
                "store.url (with what SQLite puts at its end)",
                PathBuf::from(name),
            )
        };
        written.extend(BESIDE_SQLITE.map(beside));
    }
    let head_file = store.audit.head_file.clone();
    written.extend(head_file.map(|file| ("store.audit.head_file", file)));
    // It is made beside the database, or it is there already.
    read.extend(store.secret().map(|(file, _)| ("store.secret_file", file)));
    let named = [
        ("store.password_file", store.password_file),
        ("store.ca_file", store.ca_file),
        ("store.audit.head_token_file", store.audit.head_token_file),
        ("store.audit.head_ca_file", store.audit.head_ca_file),
    ];
    read.extend(
        named
            .into_iter()
            .filter_map(|(key, file)| Some((key, file?))),
    );
    let places = |files: Vec<(&'static str, PathBuf)>| -> Vec<_> {
        let files = files.into_iter();
        files.map(|(key, file)| (key, place(&file))).collect()
    };
    let (written, read) = (places(written), places(read));
    for (n, (key, file)) in written.iter().enumerate() {
        let mut others = written.iter().skip(n.saturating_add(1)).chain(&read);
        if let Some((other, _)) = others.find(|(_, other)| other == file) {
            let message = format!("that is the file of {other} too: what is written has its own");
            return Err(config.invalid(key, message));
        }
    }
    Ok(())
}

/// What tells a file from another one: where it is, whether or not it is there yet.
fn place(file: &Path) -> PathBuf {
    if let Ok(place) = file.canonicalize() {
        return place;
    }
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, file.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_written_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("secret", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("secret"), [7; 32]).unwrap();
        let cases = [
            ("", None),
            ("journal = \"sealgate.db\"", Some("store.url")),
            ("journal = \"sealgate.db-wal\"", Some("store.url")),
            ("journal = \"sub/../sealgate.db\"", Some("store.url")),
            ("journal = \"sealgate.secret\"", Some("store.secret_file")),
            (
                "secret_file = \"secret\"\njournal = \"link\"",
                Some("store.secret_file"),
            ),
            (
                "secret_file = \"sealgate.journal-receipts\"",
                Some("store.secret_file"),
            ),
            (
                "secret_file = \"sealgate.journal.id\"",
                Some("store.secret_file"),
            ),
            ("journal = \"gateway.toml\"", Some("the configuration")),
            ("journal = \"policy.toml\"", Some("policy")),
            (
                "audit = { head_file = \"sealgate.journal\" }",
                Some("store.audit.head_file"),
            ),
            (
                "audit = { head_file = \"sealgate.secret\" }",
                Some("store.secret_file"),
            ),
            (
                "audit = { head_file = \"sealgate.db\" }",
                Some("store.audit.head_file"),
            ),
            (
                "url = \"postgres://u@127.0.0.1/d\"\nsecret_file = \"secret\"\npassword_file = \"p\"\njournal = \"p\"",
                Some("store.password_file"),
            ),
            (
                "audit = { head_file = \"t\", head_token_file = \"t\" }",
                Some("store.audit.head_token_file"),
            ),
            ("url = \"sqlite:other.db\"\njournal = \"sealgate.db\"", None),
        ];
        for (keys, other) in cases {
            let text = format!("policy = \"policy.toml\"\nnode = []\n[store]\n{keys}\n");
            let path = dir.path().join("gateway.toml");
            let loaded: Loaded<GatewayConfig> =
                config::parse(&path, &text, std::iter::empty()).unwrap();
            let store = loaded.value.store().unwrap();
            let checked = check(&loaded, &store).map_err(|error| error.to_string());
            match (other, checked) {
                (None, Ok(())) => {}
                (Some(other), Err(error)) => assert!(error.contains(other), "{keys}: {error}"),
                (_, checked) => panic!("{keys}: {checked:?}"),
            }
        }
    }
}
