use std::path::{Path, PathBuf};

use super::*;

const MINIMAL: &str = "node_id = \"n\"\n\
    [evidence]\nsource = \"software-root\"\ndir = \"software-root\"\n\
    [[engine]]\nurl = \"http://127.0.0.1:8000/v1/\"\n";

fn load(text: &str) -> Result<NodeConfig, String> {
    let loaded = super::super::parse(Path::new("node.toml"), text, std::iter::empty())
        .map_err(|e| e.to_string())?;
    check(&loaded).map_err(|e| e.to_string())?;
    Ok(loaded.value)
}

#[test]
fn the_least_configuration_has_defaults_for_the_rest() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8090");
    assert_eq!(config.keys.life_s.get(), 86_400);
    assert_eq!(config.limits.body_bytes.get(), 16 << 20);
    assert_eq!(
        config.timeouts.engine_idle_ms.duration(),
        Duration::from_secs(120)
    );
    assert_eq!(config.engines[0].url.to_string(), "http://127.0.0.1:8000/");
    assert!(config.engines_are_local());
}

#[test]
fn dialects_are_off_unless_named() {
    let with = |line: &str| load(&format!("{line}\n{MINIMAL}"));
    assert_eq!(load(MINIMAL).unwrap().dialects, []);
    let both = with("dialects = [\"seed\", \"ehbp\"]").unwrap();
    assert_eq!(both.dialects, [Dialect::Seed, Dialect::Ehbp]);
    let pinned = serde_json::to_value(&both).unwrap();
    assert_eq!(pinned["dialects"], serde_json::json!(["seed", "ehbp"]));
    for (line, expected) in [
        ("dialects = [\"ehbp\", \"ehbp\"]", "name each dialect once"),
        (
            "dialects = [\"EHBP\"]",
            "unknown variant `EHBP`, expected `ehbp` or `seed`",
        ),
        ("dialects = \"ehbp\"", "expected a list"),
    ] {
        let error = with(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn both_suites_are_offered_unless_one_is_left_out() {
    let with = |suites: &str| load(&format!("{MINIMAL}[keys]\nsuites = {suites}\n"));
    let both = [Kem::XWing, Kem::X25519];
    assert_eq!(load(MINIMAL).unwrap().keys.suites, both);
    let one = with("[\"x25519\"]").unwrap();
    assert_eq!(one.keys.suites, [Kem::X25519]);
    let pinned = serde_json::to_value(&one).unwrap();
    assert_eq!(pinned["keys"]["suites"], serde_json::json!(["x25519"]));
    let each_once = "name x-wing, x25519 or both, each once";
    for (suites, expected) in [
        ("[]", each_once),
        ("[\"x-wing\", \"x-wing\"]", each_once),
        (
            "[\"ehbp-x25519\"]",
            "unknown variant `ehbp-x25519`, expected `x25519` or `x-wing`",
        ),
    ] {
        let error = with(suites).unwrap_err();
        assert!(error.contains(expected), "{suites}: {error}");
    }
}

#[test]
fn the_pace_has_bounds_and_hides_as_long_as_a_request_may_wait() {
    let paced = |line: &str| load(&format!("{MINIMAL}{line}\n"));
    for fine in [
        "tick_ms = 20",
        "tick_ms = 1000",
        "steps_per_doubling = 16",
        "least_chunks = 1",
        "least_chunks = 4096",
    ] {
        assert!(paced(&format!("[padding]\n{fine}")).is_ok(), "{fine}");
    }
    let waits = |queue_ms, tick_ms, first_byte_ms| {
        paced(&format!(
            "queue_ms = {queue_ms}\n[padding]\ntick_ms = {tick_ms}\n\
             [timeouts]\nengine_first_byte_ms = {first_byte_ms}"
        ))
    };
    // 61,440 ticks: of 20 ms, 1,228.8 s.
    assert!(waits(28_800, 20, 600_000).is_ok());
    assert!(waits(1, 1000, 30_719_999).is_ok());
    for (flaw, named) in [
        (paced("[padding]\ntick_ms = 19"), "padding.tick_ms"),
        (paced("[padding]\ntick_ms = 1001"), "padding.tick_ms"),
        (
            paced("[padding]\nsteps_per_doubling = 0"),
            "steps_per_doubling",
        ),
        (
            paced("[padding]\nsteps_per_doubling = 17"),
            "padding.steps_per_doubling",
        ),
        (paced("[padding]\nleast_chunks = 0"), "least_chunks"),
        (
            paced("[padding]\nleast_chunks = 4097"),
            "padding.least_chunks",
        ),
        (
            waits(28_801, 20, 600_000),
            "set a longer tick or shorter waits",
        ),
        (waits(1, 40, 1_228_801), "padding.tick_ms"),
        (waits(1, 1000, i64::MAX), "padding.tick_ms"),
    ] {
        let error = flaw.unwrap_err();
        assert!(error.contains(named), "{named}: {error}");
    }
}

/// The least configuration with another source.
fn source(lines: &str) -> String {
    MINIMAL.replace("source = \"software-root\"\ndir = \"software-root\"", lines)
}

#[test]
fn every_source_has_defaults() {
    let evidence = |lines: &str| load(&source(lines)).unwrap().evidence;
    let EvidenceConfig::ConfigfsTsm { root, .. } = evidence("source = \"configfs-tsm\"") else {
        panic!("another source")
    };
    assert_eq!(root, PathBuf::from("/sys/kernel/config/tsm/report"));
    let EvidenceConfig::SevGuest { device, .. } = evidence("source = \"sev-guest\"") else {
        panic!("another source")
    };
    assert_eq!(device, PathBuf::from("/dev/sev-guest"));
    let nitro = evidence("source = \"nitro\"");
    let EvidenceConfig::Nitro { device, .. } = &nitro else {
        panic!("another source")
    };
    assert_eq!(*device, PathBuf::from("/dev/nsm"));
    assert_eq!(nitro.collateral().reread_s.get(), 300);
    assert!(nitro.gpus().is_none());
    let gpus = evidence("source = \"sev-guest\"\ngpus = { source = \"nvml\" }");
    let Some(GpusConfig::Nvml { library }) = gpus.gpus() else {
        panic!("no GPUs")
    };
    assert_eq!(*library, PathBuf::from("libnvidia-ml.so.1"));
    let most = format!("certificates = [{}]", "\"x\", ".repeat(8));
    evidence(&format!("source = \"configfs-tsm\"\n{most}"));
}

#[test]
fn of_the_evidence_its_kind_is_pinned_and_no_path() {
    let pinned = |lines: &str| {
        serde_json::to_value(load(&source(lines)).unwrap()).unwrap()["evidence"].clone()
    };
    for (lines, expected) in [
        (
            "source = \"software-root\"\ndir = \"x\"",
            r#"{"source":"software-root"}"#,
        ),
        (
            "source = \"configfs-tsm\"\nroot = \"/x\"\nprivlevel = 1\n\
             certificates = [\"x\"]\n[evidence.collateral]\ntdx = [\"x\"]",
            r#"{"source":"configfs-tsm"}"#,
        ),
        (
            "source = \"sev-guest\"\ndevice = \"/x\"",
            r#"{"source":"sev-guest"}"#,
        ),
        (
            "source = \"nitro\"\ndevice = \"/x\"",
            r#"{"source":"nitro"}"#,
        ),
        (
            "source = \"sev-guest\"\ngpus = { source = \"nvml\" }",
            r#"{"gpus":{"library":"libnvidia-ml.so.1","source":"nvml"},"source":"sev-guest"}"#,
        ),
    ] {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(pinned(lines), expected, "{lines}");
    }
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let engine = |url: &str| MINIMAL.replace("http://127.0.0.1:8000/v1/", url);
    let with = |line: &str| format!("{line}\n{MINIMAL}");
    let after = |lines: &str| format!("{MINIMAL}{lines}\n");
    let cases = [
        ("an unknown key", with("nodeid = 1"), "nodeid"),
        (
            "an upper-case id",
            MINIMAL.replace("\"n\"", "\"N\""),
            "node id",
        ),
        (
            "a remote engine",
            engine("http://10.0.0.1:8000"),
            "allow_remote_engine",
        ),
        ("no scheme", engine("127.0.0.1:8000"), "engine's url"),
        (
            "user information",
            engine("http://a:b@127.0.0.1:1"),
            "engine's url",
        ),
        ("a query", engine("http://127.0.0.1:1/?a"), "engine's url"),
        ("an unknown engine", engine("builtin:other"), "engine's url"),
        (
            "an unknown source",
            MINIMAL.replace("software-root\"\ndir", "none\"\ndir"),
            "none",
        ),
        (
            "an unknown key of a source",
            MINIMAL.replace("dir =", "di ="),
            "di",
        ),
        (
            "a path of another source",
            source("source = \"nitro\"\nroot = \"/x\""),
            "root",
        ),
        (
            "GPUs of an enclave",
            source("source = \"nitro\"\ngpus = { source = \"nvml\" }"),
            "gpus",
        ),
        (
            "an unknown kind of GPU",
            source("source = \"configfs-tsm\"\ngpus = { source = \"other\" }"),
            "other",
        ),
        (
            "an unknown kind of collateral",
            source("source = \"nitro\"\n[evidence.collateral]\ncrl = []"),
            "crl",
        ),
        (
            "files that are never read again",
            source("source = \"nitro\"\n[evidence.collateral]\nreread_s = 0"),
            "reread_s",
        ),
        (
            "more collateral than an answer holds",
            source(&format!(
                "source = \"nitro\"\n[evidence.collateral]\nocsp = [{}]",
                "\"x\", ".repeat(17)
            )),
            "evidence.collateral.ocsp",
        ),
        (
            "many certificates",
            source(&format!(
                "source = \"sev-guest\"\ncertificates = [{}]",
                "\"x\", ".repeat(9)
            )),
            "evidence.certificates",
        ),
        (
            "a zero timeout",
            after("[timeouts]\nbody_ms = 0"),
            "body_ms",
        ),
        ("a zero limit", after("[limits]\nrequests = 0"), "requests"),
        (
            "a key that lives too long",
            after("[keys]\nlife_s = 604801"),
            "life_s",
        ),
        (
            "a model with a blank",
            after("models = [\"a b\"]"),
            "engine.models",
        ),
        (
            "a short digest",
            with("credential_sha256 = \"00\""),
            "SHA-256",
        ),
    ];
    for (name, text, named) in cases {
        let error = load(&text).expect_err(name);
        assert!(error.contains(named), "{name}: {error}");
    }
}

#[test]
fn an_engine_has_defaults_that_it_may_change_itself() {
    let engine = |lines: &str| load(&format!("{MINIMAL}{lines}\n")).map(|it| it.engines[0].clone());
    let usual = engine("").unwrap();
    assert_eq!((usual.max_in_flight, usual.queue), (None, None));
    assert_eq!(usual.queue_ms.duration(), Duration::from_secs(10));
    assert!(usual.watch);
    for (line, salting, pinned) in [
        ("", CacheSalting::Auto, "\"auto\""),
        ("cache_salt = \"auto\"", CacheSalting::Auto, "\"auto\""),
        ("cache_salt = true", CacheSalting::On, "true"),
        ("cache_salt = false", CacheSalting::Off, "false"),
    ] {
        let engine = engine(line).unwrap();
        assert_eq!(engine.cache_salt, salting, "{line}");
        assert_eq!(serde_json::to_string(&engine.cache_salt).unwrap(), pinned);
    }
    for line in [
        "cache_salt = \"on\"",
        "cache_salt = 1",
        "queue = -1",
        "queue_ms = 0",
    ] {
        assert!(engine(line).is_err(), "{line}");
    }
}

#[test]
fn addresses_are_local_only_on_loopback() {
    let cases = [
        ("builtin:echo", true),
        ("http://localhost:1", true),
        ("http://127.9.9.9", true),
        ("https://[::1]:1", true),
        ("http://localhost.example", false),
        ("http://0.0.0.0:1", false),
        ("http://[::ffff:7f00:1]:1", false),
    ];
    for (text, local) in cases {
        assert_eq!(
            text.parse::<EngineUrl>().unwrap().is_local(),
            local,
            "{text}"
        );
    }
}

#[test]
fn what_is_pinned_names_no_replica_and_no_secret() {
    let mut config = load(MINIMAL).unwrap();
    let pinned = serde_json::to_string(&config).unwrap();
    config.node_id = NodeId("other".to_owned());
    config.credential_sha256 = Some(CredentialDigest::of(b"token"));
    config.engines[0].api_key_file = Some("/run/key".into());
    assert_eq!(serde_json::to_string(&config).unwrap(), pinned);
    config.engines[0].url = EngineUrl::Echo;
    assert_ne!(serde_json::to_string(&config).unwrap(), pinned);
}
