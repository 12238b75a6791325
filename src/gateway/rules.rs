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

use attestation::{Bundle, Policy};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::StartError;
use crate::config;

/// Longest file that a policy names, in bytes.
const MAX_NAMED_FILE: u64 = 1024 * 1024;

/// What is in force.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) bundle: Bundle,
    /// The policy's digest in hex.
    pub(super) policy_digest: String,
    /// The bundle's, where there is one.
    pub(super) bundle_digest: Option<String>,
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
    pub(super) fn new(policy: PathBuf) -> Self {
        Self { policy }
    }

    /// # Errors
    /// [`StartError`] names the file that cannot be used.
    pub(super) fn read(&self) -> Result<Rules, StartError> {
        self.attempt().rules
    }

    fn attempt(&self) -> Attempt {
        let text = config::read_text(&self.policy);
        let mut seen = Sha256::new();
        see(&mut seen, text.as_ref().ok().map(String::as_bytes));
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
            let (bundle, bundle_digest) = read_bundle();
            Ok(Rules {
                policy_digest: hex::encode(policy.digest()),
                policy,
                bundle,
                bundle_digest,
                text,
                named,
            })
        });
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
        for name in named {
            see(&mut seen, self.read_named(name).as_deref().ok());
        }
        Seen(seen.finalize().into())
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

/// The bundle beside the policy, and its digest.
fn read_bundle() -> (Bundle, Option<String>) {
    (Bundle::empty(), None)
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
        let mut changed = None;
        loop {
            tokio::select! {
                () = self.reload.0.notified() => self.load().await,
                _ = ticks.tick() => {
                    let (sources, named) = (self.sources.clone(), self.named.clone());
                    let Ok(seen) = spawn_blocking(move || sources.look(&named)).await else {
                        continue;
                    };
                    if seen == self.seen {
                        changed = None;
                    } else if changed.as_ref() == Some(&seen) {
                        self.load().await;
                    } else {
                        // Half a policy can be a policy too: who writes it is waited for.
                        changed = Some(seen);
                    }
                }
            }
        }
    }

    async fn load(&mut self) {
        let sources = self.sources.clone();
        let Ok(attempt) = spawn_blocking(move || sources.attempt()).await else {
            tracing::error!("reading the policy panicked: the one before stays in force");
            return;
        };
        (self.named, self.seen) = (attempt.named, attempt.seen);
        let before = Arc::clone(&self.in_force.borrow());
        match attempt.rules {
            Ok(rules) if rules.is_same(&before) => {
                tracing::info!(
                    policy = before.policy_digest,
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
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::gateway::tests::fake;

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
        let sources = Sources::new(path("policy.toml"));
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
        let error = Sources::new(dir.path().join("policy.toml"))
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
        let reloader = Reloader::start(Sources::new(policy.clone())).unwrap();
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
}
