use std::collections::BTreeSet;

use super::*;
use crate::openai::{
    Code, Request,
    nodes::{Announcement, LockRequest},
};

/// The seed's contract of `POST /v1/completions` (the Atoma network's proxy API, Apache-2.0), without
/// its texts.
const SEED: &str = include_str!("../../../tests/vectors/seed-openapi.json");

fn resolve<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => {
            let name = path.strip_prefix("#/components/schemas/").unwrap();
            resolve(schemas, &schemas[name])
        }
        None => schema,
    }
}

fn words(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        word => word.as_str().into_iter().collect(),
    }
}

/// What of `seed` is not in `ours`, each with its path.
fn missing(seed: (&Value, &Value), ours: (&Value, &Value), at: &str, found: &mut Vec<String>) {
    let (theirs, our) = (resolve(seed.0, seed.1), resolve(ours.0, ours.1));
    if !words(&theirs["type"]).is_subset(&words(&our["type"])) {
        found.push(format!(
            "{at}: {} is not in {}",
            theirs["type"], our["type"]
        ));
    }
    if !words(&theirs["required"]).is_subset(&words(&our["required"])) {
        found.push(format!("{at}: {} is not required", theirs["required"]));
    }
    for word in ["format", "minimum"] {
        if theirs.get(word).is_some() && our.get(word) != theirs.get(word) {
            found.push(format!("{at}: {word}"));
        }
    }
    if let Some(default) = theirs.get("default") {
        // The seed writes an empty list as a text.
        let is_same = our["default"] == *default
            || Some(our["default"].to_string()).as_deref() == default.as_str();
        if !is_same {
            found.push(format!("{at}: default"));
        }
    }
    for (name, property) in theirs["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match our["properties"].get(name) {
            Some(our) => missing((seed.0, property), (ours.0, our), &at, found),
            None => found.push(at),
        }
    }
    for word in ["items", "additionalProperties", "propertyNames"] {
        if let Some(part) = theirs.get(word) {
            let at = format!("{at}.{word}");
            match our.get(word) {
                Some(our) => missing((seed.0, part), (ours.0, our), &at, found),
                None => found.push(at),
            }
        }
    }
    for part in theirs["oneOf"].as_array().into_iter().flatten() {
        let fits = our["oneOf"].as_array().into_iter().flatten().any(|our| {
            let mut lacking = Vec::new();
            missing((seed.0, part), (ours.0, our), at, &mut lacking);
            lacking.is_empty()
        });
        if !fits {
            found.push(format!("{at}: none of ours is {part}"));
        }
    }
}

#[test]
fn all_of_the_seeds_completions_is_in_ours() {
    let seed: Value = serde_json::from_str(SEED).unwrap();
    let theirs = &seed["components"]["schemas"];
    let ours = Value::Object(schemas());
    let mut lacking = Vec::new();
    for (name, schema) in theirs.as_object().unwrap() {
        match ours.get(name) {
            Some(our) => missing((theirs, schema), (&ours, our), name, &mut lacking),
            None => lacking.push(name.clone()),
        }
    }
    assert_eq!(lacking, Vec::<String>::new());
    let request = &ours["CompletionsRequest"]["required"];
    assert_eq!(
        *request, theirs["CompletionsRequest"]["required"],
        "no more is required"
    );
}

#[test]
fn the_comparison_finds_what_is_lacking() {
    let seed: Value = serde_json::from_str(SEED).unwrap();
    let theirs = &seed["components"]["schemas"];
    type Bend = fn(&mut Value);
    let bend: [(&str, Bend); 6] = [
        ("a property", |our| {
            drop(
                our["Usage"]["properties"]
                    .as_object_mut()
                    .unwrap()
                    .remove("total_tokens"),
            )
        }),
        ("a type", |our| {
            our["CompletionsRequest"]["properties"]["stop"]["type"] = json!("string")
        }),
        ("null", |our| {
            our["CompletionsRequest"]["properties"]["n"]["type"] = json!("integer")
        }),
        ("required", |our| {
            drop(our["LogProbs"]["required"].as_array_mut().unwrap().pop())
        }),
        ("a variant", |our| {
            drop(
                our["CompletionsPrompt"]["oneOf"]
                    .as_array_mut()
                    .unwrap()
                    .pop(),
            )
        }),
        ("a default", |our| {
            our["CompletionsRequest"]["properties"]["max_tokens"]["default"] = json!(17)
        }),
    ];
    for (name, bend) in bend {
        let mut ours = Value::Object(schemas());
        bend(&mut ours);
        let mut lacking = Vec::new();
        for (name, schema) in theirs.as_object().unwrap() {
            missing((theirs, schema), (&ours, &ours[name]), name, &mut lacking);
        }
        assert!(!lacking.is_empty(), "{name}");
    }
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members
                    .values()
                    .for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let all = Value::Object(schemas());
    let mut found = BTreeSet::new();
    references(&all, &mut found);
    for reference in &found {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(all.get(name).is_some(), "{name}");
    }
    assert!(found.len() > 20);
    for endpoint in Endpoint::ALL {
        let chunk = endpoint.chunk_schema();
        assert_eq!(chunk.is_some(), endpoint.streams());
        for name in [endpoint.request_schema(), endpoint.reply_schema()]
            .into_iter()
            .chain(chunk)
        {
            assert!(all.get(name).is_some(), "{name}");
        }
    }
}

impl Code {
    fn is_named_in(self, text: &str) -> bool {
        text.split([' ', ',', ';']).any(|word| word == self.code())
    }
}

