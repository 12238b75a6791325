//! The messages of a conversation.
//!
//! Roles, the shape of contents and the parts that every model reads are checked; what else a part,
//! a tool's call or a member that the contract does not name holds is the engine's to judge.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{RequestError, members as check};
use crate::openai::json::Text;

/// Who can have said a message.
pub(in crate::openai) const ROLES: [&str; 6] = [
    "developer",
    "system",
    "user",
    "assistant",
    "tool",
    "function",
];
const ROLE: &str = "developer, system, user, assistant, tool or function";
const CONTENT: &str = "a string, or an array, not empty, of parts with a `type`";
/// Parts that stand for something else than their bytes say; engines take text under many other names.
const MEDIA: [&str; 9] = [
    "image_url",
    "input_image",
    "image",
    "input_audio",
    "audio_url",
    "audio",
    "video_url",
    "video",
    "file",
];
const CALLS: &str = "an array of objects with a `type`";

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_call_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ImageUrl<'a> {
    #[serde(borrow, rename = "url")]
    _url: Text<'a>,
}

/// Checks the messages, and gives the bytes of what is no text in them.
pub(super) fn check(value: &RawValue) -> Result<usize, RequestError> {
    const EXPECTED: &str = "an array, not empty, of messages";
    check::no_duplicates("messages", value)?;
    let messages = check::array("messages", value, EXPECTED)?;
    if messages.is_empty() {
        return Err(RequestError::invalid("messages", EXPECTED));
    }
    let mut other_bytes = 0_usize;
    for (index, value) in messages.into_iter().enumerate() {
        let more = message(&format!("messages[{index}]"), value)?;
        other_bytes = other_bytes.saturating_add(more);
    }
    Ok(other_bytes)
}

fn message(at: &str, value: &RawValue) -> Result<usize, RequestError> {
    let message: Message<'_> = check::object(at, value, "a message")?;
    let role: Option<Text<'_>> = message
        .role
        .and_then(|role| serde_json::from_str(role.get()).ok());
    let role = role.filter(|role| ROLES.contains(&role.0.as_ref()));
    let role = role.ok_or_else(|| RequestError::invalid(format!("{at}.role"), ROLE))?;
    if let Some(calls) = message.tool_calls {
        parts(&format!("{at}.tool_calls"), calls, CALLS)?;
    }
    let is_text = |value: &RawValue| value.get().starts_with('"');
    if role.0 == "tool" && !message.tool_call_id.is_some_and(is_text) {
        let param = format!("{at}.tool_call_id");
        return Err(RequestError::invalid(
            param,
            "the id of the call that it answers",
        ));
    }
    let param = || format!("{at}.content");
    match message.content {
        Some(content) if content.get().starts_with('"') => Ok(0),
        // What an assistant said may have been calls alone; so may a function's result be nothing.
        None => match role.0.as_ref() {
            "assistant" | "function" => Ok(0),
            _ => Err(RequestError::invalid(param(), CONTENT)),
        },
        Some(content) => match parts(&param(), content, CONTENT)? {
            (0, _) => Err(RequestError::invalid(param(), CONTENT)),
            (_, other_bytes) => Ok(other_bytes),
        },
    }
}

/// Checks an array of objects that say their type, counts them, and gives the bytes of those that are no text.
fn parts(
    at: &str,
    value: &RawValue,
    expected: &'static str,
) -> Result<(usize, usize), RequestError> {
    let parts = check::array(at, value, expected)?;
    let mut other_bytes = 0_usize;
    for (index, part) in parts.iter().enumerate() {
        let bytes = part.get().len();
        let at = format!("{at}[{index}]");
        let part: Part<'_> = check::object(&at, part, "an object with a `type`")?;
        // A text in such a part counts as one.
        if MEDIA.contains(&part.kind.0.as_ref()) {
            let text = part.text.map_or(0, |text| text.get().len());
            let bytes = bytes.saturating_sub(text);
            other_bytes = other_bytes.saturating_add(bytes);
        }
        match part.kind.0.as_ref() {
            "text" if !part.text.is_some_and(|text| text.get().starts_with('"')) => {
                return Err(RequestError::invalid(format!("{at}.text"), "a string"));
            }
            "image_url" => {
                const EXPECTED: &str = "an object with a `url`";
                let at = format!("{at}.image_url");
                let image = part
                    .image_url
                    .ok_or_else(|| RequestError::invalid(at.clone(), EXPECTED))?;
                check::object::<ImageUrl<'_>>(&at, image, EXPECTED)?;
            }
            _ => {}
        }
    }
    Ok((parts.len(), other_bytes))
}
