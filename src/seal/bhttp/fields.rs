//! Field lines whose names and values are known to be well-formed.

use std::fmt;

use super::FormError;

/// The fields of one section, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field of this name, which must be written in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn push(&mut self, name: String, value: Vec<u8>) -> Result<(), FormError> {
        let value = String::from_utf8(value).map_err(|_| FormError::FieldValue)?;
        if !is_value(&value) {
            return Err(FormError::FieldValue);
        }
        self.0.push((name, value));
        Ok(())
    }

    /// Takes the value of `name` out.
    pub(in crate::seal) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(have, _)| have == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Refuses a second field of any name that `single` names.
    pub(in crate::seal) fn once(&self, single: impl Fn(&str) -> bool) -> Result<(), FormError> {
        let mut names: Vec<&str> = self
            .iter()
            .map(|(name, _)| name)
            .filter(|name| single(name))
            .collect();
        names.sort_unstable();
        let repeated = names
            .windows(2)
            .any(|pair| matches!(pair, [one, two] if one == two));
        if repeated {
            Err(FormError::RepeatedField)
        } else {
            Ok(())
        }
    }
}

/// Names only: a value can be a credential.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

/// A token (RFC 9110 section 5.6.2) in which letters are in lower case.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| !byte.is_ascii_uppercase() && is_token_byte(*byte))
}

/// A token in letters of any case.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// A field value (RFC 9110 section 5.5): no control character but the tab, no outer blank.
pub(super) fn is_value(value: &str) -> bool {
    let outer = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !outer(bytes.first())
        && !outer(bytes.last())
        && bytes
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
