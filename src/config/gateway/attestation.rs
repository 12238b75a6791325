//! `[attestation]`: the gateway's own evidence and sealing keys; left out, it has none.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AnnounceConfig, Auth, ConfigError, GatewayConfig, Loaded, NodeConfig};
use crate::config::{
    cors::Origin,
    node::{EvidenceConfig, KeysConfig, NodeId, PaddingConfig, check_evidence},
};

/// A gateway in a TEE: what it says of itself, and what it takes under the seal. The keys are those
/// of a node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationConfig {
    /// The gateway's name in its statement.
    pub node_id: NodeId,
    /// Where the evidence comes from.
    pub evidence: EvidenceConfig,
    /// The sealing keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The pace of its own replies that are paced.
    #[serde(default)]
    pub padding: PaddingConfig,
    /// Requests that the replay table remembers, about 100 bytes each; a request is remembered for
    /// about 120 seconds. With `auth = "open"` one address may hold a quarter.
    #[serde(default = "AttestationConfig::default_replay_entries")]
    pub replay_entries: NonZeroUsize,
}

impl AttestationConfig {
    fn default_replay_entries() -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(2 * 1024 * 1024 - 1)
    }
}

/// Checks what no single key can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the first key that breaks a rule.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let Some(attestation) = &config.value.attestation else {
        return Ok(());
    };
    check_evidence(config, &attestation.evidence, "attestation.evidence")?;
    attestation.keys.check(config, "attestation.keys")?;
    let timeouts = &config.value.timeouts;
    let wait = Duration::from_millis(timeouts.attest_ms.get())
        .saturating_add(Duration::from_millis(timeouts.total_first_byte_ms.get()));
    let waits = "timeouts.attest_ms and timeouts.total_first_byte_ms";
    attestation
        .padding
        .check(config, "attestation.padding", (wait, waits))
}

/// What decides what happens to a prompt, as `config_sha256` covers it: without secrets, and without
/// what only tells replicas apart.
#[derive(Serialize)]
struct Effective<'a> {
    auth: &'static str,
    nodes: Vec<EffectiveNode<'a>>,
    proxy: Option<String>,
    models: &'a BTreeMap<String, String>,
    /// Where nodes may be that announce themselves.
    announce: Option<EffectiveAnnounce>,
    reattest_s: u32,
    padding: &'static str,
    retry_unauthenticated: bool,
    cors: Vec<&'a str>,
    archive: bool,
    store: bool,
    admin: bool,
    evidence: &'a EvidenceConfig,
    keys: &'a KeysConfig,
    /// Of replies to what is sealed to the gateway.
    own_padding: &'a PaddingConfig,
}

#[derive(Serialize)]
struct EffectiveAnnounce {
    allow: Vec<String>,
    allow_http: bool,
    allow_private: bool,
}

#[derive(Serialize)]
struct EffectiveNode<'a> {
    url: String,
    region: Option<&'a str>,
    tags: Vec<&'a str>,
    proxy: bool,
}

/// The effective configuration as JSON, which `config_sha256` is made of together with the policy's
/// digest (docs/wire.md, "A gateway that is sealed to"); `None` without `[attestation]`, or if it
/// makes no JSON.
#[must_use]
pub fn effective(config: &GatewayConfig) -> Option<String> {
    let attestation = config.attestation.as_ref()?;
    let effective = Effective {
        auth: match config.auth {
            Auth::Keys => "keys",
            Auth::Open => "open",
        },
        nodes: config.nodes.iter().map(effective_node).collect(),
        proxy: config.proxy.as_ref().map(|proxy| proxy.url.to_string()),
        models: &config.models,
        announce: config.announce.as_ref().map(effective_announce),
        reattest_s: config.reattest_s.get(),
        padding: config.padding.as_str(),
        retry_unauthenticated: config.retry_unauthenticated,
        cors: config.cors.origins.iter().map(origin).collect(),
        archive: config.archive.is_some(),
        store: config.store().is_some(),
        admin: config.admin.is_some(),
        evidence: &attestation.evidence,
        keys: &attestation.keys,
        own_padding: &attestation.padding,
    };
    serde_json::to_string(&effective).ok()
}

