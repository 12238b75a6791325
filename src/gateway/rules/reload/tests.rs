use std::{path::Path, time::UNIX_EPOCH};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, MANIFEST, Manifest, SIGNATURE};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    clock::{Clock, unix_seconds},
    gateway::rules::tests::folder,
    reload::Reload,
};

const EVERY: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_change_is_in_force_once_it_was_seen_twice_and_a_broken_one_never() {
    let dir = folder();
    let policy = dir.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let reloader = Reloader::start(Sources::new(policy.clone(), None)).unwrap();
    let (mut rules, reload) = (reloader.rules(), Reload::default());
    let first = rules.borrow_and_update().policy_digest.clone();
    let running = tokio::spawn(reloader.run(reload.asked(), EVERY));
    sleep(EVERY * 3).await;
    assert!(!rules.has_changed().unwrap());

    std::fs::write(&policy, "version = 1\nmeasurements").unwrap();
    sleep(EVERY * 3).await;
    assert!(!rules.has_changed().unwrap(), "broken");
    std::fs::write(&policy, format!("{text}# another\n")).unwrap();
    let edited = Instant::now();
    rules.changed().await.unwrap();
    let waited = edited.elapsed();
    assert!((EVERY..EVERY * 3).contains(&waited), "{waited:?}");
    assert_ne!(rules.borrow_and_update().policy_digest, first);

    std::fs::write(&policy, text).unwrap();
    let edited = Instant::now();
    reload.now().await;
    rules.changed().await.unwrap();
    assert!(edited.elapsed() < EVERY, "at once when asked");
    assert_eq!(rules.borrow_and_update().policy_digest, first);
    reload.now().await;
    sleep(EVERY * 3).await;
    assert!(!rules.has_changed().unwrap(), "the same is no change");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_only_the_new_policy_names_is_seen_twice_too() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    let text = std::fs::read_to_string(path("policy.toml")).unwrap();
    let ark = std::fs::read(path("ark.pem")).unwrap();
    let mut reloader = Reloader::start(Sources::new(path("policy.toml"), None)).unwrap();
    let rules = reloader.rules();
    // Both are the root: only their bytes tell them apart.
    std::fs::write(path("new.pem"), ark.trim_ascii_end()).unwrap();
    std::fs::write(path("policy.toml"), text.replace("ark.pem", "new.pem")).unwrap();
    reloader.look().await;
    std::fs::write(path("new.pem"), &ark).unwrap();
    reloader.look().await;
    assert!(!rules.has_changed().unwrap(), "it is still being written");
    reloader.look().await;
    assert!(rules.has_changed().unwrap());
    assert_eq!(rules.borrow().named[0].1, ark);
}

/// Signs a bundle with one file into a folder, and gives the digest of its manifest.
pub(in crate::gateway) fn bundle(folder: &Path, key: &BundleKey, source: &str) -> String {
    bundle_of(Duration::ZERO, folder, key, source)
}

/// The same, for a bundle that is `age` old.
fn bundle_of(age: Duration, folder: &Path, key: &BundleKey, source: &str) -> String {
    let file = b"what people read";
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("rim.xml"), file).unwrap();
    let seconds = unix_seconds(Clock::system().now());
    let now = UNIX_EPOCH + Duration::from_secs(seconds);
    let manifest = Manifest {
        created: now - age,
        valid_until: now + Duration::from_secs(3600),
        items: vec![BundleItem {
            path: "rim.xml".to_owned(),
            kind: ItemKind::GpuRim,
            sha256: Sha256::digest(file).into(),
            source: source.to_owned(),
            fetched_at: now,
            valid_until: now + Duration::from_secs(3600),
        }],
    };
    let manifest = manifest.to_json().unwrap();
    std::fs::write(folder.join(SIGNATURE), key.sign(&manifest)).unwrap();
    std::fs::write(folder.join(MANIFEST), &manifest).unwrap();
    hex::encode(Sha256::digest(&manifest))
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_in_force_with_its_policy_and_its_changes_are_noticed() {
    let (dir, key) = (folder(), BundleKey::generate().unwrap().0);
    let (policy, place) = (dir.path().join("policy.toml"), dir.path().join("bundle"));
    let text = std::fs::read_to_string(&policy).unwrap();
    let first = bundle(&place, &key, "first");
    let sources = Sources::new(policy.clone(), Some(place.clone()));
    let error = Reloader::start(sources.clone()).unwrap_err().to_string();
    assert!(error.starts_with("bundle: "), "nobody may sign: {error}");
    std::fs::write(&policy, with_signer(&text, &key)).unwrap();

    let mut reloader = Reloader::start(sources).unwrap();
    let mut rules = reloader.rules();
    let before = Arc::clone(&rules.borrow_and_update());
    assert_eq!(before.bundle_digest.as_deref(), Some(first.as_str()));
    let second = bundle(&place, &key, "second");
    reloader.look().await;
    assert!(!rules.has_changed().unwrap(), "seen once");
    reloader.look().await;
    assert!(rules.has_changed().unwrap());
    let after = Arc::clone(&rules.borrow_and_update());
    assert_eq!(after.bundle_digest.as_deref(), Some(second.as_str()));
    assert_eq!(after.policy_digest, before.policy_digest);

    bundle(&place, &BundleKey::generate().unwrap().0, "a stranger's");
    for _ in 0..3 {
        reloader.look().await;
    }
    assert!(!rules.has_changed().unwrap());
    let third = bundle(&place, &key, "third");
    std::fs::remove_file(place.join("rim.xml")).unwrap();
    for _ in 0..3 {
        reloader.look().await;
    }
    assert!(!rules.has_changed().unwrap(), "a file is not there yet");
    std::fs::write(place.join("rim.xml"), b"what people read").unwrap();
    for _ in 0..2 {
        reloader.look().await;
    }
    assert!(
        rules.has_changed().unwrap(),
        "though the manifest is the same"
    );
    assert_eq!(
        rules.borrow().bundle_digest.as_deref(),
        Some(third.as_str())
    );
}

