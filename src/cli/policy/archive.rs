//! The newest evidence of each node in a gateway's archive, as the archive's log tells it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    cli::{terminal, verify::input::Unusable},
    config::archive::{EVIDENCE, LOG, OLD_LOG},
};

/// Most bytes of a log that are read; a gateway starts a new one long before.
const MAX_LOG: u64 = 16 << 30;
/// What the log calls the check that something is an answer at all.
const ANSWER: &str = "answer";

/// What is read of a line of the log.
#[derive(Deserialize)]
struct Line {
    node: String,
    evidence: String,
    check: Option<String>,
}

/// The paths, with an archive's folder replaced by the newest evidence of each node in it. A folder
/// without a log stays: nothing in it tells what is new.
pub(super) fn newest(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Unusable> {
    let mut files = Vec::new();
    for path in paths {
        let newest = newest_in(path).map_err(|source| Unusable::Read {
            path: path.clone(),
            source,
        })?;
        if newest.is_empty() {
            files.push(path.clone());
            continue;
        }
        terminal::note(format_args!(
            "{}: the newest evidence of each node, {} in all",
            path.display(),
            super::count(newest.len(), "node")
        ));
        files.extend(newest.into_values());
    }
    Ok(files)
}

/// By what the gateway calls a node: what the evidence says of itself counts nothing.
fn newest_in(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut newest = BTreeMap::new();
    for log in [OLD_LOG, LOG] {
        let file = match File::open(folder.join(log)) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file.take(MAX_LOG)).split(b'\n') {
            // A line that a crash cut off is none.
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
                continue;
            };
            let is_digest = line.evidence.len() == 64
                && line.evidence.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_digest || line.check.as_deref() == Some(ANSWER) {
                continue;
            }
            let file = folder
                .join(EVIDENCE)
                .join(format!("{}.json", line.evidence));
            // The oldest evidence goes when there is no room; its lines stay.
            if file.is_file() {
                newest.insert(line.node, file);
            }
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::{fs, slice};

    use super::*;

    const DIGESTS: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn digest(letter: &str) -> String {
        letter.repeat(64)
    }

    fn line(node: &str, letter: &str, check: Option<&str>) -> String {
        let line = serde_json::json!({
            "at": "2026-06-01T00:00:00Z", "node": node, "node_id": null, "evidence": digest(letter),
            "nonce": "00", "policy": "00", "bundle": null, "verdict": "accepted", "check": check,
            "device": null,
        });
        format!("{line}\n")
    }

    /// Which evidence is used of an archive with these logs, in which `gone` is no more.
    fn used(old: Option<&str>, log: Option<&str>, gone: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let evidence = dir.path().join(EVIDENCE);
        fs::create_dir(&evidence).unwrap();
        for letter in DIGESTS.iter().filter(|letter| **letter != gone) {
            fs::write(evidence.join(format!("{}.json", digest(letter))), "{}").unwrap();
        }
        for (name, text) in [(OLD_LOG, old), (LOG, log)] {
            if let Some(text) = text {
                fs::write(dir.path().join(name), text).unwrap();
            }
        }
        let paths = newest(&[dir.path().to_owned()]).unwrap();
        let names = paths.iter().map(|path| path.file_stem().unwrap());
        let letters = names.map(|name| name.to_str().unwrap()[..1].to_owned());
        if paths == [dir.path()] {
            return vec!["all".to_owned()];
        }
        letters.collect()
    }

    #[test]
    fn the_last_line_of_a_node_whose_evidence_is_there_counts() {
        let (one, two) = ("http://one", "http://two");
        let old = line(one, "a", None) + &line(two, "b", None);
        let new = line(one, "c", None) + &line(one, "d", Some("measurement"));
        let outside = line(two, "b", None).replace(&digest("b"), "../../policy");
        let cases = [
            ("one log", None, Some(old.clone()), "", vec!["a", "b"]),
            (
                "both logs",
                Some(old.clone()),
                Some(new.clone()),
                "",
                vec!["d", "b"],
            ),
            (
                "the old log alone",
                Some(old.clone()),
                None,
                "",
                vec!["a", "b"],
            ),
            (
                "the newest is gone",
                Some(old.clone()),
                Some(new.clone()),
                "d",
                vec!["c", "b"],
            ),
            (
                "all of a node is gone",
                None,
                Some(old.clone()),
                "b",
                vec!["a"],
            ),
            (
                "no answer",
                None,
                Some(old.clone() + &line(one, "e", Some(ANSWER))),
                "",
                vec!["a", "b"],
            ),
            (
                "cut off",
                None,
                Some(old.clone() + "{\"node\":"),
                "",
                vec!["a", "b"],
            ),
            (
                "outside",
                None,
                Some(old.clone() + &outside),
                "",
                vec!["a", "b"],
            ),
            (
                "judged again",
                None,
                Some(new + &line(one, "c", None)),
                "",
                vec!["c"],
            ),
            ("an empty log", None, Some(String::new()), "", vec!["all"]),
            ("no log", None, None, "", vec!["all"]),
        ];
        for (name, old, log, gone, expected) in cases {
            assert_eq!(
                used(old.as_deref(), log.as_deref(), gone),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_file_stays_what_it_is() {
        let file = PathBuf::from("answer.json");
        assert_eq!(newest(slice::from_ref(&file)).unwrap(), [file]);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        assert_eq!(newest(slice::from_ref(&path)).unwrap(), [path]);
    }
}
