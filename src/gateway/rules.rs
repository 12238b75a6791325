//! What evidence is judged by: the policy and the bundle, read as one and replaced as one.
//!
//! New rules are read whole before they are in force; what cannot be read changes nothing.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use attestation::{
    Bundle, Policy,
    bundle::{MANIFEST, MAX_MANIFEST, SIGNATURE},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::StartError;
use crate::config::{self, bundle::BundleFiles};

/// Longest file that a policy names, in bytes.
const MAX_NAMED_FILE: u64 = 1024 * 1024;
/// How long a look at the files may take before it is complained of, again and again.
const LOOK_TIME: Duration = Duration::from_secs(30);

/// What is in force.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) bundle: Bundle,
    /// The policy's digest in hex.
    pub(super) policy_digest: String,
    /// The bundle's, where there is one, and its folder as it was read.
    pub(super) bundle_digest: Option<String>,
    pub(super) bundle_files: BundleFiles,
    /// The policy as it was read, with the files that it names by their names in it.
    pub(super) text: String,
    pub(super) named: Vec<(String, Vec<u8>)>,
}

impl Rules {
    fn is_same(&self, other: &Self) -> bool {
        self.policy_digest == other.policy_digest && self.bundle_digest == other.bundle_digest
    }
}

/// Where rules are read from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    policy: PathBuf,
    bundle: Option<PathBuf>,
}

/// What was there when rules were read: changes as soon as any of it does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen([u8; 32]);

/// Reading, and what came of it.
struct Attempt {
    rules: Result<Rules, StartError>,
    /// Files that were asked for beside the policy's own, in that order.
    named: Vec<String>,
    seen: Seen,
}

impl Sources {
    pub(super) fn new(policy: PathBuf, bundle: Option<PathBuf>) -> Self {
        Self { policy, bundle }
    }

    /// # Errors
    /// [`StartError`] names the file that cannot be used.
    #[cfg(test)]
    pub(super) fn read(&self) -> Result<Rules, StartError> {
        self.attempt().rules
    }

    fn attempt(&self) -> Attempt {
        let text = config::read_text(&self.policy);
        let mut seen = Sha256::new();
        see(&mut seen, text.as_ref().ok().map(String::as_bytes));
        self.see_bundle(&mut seen);
        let mut names = Vec::new();
        let rules = text.map_err(StartError::from).and_then(|text| {
            let mut named = Vec::new();
            let policy = Policy::from_toml(&text, &mut |name| {
                let bytes = self.read_named(name);
                see(&mut seen, bytes.as_deref().ok());
                names.push(name.to_owned());
                let bytes = bytes?;
                named.push((name.to_owned(), bytes.clone()));
                Ok(bytes)
            });
            let policy = policy.map_err(|source| StartError::Policy {
                path: self.policy.clone(),
                source,
            })?;
            let (bundle, bundle_files) = match &self.bundle {
                Some(folder) => config::bundle::load_with_files(folder, &policy)?,
                None => (Bundle::empty(), BundleFiles::default()),
            };
            Ok(Rules {
                policy_digest: hex::encode(policy.digest()),
                policy,
                bundle_digest: bundle.digest().map(hex::encode),
                bundle,
                bundle_files,
                text,
                named,
            })
        });
        if let Err(error) = &rules {
            // What is missing may come without a change of what is looked at: a bundle's files.
            see(&mut seen, Some(error.to_string().as_bytes()));
        }
        Attempt {
            rules,
            named: names,
            seen: Seen(seen.finalize().into()),
        }
    }

    /// What is there now, for rules that named these files.
    fn look(&self, named: &[String]) -> Seen {
        let mut seen = Sha256::new();
        let text = config::read_text(&self.policy);
        see(&mut seen, text.as_ref().ok().map(String::as_bytes));
        self.see_bundle(&mut seen);
        for name in named {
            see(&mut seen, self.read_named(name).as_deref().ok());
        }
        Seen(seen.finalize().into())
    }

