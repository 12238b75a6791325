//! The members of `POST /v1/embeddings`, but for its input.

use serde_json::value::RawValue;

use super::{
    Encoding, RequestError, Seen,
    members::{self as check, FROM_1},
};

/// Checks a member that is not null, and says whether the contract names it.
pub(super) fn member(seen: &mut Seen, name: &str, value: &RawValue) -> Result<bool, RequestError> {
    match name {
        "stream" => seen.stream = Some(check::boolean("stream", value)?),
        "dimensions" => seen.dimensions = Some(check::integer("dimensions", value, 1, FROM_1)?),
        "encoding_format" => {
            let choices = [("float", Encoding::Float), ("base64", Encoding::Base64)];
            seen.encoding = Some(check::one_of(
                "encoding_format",
                value,
                choices,
                "float or base64",
            )?);
        }
        "user" => check::string("user", value)?,
        _ => return Ok(false),
    }
    Ok(true)
}
