//! A certificate authority of the tests', and clients that trust it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::{KEY, soon};

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for this machine.
    pub(crate) fn issue(&self) -> Identity {
        self.issue_with(|_| {})
    }

    pub(crate) fn issue_with(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: pem("CERTIFICATE", signed.der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }

    /// What trusts this authority, and shows `identity` where it is asked for one.
    pub(crate) fn trusted(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some(identity) => {
                let (chain, key) = identity.parsed();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    /// `GET url` over a fresh connection, in HTTP/2 or HTTP/1.1; an error where no reply came.
    pub(crate) async fn get(
        &self,
        url: &str,
        identity: Option<&Identity>,
        h2: bool,
    ) -> Result<Response<Bytes>, hyper_util::client::legacy::Error> {
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(self.trusted(identity))
            .https_only();
        let connector = if h2 {
            builder.enable_http2().build()
        } else {
            builder.enable_http1().build()
        };
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new())
                .http2_only(h2)
                .build::<hyper_rustls::HttpsConnector<HttpConnector>, _>(connector);
        let request = Request::get(url)
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::default())
            .unwrap();
        let (head, body) = soon("a reply", client.request(request)).await?.into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// The certificate that a fresh connection to `address` ends at.
    pub(crate) async fn shown_at(&self, address: &str) -> CertificateDer<'static> {
        let stream = self.connected(address).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }

    /// How the keys of a fresh connection to `address` are agreed on.
    pub(crate) async fn group_at(&self, address: &str) -> NamedGroup {
        let stream = self.connected(address).await;
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        group.unwrap().name()
    }

    async fn connected(&self, address: &str) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(Arc::new(self.trusted(None)));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = soon("a handshake", connector.connect(name, stream)).await;
        stream.unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

impl Identity {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn parsed(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (vec![self.der()], key)
    }

    /// What ends TLS with it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let (chain, key) = self.parsed();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Someone on the path who ends TLS himself, with a certificate of his own, before a node that he
/// reaches by TLS.
pub(crate) struct Middle {
    pub(crate) url: String,
    /// What was sent to him.
    pub(crate) heard: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    pub(crate) async fn start(node: String, own: &Identity, far: ClientConfig) -> Self {
        let (acceptor, connector) = (own.acceptor(), TlsConnector::from(Arc::new(far)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let (node, hearing) = (node.clone(), Arc::clone(&hearing));
                tokio::spawn(async move {
                    let Ok(near) = acceptor.accept(stream).await else {
                        return;
                    };
                    let far = TcpStream::connect(&node).await.unwrap();
                    let name = ServerName::try_from("localhost").unwrap();
                    let far = connector.connect(name, far).await.unwrap();
                    let (mut near_read, mut near_write) = split(near);
                    let (mut far_read, mut far_write) = split(far);
                    let back = async {
                        tokio::io::copy(&mut far_read, &mut near_write)
                            .await
                            .map(drop)
                    };
                    let forth = async {
                        let mut buffer = [0; 4096];
                        loop {
                            let read = near_read.read(&mut buffer).await?;
                            hearing.lock().unwrap().extend_from_slice(&buffer[..read]);
                            if read == 0 {
                                return far_write.shutdown().await;
                            }
                            far_write.write_all(&buffer[..read]).await?;
                        }
                    };
                    let _ = tokio::join!(back, forth);
                });
            }
        });
        Self { url, heard }
    }
}
