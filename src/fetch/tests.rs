use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ::aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use hyper::{server::conn::http1 as server, service::service_fn, upgrade};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::Value;
use tokio::{io::copy_bidirectional, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::{amd::Chip, *};

const COLLATERAL: &str =
    include_str!("../../attestation/tests/data/tdx/v4-uptodate/collateral.json");
const RIM: &[u8] = include_bytes!("../../rim/tests/data/NV_GPU_DRIVER_GH100_550.90.07.xml");
const OCSP: &[u8] = include_bytes!("../../attestation/tests/data/nvidia/hopper/ocsp-l2.der");
const VCEK: &[u8] = include_bytes!("../../attestation/tests/data/milan-v2/vcek.der");

/// A request, as the service saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    authorization: Option<String>,
    content: Bytes,
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// What a service gives for a request line: its replies in turn, the last one again and again.
#[derive(Clone, Default)]
struct Service {
    replies: Arc<Mutex<HashMap<String, Vec<Reply>>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Service {
    fn gives(self, line: &str, reply: Reply) -> Self {
        let mut replies = self.replies.lock().unwrap();
        replies.entry(line.to_owned()).or_default().push(reply);
        drop(replies);
        self
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let line = format!("{} {}", request.method(), request.uri());
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.map(|it| it.to_str().unwrap().to_owned());
        let content = request.into_body().collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(Seen {
            line: line.clone(),
            authorization,
            content,
        });
        let mut replies = self.replies.lock().unwrap();
        let (status, fields, content) = match replies.get_mut(&line) {
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
            None => (404, Vec::new(), Vec::new()),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(name, value);
        }
        Ok(response.body(Full::from(content)).unwrap())
    }

    /// Serves without TLS.
    async fn start(&self) -> String {
        let service = self.clone();
        let address = accept(move |tcp| serve(tcp, service.clone())).await;
        format!("http://{address}")
    }

    /// Serves behind TLS as `127.0.0.1`; gives the certificate of its authority, too.
    async fn start_tls(&self) -> (String, String) {
        let (ca, config) = authority();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let service = self.clone();
        let address = accept(move |tcp| {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    serve(tls, service).await;
                }
            }
        })
        .await;
        (format!("https://{address}"), ca)
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

async fn serve(io: impl Io + 'static, service: Service) {
    let service = service_fn(move |request| service.clone().answer(request));
    let _ = server::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await;
}

/// A proxy that opens tunnels and passes plain requests to a service; counts both.
async fn proxy(service: Service, refuses: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let address = accept(move |tcp| {
        let (service, noted) = (service.clone(), Arc::clone(&noted));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (service, noted) = (service.clone(), Arc::clone(&noted));
            async move {
                noted
                    .lock()
                    .unwrap()
                    .push(format!("{} {}", request.method(), request.uri()));
                if request.method() != Method::CONNECT {
                    return service.answer(request).await;
                }
                if refuses {
                    let refusal = Response::builder().status(407);
                    return Ok(refusal.body(Full::default()).unwrap());
                }
                let to = request.uri().authority().unwrap().to_string();
                let upgraded = upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let mut near = TokioIo::new(upgraded.await.unwrap());
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                Ok(Response::new(Full::default()))
            }
        });
        async move {
            let connection = server::Builder::new().serve_connection(TokioIo::new(tcp), service);
            let _ = connection.with_upgrades().await;
        }
    })
    .await;
    (format!("http://{address}"), asked)
}