fn effective_announce(announce: &AnnounceConfig) -> EffectiveAnnounce {
    EffectiveAnnounce {
        allow: announce.allow.iter().map(ToString::to_string).collect(),
        allow_http: announce.allow_http,
        allow_private: announce.allow_private,
    }
}

fn effective_node(node: &NodeConfig) -> EffectiveNode<'_> {
    EffectiveNode {
        url: node.url.to_string(),
        region: node.region.as_ref().map(|region| region.as_str()),
        tags: node.tags.iter().map(|tag| tag.as_str()).collect(),
        proxy: node.proxy,
    }
}

fn origin(origin: &Origin) -> &str {
    match origin {
        Origin::Any => "*",
        Origin::Named(value) => value.to_str().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const BASE: &str = "policy = \"policy.toml\"\nauth = \"open\"\n[[node]]\nurl = \"http://a\"\n";
    const OWN: &str = "[attestation]\nnode_id = \"gateway-1\"\n\
        evidence = { source = \"software-root\", dir = \"root\" }\n";

    fn load(more: &str) -> Result<GatewayConfig, String> {
        let text = format!("{BASE}{more}");
        let config = config::parse::<GatewayConfig>(Path::new("g"), &text, std::iter::empty());
        let config = config.map_err(|error| error.to_string())?;
        super::super::check(&config).map_err(|error| error.to_string())?;
        Ok(config.value)
    }

    #[test]
    fn left_out_there_is_none_and_what_is_wrong_is_named() {
        assert!(load("").unwrap().attestation.is_none());
        assert_eq!(
            load(OWN).unwrap().attestation.unwrap().node_id.as_str(),
            "gateway-1"
        );
        let cases = [
            ("[attestation]\nnode_id = \"g\"\n", "evidence"),
            (
                "[attestation]\nevidence = { source = \"nitro\" }\n",
                "node_id",
            ),
            (
                "[attestation]\nnode_id = \"G!\"\nevidence = { source = \"nitro\" }\n",
                "a-z, 0-9",
            ),
            (
                "[attestation]\nnode_id = \"g\"\nevidence = { source = \"nitro\" }\n\
                 keys = { suites = [] }\n",
                "attestation.keys.suites",
            ),
            (
                "[attestation]\nnode_id = \"g\"\nevidence = { source = \"nitro\" }\n\
                 keys = { life_s = 700000 }\n",
                "attestation.keys.life_s",
            ),
            (
                "[attestation]\nnode_id = \"g\"\nevidence = { source = \"nitro\" }\n\
                 padding = { tick_ms = 19 }\n",
                "attestation.padding.tick_ms",
            ),
            (
                "[attestation]\nnode_id = \"g\"\nevidence = { source = \"nitro\" }\n\
                 padding = { tick_ms = 20 }\n[timeouts]\ntotal_first_byte_ms = 1228800\n",
                "attestation.padding.tick_ms",
            ),
            (
                "[attestation]\nnode_id = \"g\"\nevidence = { source = \"nitro\" }\nmore = 1\n",
                "more",
            ),
        ];
        for (text, named) in cases {
            let error = load(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn the_digest_covers_what_decides_and_not_where_it_runs() {
        let of = |more: &str| effective(&load(&format!("{OWN}{more}")).unwrap()).unwrap();
        let own = effective(&load(OWN).unwrap()).unwrap();
        assert_eq!(of(""), own);
        let replica = OWN
            .replace("gateway-1", "gateway-2")
            .replace("\"root\"", "\"elsewhere\"");
        let replica = load(&replica).unwrap();
        assert_eq!(effective(&replica).unwrap(), own);
        for other in [
            "[models]\nfast = \"tiny\"\n",
            "[[node]]\nurl = \"http://b\"\n",
            "[admin]\ntoken_file = \"t\"\n",
            "[announce]\nallow = [\".a\"]\n",
            "[attestation.padding]\nleast_chunks = 1\n",
        ] {
            assert_ne!(of(other), own, "{other}");
        }
        let announced = of(
            "[announce]\nallow = [\"a\", \".b\", \"10.0.0.0/8\", \"::1\"]\nallow_private = true\n",
        );
        let part = r#""announce":{"allow":["a",".b","10.0.0.0/8","::1/128"],"allow_http":false,"allow_private":true}"#;
        assert!(announced.contains(part), "{announced}");
        assert!(effective(&load("").unwrap()).is_none());
    }
}