    /// The bundle's manifest and its signature; the manifest holds the digests of the rest.
    fn see_bundle(&self, seen: &mut Sha256) {
        let Some(folder) = &self.bundle else { return };
        for (name, limit) in [(MANIFEST, MAX_MANIFEST), (SIGNATURE, MAX_MANIFEST)] {
            let bytes = config::bundle::read(&folder.join(name), limit);
            see(seen, bytes.as_deref().ok());
        }
    }

    fn read_named(&self, name: &str) -> io::Result<Vec<u8>> {
        let folder = self.policy.parent().unwrap_or(Path::new(""));
        let mut bytes = Vec::new();
        let file = File::open(folder.join(name))?;
        let mut limited = file.take(MAX_NAMED_FILE.saturating_add(1));
        limited.read_to_end(&mut bytes)?;
        if limited.limit() == 0 {
            let message = format!("larger than {MAX_NAMED_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }
}

fn see(seen: &mut Sha256, bytes: Option<&[u8]>) {
    seen.update([u8::from(bytes.is_some())]);
    seen.update(Sha256::digest(bytes.unwrap_or_default()));
}

/// Asks a gateway to read its rules again.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Now, whether or not anything seems to have changed.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Puts new rules in force.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Sources,
    in_force: watch::Sender<Arc<Rules>>,
    reload: Reload,
    /// What the last attempt saw, whatever came of it.
    named: Vec<String>,
    seen: Seen,
    /// Whether nothing came of it.
    failed: bool,
    /// What differs from that, since the last look.
    changed: Option<Seen>,
}

impl Reloader {
    /// Reads the first rules.
    ///
    /// # Errors
    /// [`StartError`] names the file that cannot be used.
    pub(super) fn start(sources: Sources) -> Result<Self, StartError> {
        let first = sources.attempt();
        Ok(Self {
            in_force: watch::Sender::new(Arc::new(first.rules?)),
            sources,
            reload: Reload::default(),
            named: first.named,
            seen: first.seen,
            failed: false,
            changed: None,
        })
    }

    pub(super) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.in_force.subscribe()
    }

    pub(super) fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Looks at the files every so often, and reads them when they changed or when told to; never
    /// ends.
    pub(super) async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.reload.0.notified() => {
                    if let Some(attempt) = self.reading(Sources::attempt).await {
                        self.take(attempt);
                    }
                }
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    /// Takes what differs from the last attempt once two attempts in a row saw the same: half a policy
    /// can be a policy too, so who writes it is waited for.
    async fn look(&mut self) {
        if !self.failed {
            let named = self.named.clone();
            let seen = self.reading(move |sources| sources.look(&named)).await;
            if seen.as_ref() == Some(&self.seen) {
                self.changed = None;
                return;
            }
        }
        let Some(attempt) = self.reading(Sources::attempt).await else {
            return;
        };
        if attempt.seen == self.seen {
            self.changed = None;
        } else if self.changed.as_ref() == Some(&attempt.seen) {
            self.take(attempt);
        } else {
            self.changed = Some(attempt.seen);
        }
    }

    /// Reads files where that holds up nobody.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Sources) -> T + Send + 'static,
    ) -> Option<T> {
        let sources = self.sources.clone();
        let mut reading = spawn_blocking(move || read(&sources));
        loop {
            match timeout(LOOK_TIME, &mut reading).await {
                Ok(Ok(read)) => return Some(read),
                Ok(Err(_)) => {
                    tracing::error!("reading the policy panicked: the one before stays in force");
                    return None;
                }
                // Another try would hang as well, and take one more thread.
                Err(_) => {
                    tracing::error!("the disk keeps the policy waiting: no change is noticed");
                }
            }
        }
    }

