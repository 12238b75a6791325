//! Which nodes may announce themselves.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::{NonZeroU32, NonZeroUsize},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de};

use super::{ConfigError, GatewayConfig, Loaded, NodeUrl};

/// Most entries of `allow`.
const MAX_ALLOWED: usize = 1024;
/// Most nodes that announce themselves.
const MAX_NODES: usize = 4096;

/// Nodes that may announce themselves; left out, none may.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceConfig {
    /// Where they may be: host names, suffixes of names that begin with a dot, and networks, which
    /// hold for addresses that are given as numbers.
    pub allow: Vec<Allowed>,
    /// Whether `http` will do.
    #[serde(default)]
    pub allow_http: bool,
    /// Whether an address of this machine or of a private or link-local range will do.
    #[serde(default)]
    pub allow_private: bool,
    /// Most nodes that have announced themselves.
    #[serde(default = "AnnounceConfig::default_max_nodes")]
    pub max_nodes: NonZeroUsize,
    /// Most announcements with one API key in a minute.
    #[serde(default = "AnnounceConfig::default_per_key_per_minute")]
    pub per_key_per_minute: NonZeroU32,
    /// Seconds after which a node that is not verified any more is forgotten.
    #[serde(default = "AnnounceConfig::default_forget_after_s")]
    pub forget_after_s: NonZeroU32,
}

impl AnnounceConfig {
    fn default_max_nodes() -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(255)
    }

    fn default_per_key_per_minute() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(29)
    }

    fn default_forget_after_s() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(599)
    }

    /// Whether a node may be at this address, as far as its text says.
    #[must_use]
    pub fn allows(&self, url: &NodeUrl) -> bool {
        let host = url.host();
        (url.is_https() || self.allow_http) && self.allow.iter().any(|one| one.covers(host))
    }
}

/// A place where nodes may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The host of this name, in lower case.
    Name(String),
    /// Every host whose name ends so; the text begins with a dot.
    Suffix(String),
    /// Every address whose first bits are these.
    Network(IpAddr, u8),
}

/// A text that is no place where nodes may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host name (node.example), a suffix of names (.nodes.example) or a network with no bit set \
     behind its prefix (203.0.113.0/24)"
)]
pub struct InvalidAllowed;

impl Allowed {
    /// Whether `host`, which has no brackets, is there.
    pub(super) fn covers(&self, host: &str) -> bool {
        match (self, host.parse::<IpAddr>()) {
            (Self::Network(network, bits), Ok(address)) => is_in(address, *network, *bits),
            (Self::Name(name), Err(_)) => host.eq_ignore_ascii_case(name),
            (Self::Suffix(suffix), Err(_)) => {
                let start = host.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                start
                    .and_then(|at| host.get(at..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            _ => false,
        }
    }
}

impl FromStr for Allowed {
    type Err = InvalidAllowed;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| InvalidAllowed)?;
            let bits: u8 = bits.parse().map_err(|_| InvalidAllowed)?;
            let exact = mask(address, bits) == Some(address);
            return exact
                .then_some(Self::Network(address, bits))
                .ok_or(InvalidAllowed);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Ok(Self::Network(address, bits));
        }
        let name = text.strip_prefix('.').unwrap_or(text);
        let label = |label: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(legal)
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(InvalidAllowed);
        }
        let text = text.to_ascii_lowercase();
        Ok(if text.starts_with('.') {
            Self::Suffix(text)
        } else {
            Self::Name(text)
        })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Suffix(text) => f.write_str(text),
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    address.is_ipv4() == network.is_ipv4() && mask(address, bits) == Some(network)
}

/// The first bits of an address; nothing if it has not so many.
fn mask(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let unset = 32_u32.checked_sub(bits.into())?;
            let kept = u32::MAX.checked_shl(unset).unwrap_or(0);
            Some(IpAddr::from((v4.to_bits() & kept).to_be_bytes()))
        }
        IpAddr::V6(v6) => {
            let unset = 128_u32.checked_sub(bits.into())?;
            let kept = u128::MAX.checked_shl(unset).unwrap_or(0);
            Some(Ipv6Addr::from_bits(v6.to_bits() & kept).into())
        }
    }
}

/// Checks what no type can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let Some(announce) = &config.value.announce else {
        return Ok(());
    };
    if announce.allow.is_empty() || announce.allow.len() > MAX_ALLOWED {
        let message = format!("give 1 to {MAX_ALLOWED} places, or leave [announce] out");
        return Err(config.invalid("announce.allow", message));
    }
    if announce.max_nodes.get() > MAX_NODES {
        return Err(config.invalid("announce.max_nodes", format!("at most {MAX_NODES}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(allow: &[&str]) -> AnnounceConfig {
        let list = allow.iter().map(|one| format!("{one:?},"));
        toml::from_str(&format!("allow = [{}]", list.collect::<String>())).unwrap()
    }

    #[test]
    fn a_node_may_be_where_the_configuration_says() {
        let allow = [
            "node.example",
            ".nodes.example",
            "203.0.113.0/24",
            "2001:db8::/32",
            "198.51.100.7",
        ];
        let config = config(&allow);
        let cases = [
            ("https://node.example", true),
            ("https://NODE.example:8443", true),
            ("https://a.nodes.example", true),
            ("https://a.b.Nodes.Example", true),
            ("https://203.0.113.9:1", true),
            ("https://[2001:db8::1]", true),
            ("https://198.51.100.7", true),
            ("http://node.example", false),
            ("https://nodes.example", false),
            ("https://.nodes.example", false),
            ("https://evilnodes.example", false),
            ("https://node.example.evil", false),
            ("https://x-node.example", false),
            ("https://node.example.", false),
            ("https://203.0.114.9", false),
            ("https://[2001:db9::1]", false),
            ("https://[::ffff:203.0.113.9]", false),
            ("https://198.51.100.8", false),
            ("https://3405803785", false),
        ];
        for (url, expected) in cases {
            let url: NodeUrl = url.parse().unwrap();
            assert_eq!(config.allows(&url), expected, "{url}");
        }
        let mut config = config;
        config.allow_http = true;
        assert!(config.allows(&"http://node.example".parse().unwrap()));
    }

    #[test]
    fn a_place_is_a_name_a_suffix_or_a_network() {
        let v4 = |a: [u8; 4]| IpAddr::from(a);
        let cases = [
            ("Node.example", Ok(Allowed::Name("node.example".to_owned()))),
            (".example", Ok(Allowed::Suffix(".example".to_owned()))),
            ("10.0.0.0/8", Ok(Allowed::Network(v4([10, 0, 0, 0]), 8))),
            ("0.0.0.0/0", Ok(Allowed::Network(v4([0; 4]), 0))),
            ("10.0.0.1", Ok(Allowed::Network(v4([10, 0, 0, 1]), 32))),
            ("10.0.0.1/8", Err(InvalidAllowed)),
            ("10.0.0.0/33", Err(InvalidAllowed)),
            ("2001:db8::/129", Err(InvalidAllowed)),
            ("node.example/8", Err(InvalidAllowed)),
            ("*.example", Err(InvalidAllowed)),
            ("https://node.example", Err(InvalidAllowed)),
            ("node..example", Err(InvalidAllowed)),
            (".", Err(InvalidAllowed)),
            ("", Err(InvalidAllowed)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Allowed>(), expected, "{text}");
        }
    }
}
