//! For tests: docs/operating.md against what is written.

use super::Row;

/// The rows of the document's tables whose name begins with `prefix`: name, type and labels.
fn rows(prefix: &str) -> Vec<(String, String, Vec<String>)> {
    let text = include_str!("../../../docs/operating.md");
    let begin = format!("| `{prefix}_");
    let rows = text.lines().filter(|line| line.starts_with(&begin));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else {
            panic!("{line}");
        };
        assert!(!meaning.is_empty(), "{line}");
        let bare = |text: &str| text.trim().trim_matches('`').to_owned();
        let labels = labels
            .split(',')
            .map(bare)
            .filter(|label| !label.is_empty());
        (bare(name), kind.to_owned(), labels.collect())
    })
    .collect()
}

/// Every family stands in the document as it is, and the document has no other.
pub(crate) fn are(families: &[Row], prefix: &str) {
    let known: Vec<_> = families.iter().map(|it| it.documented(prefix)).collect();
    assert_eq!(rows(prefix), known);
}

/// What a page has: every family once, with a type, a help and a sound name.
pub(crate) fn is_page_of(families: &[Row], prefix: &str, page: &str) {
    let begin = format!("# TYPE {prefix}_");
    let types = page.lines().filter(|line| line.starts_with(&begin));
    let expected = families.iter().map(|it| {
        let (name, kind, _) = it.documented(prefix);
        format!("# TYPE {name} {kind}")
    });
    assert_eq!(types.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for family in families {
        let (name, ..) = family.documented(prefix);
        let help = page
            .lines()
            .find(|line| line.starts_with(&format!("# HELP {name} ")));
        assert!(
            help.is_some_and(|help| help.ends_with('.')),
            "{name}: {help:?}"
        );
        let is_sound = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.bytes().all(is_sound), "{name}");
    }
}
