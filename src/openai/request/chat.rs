//! The members of `POST /v1/chat/completions`, but for its messages.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    RequestError, Seen,
    members::{self as check, FROM_1},
    sampling,
};
use crate::openai::json::Text;

/// Checks a member that is not null, and says whether the contract names it.
pub(super) fn member(seen: &mut Seen, name: &str, value: &RawValue) -> Result<bool, RequestError> {
    match name {
        "max_tokens" => seen.max_tokens = Some(check::integer("max_tokens", value, 1, FROM_1)?),
        "max_completion_tokens" => {
            let most = check::integer("max_completion_tokens", value, 1, FROM_1)?;
            seen.max_completion_tokens = Some(most);
        }
        "logprobs" => seen.logprobs = check::boolean("logprobs", value)?,
        "top_logprobs" => {
            check::alternatives("top_logprobs", value)?;
            seen.top_logprobs = value.get() != "0";
        }
        "tools" => tools(value)?,
        "tool_choice" => string_or_typed("tool_choice", value)?,
        "parallel_tool_calls" => drop(check::boolean("parallel_tool_calls", value)?),
        "response_format" => typed("response_format", value)?,
        "reasoning_effort" => check::string("reasoning_effort", value)?,
        _ => return sampling::member(seen, name, value),
    }
    Ok(true)
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    r#type: Text<'a>,
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

/// An object with a `type`, which says what else is in it.
fn typed(param: &'static str, value: &RawValue) -> Result<(), RequestError> {
    check::no_duplicates(param, value)?;
    check::object::<Typed<'_>>(param, value, "an object with a `type`").map(drop)
}

fn string_or_typed(param: &'static str, value: &RawValue) -> Result<(), RequestError> {
    if value.get().starts_with('"') {
        return Ok(());
    }
    check::no_duplicates(param, value)?;
    let expected = "a string, or an object with a `type`";
    check::object::<Typed<'_>>(param, value, expected).map(drop)
}

/// The tools that the model may call: functions have a name.
fn tools(value: &RawValue) -> Result<(), RequestError> {
    #[derive(Deserialize)]
    struct Function<'a> {
        #[serde(borrow, rename = "name")]
        _name: Text<'a>,
    }
    check::no_duplicates("tools", value)?;
    for (index, tool) in check::array("tools", value, "an array of tools")?
        .iter()
        .enumerate()
    {
        let at = format!("tools[{index}]");
        let tool: Typed<'_> = check::object(&at, tool, "an object with a `type`")?;
        if tool.r#type.0 == "function" {
            let at = format!("{at}.function");
            let expected = "an object with a `name`";
            let function = tool
                .function
                .ok_or_else(|| RequestError::invalid(at.clone(), expected))?;
            check::object::<Function<'_>>(&at, function, expected)?;
        }
    }
    Ok(())
}
