//! What the gateway says of itself, where it has evidence of its own (docs/wire.md, "A gateway that is
//! sealed to").
//!
//! Its statement is true of the moment at which it is given out: models, policy, configuration and
//! TLS key are those in force. Under another policy or configuration the statements of before count
//! no more, so that nothing is sealed on to nodes that its sender did not agree to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use attestation::{Policy, statement::EngineLocation};
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, time::sleep};

use super::{Shared, StartError, rules::Rules};
use crate::{
    attester::{
        answer::{self, Evidence},
        evidence::Sources,
        problem::Outside,
        replay::ReplayTable,
        statement::{Facts, Identity, IdentityError, Named},
        time::SteadyClock,
    },
    clock::Clock,
    config::{
        Loaded,
        gateway::{AttestationConfig, GatewayConfig, effective},
        node::{MAX_MODELS, is_model_name},
    },
};

/// Longest rest between two looks at the keys.
const UPKEEP: Duration = Duration::from_secs(30);

/// The gateway's keys, statements and evidence, and what it remembers of requests.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) clock: SteadyClock,
    pub(super) identity: Identity,
    pub(super) replay: ReplayTable,
    evidence: Evidence,
    /// The configuration at the start, part of which a reload does not change.
    started: GatewayConfig,
    /// What the newest statement was made for.
    stated: Mutex<Option<Stated>>,
}

/// What a statement's `config_sha256` covers.
#[derive(Debug)]
struct Stated {
    rules: Arc<Rules>,
    effective: Arc<str>,
}

impl Own {
    /// Asks the hardware and makes the keys: a gateway that is to attest and cannot does not start.
    ///
    /// # Errors
    /// [`StartError`] says what cannot be used.
    pub(super) fn open(
        config: &Loaded<GatewayConfig>,
        attestation: &AttestationConfig,
        tls_spki_sha256: Option<[u8; 32]>,
        policy: &Policy,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let sources = Sources::open(config, &attestation.evidence)?;
        let named = Named {
            node_id: attestation.node_id.as_str(),
            keys: &attestation.keys,
            dialects: &[],
        };
        let facts = Facts {
            models: Vec::new(),
            tls_spki_sha256,
            engine: engine(policy),
            config_sha256: config_sha256(&effective(&config.value).unwrap_or_default(), policy),
        };
        let clock = SteadyClock::new(clock);
        Ok(Self {
            identity: Identity::generate(named, facts, clock.unix_now())?,
            replay: ReplayTable::new(attestation.replay_entries.get()),
            evidence: Evidence::new(sources),
            started: config.value.clone(),
            stated: Mutex::default(),
            clock,
        })
    }

    /// What of a configuration that is taken in later decides what happens to a prompt.
    pub(super) fn effective(&self, config: &GatewayConfig) -> Option<Arc<str>> {
        let started = self.started.clone();
        // What is in force after a restart alone is still as it was.
        let in_force = GatewayConfig {
            auth: started.auth,
            announce: started.announce,
            archive: started.archive,
            admin: started.admin,
            attestation: started.attestation,
            reattest_s: started.reattest_s,
            ..config.clone()
        };
        effective(&in_force).map(Into::into)
    }

    /// Turns the keys when they are due, as often as their life asks; never ends.
    pub(super) async fn keep(&self, current: watch::Receiver<Arc<Shared>>) {
        let life_s = self
            .started
            .attestation
            .as_ref()
            .map(|it| it.keys.life_s.get());
        let rest = UPKEEP.min(Duration::from_secs(life_s.unwrap_or(0) / 16));
        loop {
            sleep(rest.max(Duration::from_secs(1))).await;
            let shared = Arc::clone(&current.borrow());
            shared.renew_own();
        }
    }

    /// Has the statement say that connections end at another key.
    pub(super) fn end_tls_at(&self, spki_sha256: [u8; 32]) {
        let change = |facts: &mut Facts| facts.tls_spki_sha256 = Some(spki_sha256);
        if let Err(error) = self.identity.restate(self.clock.unix_now(), change) {
            tracing::error!(%error, "the statement names the TLS key of before");
        }
    }

    /// Turns the keys, and has the statement say what is in force.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    fn restate(&self, shared: &Shared, effective: &Arc<str>) -> Result<(), IdentityError> {
        self.follow(shared, effective)?;
        let models = models(shared);
        let now = self.clock.unix_now();
        self.identity.restate(now, |facts| facts.models = models)
    }

    /// Has the statement follow policy and configuration; those of before count no more then.
    ///
    /// # Errors
    /// [`IdentityError`]; then none counts any more.
    pub(super) fn follow(
        &self,
        shared: &Shared,
        effective: &Arc<str>,
    ) -> Result<Arc<Rules>, IdentityError> {
        let rules = Arc::clone(&shared.rules.borrow());
        let mut stated = self.stated.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |stated: &Stated| {
            Arc::ptr_eq(&stated.rules, &rules) && Arc::ptr_eq(&stated.effective, effective)
        };
        if stated.as_ref().is_some_and(same) {
            return Ok(rules);
        }
        let config_sha256 = config_sha256(effective, &rules.policy);
        let engine = engine(&rules.policy);
        self.identity.supersede(self.clock.unix_now(), |facts| {
            facts.config_sha256 = config_sha256;
            facts.engine = engine;
        })?;
        *stated = Some(Stated {
            rules: Arc::clone(&rules),
            effective: Arc::clone(effective),
        });
        Ok(rules)
    }
}

impl Shared {
    /// Evidence for the asker's nonce. A gateway that serves nothing yet, or no more, gives none.
    ///
    /// # Errors
    /// [`Outside`] says why.
    pub(super) async fn attest(&self, own: &Own, query: Option<&str>) -> Result<Vec<u8>, Outside> {
        let nonce = answer::nonce(query)?;
        self.nodes.settled(self.timeouts.attest).await;
        if self.phase.is_leaving() || self.halted.is_cancelled() {
            return Err(Outside::Unavailable);
        }
        let Some(effective) = &self.effective else {
            return Err(Outside::NotFound);
        };
        if self.nodes.snapshot().models().next().is_none() {
            return Err(Outside::Unavailable);
        }
        own.restate(self, effective).map_err(|error| {
            tracing::error!(%error, "no statement");
            Outside::Internal
        })?;
        own.evidence.answer(own.identity.current(), nonce).await
    }

    /// Turns the gateway's own keys when they are due, if it has any.
    pub(super) fn renew_own(&self) {
        let (Some(own), Some(effective)) = (&self.own, &self.effective) else {
            return;
        };
        if let Err(error) = own.restate(self, effective) {
            tracing::error!(%error, "the statement stays as it is");
        }
    }
}

/// Where prompts go: to nodes that this policy let pass, and from them to wherever it lets them send.
fn engine(policy: &Policy) -> EngineLocation {
    if policy.allows_remote_engine() {
        EngineLocation::Remote
    } else {
        EngineLocation::Attested
    }
}

/// The names of the models that are served, in order, as many as a statement can name.
fn models(shared: &Shared) -> Vec<String> {
    let snapshot = shared.nodes.snapshot();
    let names = snapshot.models().map(|served| served.name.as_ref());
    let mut names: Vec<String> = names
        .filter(|name| is_model_name(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.truncate(MAX_MODELS);
    names
}

/// SHA-256 of the effective configuration and the policy's digest (docs/wire.md).
fn config_sha256(effective: &str, policy: &Policy) -> [u8; 32] {
    let policy = hex::encode(policy.digest());
    let text = format!(r#"{{"gateway":{effective},"policy_sha256":"{policy}"}}"#);
    Sha256::digest(text).into()
}
