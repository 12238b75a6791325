//! Which pages in browsers may ask.

use std::str::FromStr;

use http::{HeaderValue, Uri};
use serde::{Deserialize, Deserializer, de};

use super::{
    ConfigError, Loaded,
    gateway::{Auth, GatewayConfig},
};

/// Most origins.
const MAX_ORIGINS: usize = 256;

/// Pages in browsers that may ask (Fetch standard, "CORS protocol"); none unless they are named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Their origins; `*` is every page.
    #[serde(default)]
    pub origins: Vec<Origin>,
}

/// Where a page comes from: `https://chat.example`, with a port unless it is the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anywhere.
    Any,
    /// There, as browsers write it.
    Named(HeaderValue),
}

/// A text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is * or http:// or https:// with a host in lower case, perhaps a port that is not the \
     scheme's own, and nothing more: https://chat.example"
)]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidOrigin)?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or(InvalidOrigin)?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(InvalidOrigin),
        };
        // Browsers send exactly this, so whatever differs from it would never match.
        let written = format!("{scheme}://{authority}");
        let is_as_sent = written == text
            && text.to_ascii_lowercase() == text
            && !authority.as_str().contains('@')
            && authority.port_u16() != Some(own_port);
        let value = HeaderValue::from_str(text).map_err(|_| InvalidOrigin)?;
        is_as_sent
            .then_some(Self::Named(value))
            .ok_or(InvalidOrigin)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Checks what no type can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    let origins = &config.value.cors.origins;
    if origins.len() > MAX_ORIGINS {
        let message = format!("at most {MAX_ORIGINS}");
        return Err(config.invalid("cors.origins", message));
    }
    if config.value.auth == Auth::Open && origins.contains(&Origin::Any) {
        let message = "\"*\" beside auth = \"open\" would let every page in a browser here ask: name \
                       the pages";
        return Err(config.invalid("cors.origins", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for text in [
            "https://chat.example",
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]:5173",
            "https://chat.example:8443",
        ] {
            let named = Origin::Named(HeaderValue::from_static(text));
            assert_eq!(text.parse(), Ok(named), "{text}");
        }
        assert_eq!("*".parse(), Ok(Origin::Any));
        for text in [
            "",
            "null",
            "chat.example",
            "https://",
            "https://chat.example/",
            "https://chat.example/page",
            "https://chat.example?a",
            "https://Chat.example",
            "HTTPS://chat.example",
            "https://chat.example:443",
            "http://chat.example:80",
            "https://user@chat.example",
            "https://*.example ",
            "ftp://chat.example",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }
}
