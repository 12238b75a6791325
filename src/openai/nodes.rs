//! The JSON of the nodes' own paths: announcements, locks, lists, and the outside of what is sealed
//! in the seed's format.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    MAX_MODEL, RequestError,
    json::{self, Members},
    request::members_of,
};

/// Largest whole number that every client's JSON holds exactly (RFC 8259 section 6).
pub const MAX_SAFE: u64 = (1 << 53) - 1;
/// Longest address of a node, in characters.
pub(super) const MAX_ADDRESS: usize = 512;

/// A node's announcement of itself.
///
/// Only where it is counts: who it is, its evidence says. What the seed's nodes send beside it, a
/// signature among it, is read past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where it says that it is.
    pub public_address: String,
}

/// What is asked of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The model.
    pub model: String,
    /// Tokens to hold capacity for.
    pub max_num_tokens: Option<u64>,
    /// How long the lock waits for its request, in seconds.
    pub timeout_s: Option<u64>,
}

/// What stands outside the seal of a request in the seed's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfidentialRequest {
    /// The lock.
    pub stack_small_id: u64,
    /// The model.
    pub model: String,
    /// The node's public key.
    pub node_key: [u8; 32],
    /// Whether the reply is to be an event stream.
    pub stream: bool,
}

impl Announcement {
    /// Reads an announcement.
    ///
    /// # Errors
    /// [`RequestError`] names the member that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        const ADDRESS: &str = "data.public_address";
        const EXPECTED: &str = "a string of 1 to 512 characters";
        let outer = members_of(body)?;
        let data = find(&outer, "data").ok_or(RequestError::invalid("data", "an object"))?;
        if !data.get().starts_with('{') {
            return Err(RequestError::invalid("data", "an object"));
        }
        let inner = members_of(data.get().as_bytes())?;
        let address = find(&inner, "public_address");
        let address = address.ok_or(RequestError::invalid(ADDRESS, EXPECTED))?;
        optional::<u64>(&inner, "node_small_id", "a whole number")?;
        optional::<String>(&inner, "country", "a string")?;
        optional::<String>(&outer, "signature", "a string")?;
        Ok(Self {
            public_address: string(ADDRESS, address, MAX_ADDRESS, EXPECTED)?,
        })
    }
}

impl LockRequest {
    /// Reads what is asked.
    ///
    /// # Errors
    /// [`RequestError`] names the member that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        const EXPECTED: &str = "a whole number from 1";
        let members = members_of(body)?;
        let positive = |name| match optional::<u64>(&members, name, EXPECTED)? {
            Some(0) => Err(RequestError::invalid(name, EXPECTED)),
            given => Ok(given),
        };
        Ok(Self {
            model: model("model", &members)?,
            max_num_tokens: positive("max_num_tokens")?,
            timeout_s: positive("timeout")?,
        })
    }
}

impl ConfidentialRequest {
    /// Reads what stands outside the seal; the rest is the node's.
    ///
    /// # Errors
    /// [`RequestError`] names the member that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        const ID: &str = "stack_small_id";
        const KEY: &str = "node_dh_public_key";
        const EXPECTED_KEY: &str = "32 bytes in base64";
        let members = members_of(body)?;
        let id = optional::<u64>(&members, ID, "a whole number")?;
        let key = find(&members, KEY).ok_or(RequestError::invalid(KEY, EXPECTED_KEY))?;
        let key = string(KEY, key, 64, EXPECTED_KEY)?;
        let key = BASE64_STANDARD.decode(key).ok();
        Ok(Self {
            stack_small_id: id.ok_or(RequestError::invalid(ID, "a whole number"))?,
            model: model("model_name", &members)?,
            node_key: key
                .and_then(|key| key.try_into().ok())
                .ok_or(RequestError::invalid(KEY, EXPECTED_KEY))?,
            stream: optional(&members, "stream", "true or false")?.unwrap_or(false),
        })
    }
}

