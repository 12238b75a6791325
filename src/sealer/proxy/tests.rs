use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::sealer::{Channel, Route, SendError, to_anybody};

const CREDENTIAL: &str = "user:password";

/// A proxy that gives these answers, one to each connection, and what it was asked.
async fn answering(answers: &'static [&'static [u8]]) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut heard = String::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            heard += &head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            // What comes through the tunnel before it is closed.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            heard += &String::from_utf8_lossy(&rest);
        }
        heard
    });
    (url, serving)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn proxy(url: &str) -> Arc<Proxy> {
    let config: ProxyConfig = toml::from_str(&format!("url = \"{url}\"")).unwrap();
    let credential = Credential::basic_from_file_text(CREDENTIAL).unwrap();
    Arc::new(Proxy::new(&config, &Roots::Public, Some(credential)).unwrap())
}

/// Sends a request through a proxy to a node, which is at these addresses, and gives the error.
async fn asked(proxy: &Arc<Proxy>, node: &str, addresses: &[&str]) -> SendError {
    let found: Vec<SocketAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    let addresses: Option<Arc<[SocketAddr]>> = (!found.is_empty()).then(|| found.into());
    let route = Route {
        addresses: addresses.as_ref(),
        proxy: Some(proxy),
        spoken: None,
    };
    let (tls, patience) = (to_anybody(None).unwrap(), Duration::from_secs(60));
    let channel = Channel::new(&node.parse().unwrap(), route, tls, patience, 1).unwrap();
    let request = Request::get("/path").body(http_body_util::Full::default());
    Arc::new(channel).send(request.unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn a_node_is_asked_for_by_its_name_or_by_the_addresses_that_were_checked() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("http://node.test", &[], &["node.test:80"]),
        ("https://node.test", &[], &["node.test:443"]),
        ("http://node.test:8090", &[], &["node.test:8090"]),
        ("http://[2001:db8::1]:8090", &[], &["[2001:db8::1]:8090"]),
        (
            "https://node.test",
            &["203.0.113.7:443"],
            &["203.0.113.7:443"],
        ),
        (
            "https://node.test:1",
            &["203.0.113.7:1", "[2001:db8::1]:1"],
            &["203.0.113.7:1", "[2001:db8::1]:1"],
        ),
    ];
    const REFUSALS: &[&[u8]] =
        &[b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n" as &[u8]; 2];
    for (node, addresses, targets) in cases {
        let (url, heard) = answering(&REFUSALS[..targets.len()]).await;
        let error = asked(&proxy(&url), node, addresses).await;
        let said = format!("the proxy {url} answered 502 Bad Gateway");
        assert_eq!(error.to_string(), said, "{node}");
        let asked = targets.iter().map(|target| {
            format!(
                "CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\
                 proxy-authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"
            )
        });
        assert_eq!(heard.await.unwrap(), asked.collect::<String>(), "{node}");
    }
}

#[tokio::test]
async fn nothing_is_sent_unless_the_proxy_opens_a_tunnel() {
    let long = format!("HTTP/1.1 200 OK\r\nname: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let cases: [(&'static [u8], &str); 7] = [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "answered 407",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "answered 302"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "answered 503"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "invalid HTTP"),
        (b"", "connection closed"),
        (long.leak().as_bytes(), "too large"),
    ];
    for (answer, said) in cases {
        let (listener, proxy) = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            (listener, proxy(&url))
        };
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            rest
        });
        let error = asked(&proxy, "http://node.test", &[]).await;
        assert!(matches!(error, SendError::Proxy(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(said), "{said}: {text}");
        assert!(text.contains(&proxy.name()), "{text}");
        assert!(serving.await.unwrap().is_empty(), "{said}");
    }
}

#[tokio::test]
async fn what_comes_with_the_answer_is_not_lost() {
    let answer: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"];
    let (url, heard) = answering(answer).await;
    let proxy = proxy(&url);
    let tcp = TcpStream::connect(url.trim_start_matches("http://")).await;
    let mut stream = proxy.ask(tcp.unwrap(), "node.test:80").await.unwrap();
    stream.write_all(b"through").await.unwrap();
    let mut came = [0; 12];
    stream.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"HTTP/1.1 204");
    drop(stream);
    assert!(heard.await.unwrap().ends_with("\r\n\r\nthrough"));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_and_its_credential_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let proxy = proxy(&url);
    let error = asked(&proxy, "https://node.test", &[]).await;
    let text = format!("{error} {error:?} {proxy:?}");
    assert!(
        text.contains(&format!("the proxy {url}: connect: ")),
        "{text}"
    );
    for secret in ["password", "dXNlcjpwYXNzd29yZA"] {
        assert!(!text.contains(secret), "{text}");
    }
}
