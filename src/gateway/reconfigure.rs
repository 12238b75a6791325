//! Takes in a changed configuration, with the files that it names, while the gateway serves: all of
//! it or nothing.
//!
//! It is read and checked as at a start first. Requests take what is in force once, when they begin;
//! what they hold counts on. A node that is no longer named gets no new request, and stays appraised
//! until its last one has ended. What only a start can change is named in the log. Policy and bundle
//! are `rules`' own: nothing here keeps a policy out of force.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    authenticate::Callers,
    beside::Keepers,
    cors::Cors,
    files::{read_callers, read_node, read_proxy, terms_of, terms_of_announced, too_many_labels},
    keeping::has_places,
    metrics::Reloaded,
    node::{Node, Terms},
    own::NOT_STATED,
    shared::{Shared, Timeouts, as_usize, limits_of, obfuscation_of, timeouts_of},
};
use crate::{
    config::{
        self, ConfigError, Loaded,
        gateway::{GatewayConfig, NodeConfig, NodeUrl, ProxyConfig},
    },
    reload::{self, Asked, Keep, Seen},
    sealer::Proxy,
    store::What,
};

mod fixed;

use self::fixed::{fixed, fixed_value};

/// Between two looks whether a node that goes has requests, or another in its place.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node whose table or files changed serves as it was until it is verified as it is now.
const REPLACED_WITHIN: Duration = Duration::from_secs(300);

/// Keeps the configuration as its files are.
#[derive(Debug)]
pub(super) struct Reconfigurer {
    path: PathBuf,
    /// Where the gateway listens, whatever was asked for.
    address: SocketAddr,
    /// What only a start changes, as it was at the start.
    fixed: Vec<(&'static str, String)>,
    files: Vec<PathBuf>,
    /// Those that the configuration names that was read last, and the SHA-256 of its text.
    tried: Vec<PathBuf>,
    digest: Option<String>,
    /// The SHA-256 of the text that is in force.
    in_force: Option<String>,
    /// What lay in its files when they were taken, and before they were read last.
    seen: Seen,
    looked: Option<Seen>,
    current: watch::Sender<Arc<Shared>>,
    nodes: Vec<Named>,
}

/// A node, and what the configuration says of it with all its files.
#[derive(Clone, Debug)]
struct Named {
    node: Arc<Node>,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Said([u8; 32]);

/// What was read, before any of it is in force.
struct Next {
    config: GatewayConfig,
    shared: Shared,
    proxy: Option<Arc<Proxy>>,
    nodes: Vec<Named>,
    /// Those of them that were not there before.
    new: Vec<Arc<Node>>,
    /// How those that were there take part.
    terms: Vec<(Arc<Node>, Terms)>,
}

impl Next {
    /// Has the nodes that stay, and those that announced themselves, take part as they are to now.
    fn set_terms(&self) {
        for (node, terms) in &self.terms {
            node.set_terms(*terms);
        }
        let announced = terms_of_announced(&self.config);
        if let Some(desk) = &self.shared.desk {
            desk.set_terms(announced);
        }
        let all = self.shared.nodes.all();
        let known = all.iter().filter(|node| node.is_announced());
        known.for_each(|node| node.set_terms(announced));
    }
}

/// What was read: the files that the configuration names, and what lay in them before, the SHA-256 of its
/// text, and what it is.
struct Looked {
    files: Vec<PathBuf>,
    seen: Option<Seen>,
    digest: Option<String>,
    next: Result<Next, ConfigError>,
}

/// What lies in the files of a configuration now.
pub(super) fn seen(config: &Loaded<GatewayConfig>) -> Seen {
    Seen::now(&files(config))
}

/// Resolves once a node is to go and its last request has ended.
pub(super) async fn let_go(node: &Node) {
    node.gone.cancelled().await;
    while node.in_flight() > 0 {
        sleep(LOOK).await;
    }
}

/// What is known of a configuration before it is served.
#[derive(Debug)]
pub(super) struct Prepared {
    path: PathBuf,
    address: SocketAddr,
    fixed: Vec<(&'static str, String)>,
    files: Vec<PathBuf>,
    digest: String,
    seen: Seen,
    said: Vec<(NodeUrl, Said)>,
}

impl Prepared {
    /// For a gateway that was started by `config`, whose files held what was `seen`.
    pub(super) fn new(config: &Loaded<GatewayConfig>, address: SocketAddr, seen: Seen) -> Self {
        let nodes = config.value.nodes.iter();
        let said = nodes.map(|node| (node.url.clone(), said(config, node)));
        Self {
            path: config.path.clone(),
            address,
            fixed: fixed(&config.value, address),
            files: files(config),
            digest: hex::encode(config.sha256),
            seen,
            said: said.collect(),
        }
    }

