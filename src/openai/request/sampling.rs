//! Members that steer how a text is made, the same for prompts and conversations.

use serde_json::value::RawValue;

use super::{
    RequestError, Seen,
    members::{self as check, FROM_1},
};

const PENALTY: &str = "a number from -2 to 2";

/// Checks a member that is not null, and says whether it is one of these.
pub(super) fn member(seen: &mut Seen, name: &str, value: &RawValue) -> Result<bool, RequestError> {
    match name {
        "stream" => seen.stream = Some(check::boolean("stream", value)?),
        "stream_options" => seen.stream_options = Some(check::stream_options(value)?),
        "n" => seen.n = Some(check::integer("n", value, 1, FROM_1)?),
        "temperature" => check::number("temperature", value, 0.0..=2.0, "a number from 0 to 2")?,
        "top_p" => check::number("top_p", value, 0.0..=1.0, "a number from 0 to 1")?,
        "frequency_penalty" => check::number("frequency_penalty", value, -2.0..=2.0, PENALTY)?,
        "presence_penalty" => check::number("presence_penalty", value, -2.0..=2.0, PENALTY)?,
        "seed" => check::seed(value)?,
        "logit_bias" => check::logit_bias(value)?,
        "stop" => check::stop(value)?,
        "user" => check::string("user", value)?,
        _ => return Ok(false),
    }
    Ok(true)
}
