use std::{fs, num::NonZeroU64, path::PathBuf, time::UNIX_EPOCH};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, MANIFEST, Manifest, SIGNATURE};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::{
    config,
    gateway::{rules::Sources, tests::fake},
};

const ROOM: u64 = 1000;

fn rules() -> Arc<Rules> {
    let policy = fake::folder().join("policy.toml");
    Arc::new(Sources::new(policy, None).read().unwrap())
}

fn entry(evidence: &'static str, refused: Option<&'static str>) -> Entry {
    Entry {
        at: "2026-06-01T00:00:00Z".to_owned(),
        node: "http://127.0.0.1:1".to_owned(),
        node_id: refused.is_none().then(|| "one".to_owned()),
        evidence: Bytes::from_static(evidence.as_bytes()),
        digest: hex::encode(Sha256::digest(evidence)),
        nonce: Nonce::from([7; 32]),
        rules: rules(),
        refused: refused.map(|check| (check, Some(2))),
    }
}

fn config(dir: &TempDir) -> ArchiveConfig {
    ArchiveConfig {
        dir: dir.path().to_owned(),
        max_bytes: NonZeroU64::new(ROOM).unwrap(),
        max_bytes_per_node: None,
        required: true,
    }
}

fn store(dir: &TempDir) -> Store {
    Store::open(dir.path(), &config(dir)).unwrap()
}

fn file(dir: &TempDir, entry: &Entry) -> PathBuf {
    dir.path()
        .join("evidence")
        .join(format!("{}.json", entry.digest))
}

fn lines(dir: &TempDir) -> Vec<Value> {
    let text = fs::read_to_string(dir.path().join("appraisals.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    lines.collect()
}

#[test]
fn a_verdict_is_kept_with_all_that_is_needed_to_judge_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir);
    let (good, bad) = (entry("good", None), entry("bad", Some("measurement")));
    for entry in [&good, &bad, &good] {
        store.keep(entry).unwrap();
    }
    assert_eq!(fs::read(file(&dir, &good)).unwrap(), b"good");
    assert_eq!(fs::read(file(&dir, &bad)).unwrap(), b"bad");
    assert_eq!(
        fs::read_dir(dir.path().join("evidence")).unwrap().count(),
        2
    );

    let lines = lines(&dir);
    let digest = rules().policy_digest.clone();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], lines[2]);
    assert_eq!(
        lines[0],
        serde_json::json!({
            "at": "2026-06-01T00:00:00Z", "node": "http://127.0.0.1:1", "node_id": "one",
            "evidence": good.digest, "nonce": "07".repeat(32), "policy": digest, "bundle": null,
            "verdict": "accepted", "check": null, "device": null,
        })
    );
    assert_eq!(lines[1]["verdict"], "refused");
    assert_eq!(lines[1]["check"], "measurement");
    assert_eq!(lines[1]["device"], 2);
    assert_eq!(lines[1]["node_id"], Value::Null);

    let policy = dir
        .path()
        .join("policies")
        .join(&digest)
        .join("policy.toml");
    let again = Sources::new(policy, None).read().unwrap();
    assert_eq!(again.policy_digest, digest, "with the root that it names");
}

#[test]
fn what_is_there_counts_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let half: &str = "x".repeat(500).leak();
    let (accepted, refused) = (entry(half, None), entry("refused", Some("root")));
    let mut first = store(&dir);
    first.keep(&refused).unwrap();
    first.keep(&accepted).unwrap();
    drop(first);
    for unfinished in ["evidence/.tmpabc", "policies/.tmpabc"] {
        fs::write(dir.path().join(unfinished), "half").unwrap();
    }
    let log = dir.path().join("appraisals.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, format!("{text}{{\"at\":\"20")).unwrap();

    let mut second = store(&dir);
    assert!(!dir.path().join("evidence/.tmpabc").exists());
    assert!(!dir.path().join("policies/.tmpabc").exists());
    let flood: &str = "y".repeat(600).leak();
    let flood = entry(flood, Some("root"));
    second.keep(&flood).unwrap();
    assert!(file(&dir, &accepted).exists(), "by its line in the log");
    assert!(!file(&dir, &refused).exists());
    assert!(!file(&dir, &flood).exists());
    let text = fs::read_to_string(&log).unwrap();
    let whole = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok());
    assert_eq!(whole.count(), 3, "the half line spoils no other: {text}");
}

