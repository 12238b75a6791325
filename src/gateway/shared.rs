//! What all requests share, made from a configuration.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_QUESTIONS, StartError,
    admit::Admission,
    announce::Desk,
    audit::Audit,
    authenticate::Callers,
    body::Patience,
    book::Book,
    cors::Cors,
    farewell::Phase,
    files::{
        archive_dir, read_callers, read_node, read_proxy, terms_of_announced, too_many_labels,
    },
    labels::Labels,
    locks::Locks,
    metrics::Metrics,
    nodes::Nodes,
    own::{Effective, Own},
    receipts,
    rules::Rules,
    stream::Timing,
};
use crate::{
    clock::Clock,
    config::{
        ConfigError, Loaded,
        gateway::{Auth, GatewayConfig, ReceiptsConfig, millis},
        prices::Prices,
    },
    openai::sse::Obfuscation,
    pace::LeastRate,
    seal::Padding,
    store::{Ledger, What},
};

/// What all requests share that begin under one configuration: each takes it once, so none sees two.
/// Another configuration is another one of these, with the same nodes and the same places taken.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) callers: Arc<Callers>,
    /// Where usage is written down, if it is.
    pub(super) ledger: Option<Arc<Ledger>>,
    /// Where it is told what changes, and what is judged.
    pub(super) audit: Audit,
    pub(super) admission: Admission,
    pub(super) nodes: Arc<Nodes>,
    /// Regions and tags of the configured ones.
    pub(super) labels: Arc<Labels>,
    /// Where nodes announce themselves, if they may.
    pub(super) desk: Option<Arc<Desk>>,
    pub(super) locks: Arc<Locks>,
    /// Callers' questions to nodes for evidence.
    pub(super) questions: Arc<Semaphore>,
    /// What nodes are judged by.
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    /// What the gateway says of itself, if it has evidence of its own.
    pub(super) own: Option<Arc<Own>>,
    /// What its statement covers of the configuration.
    pub(super) effective: Option<Effective>,
    pub(super) padding: Padding,
    /// Which receipts are asked for, and what becomes of them.
    pub(super) receipt_terms: ReceiptsConfig,
    pub(super) receipts: Arc<receipts::Desk>,
    /// What models cost.
    pub(super) prices: Arc<Prices>,
    /// What levels the lengths of events, and whether it does so unasked.
    pub(super) obfuscation: (Obfuscation, bool),
    pub(super) retry_unauthenticated: bool,
    pub(super) cors: Cors,
    /// Whether only requests to a name of this machine are answered.
    pub(super) loopback_only: bool,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) phase: Arc<Phase>,
    /// Ends open requests.
    pub(super) cut: CancellationToken,
    /// Set once the verifier is not to be relied on: no node counts as verified any more.
    pub(super) halted: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) body_bytes: usize,
    pub(super) reply_bytes: usize,
    pub(super) assumed_completion_tokens: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) body: Patience,
    pub(super) connect: Duration,
    pub(super) attest: Duration,
    pub(super) first_byte: Duration,
    pub(super) total_first_byte: Duration,
    pub(super) idle: Duration,
    pub(super) stream: Timing,
}

impl Shared {
    /// With evidence of its own, where the configuration asks for it.
    ///
    /// # Errors
    /// [`StartError`] names what cannot be used.
    pub(super) fn attesting(
        mut self,
        config: &Loaded<GatewayConfig>,
        tls_spki_sha256: Option<[u8; 32]>,
    ) -> Result<Self, StartError> {
        if let Some(attestation) = &config.value.attestation {
            let rules = Arc::clone(&self.rules.borrow());
            let own = Own::open(config, attestation, tls_spki_sha256, &rules, self.clock)?;
            self.effective = own.effective(&config.value);
            self.own = Some(Arc::new(own));
        }
        Ok(self)
    }

    /// The keys of the store, where keys are there.
    pub(super) fn book(&self) -> Option<Arc<Book>> {
        match &*self.callers {
            Callers::Stored(book) => Some(Arc::clone(book)),
            Callers::Anybody(_) | Callers::Keys(_) => None,
        }
    }

