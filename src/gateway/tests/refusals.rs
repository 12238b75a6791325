//! What is refused, and how the caller is told.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    fake::{FakeNode, folder, outside, plain},
    harness::{BODY, Running},
};

#[tokio::test]
async fn a_request_is_refused_with_its_code_and_no_node_is_asked() {
    let node = FakeNode::start("one").await;
    let rest = "[limits]\nbody_bytes = 1000\n[timeouts]\nbody_ms = 200\n";
    let gateway = Running::start(&[&node], rest).await;
    let json = "application/json";
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(1000));
    let longer = "x".repeat(2 << 20);
    let long_path = format!("/{}", "x".repeat(9000));
    let path = "/v1/completions";
    let cases: [(&str, &str, &str, &str, &str, u16, &str); 13] = [
        ("no json", "POST", path, json, "{", 400, "invalid_json"),
        (
            "a wrong type",
            "POST",
            path,
            json,
            r#"{"model":1,"prompt":""}"#,
            400,
            "invalid_request",
        ),
        ("nothing", "POST", path, json, "", 400, "invalid_json"),
        (
            "a member twice",
            "POST",
            path,
            json,
            r#"{"model":"m","model":"m","prompt":""}"#,
            400,
            "duplicate_member",
        ),
        (
            "an unknown model",
            "POST",
            path,
            json,
            r#"{"model":"z","prompt":""}"#,
            404,
            "model_not_found",
        ),
        (
            "another type",
            "POST",
            path,
            "text/plain",
            BODY,
            415,
            "unsupported_media_type",
        ),
        (
            "no type",
            "POST",
            path,
            "",
            BODY,
            415,
            "unsupported_media_type",
        ),
        (
            "a long body",
            "POST",
            path,
            json,
            &long,
            413,
            "request_too_large",
        ),
        (
            "a body of megabytes",
            "POST",
            path,
            json,
            &longer,
            413,
            "request_too_large",
        ),
        (
            "another method",
            "PUT",
            path,
            json,
            BODY,
            405,
            "method_not_allowed",
        ),
        (
            "another path",
            "POST",
            "/v1/other",
            json,
            BODY,
            404,
            "not_found",
        ),
        (
            "a prompt for a chat",
            "POST",
            "/v1/chat/completions",
            json,
            BODY,
            400,
            "invalid_request",
        ),
        (
            "a long path",
            "GET",
            &long_path,
            json,
            "",
            414,
            "uri_too_long",
        ),
    ];
    for (name, method, path, media_type, body, status, code) in cases {
        let request = gateway
            .request(method, path)
            .header(CONTENT_TYPE, media_type);
        let got = gateway
            .send(request.body(Full::new(body.to_owned().into())).unwrap())
            .await;
        assert_eq!(got.code(), (status, code.to_owned()), "{name}");
    }
    let coded = gateway.request("POST", path).header(CONTENT_TYPE, json);
    let coded = coded
        .header("content-encoding", "gzip")
        .body(Full::new(BODY.into()))
        .unwrap();
    assert_eq!(gateway.send(coded).await.code().0, 415);
    let fields = (0..40).fold(gateway.request("GET", "/health"), |request, i| {
        request.header(format!("x-{i}"), "y".repeat(1000))
    });
    let got = gateway.send(fields.body(Full::default()).unwrap()).await;
    assert_eq!(got.code(), (431, "headers_too_large".to_owned()));
    assert_eq!(node.asked(), 0);
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "[timeouts]\nbody_ms = 100\n").await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("request_timeout"), "{reply}");
}

