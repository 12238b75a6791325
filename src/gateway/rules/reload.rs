//! Puts new rules in force while the gateway serves.
//!
//! They are read whole before they are in force. A policy that cannot be read changes nothing. A
//! bundle that is not believed leaves the one before in force if the policy still believes that,
//! and none otherwise: it cannot keep a policy out of force.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Attempt, Rules, Seen, Sources};
use crate::{
    gateway::{
        StartError,
        audit::Audit,
        metrics::{Reloaded, Reloads},
    },
    reload::{self, Asked, Outcome},
    store::What,
};

/// How long a look at the files may take before it is complained of, again and again.
const LOOK_TIME: Duration = Duration::from_secs(30);

/// Puts new rules in force.
#[derive(Debug)]
pub(in crate::gateway) struct Reloader {
    sources: Sources,
    in_force: watch::Sender<Arc<Rules>>,
    /// What the last attempt saw, whatever came of it.
    named: Vec<String>,
    seen: Seen,
    /// Whether nothing came of it.
    failed: bool,
    /// What differs from that, since the last look.
    changed: Option<Seen>,
    counts: Option<Arc<Reloads>>,
    audit: Audit,
}

impl Reloader {
    /// Reads the first rules.
    ///
    /// # Errors
    /// [`StartError`] names the file that cannot be used.
    pub(in crate::gateway) fn start(sources: Sources) -> Result<Self, StartError> {
        let first = sources.attempt(None);
        Ok(Self {
            in_force: watch::Sender::new(Arc::new(first.rules?)),
            sources,
            named: first.named,
            seen: first.seen,
            failed: false,
            changed: None,
            counts: None,
            audit: Audit::default(),
        })
    }

    /// Has what comes of files counted.
    pub(in crate::gateway) fn count_in(&mut self, counts: Arc<Reloads>) {
        self.counts = Some(counts);
    }

    /// Has the audit log told of what comes of files.
    pub(in crate::gateway) fn tell(&mut self, audit: Audit) {
        self.audit = audit;
    }

    pub(in crate::gateway) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.in_force.subscribe()
    }

    /// Looks at the files every so often, and reads them when they changed or when told to; never
    /// ends.
    pub(in crate::gateway) async fn run(mut self, mut asked: Asked, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = asked.wait() => {
                    if let Some(attempt) = self.attempt().await {
                        self.take(attempt);
                    }
                    asked.done();
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
        let Some(attempt) = self.attempt().await else {
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

    async fn attempt(&self) -> Option<Attempt> {
        let before = Arc::clone(&self.in_force.borrow());
        self.reading(move |sources| sources.attempt(Some(&before)))
            .await
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
        self.count(&attempt, &self.in_force.borrow());
        self.failed = attempt.rules.is_err() || attempt.complaint.is_some();
        self.changed = None;
        (self.named, self.seen) = (attempt.named, attempt.seen);
        let before = Arc::clone(&self.in_force.borrow());
        if let (Ok(rules), Some(_), Some(folder)) =
            (&attempt.rules, &attempt.complaint, &self.sources.bundle)
        {
            let detail = json!({ "in_force": rules.bundle_digest });
            let folder = folder.display().to_string();
            self.audit.say(What::BundleRefused, &folder, detail);
        }
        if let (Ok(rules), Some(error)) = (&attempt.rules, &attempt.complaint) {
            let stays = rules.bundle_digest.as_deref();
            tracing::error!(
                %error,
                bundle = stays,
                "bundle not taken: {}",
                match stays {
                    Some(_) => "the one before stays in force",
                    None => "no bundle is in force, and nothing that needs one passes",
                },
            );
        }
        match attempt.rules {
            Ok(rules) if rules.is_same(&before) => {
                tracing::info!(
                    policy = before.policy_digest,
                    bundle = before.bundle_digest,
                    "policy read again: unchanged"
                );
                reload::note("policy", Outcome::Unchanged);
            }
            Ok(rules) => {
                tracing::info!(
                    policy = rules.policy_digest,
                    bundle = rules.bundle_digest,
                    before = before.policy_digest,
                    bundle_before = before.bundle_digest,
                    "policy in force: every node is judged by it now",
                );
                let detail = json!({
                    "policy": rules.policy_digest,
                    "bundle": rules.bundle_digest,
                    "policy_before": before.policy_digest,
                    "bundle_before": before.bundle_digest,
                });
                let file = self.sources.policy.display().to_string();
                self.audit.say(What::PolicyInForce, &file, detail);
                self.in_force.send_replace(Arc::new(rules));
                reload::note("policy", Outcome::Taken);
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    policy = before.policy_digest,
                    "policy not taken: the one before stays in force",
                );
                let detail = json!({
                    "sha256": attempt.text_digest,
                    "in_force": before.policy_digest,
                });
                let file = self.sources.policy.display().to_string();
                self.audit.say(What::PolicyRefused, &file, detail);
                reload::note("policy", Outcome::Refused);
            }
        }
    }

    fn count(&self, attempt: &Attempt, before: &Rules) {
        let Some(counts) = &self.counts else { return };
        let of = |what, is_same| match is_same {
            true => counts.unchanged(what),
            false => counts.applied(what),
        };
        let Ok(rules) = &attempt.rules else {
            return counts.refused(Reloaded::Policy);
        };
        of(
            Reloaded::Policy,
            rules.policy_digest == before.policy_digest,
        );
        if attempt.complaint.is_some() {
            counts.refused(Reloaded::Bundle);
        } else if rules.bundle_digest.is_some() {
            of(
                Reloaded::Bundle,
                rules.bundle_digest == before.bundle_digest,
            );
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
