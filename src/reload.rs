//! Reading files again while a role serves: when told to, or when they changed.
//!
//! A change is taken once two looks in a row saw the same: half a file can be a file too, so who
//! writes it is waited for. What was refused is tried again at each look, since it may have been for
//! what no look shows, as a disk that was away; each reason is said once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::config;

/// Asks all who keep files of a role to read them again.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Asking>);

#[derive(Debug, Default)]
struct Asking {
    /// How often it was asked.
    asked: watch::Sender<u64>,
    /// Up to which time each of those who were asked has answered; as many as a role has kinds of
    /// files.
    answered: Mutex<Vec<watch::Receiver<u64>>>,
}

/// What came of reading files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What they hold is in force.
    Taken,
    /// It was in force before.
    Unchanged,
    /// It cannot be used, and changes nothing.
    Refused,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Notes what came of reading files of a kind: `config`, `policy` or `tls`.
pub(crate) fn note(kind: &'static str, outcome: Outcome) {
    tracing::info!(kind, outcome = outcome.as_str(), "reloaded");
}

/// One who is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    asked: watch::Receiver<u64>,
    answered: watch::Sender<u64>,
}

impl Reload {
    /// Has all files read, whether or not anything seems to have changed, and waits until that is
    /// done. What came of it is in the log.
    pub async fn now(&self) {
        let mut now = 0;
        self.0.asked.send_modify(|asked| {
            *asked = asked.wrapping_add(1);
            now = *asked;
        });
        let answered = self.0.answered.lock();
        let answered = answered.unwrap_or_else(PoisonError::into_inner).clone();
        for mut one in answered {
            // Who is gone has nothing to read any more.
            let _ = one.wait_for(|answered| *answered >= now).await;
        }
    }

    /// One more to be asked.
    pub(crate) fn asked(&self) -> Asked {
        let asked = self.0.asked.subscribe();
        let answered = watch::Sender::new(*asked.borrow());
        let all = self.0.answered.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .push(answered.subscribe());
        Asked { asked, answered }
    }
}

impl Asked {
    /// Waits until it is asked; for ever where nobody can ask any more.
    pub(crate) async fn wait(&mut self) {
        if self.asked.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says that all was read that was asked for up to now.
    pub(crate) fn done(&mut self) {
        let asked = *self.asked.borrow();
        self.answered.send_replace(asked);
    }
}

/// What lay in files, secret or not: nobody learns them from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen(BTreeMap<PathBuf, [u8; 32]>);

impl Seen {
    /// What lies in `files` now, the missing ones among them.
    pub(crate) fn now(files: &[PathBuf]) -> Self {
        let digest = |file: &PathBuf| {
            let bytes = config::read_secret(file).ok();
            let mut digest = Sha256::new();
            digest.update([u8::from(bytes.is_some())]);
            digest.update(bytes.as_ref().map_or(&[][..], |it| it));
            (file.clone(), digest.finalize().into())
        };
        Self(files.iter().map(digest).collect())
    }

    /// The files that are not as they were `before`.
    pub(crate) fn others<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a PathBuf> {
        let others = self
            .0
            .iter()
            .filter(|(file, it)| before.0.get(*file) != Some(it));
        others.map(|(file, _)| file)
    }

    /// The same of these files, as far as they were looked at; others are looked at now.
    fn narrowed(self, files: &[PathBuf]) -> Self {
        let (known, new): (Vec<_>, Vec<_>) = files
            .iter()
            .cloned()
            .partition(|file| self.0.contains_key(file));
        let mut seen = Self::now(&new);
        let known = known.into_iter();
        seen.0
            .extend(known.filter_map(|file| Some((file.clone(), *self.0.get(&file)?))));
        seen
    }
}

/// What keeps a set of files in force.
pub(crate) trait Keep: Send + 'static {
    /// What they are, for the log.
    fn kind(&self) -> &'static str;