    /// For what is served first.
    pub(super) fn keep(self, shared: &Arc<Shared>) -> Reconfigurer {
        let nodes = self.said.into_iter().filter_map(|(url, said)| {
            let node = shared.nodes.at(&url)?;
            Some(Named { node, said })
        });
        Reconfigurer {
            nodes: nodes.collect(),
            path: self.path,
            address: self.address,
            fixed: self.fixed,
            files: self.files,
            tried: Vec::new(),
            digest: None,
            in_force: Some(self.digest),
            looked: None,
            seen: self.seen,
            current: watch::Sender::new(Arc::clone(shared)),
        }
    }
}

impl Reconfigurer {
    /// What requests begin under.
    pub(super) fn current(&self) -> watch::Receiver<Arc<Shared>> {
        self.current.subscribe()
    }

    /// Looks at the files every so often, and when told to; never ends.
    pub(super) async fn run(self, keepers: Keepers, asked: Asked, every: Duration) {
        let seen = self.seen.clone();
        let reconfiguring = Reconfiguring {
            keepers,
            reconfigurer: self,
        };
        reload::run(reconfiguring, seen, asked, every).await;
    }

    /// Reads the configuration, and says which files it named, if it is one.
    fn read(&self) -> impl FnOnce() -> Looked + Send + 'static {
        let (path, nodes) = (self.path.clone(), self.nodes.clone());
        let before = Arc::clone(&self.current.borrow());
        let auth = fixed_value(&self.fixed, "auth");
        move || {
            let nothing = |digest, error| Looked {
                files: Vec::new(),
                seen: None,
                digest,
                next: Err(error),
            };
            let text = match config::read_text(&path) {
                Ok(text) => text,
                Err(error) => return nothing(None, error),
            };
            let digest = Some(hex::encode(Sha256::digest(&text)));
            let config = config::parse::<GatewayConfig>(&path, &text, std::env::vars());
            let config = match config {
                Ok(config) => config,
                Err(error) => return nothing(digest, error),
            };
            // Before they are read: what changes in between is told of with the next look.
            let seen = Some(seen(&config));
            let next = || {
                config::gateway::check(&config)?;
                if format!("{:?}", config.value.auth) != auth {
                    return Err(config.invalid("auth", "who may ask is changed by a restart alone"));
                }
                if config.value.keys_in_store() != matches!(*before.callers, Callers::Stored(_)) {
                    let message = "where keys are kept is changed by a restart alone";
                    return Err(config.invalid("keys_file", message));
                }
                next(&config, &before, &nodes)
            };
            Looked {
                files: files(&config),
                seen,
                digest,
                next: next(),
            }
        }
    }

    fn take(&mut self, next: Next, keepers: &Keepers) {
        let differs: Vec<_> = fixed(&next.config, self.address)
            .into_iter()
            .zip(&self.fixed)
            .filter_map(|(new, old)| (new != *old).then_some(new.0))
            .collect();
        let is_named = |known: &Named| next.nodes.iter().any(|n| Arc::ptr_eq(&n.node, &known.node));
        let gone: Vec<_> = self
            .nodes
            .iter()
            .filter(|known| !is_named(known))
            .cloned()
            .collect();
        tracing::info!(
            nodes = next.nodes.len(),
            added = next.new.len(),
            removed = gone.len(),
            "configuration in force: new requests are served by it"
        );
        if !differs.is_empty() {
            tracing::warn!(
                keys = differs.join(", "),
                "changed, and in force after a restart alone"
            );
        }
        self.tell(&next, &gone, &differs);
        // Nobody who agreed to the configuration of before is to meet what this one brings.
        next.shared.supersede();
        next.set_terms();
        if let Callers::Stored(book) = &*next.shared.callers {
            let places = next.config.limits.in_flight_per_key.get();
            book.arrange(&next.shared.labels, places);
        }
        if let Some(desk) = &next.shared.desk {
            desk.reach_through(next.proxy);
        }
        next.shared.nodes.rename(next.config.models);
        next.shared.nodes.add(&next.new);
        next.new.iter().for_each(|node| keepers.keep(node));
        self.current.send_replace(Arc::new(next.shared));
        (self.files, self.nodes) = (std::mem::take(&mut self.tried), next.nodes);
        for Named { node, .. } in gone {
            let replaced_by = next.new.iter().find(|new| new.url == node.url).cloned();
            // One whose region or tags are others now is not what is asked for any more.
            let replaced_by = replaced_by.filter(|new| new.labels == node.labels);
            let shared = Arc::clone(&keepers.shared);
            keepers.tasks.spawn(async move {
                // Another in its place, say with another credential, serves first.
                if let Some(new) = replaced_by {
                    replaced(&shared, &node, &new).await;
                }
                shared.nodes.leave(&node);
                node.gone.cancel();
            });
        }
    }