/// A policy that believes this signer.
pub(in crate::gateway) fn with_signer(text: &str, key: &BundleKey) -> String {
    let signer = hex::encode(key.public_key());
    let signers = format!("version = 1\nbundle_signers = [\"{signer}\"]\n");
    text.replace("version = 1\n", &signers)
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_not_believed_keeps_no_policy_out_of_force() {
    let (dir, key) = (folder(), BundleKey::generate().unwrap().0);
    let (policy, place) = (dir.path().join("policy.toml"), dir.path().join("bundle"));
    let without = std::fs::read_to_string(&policy).unwrap();
    let with = with_signer(&without, &key);
    std::fs::write(&policy, &with).unwrap();
    let digest = bundle(&place, &key, "the one");
    let sources = Sources::new(policy.clone(), Some(place.clone()));
    let mut reloader = Reloader::start(sources).unwrap();
    let mut rules = reloader.rules();
    let first = Arc::clone(&rules.borrow_and_update());

    let signature = std::fs::read(place.join(SIGNATURE)).unwrap();
    std::fs::write(place.join(SIGNATURE), "spoiled").unwrap();
    let stricter = format!("{with}# stricter\n");
    // With its signer struck off nobody believes it; with nothing beside it, it is as spoiled.
    for (text, bundle) in [(&stricter, Some(&digest)), (&without, None)] {
        std::fs::write(&policy, text).unwrap();
        for _ in 0..2 {
            reloader.look().await;
        }
        assert!(rules.has_changed().unwrap(), "{text}");
        let taken = Arc::clone(&rules.borrow_and_update());
        assert_eq!(taken.text, *text);
        assert_eq!(taken.bundle_digest.as_ref(), bundle);
        assert_eq!(taken.bundle.items().is_empty(), bundle.is_none());
        reloader.look().await;
        assert!(!rules.has_changed().unwrap(), "once");
    }

    std::fs::write(&policy, &with).unwrap();
    std::fs::write(place.join(SIGNATURE), signature).unwrap();
    for _ in 0..2 {
        reloader.look().await;
    }
    assert!(rules.borrow_and_update().is_same(&first));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_older_than_the_one_in_force_is_taken_only_where_that_is_not_believed() {
    let (dir, key) = (folder(), BundleKey::generate().unwrap().0);
    let (policy, place) = (dir.path().join("policy.toml"), dir.path().join("bundle"));
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, with_signer(&text, &key)).unwrap();
    let age = Duration::from_secs(60);
    let newer = bundle_of(age, &place, &key, "newer");
    let sources = Sources::new(policy.clone(), Some(place.clone()));
    let mut reloader = Reloader::start(sources).unwrap();
    let mut rules = reloader.rules();
    let mut in_force = async || {
        for _ in 0..2 {
            reloader.look().await;
        }
        rules.borrow_and_update().bundle_digest.clone()
    };

    let older = Duration::from_secs(61);
    bundle_of(older, &place, &key, "older");
    assert_eq!(in_force().await.as_ref(), Some(&newer));
    let as_old = bundle_of(age, &place, &key, "as old");
    assert_eq!(in_force().await, Some(as_old));
    let other = BundleKey::generate().unwrap().0;
    let of_other = bundle_of(older, &place, &other, "of another signer");
    std::fs::write(&policy, with_signer(&text, &other)).unwrap();
    assert_eq!(in_force().await, Some(of_other));
}
