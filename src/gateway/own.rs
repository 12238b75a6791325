//! What the gateway says of itself, where it has evidence of its own (docs/wire.md, "A gateway that is
//! sealed to").
//!
//! Its statement is true of the moment at which it is given out: models, policy, configuration and
//! TLS key are those in force. Under another policy or configuration the statements of before count
//! no more, so that nothing is sealed on to nodes that its sender did not agree to. It never goes back:
//! whoever began under a configuration of before changes nothing, and what he lets in is refused.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use attestation::{Policy, statement::EngineLocation};
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, time::sleep};

use super::{Shared, StartError, nodes::Snapshot, rules::Rules};
use crate::{
    attester::{
        answer::{self, Evidence},
        evidence::Sources,
        paced::Pacing,
        problem::{Outside, RETRY_AFTER_S, Refusal},
        replay::{ReplayTable, Source},
        request::{Form, Gate},
        statement::{Facts, Identity, IdentityError, NameRoom, Named},
        time::SteadyClock,
    },
    clock::Clock,
    config::{
        Loaded,
        gateway::{AttestationConfig, GatewayConfig, effective},
        node::is_model_name,
    },
};

pub(super) const NOT_STATED: &str = "what of the configuration a statement covers makes no JSON";
/// Longest rest between two looks at the keys.
const UPKEEP: Duration = Duration::from_secs(30);

/// The gateway's keys, statements and evidence, and what it remembers of requests.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) clock: SteadyClock,
    pub(super) identity: Identity,
    /// When paced replies go out.
    pub(super) pacing: Pacing,
    replay: ReplayTable,
    evidence: Evidence,
    /// The configuration at the start, part of which a reload does not change.
    started: GatewayConfig,
    /// How many configurations were read.
    read: AtomicU64,
    /// What the newest statement was made for. Held while a request is let in, so that its statement
    /// counts then.
    stated: Mutex<Stated>,
}

/// What a statement covers of a configuration.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    text: Arc<str>,
    /// The later it was read the higher.
    generation: u64,
}