    /// Tells the audit log of a configuration that is another one, and of its nodes.
    fn tell(&mut self, next: &Next, gone: &[Named], after_a_restart: &[&str]) {
        let audit = &next.shared.audit;
        for node in &next.new {
            audit.say(What::NodeAdded, &node.url.to_string(), json!({}));
        }
        for Named { node, .. } in gone {
            audit.say(What::NodeRemoved, &node.url.to_string(), json!({}));
        }
        let seen = self.looked.take().unwrap_or_else(|| self.seen.clone());
        // They may be secret, and a short secret is found by its digest.
        let others: Vec<_> = seen
            .others(&self.seen)
            .filter(|it| **it != self.path)
            .collect();
        let is_another = self.in_force != self.digest || !others.is_empty();
        if is_another || !next.new.is_empty() || !gone.is_empty() {
            let detail = json!({
                "sha256": self.digest,
                "files": others,
                "nodes": next.nodes.len(),
                "after_a_restart": after_a_restart,
            });
            audit.say(
                What::ConfigInForce,
                &self.path.display().to_string(),
                detail,
            );
        }
        self.in_force.clone_from(&self.digest);
        self.seen = seen;
    }
}

/// Waits until another node serves at the same address, or there is none to wait for.
async fn replaced(shared: &Shared, node: &Arc<Node>, by: &Node) {
    let another = |it: &&Arc<Node>| {
        let same = it.url == node.url && it.labels == node.labels;
        same && !Arc::ptr_eq(it, node)
    };
    let waiting = async {
        loop {
            tokio::select! {
                biased;
                _ = by.until_verified() => return,
                () = sleep(LOOK) => {
                    // The configuration may have changed once more.
                    let all = shared.nodes.all();
                    let mut others = all.iter().filter(another).peekable();
                    if others.peek().is_none() || others.any(|it| it.verified().is_some()) {
                        return;
                    }
                }
            }
        }
    };
    if timeout(REPLACED_WITHIN, waiting).await.is_err() {
        tracing::warn!(
            node = %node.url,
            "not verified as it is configured now: what it was before is given up"
        );
    }
}

struct Reconfiguring {
    keepers: Keepers,
    reconfigurer: Reconfigurer,
}

impl Keep for Reconfiguring {
    fn kind(&self) -> &'static str {
        "config"
    }

    fn files(&self) -> Vec<PathBuf> {
        let Reconfigurer { files, tried, .. } = &self.reconfigurer;
        files.iter().chain(tried).cloned().collect()
    }

    async fn take(&mut self) -> Result<(), String> {
        let read = spawn_blocking(self.reconfigurer.read()).await;
        let looked = read.map_err(|_| PANICKED.to_owned())?;
        (self.reconfigurer.tried, self.reconfigurer.digest) = (looked.files, looked.digest);
        self.reconfigurer.looked = looked.seen;
        let next = looked.next.map_err(|error| error.to_string())?;
        self.reconfigurer.take(next, &self.keepers);
        let reloads = &self.keepers.shared.metrics.reloads;
        reloads.applied(Reloaded::Config);
        Ok(())
    }