#[test]
fn every_code_is_named() {
    let all = schemas();
    let text = all["ErrorObject"]["properties"]["code"]["description"]
        .as_str()
        .unwrap();
    for code in Code::ALL {
        assert!(code.is_named_in(text), "{}", code.code());
    }
}

/// A value of another type than any of `types`.
fn of_another_type(types: &BTreeSet<&str>) -> Value {
    let values = [
        ("integer", json!("x")),
        ("string", json!(5)),
        ("boolean", json!(5)),
        ("array", json!(true)),
        ("object", json!(true)),
    ];
    let fits = |value: &Value| match value {
        Value::String(_) => types.contains("string"),
        Value::Number(_) => types.contains("integer") || types.contains("number"),
        Value::Bool(_) => types.contains("boolean"),
        _ => unreachable!("only these are tried"),
    };
    let mut values = values.into_iter().map(|(_, value)| value);
    values.find(|value| !fits(value)).unwrap()
}

#[test]
fn readers_know_every_member_and_its_type() {
    let all = Value::Object(schemas());
    for endpoint in Endpoint::ALL {
        let example = endpoint.example("m");
        let parse = |body: &Value| Request::parse(endpoint, body.to_string().into());
        assert!(parse(&example).is_ok(), "{example}");
        let schema = &all[endpoint.request_schema()];
        for name in words(&schema["required"]) {
            let mut body = example.clone();
            body.as_object_mut().unwrap().remove(name);
            assert_eq!(parse(&body).unwrap_err().param(), Some(name));
        }
        for (name, property) in schema["properties"].as_object().unwrap() {
            let member = resolve(&all, property);
            let mut types = words(&member["type"]);
            for part in member["oneOf"].as_array().into_iter().flatten() {
                types.extend(words(&resolve(&all, part)["type"]));
            }
            assert!(!types.is_empty(), "{name}");
            let mut body = example.clone();
            body[name] = of_another_type(&types);
            let error = parse(&body).expect_err(name);
            assert_eq!(error.param(), Some(name.as_str()), "{body}");
            let mut body = example.clone();
            body[name] = Value::Null;
            assert_eq!(parse(&body).is_ok(), types.contains("null"), "{body}");
        }
    }
}

#[test]
fn readers_hold_every_bound_that_is_written() {
    let all = Value::Object(schemas());
    let mut bounds = 0;
    for endpoint in Endpoint::ALL {
        let parse = |name: &str, value: Value| {
            let mut body = endpoint.example("m");
            body["logprobs"] = match endpoint {
                Endpoint::ChatCompletions => json!(true),
                _ => Value::Null,
            };
            body[name] = value;
            Request::parse(endpoint, body.to_string().into()).is_ok()
        };
        let schema = &all[endpoint.request_schema()];
        for (name, property) in schema["properties"].as_object().unwrap() {
            for (word, step) in [("minimum", -1_i8), ("maximum", 1)] {
                let Some(bound) = property.get(word) else {
                    continue;
                };
                bounds += 1;
                assert!(parse(name, bound.clone()), "{name} {bound}");
                let beyond = match bound.as_i64() {
                    Some(bound) => (i128::from(bound) + i128::from(step)).to_string(),
                    None => (bound.as_f64().unwrap() + f64::from(step)).to_string(),
                };
                let body = endpoint.example("m").to_string();
                let body = format!("{},\"{name}\":{beyond}}}", body.strip_suffix('}').unwrap());
                let refused = Request::parse(endpoint, body.into()).unwrap_err();
                assert_eq!(refused.param(), Some(name.as_str()), "{beyond}");
            }
            for word in property["enum"].as_array().into_iter().flatten() {
                assert!(parse(name, word.clone()), "{name} {word}");
            }
        }
    }
    assert!(bounds > 30, "{bounds}");
}

#[test]
fn readers_know_every_member_of_a_lock_and_an_announcement() {
    type Param = fn(&[u8]) -> Result<(), Option<String>>;
    let lock: Param = |body| {
        let read = LockRequest::parse(body).map(drop);
        read.map_err(|error| error.param().map(str::to_owned))
    };
    let announcement: Param = |body| {
        let read = Announcement::parse(body).map(drop);
        read.map_err(|error| error.param().map(str::to_owned))
    };
    let all = Value::Object(schemas());
    let data = &all["NodeAnnouncement"]["properties"]["data"];
    let inside = |data: Value| json!({"data": data});
    let address = json!({"public_address": "https://a.example"});
    let lock_for = json!({"model": "m"});
    for (schema, example, wrap, prefix, parse) in [
        (&all["LockRequest"], &lock_for, None, "", lock),
        (data, &address, Some(inside), "data.", announcement),
    ] {
        let wrapped = |body: Value| wrap.map_or_else(|| body.clone(), |wrap| wrap(body.clone()));
        let read = |body: Value| parse(wrapped(body).to_string().as_bytes());
        assert_eq!(read(example.clone()), Ok(()));
        for (name, property) in schema["properties"].as_object().unwrap() {
            let types = words(&property["type"]);
            let mut body = example.clone();
            body[name] = of_another_type(&types);
            let seen = read(body).unwrap_err().unwrap();
            assert!(seen == *name || seen == format!("{prefix}{name}"), "{seen}");
            let mut body = example.clone();
            body[name] = Value::Null;
            assert_eq!(read(body).is_ok(), types.contains("null"), "{name}");
            if let Some(least) = property.get("minimum").and_then(Value::as_u64) {
                let mut body = example.clone();
                body[name] = json!(least);
                assert_eq!(read(body), Ok(()), "{name}");
                let mut body = example.clone();
                body[name] = json!(i64::try_from(least).unwrap() - 1);
                assert!(read(body).is_err(), "{name}");
            }
        }
    }
}
