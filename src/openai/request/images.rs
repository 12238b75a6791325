//! The members of `POST /v1/images/generations`, but for its prompt.

use serde_json::value::RawValue;

use super::{
    Encoding, RequestError, Seen,
    members::{self as check, scalar},
};

/// Most images of one request.
pub(in crate::openai) const MAX_IMAGES: u32 = 10;

/// Checks a member that is not null, and says whether the contract names it.
pub(super) fn member(seen: &mut Seen, name: &str, value: &RawValue) -> Result<bool, RequestError> {
    match name {
        "stream" => seen.stream = Some(check::boolean("stream", value)?),
        "n" => {
            const EXPECTED: &str = "an integer from 1 to 10";
            let n = check::integer("n", value, 1, EXPECTED)?;
            if n > MAX_IMAGES {
                return Err(RequestError::invalid("n", EXPECTED));
            }
            seen.n = Some(n);
        }
        "response_format" => {
            let choices = [("b64_json", Encoding::Base64), ("url", Encoding::Url)];
            seen.encoding = Some(check::one_of(
                "response_format",
                value,
                choices,
                "b64_json or url",
            )?);
        }
        "size" => size(value)?,
        "quality" => check::string("quality", value)?,
        "style" => check::string("style", value)?,
        "user" => check::string("user", value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// `auto`, or width and height in pixels, such as `1024x1024`.
fn size(value: &RawValue) -> Result<(), RequestError> {
    const EXPECTED: &str = "`auto`, or width and height such as `1024x1024`";
    let text: String = scalar("size", value, EXPECTED)?;
    let pixels = |text: &str| {
        let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits && !text.starts_with('0')
    };
    let is_size = text
        .split_once('x')
        .is_some_and(|(width, height)| pixels(width) && pixels(height));
    if is_size || text == "auto" {
        Ok(())
    } else {
        Err(RequestError::invalid("size", EXPECTED))
    }
}
