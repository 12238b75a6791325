//! `sealgate demo`: a software root, a node and a gateway in one process, and what they verified.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use attestation::software_root::SoftwareRoot;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{keys, role, terminal};
use crate::{
    clock::Clock,
    config::{
        self, Loaded,
        gateway::GatewayConfig,
        node::{EngineUrl, InvalidEngineUrl, is_model_name},
        store::resolved,
        terms::KeyTerms,
    },
    gateway::Gateway,
    node::{Node, SOFTWARE_MEASUREMENT},
    store::{KeyError, KeySecret, NewKey, Store},
};

/// Files of a set-up; a folder that holds one of them is not overwritten.
const FILES: [&str; 10] = [
    "gateway.toml",
    "node.toml",
    "policy.toml",
    "sealgate.db",
    "sealgate.db-shm",
    "sealgate.db-wal",
    "sealgate.secret",
    "sealgate.journal",
    "sealgate.journal-receipts",
    "software-root",
];

/// Name of the demo's key.
const KEY_NAME: &str = "demo";
/// Name of the demo's node.
const NODE_ID: &str = "demo-node";
/// Longest API key that a gateway looks at, in bytes.
const MAX_KEY: usize = 512;
/// How long a demo may take to be verified before it says what it waits for.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the gateway listens; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// An OpenAI-compatible engine, such as http://127.0.0.1:8000; without it an echo engine.
    #[arg(long, value_name = "URL", value_parser = parse_engine)]
    engine: Option<String>,
    /// The engine's model to serve; without it all that the engine lists.
    #[arg(long, value_name = "NAME", value_parser = parse_model)]
    model: Option<String>,
    /// The API key to accept; without it a new one is made. Others on this machine can read it.
    #[arg(long, value_name = "KEY", value_parser = parse_api_key)]
    api_key: Option<String>,
    /// Keep the generated files in this folder, as the first real set-up.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn parse_engine(text: &str) -> Result<String, String> {
    let url: EngineUrl = text.parse().map_err(|e: InvalidEngineUrl| e.to_string())?;
    if url.is_local() {
        Ok(text.to_owned())
    } else {
        Err("the demo's policy wants the engine on a loopback address of this machine".to_owned())
    }
}

fn parse_model(text: &str) -> Result<String, &'static str> {
    let legal = is_model_name(text).then(|| text.to_owned());
    legal.ok_or("a name is 1 to 256 visible ASCII characters")
}

fn parse_api_key(text: &str) -> Result<String, &'static str> {
    let legal = (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let legal = legal.then(|| text.to_owned());
    legal.ok_or("a key is 1 to 512 visible ASCII characters")
}

