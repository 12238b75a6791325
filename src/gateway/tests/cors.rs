//! Pages in browsers.

use http::{HeaderMap, Method};
use http_body_util::Full;

use super::{
    fake::FakeNode,
    harness::{BODY, Got, Running},
};

const PAGE: &str = "https://chat.example";
const CORS: &str = "[cors]\norigins = [\"https://chat.example\", \"http://localhost:3000\"]\n";
/// What the SDK in a browser asks for.
const FIELDS: &str = "authorization,content-type,x-stainless-lang";

fn names(headers: &HeaderMap, field: &str) -> Vec<String> {
    let values = headers.get_all(field).iter();
    values.map(|it| it.to_str().unwrap().to_owned()).collect()
}

async fn ask(gateway: &Running, method: Method, path: &str, fields: &[(&str, &str)]) -> Got {
    let body = if method == Method::POST { BODY } else { "" };
    let mut request = gateway.request(method.as_str(), path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body)).unwrap();
    gateway.send(request).await
}

#[tokio::test]
async fn a_page_that_is_named_may_ask_and_read() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], CORS).await;
    let asking = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", FIELDS),
    ];
    let may = ask(&gateway, Method::OPTIONS, "/v1/completions", &asking).await;
    assert_eq!(may.status, 204);
    assert_eq!(may.headers["access-control-allow-origin"], PAGE);
    assert_eq!(may.headers["access-control-allow-methods"], "POST, OPTIONS");
    assert_eq!(may.headers["access-control-allow-headers"], FIELDS);
    assert!(may.headers.contains_key("access-control-max-age"));
    assert!(!may.headers.contains_key("access-control-allow-credentials"));
    let vary = ["origin", "access-control-request-headers"];
    assert_eq!(names(&may.headers, "vary"), vary);

    let json = ("content-type", "application/json");
    for (path, fields, status) in [
        ("/v1/completions", &[("origin", PAGE), json][..], 200),
        ("/v1/completions", &[("origin", PAGE)], 415),
        ("/v1/nothing", &[("origin", PAGE), json], 404),
    ] {
        let got = ask(&gateway, Method::POST, path, fields).await;
        assert_eq!(got.status, status, "{path}");
        assert_eq!(got.headers["access-control-allow-origin"], PAGE);
        assert_eq!(names(&got.headers, "vary"), ["origin"]);
        let exposed = got.headers["access-control-expose-headers"].to_str();
        for name in exposed.unwrap().split(", ") {
            let is_there = got.headers.contains_key(name);
            // Where receipts are on.
            let is_optional = name == "sealgate-receipt";
            let of_node = status == 200 && name.contains("sealgate") && !is_optional;
            let always = name == "x-request-id" || of_node;
            assert!(is_there || !always, "{name} of {status}");
        }
    }
    let local = ("origin", "http://localhost:3000");
    let got = ask(&gateway, Method::GET, "/v1/models", &[local]).await;
    assert_eq!(got.headers["access-control-allow-origin"], local.1);
}

#[tokio::test]
async fn any_other_page_is_not_told() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], CORS).await;
    let cases: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", "https://other.example")],
        &[("origin", "http://chat.example")],
        &[("origin", "https://chat.example.other.example")],
        &[("origin", "null")],
        &[("origin", PAGE), ("origin", "https://other.example")],
    ];
    for origin in cases {
        let asking = [origin, &[("access-control-request-method", "POST")]].concat();
        let asked = ask(&gateway, Method::OPTIONS, "/v1/completions", &asking).await;
        let got = ask(&gateway, Method::GET, "/v1/models", origin).await;
        for headers in [asked.headers, got.headers] {
            let told = headers
                .keys()
                .find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(told, None, "{origin:?}");
            assert_eq!(names(&headers, "vary"), ["origin"], "{origin:?}");
        }
    }
    let odd = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "a b"),
    ];
    let asked = ask(&gateway, Method::OPTIONS, "/v1/completions", &odd).await;
    assert!(!asked.headers.contains_key("access-control-allow-headers"));
}

#[tokio::test]
async fn nobody_is_told_where_no_page_is_named() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    let got = ask(&gateway, Method::GET, "/v1/models", &[("origin", PAGE)]).await;
    assert_eq!(got.status, 200);
    assert!(!got.headers.contains_key("access-control-allow-origin"));
    assert!(!got.headers.contains_key("vary"));
}
