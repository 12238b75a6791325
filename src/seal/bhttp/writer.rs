//! Messages as the two roles write them: requests with known lengths, responses without.

use super::{
    MAX_FIELD_BYTES, MAX_TRAILER_BYTES,
    fields::{is_name, is_value},
};
use crate::seal::{error::SealError, varint};

/// Framing indicator of a request with known lengths.
const REQUEST_KNOWN_LENGTH: u8 = 0;
/// Framing indicator of a response with indeterminate lengths.
const RESPONSE_INDETERMINATE: u8 = 3;

/// Name of the field that fills an informational response.
const FILLING: &str = "sealgate-filling";

/// Takes the bytes of a message one after another.
pub(in crate::seal) trait Put {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SealError>;
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Counts what the same writing would take up.
struct Count(usize);

impl Put for Count {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        self.0 = self.0.checked_add(bytes.len()).ok_or(SealError::Length)?;
        Ok(())
    }
}

/// The length of what `write` writes.
pub(in crate::seal) fn count(
    write: impl FnOnce(&mut dyn Put) -> Result<(), SealError>,
) -> Result<usize, SealError> {
    let mut count = Count(0);
    write(&mut count)?;
    Ok(count.0)
}

/// A whole request but its padding: `POST`, `https`, no authority.
pub(in crate::seal) fn request(
    out: &mut dyn Put,
    path: &str,
    fields: &[(&str, &str)],
    content: &[u8],
) -> Result<(), SealError> {
    if path.is_empty() || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SealError::Malformed("path"));
    }
    out.put(&[REQUEST_KNOWN_LENGTH])?;
    for text in ["POST", "https", "", path] {
        put_counted(out, text.as_bytes())?;
    }
    put_integer(out, count(|out| put_fields(out, fields, MAX_FIELD_BYTES))?)?;
    put_fields(out, fields, MAX_FIELD_BYTES)?;
    put_counted(out, content)?;
    put_zero(out)
}

/// A response up to its content.
pub(in crate::seal) fn put_response_head(
    out: &mut dyn Put,
    status: u16,
    fields: &[(&str, &str)],
) -> Result<(), SealError> {
    out.put(&[RESPONSE_INDETERMINATE])?;
    put_final_head(out, status, fields)
}

/// What a response begins with.
pub(in crate::seal) fn put_framing(out: &mut Vec<u8>) {
    out.push(RESPONSE_INDETERMINATE);
}

/// Status and fields of the final response.
pub(in crate::seal) fn put_final_head(
    out: &mut dyn Put,
    status: u16,
    fields: &[(&str, &str)],
) -> Result<(), SealError> {
    if !(200..600).contains(&status) {
        return Err(SealError::Malformed("status"));
    }
    put_integer(out, usize::from(status))?;
    put_fields(out, fields, MAX_FIELD_BYTES)?;
    put_zero(out)
}

/// An informational response of `len` bytes, which readers pass over (RFC 9292 section 3.5.1). Its one
/// field is as long as that takes, and counted in the two-byte form.
pub(in crate::seal) fn put_informational(
    out: &mut Vec<u8>,
    status: u16,
    len: usize,
) -> Result<(), SealError> {
    let begin = out.len();
    put_integer(out, usize::from(status))?;
    put_counted(out, FILLING.as_bytes())?;
    let taken = out.len().saturating_sub(begin);
    // The integer before the value, and the end of the section.
    let value = len.checked_sub(taken).and_then(|left| left.checked_sub(3));
    let value = value.filter(|value| (64..16_384).contains(value));
    let value = value.ok_or(SealError::Length)?;
    put_integer(out, value)?;
    out.resize(out.len().saturating_add(value), b'0');
    put_zero(out)
}

/// One chunk of content, and none where there is none: an empty chunk would end the content.
pub(in crate::seal) fn put_content(out: &mut dyn Put, content: &[u8]) -> Result<(), SealError> {
    if content.is_empty() {
        Ok(())
    } else {
        put_counted(out, content)
    }
}

/// Field lines, without the end of their section.
pub(in crate::seal) fn put_fields(
    out: &mut dyn Put,
    fields: &[(&str, &str)],
    max: usize,
) -> Result<(), SealError> {
    let mut left = max;
    for (name, value) in fields {
        if !is_name(name.as_bytes()) || !is_value(value) {
            return Err(SealError::Malformed("field"));
        }
        let line = name.len().saturating_add(value.len());
        left = left.checked_sub(line).ok_or(match max {
            MAX_TRAILER_BYTES => SealError::TrailersTooLong { max },
            _ => SealError::Malformed("field section"),
        })?;
        put_counted(out, name.as_bytes())?;
        put_counted(out, value.as_bytes())?;
    }
    Ok(())
}

/// The end of a section or of the content, or a section that is empty.
pub(in crate::seal) fn put_zero(out: &mut dyn Put) -> Result<(), SealError> {
    out.put(&[0])
}

fn put_counted(out: &mut dyn Put, bytes: &[u8]) -> Result<(), SealError> {
    put_integer(out, bytes.len())?;
    out.put(bytes)
}

fn put_integer(out: &mut dyn Put, value: usize) -> Result<(), SealError> {
    out.put(varint::encode(value).ok_or(SealError::Length)?.as_bytes())
}