    /// Tells the audit log of the start, and of all that is in force from then on.
    pub(super) fn say_started(&self, config: &Loaded<GatewayConfig>, address: SocketAddr) {
        let rules = Arc::clone(&self.rules.borrow());
        let nodes = config.value.nodes.iter().map(|node| node.url.to_string());
        let detail = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "address": address,
            "config": hex::encode(config.sha256),
            "policy": rules.policy_digest,
            "bundle": rules.bundle_digest,
            "nodes": nodes.collect::<Vec<_>>(),
        });
        let file = config.path.display().to_string();
        self.audit.say(What::GatewayStarted, &file, detail);
    }

    pub(super) fn read(
        config: &Loaded<GatewayConfig>,
        clock: Clock,
        rules: watch::Receiver<Arc<Rules>>,
    ) -> Result<Shared, ConfigError> {
        let value = &config.value;
        let limits = &value.limits;
        let labels = Labels::default();
        let labels = labels
            .with(&value.nodes)
            .ok_or_else(|| too_many_labels(config))?;
        let proxy = read_proxy(config)?;
        let nodes = value.nodes.iter();
        let nodes = nodes.map(|node| read_node(config, node, &labels, proxy.as_ref()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        nodes.iter().for_each(|node| node.load.skip_warm_up());
        let announced = terms_of_announced(value);
        let desk = |announce| Arc::new(Desk::new(announce, announced, proxy));
        Ok(Shared {
            clock,
            metrics: Arc::new(Metrics::new(clock)),
            callers: Arc::new(read_callers(config, &labels, None)?),
            ledger: None,
            audit: Audit::default(),
            admission: Admission::new(limits.in_flight.get(), as_usize(limits.bodies_bytes.get())),
            nodes: Arc::new(Nodes::new(nodes, value.models.clone())),
            labels: Arc::new(labels),
            desk: value.announce.clone().map(desk),
            locks: Arc::new(Locks::new(value.locks)),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            rules,
            own: None,
            effective: None,
            padding: value.padding,
            receipt_terms: value.receipts,
            receipts: Arc::new(receipts::Desk::new(archive_dir(config))),
            prices: Arc::new(value.prices.clone()),
            obfuscation: obfuscation_of(value),
            retry_unauthenticated: value.retry_unauthenticated,
            cors: Cors::new(value.cors.origins.clone()),
            loopback_only: value.auth == Auth::Open,
            limits: limits_of(value),
            timeouts: timeouts_of(value),
            phase: Arc::default(),
            cut: CancellationToken::new(),
            halted: CancellationToken::new(),
        })
    }
}

pub(super) fn obfuscation_of(config: &GatewayConfig) -> (Obfuscation, bool) {
    let streams = &config.streams;
    let unit = streams.obfuscation_unit_bytes.get();
    (Obfuscation::new(unit), streams.obfuscation)
}

pub(super) fn limits_of(config: &GatewayConfig) -> Limits {
    Limits {
        body_bytes: as_usize(config.limits.body_bytes.get()),
        reply_bytes: config.limits.reply_bytes.get(),
        assumed_completion_tokens: config.limits.assumed_completion_tokens.get(),
    }
}

pub(super) fn timeouts_of(config: &GatewayConfig) -> Timeouts {
    let timeouts = &config.timeouts;
    Timeouts {
        body: Patience {
            within: millis(timeouts.body_ms),
            rate: LeastRate {
                bytes_per_s: config.limits.min_body_bytes_per_s,
                behind: millis(timeouts.slow_body_ms),
            },
        },
        connect: millis(timeouts.connect_ms),
        attest: millis(timeouts.attest_ms),
        first_byte: millis(timeouts.first_byte_ms),
        total_first_byte: millis(timeouts.total_first_byte_ms),
        idle: millis(timeouts.idle_ms),
        stream: Timing {
            idle: millis(timeouts.idle_ms),
            sign_of_life: millis(timeouts.sign_of_life_ms),
            coalesce: config.streams.coalesce(),
        },
    }
}

pub(super) fn as_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