fn find<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    let mut entries = members.entries.iter();
    let (_, value) = entries.find(|(known, _)| known == name)?;
    Some(value).filter(|value| value.get() != "null").copied()
}

fn optional<T: DeserializeOwned>(
    members: &Members<'_>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, RequestError> {
    let read = |value: &RawValue| {
        serde_json::from_str(value.get()).map_err(|_| RequestError::invalid(name, expected))
    };
    find(members, name).map(read).transpose()
}

fn string(
    name: &'static str,
    value: &RawValue,
    max: usize,
    expected: &'static str,
) -> Result<String, RequestError> {
    let text: String =
        serde_json::from_str(value.get()).map_err(|_| RequestError::invalid(name, expected))?;
    if (1..=max).contains(&text.chars().count()) {
        Ok(text)
    } else {
        Err(RequestError::invalid(name, expected))
    }
}

fn model(name: &'static str, members: &Members<'_>) -> Result<String, RequestError> {
    const EXPECTED: &str = "a string of 1 to 256 characters";
    let value = find(members, name).ok_or(RequestError::invalid(name, EXPECTED))?;
    string(name, value, MAX_MODEL, EXPECTED)
}

/// A lock that was given, in the seed's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lock {
    public_key: String,
    node_small_id: u64,
    stack_entry_digest: (),
    stack_small_id: u64,
}

impl Lock {
    /// A lock on the node that holds `key`.
    #[must_use]
    pub fn new(key: &[u8; 32], node_small_id: u64, stack_small_id: u64) -> Self {
        Self {
            public_key: BASE64_STANDARD.encode(key),
            node_small_id,
            stack_entry_digest: (),
            stack_small_id,
        }
    }

    /// The reply's body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::to_line(self).into()
    }
}

/// A verified node, as `GET /v1/nodes` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedNode<'a> {
    /// Its id.
    pub id: &'a str,
    /// Always `node`.
    pub object: &'static str,
    /// The same as a number.
    pub node_small_id: u64,
    /// `configured` or `announced`.
    pub origin: &'static str,
    /// What it serves.
    pub models: Vec<&'a str>,
    /// The kind of machine.
    pub tee: &'a str,
    /// Who vouches for it.
    pub root: &'a str,
    /// What can be sealed to it with, the better ones first.
    pub suites: Vec<&'static str>,
    /// The statement's digest in hex.
    pub statement: &'a str,
    /// When its evidence was judged, in Unix seconds.
    pub verified_at: u64,
    /// When that ends, in Unix seconds.
    pub expires_at: u64,
}

/// All verified nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeList<'a> {
    object: &'static str,
    /// The nodes, in the order shown.
    pub data: Vec<ListedNode<'a>>,
}

