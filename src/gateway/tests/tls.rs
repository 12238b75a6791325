//! Connections that must end at the certificate that the evidence names.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    NamedGroup, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::ParsedCertificate,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    fake::{FakeNode, root},
    harness::{BODY, Running},
};

/// The end of TLS before a node; counts the connections whose handshake went through.
pub(crate) struct Front {
    pub(crate) url: String,
    pub(crate) handshakes: Arc<AtomicUsize>,
    /// Those of them whose keys were agreed on with X25519 and ML-KEM-768 together.
    post_quantum: Arc<AtomicUsize>,
}

fn certificate() -> CertificateDer<'static> {
    // Any key pair will do; this one is at hand.
    CertificateDer::from_pem_slice(root().vcek_pem().as_bytes()).unwrap()
}

pub(crate) fn spki_sha256() -> [u8; 32] {
    let certificate = certificate();
    let parsed = ParsedCertificate::try_from(&certificate).unwrap();
    Sha256::digest(parsed.subject_public_key_info().as_ref()).into()
}

impl Front {
    pub(crate) async fn start(node: SocketAddr) -> Self {
        let key = PrivateKeyDer::from_pem_slice(root().vcek_key_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let handshakes = Arc::new(AtomicUsize::new(0));
        let post_quantum = Arc::new(AtomicUsize::new(0));
        let counts = (Arc::clone(&handshakes), Arc::clone(&post_quantum));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, (count, hybrid)) = (acceptor.clone(), counts.clone());
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(stream).await else {
                        return;
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    let group = near.get_ref().1.negotiated_key_exchange_group();
                    if group.unwrap().name() == NamedGroup::X25519MLKEM768 {
                        hybrid.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut far = TcpStream::connect(node).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self {
            url,
            handshakes,
            post_quantum,
        }
    }
}

#[tokio::test]
async fn a_certificate_that_the_evidence_names_needs_no_other_voucher() {
    let node = FakeNode::start_pinned("one", Some(spki_sha256())).await;
    let front = Front::start(node.address).await;
    let gateway = Running::start_before(&[front.url], "").await;
    gateway.until_ready().await;
    for _ in 0..3 {
        assert_eq!(gateway.post(BODY).await.status, 200);
    }
    assert_eq!(
        front.handshakes.load(Ordering::Relaxed),
        2,
        "one for evidence, one for requests"
    );
    assert_eq!(front.post_quantum.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn nothing_is_sent_to_another_certificate() {
    for pin in [Some([0; 32]), None] {
        let node = FakeNode::start_pinned("one", pin).await;
        let front = Front::start(node.address).await;
        let gateway = Running::start_before(&[front.url], "").await;
        gateway.until_ready().await;
        let got = gateway.post(BODY).await;
        assert_eq!(got.code(), (503, "no_node_available".to_owned()), "{pin:?}");
        assert_eq!(node.asked(), 0, "{pin:?}");
    }
}

#[tokio::test]
async fn a_plain_node_behind_an_https_address_is_never_reached() {
    let node = FakeNode::start("one").await;
    let url = format!("https://{}", node.address);
    let gateway = Running::start_before(&[url], "[timeouts]\nattest_ms = 500\n").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        gateway.post(BODY).await.code(),
        (503, "no_attested_node".to_owned())
    );
    assert_eq!((node.attested(), node.asked()), (0, 0));
}