/// An authority, in PEM, and a server under it for 127.0.0.1.
fn authority() -> (String, ServerConfig) {
    let tlv = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let len = content.len();
        let mut out = vec![tag];
        if len > 255 {
            out.extend([0x82, u8::try_from(len >> 8).unwrap()]);
        } else if len > 127 {
            out.push(0x81);
        }
        out.push(u8::try_from(len & 0xff).unwrap());
        out.extend(content);
        out
    };
    let ed25519 = tlv(0x30, &[&[0x06, 0x03, 0x2b, 0x65, 0x70]]);
    let name = |text: &str| {
        let attribute = tlv(
            0x30,
            &[
                &[0x06, 0x03, 0x55, 0x04, 0x03],
                &tlv(0x0c, &[text.as_bytes()]),
            ],
        );
        tlv(0x30, &[&tlv(0x31, &[&attribute])])
    };
    let extension = |id: u8, content: &[u8]| {
        tlv(
            0x30,
            &[&[0x06, 0x03, 0x55, 0x1d, id], &tlv(0x04, &[content])],
        )
    };
    let issue = |subject: &str, key: &Ed25519KeyPair, by: &Ed25519KeyPair, extension: &[u8]| {
        let dates = [
            tlv(0x17, &[b"200101000000Z"]),
            tlv(0x18, &[b"20991231235959Z"]),
        ];
        let public = [&[0], key.public_key().as_ref()].concat();
        let body = tlv(
            0x30,
            &[
                &[0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01],
                &ed25519,
                &name("authority"),
                &tlv(0x30, &[&dates[0], &dates[1]]),
                &name(subject),
                &tlv(0x30, &[&ed25519, &tlv(0x03, &[&public])]),
                &tlv(0xa3, &[&tlv(0x30, &[extension])]),
            ],
        );
        let signature = [&[0], by.sign(&body).as_ref()].concat();
        tlv(0x30, &[&body, &ed25519, &tlv(0x03, &[&signature])])
    };
    let ca_key = Ed25519KeyPair::generate().unwrap();
    let key = Ed25519KeyPair::generate().unwrap();
    let is_authority = extension(19, &[0x30, 0x03, 0x01, 0x01, 0xff]);
    let for_loopback = extension(17, &[0x30, 0x06, 0x87, 0x04, 127, 0, 0, 1]);
    let ca = issue("authority", &ca_key, &ca_key, &is_authority);
    let leaf = issue("server", &key, &ca_key, &for_loopback);

    let key = key.to_pkcs8v1().unwrap().as_ref().to_vec();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.into()], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let pem = BASE64_STANDARD.encode(ca);
    (
        format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n"),
        config,
    )
}

/// A client that does not rest between tries.
fn client(proxy: Option<&str>, ca: Option<&str>) -> Client {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.unwrap_or_default()).unwrap();
    let client = Client::try_new(proxy, ca.map(|_| file.path())).unwrap();
    Client {
        first_pause: Duration::ZERO,
        ..client
    }
}

fn ok(content: &[u8]) -> Reply {
    (200, Vec::new(), content.to_vec())
}

fn chip() -> Chip {
    Chip {
        chip_id: "0a".repeat(64),
        bootloader: 3,
        tee: 0,
        snp: 8,
        microcode: 115,
        fmc: None,
    }
}

fn amd() -> Service {
    let line = format!(
        "GET /vcek/v1/Milan/{}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115",
        "0a".repeat(64)
    );
    Service::default()
        .gives("GET /vcek/v1/Milan/crl", ok(b"list"))
        .gives(&line, ok(VCEK))
}

#[tokio::test]
async fn amds_files_are_asked_for_by_product_and_version() {
    let service = amd();
    let base = service.start().await;
    let files = amd::fetch(&client(None, None), &base, "Milan", &[chip()])
        .await
        .unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        ["amd-Milan.crl", "amd-Milan-0a0a0a0a0a0a0a0a-3-0-8-115.der"]
    );
    assert_eq!(files[0].content, b"list");
    assert_eq!(files[1].content, VCEK);
    assert_eq!(files[0].source, format!("{base}/vcek/v1/Milan/crl"));
    let turin = Chip {
        chip_id: "0b".repeat(8),
        fmc: Some(1),
        ..chip()
    };
    let error = amd::fetch(
        &client(None, None),
        &base,
        "Turin",
        std::slice::from_ref(&turin),
    )
    .await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .ends_with("/vcek/v1/Turin/crl: answered 404 Not Found")
    );
    let service = service.gives("GET /vcek/v1/Turin/crl", ok(b"list"));
    let _ = amd::fetch(&client(None, None), &base, "Turin", &[turin]).await;
    let last = service.seen().pop().unwrap().line;
    let expected = "GET /vcek/v1/Turin/0b0b0b0b0b0b0b0b\
                    ?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115&fmcSPL=01";
    assert_eq!(last, expected);
}

