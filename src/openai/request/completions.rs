//! The members of `POST /v1/completions`.

use serde_json::value::RawValue;

use super::{
    RequestError, Seen,
    members::{self as check, FROM_0, FROM_1},
    sampling,
};

/// Checks a member that is not null, and says whether the contract names it.
pub(super) fn member(seen: &mut Seen, name: &str, value: &RawValue) -> Result<bool, RequestError> {
    match name {
        "max_tokens" => seen.max_tokens = Some(check::integer("max_tokens", value, 0, FROM_0)?),
        "best_of" => seen.best_of = Some(check::integer("best_of", value, 1, FROM_1)?),
        "echo" => drop(check::boolean("echo", value)?),
        "logprobs" => check::alternatives("logprobs", value)?,
        "suffix" => check::string("suffix", value)?,
        _ => return sampling::member(seen, name, value),
    }
    Ok(true)
}