impl<'a> NodeList<'a> {
    /// A list.
    #[must_use]
    pub const fn new(data: Vec<ListedNode<'a>>) -> Self {
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

/// A text that is no list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no list of nodes")]
pub struct MalformedList;

/// A node of a list that somebody else gave: a hint, and nothing to rest on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SaidNode {
    /// Its id.
    pub id: String,
    /// What it serves.
    pub models: Vec<String>,
    /// What can be sealed to it with; empty where the list does not tell.
    #[serde(default)]
    pub suites: Vec<String>,
}

/// The nodes in a list that serve `model`, in the order of the list.
///
/// # Errors
/// [`MalformedList`].
pub fn serving(list: &[u8], model: &str) -> Result<Vec<SaidNode>, MalformedList> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<SaidNode>,
    }
    let mut list: List = serde_json::from_slice(list).map_err(|_| MalformedList)?;
    list.data.retain(|node| {
        let mut models = node.models.iter();
        models.any(|served| served == model)
    });
    Ok(list.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(error: &RequestError) -> Option<String> {
        error.param().map(str::to_owned)
    }

    #[test]
    fn an_announcement_of_the_seed_is_read() {
        let whole = r#"{"data":{"node_small_id":7,"public_address":"https://a.example","country":"DE"},
            "signature":"AAAA"}"#;
        let cases = [
            whole,
            r#"{"data":{"public_address":"https:\/\/a.example","more":[{}]},"more":1}"#,
            r#"{"data":{"public_address":"https://a.example","country":null},"signature":null}"#,
        ];
        for body in cases {
            let read = Announcement::parse(body.as_bytes()).unwrap();
            assert_eq!(read.public_address, "https://a.example", "{body}");
        }
        let long = format!(r#"{{"data":{{"public_address":"{}"}}}}"#, "a".repeat(513));
        let cases = [
            ("", None),
            ("[]", None),
            ("{}", Some("data")),
            (r#"{"data":[]}"#, Some("data")),
            (r#"{"data":{}}"#, Some("data.public_address")),
            (
                r#"{"data":{"public_address":null}}"#,
                Some("data.public_address"),
            ),
            (
                r#"{"data":{"public_address":""}}"#,
                Some("data.public_address"),
            ),
            (&long, Some("data.public_address")),
            (
                r#"{"data":{"public_address":"a","node_small_id":-1}}"#,
                Some("node_small_id"),
            ),
            (
                r#"{"data":{"public_address":"a","country":1}}"#,
                Some("country"),
            ),
            (
                r#"{"data":{"public_address":"a"},"signature":[]}"#,
                Some("signature"),
            ),
            (
                r#"{"data":{"public_address":"a","public_address":"b"}}"#,
                Some("public_address"),
            ),
            (r#"{"data":{"public_address":"a"},"data":{}}"#, Some("data")),
        ];
        for (body, expected) in cases {
            let error = Announcement::parse(body.as_bytes()).unwrap_err();
            assert_eq!(param(&error).as_deref(), expected, "{body:.60}");
        }
    }

    #[test]
    fn a_lock_is_asked_for_with_a_model_alone_or_more() {
        let read = |body: &str| LockRequest::parse(body.as_bytes());
        let request = |max_num_tokens, timeout_s| LockRequest {
            model: "m".to_owned(),
            max_num_tokens,
            timeout_s,
        };
        let good = [
            (r#"{"model":"m"}"#, request(None, None)),
            (
                r#"{"model":"m","max_num_tokens":1,"timeout":18446744073709551615}"#,
                request(Some(1), Some(u64::MAX)),
            ),
            (r#"{"timeout":null,"model":"m","x":1}"#, request(None, None)),
        ];
        for (body, expected) in good {
            assert_eq!(read(body), Ok(expected), "{body}");
        }
        let bad = [
            (r#"{"max_num_tokens":1}"#, Some("model")),
            (r#"{"model":""}"#, Some("model")),
            (r#"{"model":"m","timeout":0}"#, Some("timeout")),
            (r#"{"model":"m","timeout":1.5}"#, Some("timeout")),
            (r#"{"model":"m","timeout":"5"}"#, Some("timeout")),
            (
                r#"{"model":"m","timeout":18446744073709551616}"#,
                Some("timeout"),
            ),
            (
                r#"{"model":"m","max_num_tokens":-1}"#,
                Some("max_num_tokens"),
            ),
            (r#"{"model":"m","model":"n"}"#, Some("model")),
            ("{", None),
        ];
        for (body, expected) in bad {
            let error = read(body).unwrap_err();
            assert_eq!(param(&error).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn the_outside_of_a_sealed_request_is_read_and_no_more() {
        let key = BASE64_STANDARD.encode([5; 32]);
        let with = |member: &str| {
            format!(
                r#"{{"ciphertext":"x","node_dh_public_key":"{key}","model_name":"m",
                "stack_small_id":9007199254740991{member}}}"#
            )
        };
        let read = ConfidentialRequest::parse(with("").as_bytes()).unwrap();
        let expected = ConfidentialRequest {
            stack_small_id: MAX_SAFE,
            model: "m".to_owned(),
            node_key: [5; 32],
            stream: false,
        };
        assert_eq!(read, expected);
        for (member, stream) in [
            (r#","stream":true,"num_compute_units":null"#, true),
            (r#","stream":null"#, false),
        ] {
            let read = ConfidentialRequest::parse(with(member).as_bytes()).unwrap();
            assert_eq!(read.stream, stream, "{member}");
        }
        let without = |name: &str| with("").replace(name, "other");
        let bad = [
            (with(r#","stream":1"#), Some("stream")),
            (with(r#","model_name":"n""#), Some("model_name")),
            (without("stack_small_id"), Some("stack_small_id")),
            (without("model_name"), Some("model_name")),
            (without("node_dh_public_key"), Some("node_dh_public_key")),
            (with("").replace(&key, "AAAA"), Some("node_dh_public_key")),
            (
                with("").replace(&key, key.trim_end_matches('=')),
                Some("node_dh_public_key"),
            ),
            (
                with("").replace("9007199254740991", "-1"),
                Some("stack_small_id"),
            ),
        ];
        for (body, expected) in bad {
            let error = ConfidentialRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(param(&error).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_list_tells_who_serves_a_model() {
        let node = |id, models| ListedNode {
            id,
            object: "node",
            node_small_id: 7,
            origin: "configured",
            models,
            tee: "sev-snp",
            root: "amd",
            suites: vec!["x-wing"],
            statement: "ab",
            verified_at: 1,
            expires_at: 2,
        };
        let nodes = vec![
            node("a", vec!["m", "n"]),
            node("b", vec!["n"]),
            node("c", vec![]),
        ];
        let list = NodeList::new(nodes).to_json();
        for (model, ids) in [("n", vec!["a", "b"]), ("m", vec!["a"]), ("o", vec![])] {
            let found = serving(&list, model).unwrap();
            let found: Vec<_> = found.iter().map(|it| it.id.as_str()).collect();
            assert_eq!(found, ids, "{model}");
        }
        assert_eq!(serving(&list, "m").unwrap()[0].suites, ["x-wing"]);
        let before = br#"{"data":[{"id":"a","models":["m"]}]}"#;
        assert!(serving(before, "m").unwrap()[0].suites.is_empty());
        for other in [
            "",
            "[]",
            "{}",
            r#"{"data":[{"id":"a"}]}"#,
            r#"{"data":[1]}"#,
        ] {
            assert_eq!(
                serving(other.as_bytes(), "m"),
                Err(MalformedList),
                "{other}"
            );
        }
    }

    #[test]
    fn what_is_given_has_the_seeds_form() {
        let lock = Lock::new(&[0; 32], 7, 8);
        let expected = format!(
            r#"{{"public_key":"{}=","node_small_id":7,"stack_entry_digest":null,"stack_small_id":8}}"#,
            "A".repeat(43)
        );
        assert_eq!(lock.to_json(), expected);
        let node = ListedNode {
            id: "node-1",
            object: "node",
            node_small_id: 7,
            origin: "configured",
            models: vec!["m"],
            tee: "sev-snp",
            root: "software root",
            suites: vec!["x-wing", "x25519"],
            statement: "ab",
            verified_at: 1,
            expires_at: 2,
        };
        assert_eq!(
            NodeList::new(vec![node]).to_json(),
            "{\"object\":\"list\",\"data\":[{\"id\":\"node-1\",\"object\":\"node\",\
             \"node_small_id\":7,\"origin\":\"configured\",\"models\":[\"m\"],\"tee\":\"sev-snp\",\
             \"root\":\"software root\",\"suites\":[\"x-wing\",\"x25519\"],\"statement\":\"ab\",\"verified_at\":1,\"expires_at\":2}]}"
        );
    }
}
