//! A bearer token: the sealer's own with a node, or a client's with a gateway.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

/// Longest credential, in bytes.
const MAX_CREDENTIAL: usize = 4096;

/// The value of an `authorization` field: `Bearer` and a token; or of one for a proxy.
pub(crate) struct Credential(Zeroizing<String>);

/// A text that is no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a credential is one line of 1 to {MAX_CREDENTIAL} visible ASCII characters")]
pub struct InvalidCredential;

impl Credential {
    /// The token in the text of a file, whose last line break does not count.
    ///
    /// # Errors
    /// [`InvalidCredential`].
    pub(crate) fn from_file_text(text: &str) -> Result<Self, InvalidCredential> {
        let token = text.trim_end_matches(['\r', '\n']);
        let legal = (1..=MAX_CREDENTIAL).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !legal {
            return Err(InvalidCredential);
        }
        let scheme = "Bearer ";
        // Room for all of it at once: a string that grows leaves copies behind.
        let room = scheme.len().saturating_add(token.len());
        let mut value = Zeroizing::new(String::with_capacity(room));
        value.push_str(scheme);
        value.push_str(token);
        Ok(Self(value))
    }

    /// The `user:password` in the text of a file, for a proxy (RFC 7617); the last line break does not
    /// count.
    ///
    /// # Errors
    /// [`InvalidLogin`].
    pub(crate) fn basic_from_file_text(text: &str) -> Result<Self, InvalidLogin> {
        let login = text.trim_end_matches(['\r', '\n']);
        let legal = login.len() <= MAX_CREDENTIAL
            && login.contains(':')
            && !login.chars().any(char::is_control);
        if !legal {
            return Err(InvalidLogin);
        }
        let scheme = "Basic ";
        let encoded = base64::encoded_len(login.len(), true).unwrap_or_default();
        let mut value = Zeroizing::new(String::with_capacity(scheme.len().saturating_add(encoded)));
        value.push_str(scheme);
        STANDARD.encode_string(login, &mut value);
        Ok(Self(value))
    }

    pub(crate) fn as_field_value(&self) -> &str {
        &self.0
    }

    /// The same for a field outside the seal.
    pub(crate) fn to_header(&self) -> Result<HeaderValue, http::Error> {
        let mut value = HeaderValue::try_from(self.as_field_value())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A text that is no user with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy's credential is one line of at most {MAX_CREDENTIAL} bytes: user:password")]
pub(crate) struct InvalidLogin;

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line() {
        let cases = [
            ("token\n", Some("Bearer token")),
            ("a b", None),
            ("", None),
            ("\n", None),
        ];
        for (text, value) in cases {
            let credential = Credential::from_file_text(text).ok();
            assert_eq!(
                credential.as_ref().map(Credential::as_field_value),
                value,
                "{text:?}"
            );
        }
        let cases = [
            // RFC 7617 section 2.
            (
                "Aladdin:open sesame\n",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
            ("test:123\u{a3}\r\n", Some("Basic dGVzdDoxMjPCow==")),
            ("user:", Some("Basic dXNlcjo=")),
            ("user", None),
            ("user:pass\nword", None),
            ("", None),
        ];
        for (text, value) in cases {
            let credential = Credential::basic_from_file_text(text).ok();
            let seen = credential.as_ref().map(Credential::as_field_value);
            assert_eq!(seen, value, "{text:?}");
        }
        let shown = format!("{:?}", Credential::from_file_text("token").unwrap());
        assert_eq!(shown, "Credential(..)");
    }
}