#[derive(Debug)]
struct Stated {
    /// Of the newest configuration that was in force.
    generation: u64,
    /// The policy; `None` until a statement was made for both.
    rules: Option<Arc<Rules>>,
    /// What is served; `None` if the statement may say something else.
    snapshot: Option<Arc<Snapshot>>,
    /// The key that connections end at, whatever the statement says yet.
    tls_spki_sha256: Option<[u8; 32]>,
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
        rules: &Rules,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let sources = Sources::open(config, &attestation.evidence)?;
        let named = Named {
            node_id: attestation.node_id.as_str(),
            keys: &attestation.keys,
            dialects: &[],
        };
        let text =
            effective(&config.value).ok_or_else(|| config.invalid("attestation", NOT_STATED))?;
        let facts = Facts {
            models: Vec::new(),
            tls_spki_sha256,
            engine: engine(&rules.policy),
            config_sha256: config_sha256(&text, rules),
        };
        let clock = SteadyClock::new(clock);
        Ok(Self {
            identity: Identity::generate(named, facts, clock.unix_now())?,
            pacing: Pacing::begin(&attestation.padding),
            replay: ReplayTable::new(attestation.replay_entries.get()),
            evidence: Evidence::new(sources),
            started: config.value.clone(),
            read: AtomicU64::new(0),
            stated: Mutex::new(Stated {
                generation: 0,
                rules: None,
                snapshot: None,
                tls_spki_sha256,
            }),
            clock,
        })
    }

    /// What of a configuration that is taken in later decides what happens to a prompt.
    pub(super) fn effective(&self, config: &GatewayConfig) -> Option<Effective> {
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
        let text = effective(&in_force)?.into();
        let generation = self.read.fetch_add(1, Ordering::Relaxed);
        Some(Effective { text, generation })
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

    /// Has the statement say that connections end at another key, now or as soon as it can.
    pub(super) fn end_tls_at(&self, spki_sha256: [u8; 32]) {
        let mut stated = self.stated();
        stated.tls_spki_sha256 = Some(spki_sha256);
        stated.snapshot = None;
        let change = |facts: &mut Facts| facts.tls_spki_sha256 = Some(spki_sha256);
        if let Err(error) = self.identity.restate(self.clock.unix_now(), change) {
            tracing::error!(%error, "the statement names the TLS key of before yet");
        }
    }

    /// Turns the keys, and has the statement say what is in force, unless `shared` is of before.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    fn restate(&self, shared: &Shared, effective: &Effective) -> Result<(), IdentityError> {
        let mut stated = self.stated();
        if self.follow(&mut stated, shared, effective)?.is_none() {
            return Ok(());
        }
        let now = self.clock.unix_now();
        let snapshot = shared.nodes.snapshot();
        let same = |before: &Arc<Snapshot>| Arc::ptr_eq(before, &snapshot);
        if stated.snapshot.as_ref().is_some_and(same) && self.identity.rests(now) {
            return Ok(());
        }
        let models = models(&snapshot);
        let tls_spki_sha256 = stated.tls_spki_sha256;
        self.identity.restate(now, |facts| {
            facts.models = models;
            facts.tls_spki_sha256 = tls_spki_sha256;
        })?;
        stated.snapshot = Some(snapshot);
        Ok(())
    }

    /// Lets a well-formed request in whose credential is good, and says under which policy it may go
    /// on. Once claimed, it stays claimed.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order of docs/wire.md: date, replay, statement.
    pub(super) fn let_in(
        &self,
        shared: &Shared,
        enc_digest: [u8; 32],
        form: &Form,
        source: Source,
    ) -> Result<Arc<Rules>, Refusal> {
        let effective = shared.effective.as_ref().ok_or(Refusal::Statement)?;
        let mut stated = self.stated();
        // Before statements are looked at: those of another policy count no more.
        let followed = self.follow(&mut stated, shared, effective);
        let rules = followed.map_err(|error| {
            tracing::error!(%error, "no statement");
            Refusal::Overloaded {
                retry_after_s: RETRY_AFTER_S,
            }
        })?;
        let gate = Gate {
            identity: &self.identity,
            replay: &self.replay,
            now: self.clock.unix_now(),
        };
        gate.admit(enc_digest, form, Some(source))?;
        rules.ok_or(Refusal::Statement)
    }

    /// Has the statement follow policy and configuration; those of before count no more then. `None`
    /// if another configuration came into force since `effective` was.
    ///
    /// # Errors
    /// [`IdentityError`]; then none counts any more.
    fn follow(
        &self,
        stated: &mut Stated,
        shared: &Shared,
        effective: &Effective,
    ) -> Result<Option<Arc<Rules>>, IdentityError> {
        if effective.generation < stated.generation {
            return Ok(None);
        }
        // Not before `stated` is held: rules only ever become newer ones.
        let rules = Arc::clone(&shared.rules.borrow());
        let same = |before: &Arc<Rules>| Arc::ptr_eq(before, &rules);
        if effective.generation == stated.generation && stated.rules.as_ref().is_some_and(same) {
            return Ok(Some(rules));
        }
        stated.generation = effective.generation;
        stated.rules = None;
        stated.snapshot = None;
        let config_sha256 = config_sha256(&effective.text, &rules);
        let engine = engine(&rules.policy);
        self.identity.supersede(self.clock.unix_now(), |facts| {
            facts.config_sha256 = config_sha256;
            facts.engine = engine;
        })?;
        stated.rules = Some(Arc::clone(&rules));
        Ok(Some(rules))
    }

    fn stated(&self) -> MutexGuard<'_, Stated> {
        self.stated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Evidence for the asker's nonce. A gateway that serves nothing yet, or no more, gives none.
    ///
    /// # Errors
    /// [`Outside`] says why.
    pub(super) async fn attest(&self, own: &Own, query: Option<&str>) -> Result<Vec<u8>, Outside> {
        let nonce = answer::nonce(query)?;
        let place = own.evidence.place()?;
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
        own.evidence
            .answer(place, own.identity.current(), nonce)
            .await
    }

    /// Ends the statements of the configuration that this one takes the place of.
    pub(super) fn supersede(&self) {
        let (Some(own), Some(effective)) = (&self.own, &self.effective) else {
            return;
        };
        let followed = own.follow(&mut own.stated(), self, effective);
        if let Err(error) = followed {
            tracing::error!(%error, "no statement counts any more, and there is no other yet");
        }
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
fn models(snapshot: &Snapshot) -> Vec<String> {
    let names = snapshot.models().map(|served| served.name.as_ref());
    let mut names: Vec<String> = names
        .filter(|name| is_model_name(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    let mut room = NameRoom::default();
    let taken = names.into_iter().take_while(|name| room.take(name));
    taken.collect()
}

/// SHA-256 of the effective configuration, and the policy's and the bundle's digests (docs/wire.md).
fn config_sha256(effective: &str, rules: &Rules) -> [u8; 32] {
    let bundle = match &rules.bundle_digest {
        Some(digest) => format!("\"{digest}\""),
        None => "null".to_owned(),
    };
    let policy = &rules.policy_digest;
    let text =
        format!(r#"{{"gateway":{effective},"policy_sha256":"{policy}","bundle_sha256":{bundle}}}"#);
    Sha256::digest(text).into()
}