    fn refused(&mut self, error: &str) {
        tracing::error!(
            error,
            "configuration not taken: the one before stays in force"
        );
        let Keepers { shared, .. } = &self.keepers;
        let detail = json!({ "sha256": self.reconfigurer.digest });
        let file = self.reconfigurer.path.display().to_string();
        shared.audit.say(What::ConfigRefused, &file, detail);
        shared.metrics.reloads.refused(Reloaded::Config);
    }
}

const PANICKED: &str = "reading panicked";

/// Reads all that requests are served by, and nothing of it is in force yet.
fn next(
    config: &Loaded<GatewayConfig>,
    before: &Shared,
    known: &[Named],
) -> Result<Next, ConfigError> {
    let value = &config.value;
    let labels = before.labels.with(&value.nodes);
    let labels = labels.ok_or_else(|| too_many_labels(config))?;
    let proxy = read_proxy(config)?;
    let (mut nodes, mut new, mut terms) = (Vec::new(), Vec::new(), Vec::new());
    for node in &value.nodes {
        let said = said(config, node);
        let wanted = terms_of(value, node, &labels);
        let same = known
            .iter()
            .find(|it| it.node.url == node.url && it.said == said);
        let node = match same {
            Some(same) => {
                terms.push((Arc::clone(&same.node), wanted));
                Arc::clone(&same.node)
            }
            None => {
                let node = read_node(config, node, &labels, proxy.as_ref())?;
                new.push(Arc::clone(&node));
                node
            }
        };
        nodes.push(Named { node, said });
    }
    let limits = &value.limits;
    has_places(config, before)?;
    let mut shared = before.clone();
    shared.callers = Arc::new(read_callers(config, &labels, Some(&before.callers))?);
    let bodies = as_usize(limits.bodies_bytes.get());
    shared.admission = before.admission.bounded(limits.in_flight.get(), bodies);
    shared.labels = Arc::new(labels);
    if let Some(own) = &before.own {
        let effective = own.effective(value);
        let effective = effective.ok_or_else(|| config.invalid("attestation", NOT_STATED))?;
        shared.effective = Some(effective);
    }
    shared.padding = value.padding;
    shared.receipt_terms = value.receipts;
    shared.prices = Arc::new(value.prices.clone());
    shared.obfuscation = obfuscation_of(value);
    shared.retry_unauthenticated = value.retry_unauthenticated;
    shared.cors = Cors::new(value.cors.origins.clone());
    shared.limits = limits_of(value);
    shared.timeouts = Timeouts {
        connect: before.timeouts.connect,
        attest: before.timeouts.attest,
        ..timeouts_of(value)
    };
    Ok(Next {
        config: value.clone(),
        shared,
        proxy,
        nodes,
        new,
        terms,
    })
}

/// The configuration, and the files that it names and that are taken with it.
fn files(config: &Loaded<GatewayConfig>) -> Vec<PathBuf> {
    let keys = config.value.keys_file.iter();
    let of_proxy = config.value.proxy.iter().flat_map(ProxyConfig::files);
    let of_nodes = config.value.nodes.iter().flat_map(files_of);
    let named = keys
        .chain(of_proxy)
        .chain(of_nodes)
        .map(|file| config.resolve(file));
    std::iter::once(config.path.clone()).chain(named).collect()
}

fn files_of(node: &NodeConfig) -> impl Iterator<Item = &PathBuf> {
    let files = [
        &node.credential_file,
        &node.ca_file,
        &node.client_certificate_file,
        &node.client_key_file,
    ];
    files.into_iter().flatten()
}

fn said(config: &Loaded<GatewayConfig>, node: &NodeConfig) -> Said {
    // Another proxy is another way to the node, and so is another credential with it.
    let proxy = config.value.proxy.as_ref();
    let proxy = proxy.filter(|it| node.proxy && !it.passes_by(&node.url, None));
    let of_proxy = proxy.into_iter().flat_map(ProxyConfig::files);
    let files = files_of(node).chain(of_proxy);
    let files: Vec<_> = files.map(|file| config.resolve(file)).collect();
    // Which others it passes by is their own matter.
    let proxy = proxy.map(|it| (&it.url, &it.ca_file, &it.credential_file));
    let text = format!("{node:?} {proxy:?} {:?}", Seen::now(&files));
    Said(Sha256::digest(text).into())
}
