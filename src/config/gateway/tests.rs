use std::path::Path;

use super::*;

const MINIMAL: &str = "auth = \"open\"\npolicy = \"policy.toml\"\n\
    [[node]]\nurl = \"http://127.0.0.1:8090\"\n";

fn load(text: &str) -> Result<GatewayConfig, String> {
    let loaded = super::super::parse(Path::new("gateway.toml"), text, std::iter::empty())
        .map_err(|e| e.to_string())?;
    check(&loaded).map_err(|e| e.to_string())?;
    Ok(loaded.value)
}

fn tags(count: usize) -> String {
    let tags = (0..count).map(|tag| format!("\"t{tag}\""));
    tags.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_least_configuration_has_defaults_for_the_rest() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.body_bytes.get(), 8 << 20);
    assert_eq!(config.reattest_s.get(), 300);
    assert_eq!(config.reload_s.get(), 5);
    assert!(config.archive.is_none());
    assert_eq!(config.padding, Padding::Bucket);
    assert!(config.retry_unauthenticated);
    assert_eq!(config.nodes[0].url.to_string(), "http://127.0.0.1:8090");
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let node = |url: &str| MINIMAL.replace("http://127.0.0.1:8090", url);
    let with = |line: &str| format!("{line}\n{MINIMAL}");
    let cases = [
        ("an unknown key", with("listne = 1"), "listne"),
        ("open to the world", with("listen = \"0.0.0.0:1\""), "auth"),
        (
            "keys in a file and in a store",
            format!("keys_file = \"k\"\n{MINIMAL}[store]\n"),
            "keys_file",
        ),
        (
            "no node",
            "auth = \"open\"\npolicy = \"p\"\nnode = []".to_owned(),
            "node",
        ),
        ("a path", node("http://127.0.0.1:1/v1"), "node's url"),
        ("a query", node("http://127.0.0.1:1/?a"), "node's url"),
        (
            "user information",
            node("http://a:b@127.0.0.1:1"),
            "node's url",
        ),
        ("no scheme", node("127.0.0.1:1"), "node's url"),
        (
            "a node twice",
            format!("{MINIMAL}[[node]]\nurl = \"http://127.0.0.1:8090/\"\n"),
            "node.url",
        ),
        (
            "a blank in a name",
            format!("{MINIMAL}[models]\n\"a b\" = \"c\"\n"),
            "models",
        ),
        (
            "a zero timeout",
            format!("{MINIMAL}[timeouts]\nbody_ms = 0\n"),
            "body_ms",
        ),
        (
            "bodies that no node takes",
            format!("{MINIMAL}[limits]\nbody_bytes = 16777217\n"),
            "limits.body_bytes",
        ),
        (
            "an admin listener for everybody",
            format!("{MINIMAL}[admin]\nlisten = \"0.0.0.0:8081\"\n"),
            "admin.token_file",
        ),
        (
            "an admin listener where callers connect",
            format!("{MINIMAL}[admin]\nlisten = \"127.0.0.1:8080\"\n"),
            "admin.listen",
        ),
        (
            "a node that gets nothing",
            format!("{MINIMAL}weight = 0.0\n"),
            "node.weight",
        ),
        (
            "a node that costs nothing",
            format!("{MINIMAL}price = 0.0\n"),
            "node.price",
        ),
        (
            "a weight that is no number",
            format!("{MINIMAL}weight = nan\n"),
            "a number from 0 to 100",
        ),
        (
            "a region with a blank",
            format!("{MINIMAL}region = \"eu west\"\n"),
            "a region or tag is",
        ),
        (
            "more tags than there are bits",
            format!("{MINIMAL}tags = [{}]\n", tags(64)),
            "node.tags",
        ),
        (
            "more than all requests",
            format!("{MINIMAL}[health]\nsuccess_percent = 101\n"),
            "health.success_percent",
        ),
        (
            "out for longer than the longest",
            format!("{MINIMAL}[health]\nout_s = 301\n"),
            "health.max_out_s",
        ),
        (
            "a look in a hundred years",
            format!("{MINIMAL}[health]\nprobe_s = 3153600000\n"),
            "health.probe_s",
        ),
        (
            "an origin with a path",
            format!("{MINIMAL}[cors]\norigins = [\"https://chat.example/\"]\n"),
            "an origin is",
        ),
        (
            "every page where anybody may ask",
            format!("{MINIMAL}[cors]\norigins = [\"*\"]\n"),
            "cors.origins",
        ),
        (
            "announcements from nowhere",
            format!("{MINIMAL}[announce]\nallow = []\n"),
            "announce.allow",
        ),
        (
            "announcements from a pattern",
            format!("{MINIMAL}[announce]\nallow = [\"*.example\"]\n"),
            "a host name",
        ),
        (
            "more announced nodes than can be kept",
            format!("{MINIMAL}[announce]\nallow = [\"a\"]\nmax_nodes = 4097\n"),
            "announce.max_nodes",
        ),
        (
            "no lock at all",
            format!("{MINIMAL}[locks]\ntotal = 0\n"),
            "total",
        ),
        (
            "an archive without a folder",
            format!("{MINIMAL}[archive]\nrequired = true\n"),
            "dir",
        ),
        (
            "an archive that holds nothing",
            format!("{MINIMAL}[archive]\ndir = \"a\"\nmax_bytes = 1000\n"),
            "archive.max_bytes",
        ),
        (
            "an archive that holds nothing of a node",
            format!("{MINIMAL}[archive]\ndir = \"a\"\nmax_bytes_per_node = 1000\n"),
            "archive.max_bytes_per_node",
        ),
        (
            "events of a unit that hides nothing",
            format!("{MINIMAL}[streams]\nobfuscation_unit_bytes = 15\n"),
            "streams.obfuscation_unit_bytes",
        ),
        (
            "events of a unit that is too long",
            format!("{MINIMAL}[streams]\nobfuscation_unit_bytes = 4097\n"),
            "streams.obfuscation_unit_bytes",
        ),
        (
            "events that wait too long",
            format!("{MINIMAL}[streams]\ncoalesce_ms = 1001\n"),
            "streams.coalesce_ms",
        ),
    ];
    for fine in [
        "obfuscation_unit_bytes = 16",
        "obfuscation_unit_bytes = 4096",
        "coalesce_ms = 1000",
    ] {
        assert!(
            load(&format!("{MINIMAL}[streams]\n{fine}\n")).is_ok(),
            "{fine}"
        );
    }
    for (name, text, named) in cases {
        let error = load(&text).expect_err(name);
        assert!(error.contains(named), "{name}: {error}");
    }
}

#[test]
fn a_key_is_its_digest() {
    let file = |digest: &str| format!("[[key]]\nname = \"a\"\nsha256 = \"{digest}\"\n");
    let keys: KeysFile = toml::from_str(&file(&"0a".repeat(32))).unwrap();
    assert_eq!(keys.keys[0].sha256, [10; 32]);
    for wrong in ["", "sk-secret", &"0a".repeat(31)] {
        assert!(toml::from_str::<KeysFile>(&file(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_loopback_host_is_one_whoever_resolves_it() {
    let cases = [
        ("localhost", true),
        ("LOCALHOST", true),
        ("127.0.0.2", true),
        ("[::1]", true),
        ("localhost.example", false),
        ("example", false),
        ("0.0.0.0", false),
    ];
    for (host, loopback) in cases {
        assert_eq!(is_loopback_host(host), loopback, "{host}");
    }
}
