//! `[[engine]]`: where a node has requests executed.

use std::{fmt, net::IpAddr, num::NonZeroUsize, path::PathBuf, str::FromStr};

use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Millis;

/// One engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Where it is: `http://127.0.0.1:8000`, or `builtin:echo` for the engine that repeats.
    pub url: EngineUrl,
    /// The models it serves; left out, it is asked.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// File with the bearer token that the engine wants.
    #[serde(skip_serializing, default)]
    pub api_key_file: Option<PathBuf>,
    /// PEM file with the roots for an `https` engine, in place of the public ones.
    #[serde(skip_serializing, default)]
    pub ca_file: Option<PathBuf>,
    /// Members of a request that the engine would ignore without a word: they are refused.
    #[serde(default)]
    pub ignores: Vec<String>,
    /// Most requests in flight to it; left out, as many as it says that it works on at once, or
    /// [`MAX_IN_FLIGHT`] where it does not say.
    #[serde(default)]
    pub max_in_flight: Option<NonZeroUsize>,
    /// Most requests that wait for one of these places; left out, four times as many as there are
    /// places, and 64 at most.
    #[serde(default)]
    pub queue: Option<usize>,
    /// The longest time that one waits there.
    #[serde(default = "EngineConfig::default_queue_ms")]
    pub queue_ms: Millis,
    /// Whether callers are told apart to its prefix cache.
    #[serde(default)]
    pub cache_salt: CacheSalting,
    /// Whether it is asked for its health; not one that answers nothing while it works.
    #[serde(default = "EngineConfig::default_watch")]
    pub watch: bool,
    /// Rest between two such questions.
    #[serde(default = "EngineConfig::default_watch_ms")]
    pub watch_ms: Millis,
}

/// Requests in flight to an engine that does not say how many it works on at once.
pub const MAX_IN_FLIGHT: usize = 2048;

impl EngineConfig {
    const fn default_queue_ms() -> Millis {
        Millis::from_secs(10)
    }

    const fn default_watch() -> bool {
        true
    }

    const fn default_watch_ms() -> Millis {
        Millis::from_secs(5)
    }
}

/// Whether an engine is given a `cache_salt` with each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSalting {
    /// If it says that it is vLLM, and as long as it has said nothing.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl<'de> Deserialize<'de> for CacheSalting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Switch(bool),
            Word(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Switch(true)) => Ok(Self::On),
            Ok(Written::Switch(false)) => Ok(Self::Off),
            Ok(Written::Word(word)) if word == "auto" => Ok(Self::Auto),
            _ => Err(de::Error::custom("expected true, false or \"auto\"")),
        }
    }
}

impl Serialize for CacheSalting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

/// The address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineUrl {
    /// The echo engine, in the node's own process.
    Echo,
    /// An HTTP server. The path has neither `/v1` nor a slash at its end.
    Http(Uri),
}

/// A text that is no engine's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine's url is `builtin:echo`, or http:// or https:// with a host and no query")]
pub struct InvalidEngineUrl;

impl EngineUrl {
    /// Whether the engine is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let Self::Http(uri) = self else { return true };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for EngineUrl {
    type Err = InvalidEngineUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "builtin:echo" {
            return Ok(Self::Echo);
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let uri: Uri = base.parse().map_err(|_| InvalidEngineUrl)?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        if scheme && authority && uri.query().is_none() {
            return Ok(Self::Http(uri));
        }
        Err(InvalidEngineUrl)
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("builtin:echo"),
            Self::Http(uri) => uri.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for EngineUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for EngineUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