    fn take(&mut self, attempt: Attempt) {
        self.failed = attempt.rules.is_err();
        self.changed = None;
        (self.named, self.seen) = (attempt.named, attempt.seen);
        let before = Arc::clone(&self.in_force.borrow());
        match attempt.rules {
            Ok(rules) if rules.is_same(&before) => {
                tracing::info!(
                    policy = before.policy_digest,
                    bundle = before.bundle_digest,
                    "policy read again: unchanged"
                );
            }
            Ok(rules) => {
                tracing::info!(
                    policy = rules.policy_digest,
                    bundle = rules.bundle_digest,
                    before = before.policy_digest,
                    "policy in force: every node is judged by it now",
                );
                self.in_force.send_replace(Arc::new(rules));
            }
            Err(error) => tracing::error!(
                %error,
                policy = before.policy_digest,
                "policy not taken: the one before stays in force",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use attestation::bundle::{BundleItem, BundleKey, ItemKind, Manifest};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{
        clock::{Clock, unix_seconds},
        gateway::tests::fake,
    };

    /// A folder of its own with the policy that names the tests' software root.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["policy.toml", "ark.pem"] {
            std::fs::copy(fake::folder().join(name), dir.path().join(name)).unwrap();
        }
        dir
    }

    #[test]
    fn every_file_is_watched_that_the_policy_names() {
        let dir = folder();
        let path = |name: &str| dir.path().join(name);
        let sources = Sources::new(path("policy.toml"), None);
        let first = sources.attempt();
        assert_eq!(first.named, ["ark.pem"]);
        assert_eq!(sources.look(&first.named), first.seen);
        let rules = first.rules.unwrap();
        assert_eq!(rules.policy_digest, hex::encode(rules.policy.digest()));
        let ark = std::fs::read(path("ark.pem")).unwrap();
        assert_eq!(rules.named, [("ark.pem".to_owned(), ark.clone())]);

        std::fs::remove_file(path("ark.pem")).unwrap();
        let gone = sources.attempt();
        assert!(gone.rules.is_err());
        assert_ne!(gone.seen, first.seen);
        assert_eq!(
            gone.named,
            ["ark.pem"],
            "still watched, so that it can come"
        );
        std::fs::write(path("ark.pem"), ark).unwrap();
        assert_eq!(sources.look(&gone.named), first.seen);
        std::fs::write(path("policy.toml"), "version = 1\n").unwrap();
        assert_ne!(sources.look(&gone.named), first.seen);
    }

    #[test]
    fn a_file_beyond_all_size_is_not_read() {
        let dir = folder();
        let long = vec![b'x'; 1024 * 1024 + 1];
        std::fs::write(dir.path().join("ark.pem"), long).unwrap();
        let error = Sources::new(dir.path().join("policy.toml"), None)
            .read()
            .unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    const EVERY: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_change_is_in_force_once_it_was_seen_twice_and_a_broken_one_never() {
        let dir = folder();
        let policy = dir.path().join("policy.toml");
        let text = std::fs::read_to_string(&policy).unwrap();
        let reloader = Reloader::start(Sources::new(policy.clone(), None)).unwrap();
        let (mut rules, reload) = (reloader.rules(), reloader.reload());
        let first = rules.borrow_and_update().policy_digest.clone();
        let running = tokio::spawn(reloader.run(EVERY));
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
        reload.now();
        rules.changed().await.unwrap();
        assert!(edited.elapsed() < EVERY, "at once when asked");
        assert_eq!(rules.borrow_and_update().policy_digest, first);
        reload.now();
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
    fn bundle(folder: &Path, key: &BundleKey, source: &str) -> String {
        let file = b"what people read";
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("rim.xml"), file).unwrap();
        let seconds = unix_seconds(Clock::system().now());
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        let manifest = Manifest {
            created: now,
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
        let signer = hex::encode(key.public_key());
        let signers = format!("version = 1\nbundle_signers = [\"{signer}\"]\n");
        std::fs::write(&policy, text.replace("version = 1\n", &signers)).unwrap();

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
}
