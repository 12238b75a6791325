use super::*;
use crate::{gateway::routes::Route, openai::Endpoint};

/// The seed's contract of `POST /v1/completions`, without its texts.
const SEED: &str = include_str!("../../../tests/vectors/seed-openapi.json");

#[test]
fn the_seeds_operation_is_there_with_all_it_says() {
    let seed: Value = serde_json::from_str(SEED).unwrap();
    let (theirs, ours) = (&seed["paths"], &DOCUMENT["paths"]);
    for (path, methods) in theirs.as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let our = &ours[path][method];
            for member in ["tags", "operationId", "security"] {
                assert_eq!(our[member], operation[member], "{path} {member}");
            }
            assert_eq!(
                our["requestBody"]["required"],
                operation["requestBody"]["required"]
            );
            let schema = |it: &Value| it["content"]["application/json"]["schema"].clone();
            assert_eq!(
                schema(&our["requestBody"]),
                schema(&operation["requestBody"])
            );
            for (status, response) in operation["responses"].as_object().unwrap() {
                let our = our["responses"].get(status).expect(status);
                if response.get("content").is_some() {
                    assert_eq!(schema(our), schema(response), "{status}");
                }
            }
        }
    }
    let schemes = &seed["components"]["securitySchemes"];
    assert_eq!(DOCUMENT["components"]["securitySchemes"], *schemes);
}

#[test]
fn every_operation_is_served_and_no_id_stands_twice() {
    let mut ids = std::collections::BTreeSet::new();
    for operation in operations() {
        assert!(ids.insert(operation.id), "{}", operation.id);
        let path = operation.path.replace("{id}", "x");
        let route = Route::of(&path).expect(&path);
        let method = operation.method.to_uppercase().parse().unwrap();
        assert!(route.takes(&method), "{method} {path}");
        assert!(
            operations::TAGS
                .iter()
                .any(|(tag, _)| *tag == operation.tag)
        );
    }
    for endpoint in Endpoint::ALL {
        assert!(DOCUMENT["paths"][endpoint.path()]["post"].is_object());
    }
}

#[test]
fn streams_and_errors_are_told() {
    let operation = &DOCUMENT["paths"]["/v1/chat/completions"]["post"];
    let replies = &operation["responses"]["200"]["content"];
    assert!(replies["text/event-stream"].is_object());
    assert!(
        DOCUMENT["paths"]["/v1/embeddings"]["post"]["responses"]["200"]["content"]
            .get("text/event-stream")
            .is_none()
    );
    let mut statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
    statuses.sort();
    let expected = [
        "200", "400", "401", "402", "403", "404", "408", "413", "414", "415", "429", "431", "4XX",
        "500", "502", "503", "504",
    ];
    assert_eq!(statuses, expected);
    let health = &DOCUMENT["paths"]["/health"]["get"];
    assert_eq!(health["security"], json!([]));
    assert!(health["responses"].get("401").is_none());
}

#[test]
fn the_page_shows_every_operation_and_runs_nothing() {
    let page = String::from_utf8(PAGE.to_vec()).unwrap();
    for operation in operations() {
        assert!(
            page.contains(&format!("id=\"{}\"", operation.id)),
            "{}",
            operation.id
        );
    }
    let loaded_or_run = [
        "<script",
        "href=\"http",
        "src=",
        "url(",
        "@import",
        "onload",
        "javascript:",
    ];
    for text in loaded_or_run {
        assert!(!page.contains(text), "{text}");
    }
    assert!(page.contains("max_completion_tokens"));
    assert!(page.contains("from 0 to 2"), "bounds are shown");
    assert!(page.contains("&quot;Hello, world!&quot;"), "and escaped");
}

#[test]
fn what_a_request_wants_of_its_node_is_told_where_it_counts() {
    let pattern = "^[a-z0-9-]{1,64}([ \t]*,[ \t]*[a-z0-9-]{1,64}){0,15}$";
    for operation in operations() {
        let described = &DOCUMENT["paths"][operation.path][operation.method];
        let parameters = described["parameters"].as_array().unwrap();
        for name in ["sealgate-region", "sealgate-tags"] {
            let found = parameters.iter().find(|it| it["name"] == name);
            let counts = Endpoint::ALL.iter().any(|it| it.path() == operation.path);
            assert_eq!(found.is_some(), counts, "{} {name}", operation.id);
            let Some(found) = found else { continue };
            assert_eq!(found["in"], "header");
            assert_eq!(found["required"], false);
            assert_eq!(found["schema"]["pattern"], pattern);
        }
    }
}