/// The recorded collateral, taken apart into the service's answers.
fn intel() -> Service {
    let recorded: HashMap<String, String> = serde_json::from_str(COLLATERAL).unwrap();
    let part = |name: &str| recorded[name].clone();
    let encoded = |name: &str| part(name).replace('\n', "%0A").replace(' ', "%20");
    let signed = |member: &str, name: &str| {
        let signature = part(&format!("{name}_signature"));
        format!(
            "{{\"{member}\":{},\"signature\":\"{signature}\"}}",
            part(name)
        )
        .into_bytes()
    };
    let hex = |name: &str| hex::decode(part(name)).unwrap();
    Service::default()
        .gives(
            "GET /tdx/certification/v4/tcb?fmspc=B0C06F000000",
            (
                200,
                vec![("TCB-Info-Issuer-Chain", encoded("tcb_info_issuer_chain"))],
                signed("tcbInfo", "tcb_info"),
            ),
        )
        .gives(
            "GET /tdx/certification/v4/qe/identity",
            (
                200,
                vec![(
                    "SGX-Enclave-Identity-Issuer-Chain",
                    encoded("qe_identity_issuer_chain"),
                )],
                signed("enclaveIdentity", "qe_identity"),
            ),
        )
        .gives(
            "GET /sgx/certification/v4/pckcrl?ca=platform&encoding=der",
            (
                200,
                vec![("SGX-PCK-CRL-Issuer-Chain", encoded("pck_crl_issuer_chain"))],
                hex("pck_crl"),
            ),
        )
        .gives("GET /IntelSGXRootCA.der", ok(&hex("root_ca_crl")))
}

#[tokio::test]
async fn intels_answers_become_the_recorded_collateral() {
    let base = intel().start().await;
    let fetched = intel::fetch(
        &client(None, None),
        &base,
        &base,
        "B0C06F000000",
        "platform",
    )
    .await;
    let file = fetched.unwrap();
    assert_eq!(file.name, "intel-B0C06F000000-platform.json");
    let made: Value = serde_json::from_slice(&file.content).unwrap();
    let recorded: Value = serde_json::from_str(COLLATERAL).unwrap();
    assert_eq!(made, recorded);
}

