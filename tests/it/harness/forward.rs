//! A forward proxy as companies have them: it opens tunnels by CONNECT, and knows names that nobody
//! else knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use super::tls::Identity;

/// A running proxy.
pub(crate) struct Forward {
    /// Its own address.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where hosts with their ports really are.
    places: HashMap<String, String>,
    /// The line that each head must have.
    wanted: Option<String>,
    answers: Mutex<HashMap<String, Answer>>,
    targets: Mutex<Vec<String>>,
    cuts: watch::Sender<usize>,
}

/// What is done with whoever asks for a target.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// This status and no tunnel.
    Refuse(u16),
    /// Nothing at all.
    Silence,
}

impl Forward {
    /// Starts one that knows these hosts, and wants this field if one is given; by TLS if it has an
    /// identity.
    pub(crate) async fn start(
        places: &[(&str, &str)],
        wanted: Option<&str>,
        identity: Option<&Identity>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = identity.map(Identity::acceptor);
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let real = |url: &str| url.rsplit_once('/').unwrap().1.to_owned();
        let places = places.iter().map(|(host, at)| (real(host), real(at)));
        let shared = Arc::new(Shared {
            places: places.collect(),
            wanted: wanted.map(str::to_owned),
            answers: Mutex::default(),
            targets: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&serving), acceptor.clone());
                tokio::spawn(async move { accepted(&shared, stream, acceptor).await });
            }
        });
        Self { url, shared }
    }

    /// The targets that were asked for so far, in order.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.shared.targets.lock().unwrap().clone()
    }

    /// From now on answers so whoever asks for `target`, and closes the tunnels that are open.
    pub(crate) fn answer(&self, target: &str, answer: Answer) {
        let target = target.rsplit_once('/').unwrap().1.to_owned();
        self.shared.answers.lock().unwrap().insert(target, answer);
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accepted(shared: &Shared, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    match acceptor {
        None => serve(shared, stream).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(shared, stream).await;
            }
        }
    }
}

async fn serve(shared: &Shared, mut near: impl AsyncRead + AsyncWrite + Unpin) {
    let mut cuts = shared.cuts.subscribe();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match near.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap();
    let target = line.strip_prefix("CONNECT ").unwrap();
    let target = target.strip_suffix(" HTTP/1.1").unwrap();
    assert!(head.contains(&format!("\r\nhost: {target}\r\n")), "{head}");
    let wants = |wanted: &String| !head.lines().any(|line| line == wanted);
    let status = match shared.answers.lock().unwrap().get(target) {
        _ if shared.wanted.as_ref().is_some_and(wants) => Some(407),
        Some(Answer::Refuse(status)) => Some(*status),
        Some(Answer::Silence) => None,
        None => Some(200),
    };
    shared.targets.lock().unwrap().push(target.to_owned());
    let Some(status) = status else {
        return std::future::pending().await;
    };
    let mut far = None;
    if status == 200
        && let Some(place) = shared.places.get(target)
    {
        far = TcpStream::connect(place).await.ok();
    }
    let status = if status == 200 && far.is_none() {
        502
    } else {
        status
    };
    let answer = format!("HTTP/1.1 {status} said\r\n\r\n");
    if near.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    let Some(mut far) = far else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cuts.changed() => {}
    }
}
