//! Reports that wait for the database leave it to what they are of.

use std::collections::HashSet;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};

use super::{Stored, databases};
use crate::harness::soon;

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";

#[tokio::test]
async fn while_a_report_waits_for_the_database_keys_are_made_and_open() {
    let all = databases().await;
    let Some(postgres) = all.iter().find(|it| it.contains("postgres")) else {
        return;
    };
    let stored = Stored::with(postgres, ADMIN).await;
    let first = super::created(&stored.config, "first").await;
    assert_eq!(stored.complete(&first, json!({})).await.status(), 200);
    stored.usage(1).await;

    let (_, rest) = postgres.split_once("url = \"").unwrap();
    let (url, _) = rest.split_once('"').unwrap();
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let mut holding = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE usage_row IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    let ask = |method: reqwest::Method, path: &str| {
        let url = format!("{}{path}", stored.gateway.admin);
        stored.client.request(method, url).bearer_auth(super::TOKEN)
    };
    let mut asked: FuturesUnordered<_> = (0..4)
        .map(|_| ask(reqwest::Method::GET, "/admin/usage").send())
        .collect();
    for _ in 0..3 {
        let refused = soon("a report is refused", asked.next()).await;
        let refused = refused.unwrap().unwrap();
        assert_eq!(refused.status(), 429);
        let error: Value = refused.json().await.unwrap();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("another report"), "{message}");
    }
    let mut names = HashSet::new();
    for name in ["second", "third"] {
        let made = ask(reqwest::Method::POST, "/admin/keys")
            .json(&json!({ "name": name }))
            .send();
        let made = made.await.unwrap();
        assert_eq!(made.status(), 201);
        let made: Value = made.json().await.unwrap();
        let key = made["key"].as_str().unwrap();
        assert_eq!(stored.complete(key, json!({})).await.status(), 200);
        names.insert(made["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 2);
    holding.rollback().await.unwrap();
    soon("the report ends", asked.next())
        .await
        .unwrap()
        .unwrap();
    let listed = ask(reqwest::Method::GET, "/admin/keys").send();
    assert_eq!(listed.await.unwrap().status(), 200, "the next one is made");
}

#[tokio::test]
async fn a_zero_byte_in_a_name_is_no_fault_of_the_store() {
    for database in databases().await {
        let stored = Stored::with(&database, ADMIN).await;
        let cases = [
            ("DELETE", "/admin/keys/a%00b", "", 404, "key_not_found"),
            ("DELETE", "/admin/keys/%00", "", 404, "key_not_found"),
            (
                "DELETE",
                "/admin/keys/two%20words",
                "",
                404,
                "key_not_found",
            ),
            (
                "POST",
                "/admin/keys/a%00/rotate",
                "{}",
                404,
                "key_not_found",
            ),
            ("GET", "/admin/usage?key=%00", "", 400, "invalid_request"),
            ("GET", "/admin/usage?key=a%0ab", "", 400, "invalid_request"),
            ("GET", "/admin/usage?key=", "", 400, "invalid_request"),
            (
                "POST",
                "/admin/keys",
                "{\"name\": \"a\\u0000b\"}",
                400,
                "invalid_request",
            ),
            (
                "POST",
                "/admin/keys",
                "{\"name\": \"a\", \"owner\": \"a\\u0000b\"}",
                400,
                "invalid_request",
            ),
        ];
        for (method, path, body, status, code) in cases {
            let url = format!("{}{path}", stored.gateway.admin);
            let request = stored.client.request(method.parse().unwrap(), url);
            let request = request.bearer_auth(super::TOKEN);
            let request = request.header("content-type", "application/json");
            let response = request.body(body).send().await.unwrap();
            assert_eq!(response.status(), status, "{method} {path} {body}");
            let error: Value = response.json().await.unwrap();
            assert_eq!(error["error"]["code"], code, "{method} {path} {body}");
        }
    }
}
