//! The members of a request that steer what is echoed.

use serde::Deserialize;

use crate::openai::{Endpoint, RequestError, json::Text};

/// What is to be echoed, and how.
pub(super) struct Wanted {
    /// One for each input.
    pub(super) prompts: Vec<Prompt>,
    /// Whether the prompt stands before the answer.
    pub(super) echo: bool,
    pub(super) with_logprobs: bool,
    pub(super) stops: Vec<String>,
}

/// One input.
pub(super) struct Prompt {
    /// What the answer repeats.
    pub(super) text: String,
    /// What is read beside it: the rest of a conversation.
    pub(super) read: String,
}

#[derive(Deserialize)]
struct TextMembers<'a> {
    #[serde(borrow)]
    prompt: Input<'a>,
    echo: Option<bool>,
    logprobs: Option<u8>,
    #[serde(borrow)]
    stop: Option<Stop<'a>>,
}

#[derive(Deserialize)]
struct ChatMembers<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    logprobs: Option<bool>,
    #[serde(borrow)]
    stop: Option<Stop<'a>>,
}

#[derive(Deserialize)]
struct EmbeddingMembers<'a> {
    #[serde(borrow)]
    input: Input<'a>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Texts(#[serde(borrow)] Vec<Text<'a>>),
    Tokens(Vec<u32>),
    TokenArrays(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop<'a> {
    One(#[serde(borrow)] Text<'a>),
    Some(#[serde(borrow)] Vec<Text<'a>>),
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow)]
    content: Option<Content<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Parts(#[serde(borrow)] Vec<Part<'a>>),
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
}

/// Reads the body of a request that was checked.
///
/// # Errors
/// [`RequestError`] if a member has a form that this engine does not know.
pub(super) fn read(endpoint: Endpoint, body: &[u8]) -> Result<Wanted, RequestError> {
    let unknown = |_| RequestError::InvalidJson;
    Ok(match endpoint {
        Endpoint::ChatCompletions => {
            let members: ChatMembers<'_> = serde_json::from_slice(body).map_err(unknown)?;
            Wanted {
                prompts: vec![conversation(members.messages)],
                echo: false,
                with_logprobs: members.logprobs == Some(true),
                stops: stops(members.stop),
            }
        }
        _ => {
            let members: TextMembers<'_> = serde_json::from_slice(body).map_err(unknown)?;
            Wanted {
                prompts: texts(members.prompt).into_iter().map(alone).collect(),
                echo: members.echo == Some(true),
                with_logprobs: members.logprobs.is_some(),
                stops: stops(members.stop),
            }
        }
    })
}

/// The texts that are to be embedded.
///
/// # Errors
/// [`RequestError`] if the input has a form that this engine does not know.
pub(super) fn inputs(body: &[u8]) -> Result<Vec<String>, RequestError> {
    let members: EmbeddingMembers<'_> =
        serde_json::from_slice(body).map_err(|_| RequestError::InvalidJson)?;
    Ok(texts(members.input))
}

fn alone(text: String) -> Prompt {
    Prompt {
        text,
        read: String::new(),
    }
}

/// The last message of the user is repeated; the others are read.
fn conversation(messages: Vec<Message<'_>>) -> Prompt {
    let mut prompt = alone(String::new());
    let last = messages
        .iter()
        .rposition(|message| message.role.0 == "user");
    for (at, message) in messages.into_iter().enumerate() {
        let to = if Some(at) == last {
            &mut prompt.text
        } else {
            prompt.read.push(' ');
            &mut prompt.read
        };
        match message.content {
            None => {}
            Some(Content::Text(text)) => to.push_str(&text.0),
            Some(Content::Parts(parts)) => {
                to.extend(
                    parts
                        .into_iter()
                        .filter_map(|part| part.text)
                        .map(|it| it.0),
                );
            }
        }
    }
    prompt
}

fn texts(input: Input<'_>) -> Vec<String> {
    let numbers = |tokens: Vec<u32>| {
        tokens
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    match input {
        Input::Text(text) => vec![text.0.into_owned()],
        Input::Texts(texts) => texts.into_iter().map(|text| text.0.into_owned()).collect(),
        Input::Tokens(tokens) => vec![numbers(tokens)],
        Input::TokenArrays(arrays) => arrays.into_iter().map(numbers).collect(),
    }
}

fn stops(stop: Option<Stop<'_>>) -> Vec<String> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Some(stops)) => stops,
    };
    stops
        .into_iter()
        .map(|stop| stop.0.into_owned())
        .filter(|stop| !stop.is_empty())
        .collect()
}
