//! The tables of faults in docs/architecture.md name tests that there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

const DOCUMENT: &str = include_str!("../../../docs/architecture.md");
const HEADING: &str = "## Faults, and the tests that hold them";
/// Rows of both tables.
const ROWS: usize = 41;

/// Every source file below `folder`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// Whether `source` has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}()");
    let named = lines.iter().position(|line| line.contains(&function));
    let before = named.map(|at| lines[..at].iter().rev());
    before.is_some_and(|mut before| {
        let is_attribute = |line: &&&str| line.starts_with("#[");
        before.by_ref().take_while(is_attribute).any(|line| {
            ["#[test]", "#[tokio::test"]
                .iter()
                .any(|it| line.starts_with(it))
        })
    })
}

#[test]
fn every_fault_has_a_test_that_there_is_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "attestation"] {
        sources(&root.join(folder), &mut files);
    }
    let section = DOCUMENT.split_once(HEADING).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|line| !line.ends_with("| tests |")).collect();
    assert_eq!(rows.len(), ROWS);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [_, seen, tests] = cells[..] else {
            panic!("three cells: {row}")
        };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let says_why = ["**not yet", "**measured"]
            .iter()
            .any(|it| seen.contains(it));
        assert!(!tests.is_empty() || says_why, "{row}");
        for test in tests {
            let (place, name) = test.split_once("::").unwrap();
            let is_there = files.iter().any(|file| {
                let names = file.with_extension("");
                names.iter().any(|part| part == place)
                    && has_test(&fs::read_to_string(file).unwrap(), name)
            });
            assert!(is_there, "there is no test {test}");
        }
    }
}

#[test]
fn a_test_is_told_from_what_is_none() {
    let cases = [
        ("#[test]\nfn a() {", true),
        (
            "    #[tokio::test(flavor = \"multi_thread\")]\n    async fn a() {",
            true,
        ),
        (
            "#[cfg(target_os = \"linux\")]\n#[tokio::test]\nasync fn a() {",
            true,
        ),
        ("fn a() {", false),
        ("#[test]\nfn b() {}\nfn a() {", false),
        ("#[test]\nfn ab() {", false),
        ("#[ignore]\nfn a() {", false),
    ];
    for (source, expected) in cases {
        assert_eq!(has_test(source, "a"), expected, "{source}");
    }
}