/// Where the files are: a folder that the user keeps, or one that goes with the demo.
enum Folder {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(dir) => dir.path(),
        }
    }

    /// Takes away what a demo that does not start has made: `folder` found none of it there.
    fn clear(&self) {
        for name in FILES {
            let path = self.path().join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    role::with_runtime(Box::pin(demo(args)))
}

/// What was set up, and the key that opens it.
struct SetUp {
    node: Node,
    gateway: Gateway,
    key: KeySecret,
}

async fn demo(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let shutdown = role::shutdown_on_signal()?;
    can_listen(args.listen)?;
    let folder = folder(args.dir.as_deref())?;
    let set_up = tokio::select! {
        set_up = set_up(&args, folder.path()) => set_up.map(Some),
        () = shutdown.cancelled() => Ok(None),
    };
    match set_up {
        Ok(Some(set_up)) => serve(args, folder, set_up, shutdown).await,
        not_set_up => {
            folder.clear();
            not_set_up.map(drop)
        }
    }
}

/// Says before the work of a set-up what would end it after.
fn can_listen(address: SocketAddr) -> Result<(), String> {
    std::net::TcpListener::bind(address)
        .map(drop)
        .map_err(|error| format!("listen on {address}: {error}: give another --listen"))
}

async fn set_up(args: &Args, dir: &Path) -> Result<SetUp, Box<dyn std::error::Error>> {
    let given = args.api_key.clone().map(KeySecret::given);
    let key = given.unwrap_or_else(KeySecret::generate);
    terminal::note("making a software root: two RSA-4096 keys, a few seconds");
    write_root(&dir.join("software-root")).await?;
    let measurement = hex::encode(SOFTWARE_MEASUREMENT);
    fs::write(dir.join("policy.toml"), policy(&measurement))?;

    let node_file = dir.join("node.toml");
    let engine = args.engine.as_deref().unwrap_or("builtin:echo");
    fs::write(&node_file, node_config(engine, args.model.as_deref()))?;
    let node = Node::bind(read(&node_file)?, Clock::system()).await?;
    pin_listen(&node_file, "127.0.0.1:0", node.address())?;

    let gateway_file = dir.join("gateway.toml");
    fs::write(&gateway_file, gateway_config(args.listen, node.address()))?;
    let config = read(&gateway_file)?;
    store_key(&config, &key).await?;
    let gateway = Gateway::bind(config, Clock::system()).await?;
    pin_listen(&gateway_file, &args.listen.to_string(), gateway.address())?;

    Ok(SetUp { node, gateway, key })
}

async fn serve(
    args: Args,
    folder: Folder,
    SetUp { node, gateway, key }: SetUp,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let node_shutdown = CancellationToken::new();
    let node = tokio::spawn(node.serve(node_shutdown.clone()));
    let verified = gateway.first_verified();
    let stopped = shutdown.clone();
    let address = gateway.address();
    let introduction = tokio::spawn(async move {
        let verified = tokio::select! {
            verified = patiently(verified, args.engine.as_deref()) => verified,
            () = stopped.cancelled() => None,
        };
        if let Some(verified) = verified {
            introduce(
                address,
                key.as_str(),
                &verified,
                args.engine.as_deref(),
                args.model.as_deref(),
            );
            if let Folder::Kept(dir) = &folder {
                say_where(dir);
            }
            terminal::note("Ctrl-C ends the demo");
        }
        folder
    });
    gateway.serve(shutdown).await;
    // The node goes last, so that the gateway's last streams still have their peer.
    node_shutdown.cancel();
    node.await?;
    drop(introduction.await?);
    Ok(())
}

/// A configuration of the demo's own: variables of the environment are for real set-ups.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Loaded<T>, config::ConfigError> {
    config::parse(path, &config::read_text(path)?, std::iter::empty())
}

fn folder(dir: Option<&Path>) -> Result<Folder, Box<dyn std::error::Error>> {
    let Some(dir) = dir else {
        let dir = tempfile::Builder::new()
            .prefix("sealgate-demo-")
            .tempdir()?;
        return Ok(Folder::Passing(dir));
    };
    fs::create_dir_all(dir).map_err(|error| format!("--dir {}: {error}", dir.display()))?;
    if let Some(name) = FILES.iter().find(|name| dir.join(name).exists()) {
        let dir = dir.display();
        return Err(format!(
            "{dir} already holds {name}: choose another --dir, or run what is there with \
             `sealgate node --config {dir}/node.toml` and \
             `sealgate gateway --config {dir}/gateway.toml`"
        )
        .into());
    }
    Ok(Folder::Kept(dir.to_owned()))
}

/// Makes the software root; its signing key is readable by its owner alone.
async fn write_root(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let now = Clock::system().now();
    let root = tokio::task::spawn_blocking(move || SoftwareRoot::generate(now)).await??;
    fs::create_dir(dir)?;
    let files = [
        ("ark.pem", root.ark_pem()),
        ("ask.pem", root.ask_pem()),
        ("vcek.pem", root.vcek_pem()),
        ("vcek.key", root.vcek_key_pem()),
    ];
    for (name, pem) in files {
        keys::file::write_private(&dir.join(name), pem.as_bytes())?;
    }
    Ok(())
}

/// Puts the address that the system chose where the file has `asked`.
fn pin_listen(file: &Path, asked: &str, address: SocketAddr) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    fs::write(
        file,
        text.replacen(&listen(asked), &listen(&address.to_string()), 1),
    )
}

fn listen(address: &str) -> String {
    format!("listen = \"{address}\"")
}

/// Makes the demo's key.
async fn store_key(config: &Loaded<GatewayConfig>, key: &KeySecret) -> Result<(), KeyError> {
    let Some(store) = config.value.store() else {
        return Ok(());
    };
    let store = Store::open(&resolved(config, &store)).await?.acting("demo");
    let new = NewKey {
        name: KEY_NAME.to_owned(),
        owner: None,
        terms: KeyTerms::default(),
        expires_at: None,
    };
    store.create_key(&new, key, Clock::system().now()).await?;
    store.close().await;
    Ok(())
}

