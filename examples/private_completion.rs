//! One completion, sealed here to a node that was verified here.
//!
//! With a demo running in another terminal,
//!
//! ```sh
//! cargo run -- demo --dir ./first --api-key sk-mine
//! ```
//!
//! through its gateway, which carries and cannot read:
//!
//! ```sh
//! SEALGATE_API_KEY=sk-mine cargo run --example private_completion -- \
//!     http://127.0.0.1:8080 ./first/policy.toml echo "Hello, world!"
//! ```
//!
//! or, with `--node` before the address that `./first/node.toml` has, straight to the node. It prints
//! who vouches for the node, then the answer as it comes. The demo's root is a software root: it
//! shows how this works and protects nothing.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Write as _},
    path::Path,
};

use attestation::time::to_rfc3339;
use sealgate::client::{Channel, Client, Policy, Reply};
use serde_json::{Value, json};

const USAGE: &str = "usage: private_completion [--node] URL POLICY MODEL PROMPT";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let at_node = args.first().is_some_and(|arg| arg == "--node");
    if at_node {
        args.remove(0);
    }
    let [url, policy_file, model, prompt] = args.as_slice() else {
        return Err(USAGE.into());
    };
    let policy = read_policy(Path::new(policy_file))?;
    let mut builder = if at_node {
        Client::at_node(url, policy)
    } else {
        Client::at_gateway(url, policy)
    };
    if let Some(key) = env::var("SEALGATE_API_KEY").ok().filter(|_| !at_node) {
        builder = builder.api_key(&key);
    }
    let channel = builder.build()?.verify(model).await?;
    let mut out = io::stdout();
    introduce(&channel, &mut out)?;
    let body = json!({"model": model, "prompt": prompt, "max_tokens": 256, "stream": true});
    match channel.completions(&body).await? {
        Reply::Stream(mut events) => {
            while let Some(event) = events.next().await? {
                let event: Value = event.json()?;
                let text = event.pointer("/choices/0/text").and_then(Value::as_str);
                write!(out, "{}", text.unwrap_or_default())?;
                out.flush()?;
            }
            // An answer that was cut never gets here.
            let complete = events.finish()?;
            let tokens = complete.usage().map_or(0, |usage| usage.completion_tokens);
            writeln!(out, "\ncomplete: {tokens} tokens")?;
        }
        // What a node refuses, it says as a whole.
        Reply::Whole(whole) => writeln!(out, "status {}", whole.status())?,
    }
    Ok(())
}

/// The policy, and the files that it names by their place beside it.
fn read_policy(file: &Path) -> Result<Policy, Box<dyn Error>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let text = fs::read_to_string(file)?;
    Ok(Policy::from_toml(&text, &mut |name| {
        fs::read(folder.join(name))
    })?)
}

fn introduce(channel: &Channel, out: &mut impl io::Write) -> io::Result<()> {
    let node = channel.node();
    writeln!(
        out,
        "verified: {}, {} evidence by a {}, until {}\nstatement: {}",
        node.node_id(),
        node.tee(),
        node.root().as_str(),
        to_rfc3339(channel.ends_at()),
        node.statement_digest(),
    )
}
