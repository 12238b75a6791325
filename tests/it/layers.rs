//! Imports go one way: the arrows of docs/architecture.md hold in every source file.

use std::{fs, path::Path};

/// Who may not use what, by folder below `src`.
const FORBIDDEN: [(&str, &[&str]); 9] = [
    ("gateway", &["crate::node", "crate::cli"]),
    ("node", &["crate::gateway", "crate::cli"]),
    ("config", &["crate::gateway", "crate::node", "crate::cli"]),
    (
        "openai",
        &[
            "crate::gateway",
            "crate::node",
            "crate::seal",
            "crate::config",
        ],
    ),
    (
        "seal",
        &[
            "crate::gateway",
            "crate::node",
            "crate::openai",
            "crate::config",
        ],
    ),
    ("telemetry", &["crate::"]),
    ("../attestation/src", &["sealgate"]),
    ("clock.rs", &["crate::"]),
    ("ids.rs", &["crate::"]),
];

/// Folders that do no IO, read no clock and log nothing.
const PURE: [&str; 3] = ["openai", "seal", "../attestation/src"];

/// What they may not name.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::env",
    "tokio",
    "hyper",
    "tracing",
    "SystemTime::now",
    "Clock",
    "telemetry",
];

fn sources(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            sources(&path, found);
        }
    }
}

/// The lines of code of `path` that are no tests: tests may do what their module may not.
fn lines_of(path: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(path, &mut files);
    assert!(!files.is_empty(), "{} has no source", path.display());
    let is_test = |file: &Path| file.to_string_lossy().contains("tests");
    let mut lines = Vec::new();
    for file in files.into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.extend(code.map(|line| (file.display().to_string(), line.to_owned())));
    }
    lines
}

fn assert_absent(folder: &str, forbidden: &[&str]) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, line) in lines_of(&src.join(folder)) {
        for name in forbidden {
            assert!(
                !line.contains(name),
                "{file}: {folder} may not use {name}: {line}"
            );
        }
    }
}

#[test]
fn imports_go_one_way() {
    for (folder, forbidden) in FORBIDDEN {
        assert_absent(folder, forbidden);
    }
}

#[test]
fn pure_modules_do_no_io() {
    for folder in PURE {
        assert_absent(folder, &IMPURE);
    }
}
