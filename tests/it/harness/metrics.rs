//! The metrics of a process with `[admin]`, as a scraper reads them.

use super::soon;

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The metric's whole name.
    pub(crate) name: String,
    /// Its labels, in the order of the line.
    pub(crate) labels: Vec<(String, String)>,
    /// Its value.
    pub(crate) value: f64,
}

/// The page of the process whose admin listener is at `admin`.
pub(crate) async fn page(admin: &str) -> String {
    let got = reqwest::get(format!("{admin}/metrics")).await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(
        got.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    got.text().await.unwrap()
}

/// The value of `name` under `labels`: the sum of all series that have these, whatever else they
/// have, and 0 if there is none yet. A name that no metric has fails the test.
pub(crate) async fn metric(admin: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    value(&page(admin).await, name, labels)
}

/// Waits until the metric has the value.
pub(crate) async fn until_metric(admin: &str, name: &str, labels: &[(&str, &str)], value: f64) {
    let has_it = async { while metric(admin, name, labels).await != value {} };
    soon(&format!("{name}{labels:?} is {value}"), has_it).await;
}

/// The same of a page that was fetched.
pub(crate) fn value(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = ["_sum", "_count", "_bucket"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    let is_there = |name: &str| page.contains(&format!("# TYPE {name} "));
    assert!(
        is_there(name) || family.is_some_and(is_there),
        "no metric {name}"
    );
    let has = |sample: &Sample| {
        let of = |(name, value): &(&str, &str)| {
            let mut labels = sample.labels.iter();
            labels.any(|(n, v)| n == name && v == value)
        };
        sample.name == name && labels.iter().all(of)
    };
    parse(page)
        .iter()
        .filter(|it| has(it))
        .map(|it| it.value)
        .sum()
}

/// Every sample of a page; a line that is none, and no comment, fails the test.
pub(crate) fn parse(page: &str) -> Vec<Sample> {
    let samples = page.lines().filter(|line| {
        let is_comment = ["# HELP ", "# TYPE ", "# EOF"]
            .iter()
            .any(|it| line.starts_with(it));
        assert!(is_comment || !line.starts_with('#'), "{line}");
        !is_comment
    });
    samples
        .map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}")))
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (text, after) = quoted(after)?;
            is_name(label).then_some(())?;
            labels.push((label.to_owned(), text));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                _ => return None,
            },
            (_, other) => value.push(other),
        }
    }
}