#[test]
fn the_log_is_replaced_when_it_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir).with_log(900);
    for _ in 0..5 {
        store.keep(&entry("good", None)).unwrap();
    }
    assert_eq!(lines(&dir).len(), 1, "two of about 400 bytes fit");
    let old = fs::read_to_string(dir.path().join("appraisals.1.jsonl")).unwrap();
    assert_eq!(old.lines().count(), 2);
}

#[test]
fn a_log_that_somebody_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir).with_log(900);
    for _ in 0..2 {
        store.keep(&entry("good", None)).unwrap();
    }
    let log = dir.path().join("appraisals.jsonl");
    fs::rename(log, dir.path().join("moved")).unwrap();
    for _ in 0..2 {
        store.keep(&entry("good", None)).unwrap();
    }
    assert_eq!(lines(&dir).len(), 2);
}

#[test]
fn evidence_whose_verdict_is_lost_is_not_the_first_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let long: &str = "x".repeat(500).leak();
    let (unknown, refused) = (entry(long, None), entry("refused", Some("root")));
    let mut first = store(&dir);
    first.keep(&unknown).unwrap();
    fs::remove_file(dir.path().join("appraisals.jsonl")).unwrap();
    drop(first);
    let mut second = store(&dir);
    second.keep(&refused).unwrap();
    let flood: &str = "y".repeat(600).leak();
    second.keep(&entry(flood, Some("root"))).unwrap();
    assert!(file(&dir, &unknown).exists());
    assert!(!file(&dir, &refused).exists());
}

#[tokio::test(start_paused = true)]
async fn many_verdicts_wait_for_their_turn_and_not_for_the_patience_with_a_disk() {
    let (archive, mut waiting) = Archive::by_hand();
    let entry = entry("good", None);
    // A disk that is just fast enough for a whole queue.
    let disk = async {
        for _ in 0..QUEUE * 4 {
            let order = waiting.recv().await.unwrap();
            tokio::time::sleep(PATIENCE / 70).await;
            order.written();
        }
    };
    let keeping =
        futures_util::future::join_all((0..QUEUE * 4).map(|_| archive.keep(entry.clone())));
    let (kept, ()) = tokio::join!(keeping, disk);
    assert!(kept.iter().all(Result::is_ok), "{kept:?}");
}

#[tokio::test]
async fn a_disk_that_fails_stops_appraisals_only_where_the_archive_is_required() {
    for required in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = ArchiveConfig {
            required,
            ..config(&dir)
        };
        let (archive, ended) = Archive::open(&config, dir.path()).unwrap();
        archive.keep(entry("good", None)).await.unwrap();
        fs::remove_dir_all(dir.path()).unwrap();
        let kept = archive.keep(entry("other", None)).await;
        assert_eq!(kept.is_err(), required, "{kept:?}");
        drop(archive);
        ended.await.unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    fs::write(&taken, "a file").unwrap();
    assert!(Store::open(&taken, &config(&dir)).is_err());
}

fn long(byte: &str) -> &'static str {
    byte.repeat(400).leak()
}

#[test]
fn a_node_pushes_out_its_own_evidence_alone_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let loud = |evidence| Entry {
        node: "http://127.0.0.1:2".to_owned(),
        ..entry(evidence, None)
    };
    let quiet = entry("quiet", None);
    let mut first = store(&dir);
    for entry in [&quiet, &loud(long("a")), &loud(long("b"))] {
        first.keep(entry).unwrap();
    }
    drop(first);
    let mut second = store(&dir);
    for evidence in [long("c"), long("d")] {
        second.keep(&loud(evidence)).unwrap();
    }
    assert!(file(&dir, &quiet).exists());
    assert!(!file(&dir, &loud(long("a"))).exists());
    assert!(file(&dir, &loud(long("d"))).exists());
    drop(second);

    let max_bytes_per_node = NonZeroU64::new(500);
    let bounded = ArchiveConfig {
        max_bytes_per_node,
        ..config(&dir)
    };
    let mut third = Store::open(dir.path(), &bounded).unwrap();
    third.keep(&loud(long("e"))).unwrap();
    let left = fs::read_dir(dir.path().join("evidence")).unwrap().count();
    assert_eq!(left, 2, "the quiet one's and one of 400 bytes");
}

#[test]
fn a_folder_is_one_gateways_alone_for_as_long_as_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir);
    let error = Store::open(dir.path(), &config(&dir)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("another gateway"), "{error}");
    assert!(error.to_string().contains("folder of its own"), "{error}");
    drop(first);
    store(&dir);
}

