//! A bearer token: the sealer's own with a node, or a client's with a gateway.

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

/// Longest credential, in bytes.
const MAX_CREDENTIAL: usize = 4096;

/// The value of an `authorization` field: `Bearer` and a token.
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
        let shown = format!("{:?}", Credential::from_file_text("token").unwrap());
        assert_eq!(shown, "Credential(..)");
    }
}
