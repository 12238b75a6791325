//! Lists of models: the gateway's own, and what an engine says of itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::{self, Text};

/// Longest model id taken from an engine, in bytes.
const MAX_ID: usize = super::MAX_MODEL;

/// Most models taken from an engine (as many as a node's statement may name).
pub const MAX_MODELS: usize = 256;

/// One model, as `GET /v1/models/{id}` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model<'a> {
    /// The name that a request gives.
    pub id: &'a str,
    object: &'static str,
    /// Since when it is served, in seconds since the Unix epoch.
    pub created: u64,
    /// Who answers for it.
    pub owned_by: &'a str,
}

impl<'a> Model<'a> {
    /// A model.
    #[must_use]
    pub const fn new(id: &'a str, created: u64, owned_by: &'a str) -> Self {
        Self {
            id,
            object: "model",
            created,
            owned_by,
        }
    }

    /// The reply's body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::to_line(self).into()
    }
}

/// All models, as `GET /v1/models` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList<'a> {
    object: &'static str,
    /// The models, in the order shown.
    pub data: Vec<Model<'a>>,
}

impl<'a> ModelList<'a> {
    /// A list.
    #[must_use]
    pub const fn new(data: Vec<Model<'a>>) -> Self {
        Self {
            object: "list",
            data,
        }
    }

    /// The reply's body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::to_line(self).into()
    }
}

/// An engine's list of models that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelsError {
    /// Not the JSON of a list of models.
    #[error("the engine's list of models is not one")]
    Malformed,
    /// A name that no statement can hold.
    #[error("a model's id is not 1 to {MAX_ID} characters of visible ASCII")]
    Id,
    /// More than [`MAX_MODELS`].
    #[error("the engine lists over {MAX_MODELS} models")]
    TooMany,
}

/// Reads the ids in an engine's reply to `GET /v1/models`, each once, in its order.
///
/// # Errors
/// [`ModelsError`] if the reply is none, or names what a statement cannot hold.
pub fn engine_models(reply: &[u8]) -> Result<Vec<String>, ModelsError> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        data: Vec<Entry<'a>>,
    }
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        id: Text<'a>,
    }
    let list: List<'_> = serde_json::from_slice(reply).map_err(|_| ModelsError::Malformed)?;
    if list.data.len() > MAX_MODELS {
        return Err(ModelsError::TooMany);
    }
    let mut ids = Vec::with_capacity(list.data.len());
    for Entry { id: Text(id) } in list.data {
        let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_ID).contains(&id.len()) {
            return Err(ModelsError::Id);
        }
        if !ids.iter().any(|known| *known == id) {
            ids.push(id.into_owned());
        }
    }
    Ok(ids)
}

/// Whether a reply to `GET /v1/models` says that `owner` owns some model.
#[must_use]
pub fn has_owner(reply: &[u8], owner: &str) -> bool {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        data: Vec<Entry<'a>>,
    }
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, default)]
        owned_by: Option<Text<'a>>,
    }
    let list: Result<List<'_>, _> = serde_json::from_slice(reply);
    list.is_ok_and(|list| {
        let mut owners = list.data.into_iter().filter_map(|entry| entry.owned_by);
        owners.any(|Text(owned_by)| owned_by == owner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_written_as_openai_does() {
        let model = Model::new("meta/llama\"x", 7, "node-1");
        let one = r#"{"id":"meta/llama\"x","object":"model","created":7,"owned_by":"node-1"}"#;
        assert_eq!(model.to_json(), one);
        let list = format!(r#"{{"object":"list","data":[{one}]}}"#);
        assert_eq!(ModelList::new(vec![model]).to_json(), list);
        assert_eq!(
            ModelList::new(vec![]).to_json(),
            r#"{"object":"list","data":[]}"#
        );
    }

    #[test]
    fn engines_lists_are_read() {
        let llama = r#"{"models":[{"name":"tiny","capabilities":["completion"]}],"object":"list",
            "data":[{"id":"tiny","object":"model","created":1763000000,"owned_by":"llamacpp",
            "meta":{"n_vocab":1026,"n_ctx_train":32768}}]}"#;
        assert_eq!(engine_models(llama.as_bytes()), Ok(vec!["tiny".to_owned()]));
        let vllm = r#"{"object":"list","data":[{"id":"a/b","object":"model","permission":[{"id":"x"}],
            "root":"./a","max_model_len":32768},{"id":"lora","parent":"a/b"},{"id":"a/b"}]}"#;
        assert_eq!(
            engine_models(vllm.as_bytes()),
            Ok(vec!["a/b".to_owned(), "lora".to_owned()])
        );
        assert_eq!(engine_models(br#"{"data":[]}"#), Ok(vec![]));
    }

    #[test]
    fn owners_are_read() {
        let cases = [
            (r#"{"data":[{"id":"a","owned_by":"vllm"}]}"#, true),
            (
                r#"{"data":[{"id":"b"},{"id":"a","owned_by":"v\u006clm"}]}"#,
                true,
            ),
            (r#"{"data":[{"id":"a","owned_by":"llamacpp"}]}"#, false),
            (r#"{"data":[{"id":"vllm","owned_by":null}]}"#, false),
            (r#"{"data":[]}"#, false),
            ("vllm", false),
        ];
        for (reply, expected) in cases {
            assert_eq!(has_owner(reply.as_bytes(), "vllm"), expected, "{reply}");
        }
    }

    #[test]
    fn other_replies_are_refused() {
        let many = format!(
            r#"{{"data":[{}]}}"#,
            vec![r#"{"id":"m"}"#; MAX_MODELS + 1].join(",")
        );
        let long = format!(r#"{{"data":[{{"id":"{}"}}]}}"#, "m".repeat(MAX_ID + 1));
        let cases = [
            ("", ModelsError::Malformed),
            ("[]", ModelsError::Malformed),
            ("{}", ModelsError::Malformed),
            (r#"{"data":[{}]}"#, ModelsError::Malformed),
            (r#"{"data":[{"id":5}]}"#, ModelsError::Malformed),
            (r#"{"error":{"message":"no"}}"#, ModelsError::Malformed),
            (r#"{"data":[{"id":""}]}"#, ModelsError::Id),
            (r#"{"data":[{"id":"a b"}]}"#, ModelsError::Id),
            (r#"{"data":[{"id":"modèle"}]}"#, ModelsError::Id),
            (&long, ModelsError::Id),
            (&many, ModelsError::TooMany),
        ];
        for (reply, expected) in cases {
            assert_eq!(
                engine_models(reply.as_bytes()),
                Err(expected),
                "{reply:.60}"
            );
        }
    }
}
