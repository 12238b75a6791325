//! Connections to PostgreSQL whose other end is gone without a word.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{super::*, execute, hold_all, postgres};

/// How long a test waits before it is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to PostgreSQL on which connections can fall silent for ever, as on a network that is cut.
struct Way {
    address: SocketAddr,
    /// Says to the connections that are open that they carry nothing more.
    silent: Arc<Mutex<CancellationToken>>,
}

impl Way {
    async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Arc::<Mutex<CancellationToken>>::default();
        let current = Arc::clone(&silent);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let silent = current.lock().unwrap().clone();
                let server = UnixStream::connect(&socket).await.unwrap();
                let (from_caller, to_caller) = caller.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_caller, to_server, silent.clone()));
                tokio::spawn(carry(from_server, to_caller, silent));
            }
        });
        Self { address, silent }
    }

    /// Cuts what is open; what connects from now on is carried.
    fn cut(&self) {
        std::mem::take(&mut *self.silent.lock().unwrap()).cancel();
    }
}

async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    silent: CancellationToken,
) {
    let mut bytes = [0; 4096];
    loop {
        tokio::select! {
            biased;
            // It stays open, and says nothing.
            () = silent.cancelled() => std::future::pending::<()>().await,
            read = from.read(&mut bytes) => match read {
                Ok(n @ 1..) => to.write_all(&bytes[..n]).await.unwrap_or_default(),
                _ => return,
            },
        }
    }
}

#[tokio::test]
async fn after_a_network_was_cut_the_store_answers_again_whatever_was_left_in_the_middle() {
    let Some(mut place) = postgres().await else {
        return;
    };
    let url = place.config.url.clone();
    let StoreUrl::Postgres(base) = &url else {
        panic!("{url:?}")
    };
    let options = PgConnectOptions::from_str(base).unwrap();
    let file = format!(".s.PGSQL.{}", options.get_port());
    let way = Way::to(options.get_socket().unwrap().join(file)).await;
    let (_, rest) = base.rsplit_once("@").unwrap();
    let (_, rest) = rest.split_once('/').unwrap();
    let through = format!("postgres://postgres@{}/{rest}", way.address);
    place.config.url = through.parse().unwrap();

    let store = place.open().await;
    // All connections are made, and lie ready.
    for store in [&store, &store.for_looks()] {
        drop(hold_all(store).await);
        store.keys().await.unwrap();
    }
    let asking = [store.clone(), store.for_looks()].map(|store| {
        let all = on!(store, pool => pool.options().get_max_connections());
        let ask = |_| {
            let store = store.clone();
            tokio::spawn(async move { execute(&store, "SELECT pg_sleep(10)").await })
        };
        (0..all).map(ask).collect::<Vec<_>>()
    });
    // Each connection is in the middle of a statement.
    let server = PgPool::connect(base).await.unwrap();
    let mut busy = 0_i64;
    while busy < i64::from(POSTGRES_CONNECTIONS + POSTGRES_LOOKS) {
        let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(10)'";
        busy = sqlx::query_scalar(count).fetch_one(&server).await.unwrap();
    }
    way.cut();
    // Nobody waits for an answer any more.
    for asked in asking.into_iter().flatten() {
        asked.abort();
    }
    for store in [store.clone(), store.for_looks()] {
        let again = async { while store.keys().await.is_err() {} };
        timeout(PATIENCE, again).await.unwrap();
    }
}

#[tokio::test]
async fn keys_are_looked_for_while_all_else_waits() {
    let Some(place) = postgres().await else {
        return;
    };
    let store = place.open().await;
    let held = hold_all(&store).await;
    let looked = timeout(PATIENCE, store.for_looks().changes(None)).await;
    assert!(looked.unwrap().unwrap().keys.is_empty());
    assert!(store.keys().await.is_err(), "nothing is left for others");
    drop(held);
    store.keys().await.unwrap();
}
