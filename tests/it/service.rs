//! The service manager's side: sockets that it opened, and what it is told.

use std::{
    net::TcpListener,
    os::fd::{AsRawFd as _, OwnedFd},
    process::Stdio,
};

use serde_json::json;
use tokio::{net::UnixDatagram, process::Command};

use crate::harness::{Engine, Process, Setup, process::sealgate, prompt, setup::Files, soon};

/// What a role tells, one message at a time.
struct Told(UnixDatagram);

impl Told {
    fn new(files: &Files) -> (Self, std::path::PathBuf) {
        let path = files.dir.path().join("notify");
        (Self(UnixDatagram::bind(&path).unwrap()), path)
    }

    async fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let read = soon("it tells", self.0.recv(&mut buffer)).await.unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    /// The next message that is no sign of life.
    async fn said(&self) -> String {
        loop {
            let text = self.next().await;
            if text.trim() != "WATCHDOG=1" {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn the_manager_is_told_of_start_reload_and_end_and_that_the_role_lives() {
    for role in ["gateway", "node"] {
        let (files, engine) = (Files::new(), Engine::start().await);
        let (told, path) = Told::new(&files);
        let config = match role {
            "node" => files.node("node-a", &engine, ""),
            _ => files.gateway(&["http://127.0.0.1:1"], ""),
        };
        let mut command = sealgate();
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20000");
        let mut process = Process::start_by(command, role, &config).await;
        assert_eq!(told.next().await.trim(), "READY=1", "{role}");
        for _ in 0..3 {
            assert_eq!(told.next().await.trim(), "WATCHDOG=1", "{role}");
        }
        process.signal("HUP").await;
        let reloading = told.said().await;
        assert!(reloading.contains("RELOADING=1"), "{role}: {reloading}");
        assert!(reloading.contains("MONOTONIC_USEC="), "{role}: {reloading}");
        assert_eq!(told.said().await.trim(), "READY=1", "{role}");
        process.terminate().await;
        assert_eq!(told.said().await.trim(), "STOPPING=1", "{role}");
        let status = soon("it ends", process.ended()).await;
        assert!(status.success(), "{role}: {status}");
    }
}

/// `sealgate` with `socket` as its first passed one.
fn passing(socket: OwnedFd, name: &str) -> Command {
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\" 3<&0 </dev/null";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sealgate")]);
    command.stdin(Stdio::from(socket));
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    command
}

#[tokio::test]
async fn a_socket_that_listens_already_is_taken_in_place_of_the_configured_address() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (of_node, of_gateway) = (socket(), socket());
    let address = |socket: &TcpListener| format!("http://{}", socket.local_addr().unwrap());
    let (node_url, gateway_url) = (address(&of_node), address(&of_gateway));
    // Who connects before anything runs is waited for.
    let early = reqwest::Client::new().get(format!("{gateway_url}/health"));
    let early = tokio::spawn(early.send());
    let config = files.node("node-a", &engine, "");
    let node = Process::start_by(passing(of_node.into(), "public"), "node", &config).await;
    assert_eq!(node.url, node_url);
    let config = files.gateway(&[&node.url], "");
    let command = passing(of_gateway.into(), "sealgate-gateway.socket");
    let gateway = Process::start_by(command, "gateway", &config).await;
    assert_eq!(gateway.url, gateway_url);
    assert_eq!(early.await.unwrap().unwrap().status(), 200);
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert_eq!(reply.status(), 200);
}

/// `sealgate` with two passed sockets, in that order.
fn passing_two(sockets: [OwnedFd; 2], names: &str) -> (Command, OwnedFd) {
    let [first, second] = sockets;
    rustix::io::fcntl_setfd(&second, rustix::io::FdFlags::empty()).unwrap();
    // Not every sh knows descriptors of two digits.
    let mut command = Command::new("bash");
    let number = second.as_raw_fd();
    let script = format!(
        "LISTEN_PID=$$; export LISTEN_PID; exec 8<&{number}; exec \"$@\" 3<&0 4<&8 </dev/null"
    );
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_sealgate")]);
    command.stdin(Stdio::from(first));
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    (command, second)
}

#[tokio::test]
async fn sockets_are_told_apart_by_their_names() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    for role in ["node", "gateway"] {
        let config = match role {
            "node" => files.node("node-a", &engine, admin),
            _ => files.gateway(&["http://127.0.0.1:1"], admin),
        };
        for names in [
            "public:admin",
            "admin:public",
            "admin:sealgate-gateway.socket",
        ] {
            let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let urls = sockets
                .each_ref()
                .map(|socket| format!("http://{}", socket.local_addr().unwrap()));
            let (command, held) = passing_two(sockets.map(OwnedFd::from), names);
            let process = Process::start_by(command, role, &config).await;
            drop(held);
            let is_first = names.starts_with("admin");
            let [first, second] = &urls;
            let (public, admin) = if is_first {
                (second, first)
            } else {
                (first, second)
            };
            assert_eq!((&process.url, &process.admin), (public, admin), "{names}");
            let metrics = reqwest::get(format!("{admin}/metrics")).await.unwrap();
            assert_eq!(metrics.status(), 200, "{names}");
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let process = Process::start_by(passing(socket.into(), "admin"), role, &config).await;
        assert_eq!(process.admin, url, "{role}");
        assert_ne!(process.url, url, "{role}");
    }
}

#[tokio::test]
async fn two_sockets_for_one_listener_end_the_start() {
    let files = Files::new();
    let config = files.gateway(
        &["http://127.0.0.1:1"],
        "[admin]\nlisten = \"127.0.0.1:0\"\n",
    );
    for (names, said) in [
        ("public:public", "two sockets for the public listener"),
        (
            "public:sealgate-gateway.socket",
            "two sockets for the public listener",
        ),
        ("", "two sockets for the public listener"),
        ("admin:admin", "two sockets for the admin listener"),
        ("public:other", "\"other\""),
    ] {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().into());
        let (mut command, _held) = passing_two(sockets, names);
        command.arg("gateway").arg("--config").arg(&config);
        let output = soon(names, command.output()).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{names}: {text}");
        assert!(text.contains(said), "{names}: {text}");
    }
}

#[tokio::test]
async fn a_socket_that_cannot_be_served_ends_the_start() {
    let files = Files::new();
    let listening = |address: &str| OwnedFd::from(TcpListener::bind(address).unwrap());
    let open =
        "auth = \"open\"\npolicy = \"policy.toml\"\n[[node]]\nurl = \"http://127.0.0.1:1\"\n";
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let cases = [
        (
            "no name that is known",
            listening("127.0.0.1:0"),
            "other",
            "\"other\"",
        ),
        ("no TCP", udp.into(), "public", "\"public\""),
        (
            "open to everybody",
            listening("0.0.0.0:0"),
            "public",
            "loopback",
        ),
        (
            "no table for it",
            listening("127.0.0.1:0"),
            "admin",
            "FileDescriptorName=admin",
        ),
    ];
    for (name, socket, named, said) in cases {
        let config = files.write("gateway.toml", open);
        let mut command = passing(socket, named);
        command.arg("gateway").arg("--config").arg(config);
        let output = soon(name, command.output()).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(said), "{name}: {text}");
    }
}