#[tokio::test]
async fn an_answer_of_another_form_is_refused() {
    let line = "GET /tdx/certification/v4/tcb?fmspc=000000000000";
    let cases = [
        ("no JSON", ok(b"<html>"), "not the JSON of this service"),
        ("other JSON", ok(b"{}"), "not the JSON of this service"),
        (
            "no chain",
            ok(br#"{"tcbInfo":{},"signature":""}"#),
            "no issuers' chain in its header field",
        ),
        (
            "bad chain",
            (
                200,
                vec![("TCB-Info-Issuer-Chain", "%0".to_owned())],
                br#"{"tcbInfo":{},"signature":""}"#.to_vec(),
            ),
            "no issuers' chain in its header field",
        ),
    ];
    for (name, reply, expected) in cases {
        let base = intel().gives(line, reply).start().await;
        let client = client(None, None);
        let fetched = intel::fetch(&client, &base, &base, "000000000000", "platform");
        let error = fetched.await.unwrap_err().to_string();
        assert!(error.ends_with(expected), "{name}: {error}");
    }
}

const ID: &str = "NV_GPU_DRIVER_GH100_550.90.07";

fn rim_answer(id: &str, rim: &str) -> Reply {
    let answer = serde_json::json!({ "id": id, "rim": rim, "sha256": "", "rim_format": "TCG" });
    ok(answer.to_string().as_bytes())
}

#[tokio::test]
async fn nvidias_manifest_comes_out_of_its_answer() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let line = format!("GET /v1/rim/{ID}");
    let rim = BASE64_STANDARD.encode(RIM);
    let service = Service::default().gives(&line, rim_answer(ID, &rim));
    let base = service.start().await;
    let key = Bearer::try_new(" key\n").unwrap();
    let fetch = |key| {
        let (base, client) = (base.clone(), client(None, None));
        async move { nvidia::fetch_rim(&client, &base, ID, key).await.unwrap() }
    };
    let file = fetch(Some(&key)).await;
    assert_eq!(
        (file.name, file.content),
        (format!("{ID}.xml"), RIM.to_vec())
    );
    fetch(None).await;
    let keys: Vec<_> = service
        .seen()
        .into_iter()
        .map(|seen| seen.authorization)
        .collect();
    assert_eq!(keys, [Some("Bearer key".to_owned()), None]);

    let cases = [
        (rim_answer("NV_OTHER", &rim), "an answer for another id"),
        (rim_answer(ID, "*"), "a manifest that is not base64"),
        (ok(b"[]"), "not the JSON of this service"),
    ];
    for (reply, expected) in cases {
        let base = Service::default().gives(&line, reply).start().await;
        let fetched = nvidia::fetch_rim(&client(None, None), &base, ID, None).await;
        let error = fetched.unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

/// The proxy would read it, and so would everybody between here and a service.
#[tokio::test]
async fn a_key_does_not_travel_in_the_clear() {
    let key = Bearer::try_new("key").unwrap();
    assert_eq!(format!("{key:?}"), "Bearer(..)");
    assert!(Bearer::try_new("two\nlines").is_none());
    let cases = [
        (None, "http://rim.test"),
        (None, "http://127.0.0.1.test"),
        (Some("http://proxy.test:3128"), "http://localhost:1"),
    ];
    for (proxy, base) in cases {
        let fetched = nvidia::fetch_rim(&client(proxy, None), base, ID, Some(&key)).await;
        let error = fetched.unwrap_err();
        assert!(
            matches!(error, FetchError::PlainKey { .. }),
            "{base}: {error}"
        );
    }
}

#[tokio::test]
async fn an_ocsp_request_is_posted() {
    let service = Service::default().gives("POST /", ok(OCSP));
    let base = service.start().await;
    let fetched = nvidia::fetch_ocsp(&client(None, None), &base, b"request".to_vec()).await;
    assert_eq!(fetched.unwrap().content, OCSP);
    let seen = service.seen();
    assert_eq!(seen[0].content, "request");
}

#[tokio::test]
async fn a_service_that_has_too_much_to_do_is_asked_again() {
    let busy = |status| (status, vec![("Retry-After", "0".to_owned())], Vec::new());
    let line = "GET /vcek/v1/Milan/crl";
    let fetch = |service: &Service| {
        let service = service.clone();
        async move {
            let base = service.start().await;
            let fetched = amd::fetch(&client(None, None), &base, "Milan", &[]).await;
            (
                fetched.map_err(|error| error.to_string()),
                service.seen().len(),
            )
        }
    };
    let service = Service::default();
    let service = service
        .gives(line, busy(429))
        .gives(line, busy(503))
        .gives(line, ok(b"list"));
    let (fetched, tries) = fetch(&service).await;
    assert_eq!((fetched.unwrap().len(), tries), (1, 3));

    let (fetched, tries) = fetch(&Service::default().gives(line, busy(429))).await;
    let error = fetched.unwrap_err();
    assert!(
        error.ends_with("answered 429 Too Many Requests (4 times)"),
        "{error}"
    );
    assert_eq!(tries, 4);

    for status in [400, 404] {
        let (fetched, tries) = fetch(&Service::default().gives(line, busy(status))).await;
        assert!(fetched.unwrap_err().contains(&status.to_string()));
        assert_eq!(tries, 1, "{status}");
    }
    let moved = (302, vec![("Location", "/else".to_owned())], Vec::new());
    let (fetched, tries) = fetch(&Service::default().gives(line, moved)).await;
    assert!(fetched.unwrap_err().ends_with("answered 302 Found"));
    assert_eq!(tries, 1);
}

#[test]
fn a_rest_is_bounded_and_read_in_seconds() {
    let of = |text| seconds(&HeaderValue::from_static(text));
    assert_eq!(of("7"), Some(Duration::from_secs(7)));
    assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    assert_eq!(of("-1"), None);
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let line = "GET /vcek/v1/Milan/crl";
    for (len, fits) in [(MAX_ANSWER, true), (MAX_ANSWER + 1, false)] {
        let base = Service::default()
            .gives(line, ok(&vec![7; len]))
            .start()
            .await;
        let fetched = amd::fetch(&client(None, None), &base, "Milan", &[]).await;
        match fetched {
            Ok(files) => assert!(fits && files[0].content.len() == len),
            Err(error) => assert!(
                !fits && error.to_string().ends_with("of more than 1048576 bytes"),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn tls_ends_at_whoever_the_given_authority_vouches_for() {
    let service = amd();
    let (base, ca) = service.start_tls().await;
    let (_, other) = Service::default().start_tls().await;
    let fetched = amd::fetch(&client(None, Some(&ca)), &base, "Milan", &[chip()]).await;
    assert_eq!(fetched.unwrap().len(), 2);
    for ca in [None, Some(other.as_str())] {
        let error = amd::fetch(&client(None, ca), &base, "Milan", &[])
            .await
            .unwrap_err();
        assert!(matches!(&error, FetchError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(service.seen().len(), 2);
}

#[tokio::test]
async fn a_proxy_tunnels_tls_and_passes_on_the_rest() {
    let service = amd();
    let (base, ca) = service.start_tls().await;
    let (through, asked) = proxy(Service::default(), false).await;
    let fetched = amd::fetch(&client(Some(&through), Some(&ca)), &base, "Milan", &[]).await;
    assert_eq!(fetched.unwrap()[0].content, b"list");
    let authority = base.trim_start_matches("https://");
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT {authority}")]);

    let line = "GET http://kds.test/vcek/v1/Milan/crl";
    let (through, _) = proxy(Service::default().gives(line, ok(b"plain")), false).await;
    let fetched = amd::fetch(
        &client(Some(&through), None),
        "http://kds.test",
        "Milan",
        &[],
    )
    .await;
    assert_eq!(fetched.unwrap()[0].content, b"plain");

    let (through, _) = proxy(Service::default(), true).await;
    let fetched = amd::fetch(&client(Some(&through), Some(&ca)), &base, "Milan", &[]).await;
    let error = fetched.unwrap_err().to_string();
    assert!(
        error.ends_with("the proxy answered 407 Proxy Authentication Required"),
        "{error}"
    );
}

#[tokio::test]
async fn arguments_that_lead_nowhere_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Client::try_new(None, Some(file.path())).unwrap_err();
    assert!(matches!(error, FetchError::Ca { .. }), "{error}");
    for proxy in ["https://proxy:3128", "proxy", "ftp://proxy", ""] {
        let error = Client::try_new(Some(proxy), None).unwrap_err();
        assert!(matches!(error, FetchError::Address(_)), "{proxy}: {error}");
    }
    for base in ["kds", "ftp://kds", "http://user@kds"] {
        let error = amd::fetch(&client(None, None), base, "Milan", &[])
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Address(_)), "{base}: {error}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = amd::fetch(&client(None, None), &base, "Milan", &[])
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    let through = client(Some(&base), None);
    let fetched = amd::fetch(&through, "https://kds.test", "Milan", &[]).await;
    let error = fetched.unwrap_err().to_string();
    let proxy = base.trim_start_matches("http://");
    assert!(
        error.starts_with(&format!("the proxy {proxy}: connect: ")),
        "{error}"
    );
}