#[test]
fn evidence_that_cannot_be_removed_counts_on_and_nothing_is_added_while_none_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir);
    let all = ["a", "b", "c", "d", "e"].map(|byte| entry(long(byte), None));
    let [stuck, second, ..] = &all;
    for entry in [stuck, second] {
        store.keep(entry).unwrap();
    }
    // A folder in a file's place is not removed.
    let in_place = |entry: &Entry| {
        fs::remove_file(file(&dir, entry)).unwrap();
        fs::create_dir(file(&dir, entry)).unwrap();
    };
    in_place(stuck);
    assert!(store.keep(&all[2]).is_err());
    assert!(file(&dir, &all[2]).exists());
    store.keep(&all[3]).unwrap();
    let there = all.each_ref().map(|entry| file(&dir, entry).exists());
    assert_eq!(
        there,
        [true, false, false, true, false],
        "what is stuck holds its 400 of 1000 bytes"
    );
    in_place(&all[3]);
    assert!(store.keep(&all[4]).is_err());
    let more = entry(long("f"), None);
    assert!(store.keep(&more).is_err());
    assert!(!file(&dir, &more).exists());
}

/// Signs a bundle of files into a folder, and gives rules that have it beside the tests' policy.
fn rules_with(dir: &TempDir, key: &BundleKey, files: &[(&str, &str)]) -> Arc<Rules> {
    let bundle = dir.path().join("bundle");
    let _ = fs::remove_dir_all(&bundle);
    let now = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let end = now + Duration::from_secs(3600);
    let items = files.iter().map(|(path, content)| {
        let place = bundle.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
        BundleItem {
            path: (*path).to_owned(),
            kind: ItemKind::GpuRim,
            sha256: Sha256::digest(content).into(),
            source: "a test".to_owned(),
            fetched_at: now,
            valid_until: end,
        }
    });
    let manifest = Manifest {
        created: now,
        valid_until: end,
        items: items.collect(),
    };
    let manifest = manifest.to_json().unwrap();
    fs::write(bundle.join(SIGNATURE), key.sign(&manifest)).unwrap();
    fs::write(bundle.join(MANIFEST), &manifest).unwrap();
    let text = fs::read_to_string(fake::folder().join("policy.toml")).unwrap();
    let signer = hex::encode(key.public_key());
    let signers = format!("version = 1\nbundle_signers = [\"{signer}\"]\n");
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, text.replace("version = 1\n", &signers)).unwrap();
    fs::copy(fake::folder().join("ark.pem"), dir.path().join("ark.pem")).unwrap();
    Arc::new(Sources::new(policy, Some(bundle)).read().unwrap())
}

#[test]
fn bundles_are_kept_for_as_long_as_evidence_that_was_judged_by_them() {
    let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = BundleKey::generate().unwrap().0;
    let common = ("rims/common.xml", "in both");
    let old = rules_with(&source, &key, &[common, ("old.xml", "old")]);
    let new = rules_with(&source, &key, &[common, ("new.xml", "new")]);
    let by = |rules: &Arc<Rules>, evidence| Entry {
        rules: Arc::clone(rules),
        ..entry(evidence, None)
    };
    let folder = |rules: &Rules| {
        let bundles = dir.path().join("bundles");
        bundles.join(rules.bundle_digest.as_deref().unwrap())
    };
    let mut first = store(&dir);
    first.keep(&by(&old, long("a"))).unwrap();
    first.keep(&by(&new, long("b"))).unwrap();
    let files = || fs::read_dir(dir.path().join("files")).unwrap().count();
    assert_eq!(files(), 3, "what both have is stored once");
    // The operator's folder may be gone.
    fs::remove_dir_all(source.path().join("bundle")).unwrap();
    for rules in [&old, &new] {
        let again = config::bundle::load(&folder(rules), &rules.policy).unwrap();
        let digest = again.digest().map(hex::encode);
        assert_eq!(digest, rules.bundle_digest);
    }
    drop(first);

    let mut second = store(&dir);
    second.keep(&by(&new, long("c"))).unwrap();
    assert!(!folder(&old).exists(), "nothing is left that it judged");
    assert_eq!(files(), 2);
    let again = config::bundle::load(&folder(&new), &new.policy).unwrap();
    assert_eq!(again.items().len(), 2);
    second.keep(&by(&old, long("c"))).unwrap();
    assert!(folder(&old).exists(), "the same evidence, judged again");
    assert_eq!(files(), 3);
}