fn policy(measurement: &str) -> String {
    format!(
        "# What a node's evidence must show. See docs/policy.md.\n\
         version = 1\n\
         appraisal_max_age_s = 3600\n\n\
         [sev_snp]\n\
         # A software root stands for no hardware: remove it, and set amd_roots, for real nodes.\n\
         amd_roots = false\n\
         software_roots = [\"software-root/ark.pem\"]\n\
         products = [\"genoa\"]\n\
         # What every software root's reports say.\n\
         measurements = [\"{measurement}\"]\n\
         vmpl = 0\n\n\
         [sev_snp.minimum_tcb.genoa]\n\
         bootloader = 10\n\
         tee = 0\n\
         snp = 23\n\
         microcode = 84\n"
    )
}

fn node_config(engine: &str, model: Option<&str>) -> String {
    let engine = toml_edit::Value::from(engine);
    let models = model
        .map(|m| format!("models = [{}]\n", toml_edit::Value::from(m)))
        .unwrap_or_default();
    format!(
        "node_id = \"{NODE_ID}\"\n\
         listen = \"127.0.0.1:0\"\n\
         # For clients that seal so already; both protect less than sealgate's own format.\n\
         dialects = [\"ehbp\", \"seed\"]\n\n\
         [evidence]\n\
         source = \"software-root\"\n\
         dir = \"software-root\"\n\n\
         [[engine]]\n\
         url = {engine}\n{models}\
         # There is no other node to ask: better late than refused.\n\
         queue = 1024\n\
         queue_ms = 120000\n"
    )
}

fn gateway_config(listen: SocketAddr, node: SocketAddr) -> String {
    format!(
        "listen = \"{listen}\"\n\
         auth = \"keys\"\n\
         policy = \"policy.toml\"\n\n\
         # Keys and usage: `sealgate keys` and `sealgate usage` with this file.\n\
         [store]\n\
         url = \"sqlite:sealgate.db\"\n\
         waiting = 256\n\n\
         [limits]\n\
         in_flight = 1024\n\n\
         [[node]]\n\
         url = \"http://{node}\"\n"
    )
}

/// Waits for `verified`, and says for what if that takes its time.
async fn patiently<T>(verified: impl Future<Output = T>, engine: Option<&str>) -> T {
    let mut verified = std::pin::pin!(verified);
    if let Ok(verified) = tokio::time::timeout(PATIENCE, &mut verified).await {
        return verified;
    }
    match engine {
        Some(engine) => terminal::note(format_args!(
            "waiting for {engine} to list its models (--model NAME goes on without its list)"
        )),
        None => terminal::note("waiting for the gateway to verify the node"),
    }
    verified.await
}

/// Says what was verified, and gives commands that work when pasted.
fn introduce(
    address: SocketAddr,
    key: &str,
    verified: &attestation::VerifiedNode,
    engine: Option<&str>,
    model: Option<&str>,
) {
    let model = model
        .or_else(|| verified.models().first().map(String::as_str))
        .unwrap_or("echo");
    let engine = engine.unwrap_or(
        "the built-in echo engine, which repeats the prompt (--engine URL for a real one)",
    );
    let base = format!("http://{address}/v1");
    let body = serde_json::json!({"model": model, "prompt": "Hello, world!", "max_tokens": 16});
    let python = format!(
        "from openai import OpenAI; c = OpenAI(base_url={base:?}, api_key={key:?}); \
         print(c.completions.create(model={model:?}, prompt=\"Hello, world!\").choices[0].text)"
    );
    terminal::say(format_args!(
        "verified: {node}, {tee} evidence by a {root}: no TEE protects this demo\n\
         statement: {statement}\n\
         engine: {engine}\n\
         base url: {base}\n\
         api key: {key}\n\n\
         try:\n  curl {base}/completions -H {auth} -H 'Content-Type: application/json' -d {body}\n\
         or, after `pip install openai`:\n  python3 -c {python}\n",
        node = verified.node_id(),
        tee = verified.tee(),
        root = verified.root().as_str(),
        statement = verified.statement_digest(),
        auth = shell_quoted(&format!("Authorization: Bearer {key}")),
        body = shell_quoted(&body.to_string()),
        python = shell_quoted(&python),
    ));
}

fn say_where(dir: &Path) {
    let dir = dir.display();
    terminal::say(format_args!(
        "kept in {dir}. With the demo stopped, the same in two processes:\n  \
         sealgate node --config {dir}/node.toml\n  sealgate gateway --config {dir}/gateway.toml"
    ));
}

/// `text` as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
