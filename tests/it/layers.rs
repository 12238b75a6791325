//! Imports go one way: the arrows of docs/architecture.md hold in every source file.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each folder or file below `src` may use of the others, besides itself.
const ALLOWED: [(&str, &[&str]); 25] = [
    (
        "admin.rs",
        &[
            "clock",
            "config",
            "listener",
            "net",
            "openai",
            "reload",
            "telemetry",
            "tls",
        ],
    ),
    (
        "attester",
        &["clock", "config", "ids", "openai", "pace", "seal"],
    ),
    (
        "cli",
        &[
            "clock",
            "config",
            "fetch",
            "gateway",
            "listener",
            "node",
            "openai",
            "receipts",
            "reload",
            "seal",
            "store",
            "telemetry",
        ],
    ),
    (
        "client",
        &["clock", "config", "ids", "openai", "seal", "sealer"],
    ),
    ("fetch", &[]),
    (
        "gateway",
        &[
            "admin",
            "attester",
            "chance",
            "clock",
            "config",
            "ids",
            "listener",
            "net",
            "openai",
            "pace",
            "receipts",
            "reload",
            "seal",
            "sealer",
            "store",
            "telemetry",
            "tls",
        ],
    ),
    (
        "node",
        &[
            "admin",
            "attester",
            "clock",
            "config",
            "ids",
            "listener",
            "net",
            "openai",
            "pace",
            "reload",
            "seal",
            "telemetry",
            "tls",
        ],
    ),
    ("store", &["clock", "config", "openai", "telemetry"]),
    ("sealer", &["config", "ids", "net", "openai", "seal"]),
    ("config", &["clock", "seal"]),
    ("tls", &["clock", "config", "reload"]),
    ("reload.rs", &["config"]),
    ("listener.rs", &["net", "tls"]),
    ("listener", &[]),
    ("openai", &["clock", "ids"]),
    // In tests alone: what a secret left in memory.
    ("seal", &["leftovers"]),
    ("telemetry", &[]),
    // Tests, which run both roles.
    (
        "simulation",
        &[
            "chance", "client", "clock", "config", "gateway", "net", "node", "seal",
        ],
    ),
    ("receipts.rs", &[]),
    ("chance.rs", &[]),
    ("pace.rs", &[]),
    // In tests alone: there it stands for the system's network.
    ("net.rs", &["simulation"]),
    ("clock.rs", &[]),
    ("ids.rs", &[]),
    ("leftovers.rs", &[]),
];

/// Folders that do no IO, read no clock and log nothing.
const PURE: [&str; 5] = [
    "src/openai",
    "src/receipts.rs",
    "src/seal",
    "attestation/src",
    "rim/src",
];

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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
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

/// The code of `path` without comments and tests, which may do what their module may not: each
/// file's name and its lines.
fn code_of(path: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(&root().join(path), &mut files);
    let mut code = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        code.push((name, lines.collect::<Vec<_>>().join("\n")));
    }
    assert!(!code.is_empty(), "{path} has no source");
    code
}

/// The first names after every `crate::`, in groups too: `crate::{clock, ids::RequestId}`.
fn used_modules(code: &str) -> Vec<String> {
    let name = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut used = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            used.push(name(after));
            continue;
        };
        let mut depth = 0;
        let ends = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0 || (depth == 0 && c == ',')
        };
        let mut parts = group.split_inclusive(ends);
        for part in parts.by_ref() {
            used.push(name(part.trim_start()));
            if part.matches('}').count() > part.matches('{').count() {
                break;
            }
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

#[test]
fn names_are_found_in_groups_too() {
    let code = "use crate::{\n    clock::{self, Clock},\n    node::Node,\n};\nuse crate::ids;\n\
                fn f() { crate::gateway::check_files(); let x = 1; }";
    assert_eq!(used_modules(code), ["clock", "node", "ids", "gateway"]);
}

#[test]
fn imports_go_one_way() {
    for (folder, allowed) in ALLOWED {
        let own = folder.trim_end_matches(".rs");
        for (file, code) in code_of(&format!("src/{folder}")) {
            for used in used_modules(&code) {
                let allowed = used == own || allowed.contains(&used.as_str());
                assert!(allowed, "{file}: {folder} may not use {used}");
            }
        }
    }
    let mut modules = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        modules.push(entry.unwrap().file_name().into_string().unwrap());
    }
    modules.retain(|name| name != "lib.rs" && name != "main.rs");
    for name in modules {
        let known = ALLOWED.iter().any(|(folder, _)| *folder == name);
        assert!(known, "what src/{name} may use is not said here");
    }
}

/// XML is read where bundles are made, and nowhere else.
#[test]
fn only_the_bundle_command_reads_xml() {
    let mut used = 0;
    for (file, code) in code_of("src") {
        let names = |name: &str| {
            let uses = code.match_indices(name).filter(|(at, _)| {
                let before = code[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            uses.count()
        };
        let count = names("rim::") + names("roxmltree::");
        used += count;
        let may = file.starts_with("src/cli/bundle/");
        assert!(count == 0 || may, "{file} may not read XML");
    }
    assert!(used > 0, "the bundle command verifies manifests");
    for (file, code) in code_of("attestation/src") {
        assert!(!code.contains("roxmltree"), "{file} may not read XML");
    }
}

#[test]
fn pure_modules_do_no_io() {
    for folder in PURE {
        for (file, code) in code_of(folder) {
            for line in code.lines() {
                let named = IMPURE.iter().find(|name| line.contains(**name));
                assert_eq!(named, None, "{file}: {line}");
            }
        }
    }
}