    /// The files to look at now: those of what is in force, and of what was refused last.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads them, and puts in force what can be.
    ///
    /// # Errors
    /// Why nothing is changed.
    fn take(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Says why nothing was changed.
    fn refused(&mut self, reason: &str);
}

/// Looks at files every so often, and has them taken when they changed or when told to; never ends.
/// `seen` is what they held when they were taken first.
pub(crate) async fn run(mut keep: impl Keep, mut seen: Seen, mut asked: Asked, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Seen> = None;
    let mut refused: Option<String> = None;
    loop {
        let told = tokio::select! {
            biased;
            () = asked.wait() => true,
            _ = ticks.tick() => false,
        };
        let files = keep.files();
        // Beside the runtime's threads: a disk may hang.
        let Ok(mut now) = spawn_blocking(move || Seen::now(&files)).await else {
            continue;
        };
        let is_settled = before.as_ref() == Some(&now);
        if told || (is_settled && (now != seen || refused.is_some())) {
            let reason = keep.take().await.err();
            match &reason {
                None => note(keep.kind(), Outcome::Taken),
                Some(reason) if told || refused.as_ref() != Some(reason) => {
                    keep.refused(reason);
                    note(keep.kind(), Outcome::Refused);
                }
                Some(_) => {}
            }
            refused = reason;
            // What is in force can name other files than what was there.
            let (looked, files) = (now.clone(), keep.files());
            if let Ok(narrowed) = spawn_blocking(move || looked.narrowed(&files)).await {
                seen = narrowed.clone();
                now = narrowed;
            }
        }
        before = Some(now);
        if told {
            asked.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Told(PathBuf, mpsc::Sender<String>);

    impl Keep for Told {
        fn files(&self) -> Vec<PathBuf> {
            vec![self.0.clone()]
        }

        fn kind(&self) -> &'static str {
            "test"
        }

        async fn take(&mut self) -> Result<(), String> {
            let text = std::fs::read_to_string(&self.0).unwrap_or_default();
            match text.strip_prefix("bad: ") {
                Some(reason) => Err(reason.to_owned()),
                None => {
                    self.1.send(text).await.unwrap();
                    Ok(())
                }
            }
        }

        fn refused(&mut self, reason: &str) {
            self.1.try_send(format!("refused: {reason}")).unwrap();
        }
    }

    /// What is good once it was tried so many times, without a change of any file.
    struct Later {
        bad: Vec<&'static str>,
        said: mpsc::Sender<String>,
    }

    impl Keep for Later {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn files(&self) -> Vec<PathBuf> {
            Vec::new()
        }

        async fn take(&mut self) -> Result<(), String> {
            match self.bad.pop() {
                Some(reason) => Err(reason.to_owned()),
                None => {
                    self.said.send("taken".to_owned()).await.unwrap();
                    Ok(())
                }
            }
        }

        fn refused(&mut self, reason: &str) {
            self.said.try_send(reason.to_owned()).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_tried_again_and_each_reason_said_once() {
        let (said, mut heard) = mpsc::channel(8);
        let reload = Reload::default();
        let keep = Later {
            bad: vec!["b", "b", "a", "a", "a"],
            said,
        };
        let seen = Seen::now(&[]);
        let running = tokio::spawn(run(keep, seen, reload.asked(), Duration::from_secs(5)));
        reload.now().await;
        for expected in ["a", "b", "taken"] {
            assert_eq!(heard.recv().await.unwrap(), expected);
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            heard.try_recv().is_err(),
            "what is in force is not read again"
        );
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_taken_once_two_looks_saw_it_and_at_once_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let (sender, mut taken) = mpsc::channel(8);
        let reload = Reload::default();
        let keep = Told(file.clone(), sender);
        let seen = Seen::now(&keep.files());
        let running = tokio::spawn(run(keep, seen, reload.asked(), Duration::from_secs(5)));
        reload.now().await;
        assert_eq!(taken.try_recv().unwrap(), "one", "told, though unchanged");
        std::fs::write(&file, "two").unwrap();
        assert_eq!(taken.recv().await.unwrap(), "two");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(taken.recv().await.unwrap(), "", "a file that is gone");
        std::fs::write(&file, "bad: half").unwrap();
        assert_eq!(taken.recv().await.unwrap(), "refused: half");
        reload.now().await;
        assert_eq!(taken.try_recv().unwrap(), "refused: half", "told");
        std::fs::write(&file, "three").unwrap();
        assert_eq!(taken.recv().await.unwrap(), "three");
        running.abort();
        let _ = running.await;
        reload.now().await;
    }
}
