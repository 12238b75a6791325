//! What the files hold that a configuration names.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc};

use super::{
    archive::{self, Archive},
    authenticate::Callers,
    labels::Labels,
    load::Share,
    node::{Node, Terms},
    rules::Sources,
};
use crate::{
    clock::Clock,
    config::{
        self, ConfigError, Loaded,
        gateway::{Auth, GatewayConfig, KeysFile, MAX_LABELS, NodeConfig},
    },
    sealer::{Credential, Proxy, Roots, Shown, TlsError},
    tls,
};

pub(super) fn sources(config: &Loaded<GatewayConfig>) -> Sources {
    let bundle = config.value.bundle.as_ref();
    Sources::new(
        config.resolve(&config.value.policy),
        bundle.map(|folder| config.resolve(folder)),
    )
}

/// The archive's folder, if there is one.
pub(super) fn archive_dir(config: &Loaded<GatewayConfig>) -> Option<PathBuf> {
    let archive = config.value.archive.as_ref();
    archive.map(|archive| config.resolve(&archive.dir))
}

pub(super) fn open_archive(
    config: &Loaded<GatewayConfig>,
) -> Result<Option<(Archive, archive::Ended)>, ConfigError> {
    let (Some(archive), Some(dir)) = (&config.value.archive, archive_dir(config)) else {
        return Ok(None);
    };
    let opened = Archive::open(archive, &dir);
    let unusable = |e| config.invalid("archive.dir", format!("{}: {e}", dir.display()));
    opened.map(Some).map_err(unusable)
}

pub(super) fn read_callers(
    config: &Loaded<GatewayConfig>,
    labels: &Labels,
    before: Option<&Callers>,
) -> Result<Callers, ConfigError> {
    let value = &config.value;
    let places = value.limits.in_flight_per_key.get();
    match &value.keys_file {
        Some(file) if value.auth == Auth::Keys => {
            let path = config.resolve(file);
            let text = config::read_text(&path)?;
            let keys = config::parse::<KeysFile>(&path, &text, std::iter::empty())?;
            let callers = Callers::with_keys(keys.value, labels, places, before);
            callers.map_err(|error| config.invalid("keys_file", error.to_string()))
        }
        _ => {
            let bounded = before.and_then(|before| before.bounded(places));
            Ok(bounded.unwrap_or_else(|| Callers::anybody(places)))
        }
    }
}

pub(super) fn read_node(
    config: &Loaded<GatewayConfig>,
    node: &NodeConfig,
    labels: &Labels,
    proxy: Option<&Arc<Proxy>>,
) -> Result<Arc<Node>, ConfigError> {
    let key = "node.credential_file";
    let credential = node.credential_file.as_ref();
    let credential = read_credential(config, credential, key, Credential::from_file_text)?;
    let roots = read_roots(config, node.ca_file.as_ref(), "node.ca_file")?;
    let terms = terms_of(&config.value, node, labels);
    let shown = read_shown(config, node)?;
    let proxy = proxy.filter(|_| node.proxy);
    let node = Node::new(node.url.clone(), credential, roots, terms);
    Ok(Arc::new(node.showing(shown).through(proxy)))
}

fn read_credential<E: std::fmt::Display>(
    config: &Loaded<GatewayConfig>,
    file: Option<&PathBuf>,
    key: &'static str,
    of_text: impl FnOnce(&str) -> Result<Credential, E>,
) -> Result<Option<Credential>, ConfigError> {
    let Some(file) = file else { return Ok(None) };
    let text = config::read_secret(&config.resolve(file))?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let read = of_text(text).map_err(|error| config.invalid(key, error.to_string()));
    read.map(Some)
}

pub(super) fn read_roots(
    config: &Loaded<GatewayConfig>,
    file: Option<&PathBuf>,
    key: &'static str,
) -> Result<Roots, ConfigError> {
    let Some(file) = file else {
        return Ok(Roots::Public);
    };
    let read = Roots::from_pem_file(&config.resolve(file));
    read.map_err(|error| config.invalid(key, error.to_string()))
}

pub(super) fn read_proxy(
    config: &Loaded<GatewayConfig>,
) -> Result<Option<Arc<Proxy>>, ConfigError> {
    let Some(proxy) = &config.value.proxy else {
        return Ok(None);
    };
    let key = "proxy.credential_file";
    let credential = proxy.credential_file.as_ref();
    let credential = read_credential(config, credential, key, Credential::basic_from_file_text)?;
    let roots = read_roots(config, proxy.ca_file.as_ref(), "proxy.ca_file")?;
    let proxy = Proxy::new(proxy, &roots, credential);
    let proxy = proxy.map_err(|e| config.invalid("proxy.url", e.to_string()))?;
    Ok(Some(Arc::new(proxy)))
}

pub(super) fn too_many_labels(config: &Loaded<GatewayConfig>) -> ConfigError {
    let message = format!(
        "at most {MAX_LABELS} different regions and tags since the gateway was started: restart it"
    );
    config.invalid("node.tags", message)
}

/// How a node of the configuration takes part.
pub(super) fn terms_of(config: &GatewayConfig, node: &NodeConfig, labels: &Labels) -> Terms {
    let price = node.price.get().powf(config.selection.price_weight.get());
    // Neither free nor out of reach, whatever was written.
    let bias = (price / node.weight.get()).clamp(1e-6, 1e6);
    let labels = labels.bits(node.region.as_ref(), &node.tags);
    terms(config, bias, node.max_in_flight, labels)
}

/// The same of one that announces itself.
pub(super) fn terms_of_announced(config: &GatewayConfig) -> Terms {
    terms(config, 1.0, None, 0)
}

fn terms(
    config: &GatewayConfig,
    bias: f64,
    max_in_flight: Option<NonZeroU32>,
    labels: u64,
) -> Terms {
    let most = max_in_flight.unwrap_or(config.limits.in_flight_per_node);
    Terms {
        labels,
        share: Share {
            bias,
            max_in_flight: most.get(),
            warm_up: config.selection.warm_up_s.duration(),
        },
        health: config.health,
    }
}

pub(super) fn read_shown(
    config: &Loaded<GatewayConfig>,
    node: &NodeConfig,
) -> Result<Option<Shown>, ConfigError> {
    let Ok(Some((certificate, key))) = node.identity() else {
        return Ok(None);
    };
    let certificate = config::read_text(&config.resolve(certificate))?;
    let key = config::read_secret(&config.resolve(key))?;
    let shown = Shown::from_pem(certificate.as_bytes(), &key);
    let invalid = |e: TlsError| config.invalid("node.client_certificate_file", e.to_string());
    shown.map(Some).map_err(invalid)
}

pub(super) fn keep_tls(
    config: &Loaded<GatewayConfig>,
    clock: Clock,
) -> Result<Option<tls::Keeper>, ConfigError> {
    let Some(tls) = &config.value.tls else {
        return Ok(None);
    };
    let files = config::tls::of_gateway(config, tls)?;
    tls::read(config, files, "localhost", clock).map(Some)
}