#[tokio::test]
async fn a_browsers_rebound_name_is_not_answered() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "").await;
    let request = gateway
        .request("GET", "/v1/models")
        .header("host", "rebound.example");
    let got = gateway.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(got.code(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn only_keys_get_in_and_only_to_their_models() {
    let node = FakeNode::start("one").await;
    let digest = |key: &str| hex::encode(Sha256::digest(key));
    let keys = format!(
        "[[key]]\nname = \"a\"\nsha256 = \"{}\"\n\
         [[key]]\nname = \"b\"\nsha256 = \"{}\"\nmodels = [\"org/n\"]\n",
        digest("sk-a"),
        digest("sk-b")
    );
    std::fs::write(folder().join("keys.toml"), keys).unwrap();
    let gateway = Running::start(&[&node], "keys_file = \"keys.toml\"\n").await;
    let post = async |key: &str| {
        let request = gateway.request("POST", "/v1/completions");
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = request.header("authorization", format!("Bearer {key}"));
        gateway
            .send(request.body(Full::new(BODY.into())).unwrap())
            .await
    };
    assert_eq!(post("sk-a").await.status, 200);
    assert_eq!(
        post("sk-b").await.code(),
        (403, "model_not_allowed".to_owned())
    );
    assert_eq!(
        post("sk-c").await.code(),
        (401, "invalid_api_key".to_owned())
    );
    assert_eq!(
        gateway.post(BODY).await.code(),
        (401, "invalid_api_key".to_owned())
    );
    assert_eq!(
        gateway.get("/v1/models").await.code(),
        (401, "invalid_api_key".to_owned())
    );
    assert_eq!(node.asked(), 1);
}

#[tokio::test]
async fn without_evidence_nothing_is_sent() {
    let node = FakeNode::start("one").await;
    node.lie();
    let gateway = Running::start_unready(&[&node], "").await;
    while node.attested() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (503, "no_attested_node".to_owned()));
    assert!(got.headers.contains_key("retry-after"));
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with(br#"{"message":"no_attested_node"#));
    assert_eq!(node.asked(), 0);
}

#[tokio::test]
async fn a_node_that_is_slow_to_attest_holds_up_no_other() {
    let node = FakeNode::start("one").await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = silent.iter().map(|silent| silent.local_addr().unwrap());
    let urls: Vec<_> = addresses
        .chain([node.address])
        .map(|address| format!("http://{address}"))
        .collect();
    let gateway = Running::start_before(&urls, "[timeouts]\nattest_ms = 60000\n").await;
    gateway.until_ready().await;
}

#[tokio::test]
async fn when_full_more_is_shed_at_once() {
    let node = FakeNode::start("one").await;
    node.play(|asked| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        asked.json(200, "{}")
    });
    let gateway = Running::start(&[&node], "[limits]\nin_flight = 1\n").await;
    let (first, second) = tokio::join!(gateway.post(BODY), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gateway.post(BODY).await
    });
    assert_eq!(first.status, 200);
    assert_eq!(second.code(), (429, "overloaded".to_owned()));
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(
        gateway.post(BODY).await.status,
        200,
        "the place is free again"
    );
}

#[tokio::test]
async fn a_reply_that_is_not_proved_is_never_given_on() {
    let node = FakeNode::start("one").await;
    let gateway = Running::start(&[&node], "[timeouts]\nfirst_byte_ms = 300\n").await;
    let invalid = (502, "node_reply_invalid".to_owned());

    node.play(|_| async { plain(200, "application/json", r#"{"in":"clear"}"#.into()) });
    assert_eq!(gateway.post(BODY).await.code(), invalid, "outside the seal");

    node.play(|asked| async {
        let mut sealed = asked
            .sealer
            .seal_whole(
                200,
                &[("content-type", "application/json")],
                b"{}",
                &[],
                Default::default(),
            )
            .unwrap()
            .to_vec();
        *sealed.last_mut().unwrap() ^= 1;
        plain(200, "message/ohttp-chunked-res", sealed.into())
    });
    assert_eq!(gateway.post(BODY).await.code(), invalid, "a flipped bit");

    node.play(|asked| async {
        let fields = [("content-type", "application/json")];
        let sealed = asked
            .sealer
            .seal_whole(200, &fields, b"{}", &[], Default::default());
        let sealed = sealed.unwrap();
        plain(200, "message/ohttp-chunked-res", sealed.slice(..40))
    });
    let got = gateway.post(BODY).await;
    assert!(got.status == 502, "cut: {got:?}");

    node.play(|asked| async { asked.whole(200, &[("content-type", "text/html")], "<p>", &[]) });
    assert_eq!(gateway.post(BODY).await.code(), invalid, "another type");

    node.play(|asked| async { asked.whole(302, &[("content-type", "application/json")], "", &[]) });
    assert_eq!(gateway.post(BODY).await.code(), invalid, "another status");

    node.play(|asked| async {
        let json = [("content-type", "application/json")];
        asked.whole(200, &json, "{", &[("sealgate-incomplete", "engine-failed")])
    });
    let got = gateway.post(BODY).await;
    assert_eq!(got.code(), (502, "engine_error".to_owned()));
    assert_eq!(got.should_retry(), Some("false"));

    node.play(|asked| async { asked.json(500, "{}") });
    assert_eq!(
        gateway.post(BODY).await.code(),
        (502, "engine_error".to_owned())
    );

    node.play(|_| std::future::pending());
    assert_eq!(
        gateway.post(BODY).await.code(),
        (504, "first_byte_timeout".to_owned())
    );

    node.play(|_| async { outside() });
    assert_eq!(
        gateway.post(BODY).await.code(),
        (503, "no_node_available".to_owned())
    );
}
