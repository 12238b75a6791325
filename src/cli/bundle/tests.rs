use std::{fs, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::cli::{Cli, Command as Top};

const DRIVER: &[u8] = include_bytes!("../../../rim/tests/data/NV_GPU_DRIVER_GH100_550.90.07.xml");
const DRIVER_NAME: &str = "NV_GPU_DRIVER_GH100_550.90.07.xml";
const VCEK: &[u8] = include_bytes!("../../../attestation/tests/data/milan-v2/vcek.der");
const OCSP: &[u8] = include_bytes!("../../../attestation/tests/data/nvidia/hopper/ocsp-l2.der");
const THEN: &str = "2025-08-21T12:00:00Z";

/// A folder with a key, a folder for files, and the commands over them.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let bench = Self { dir };
        keygen(&bench.path("key.pem")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> &Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn create(&self, at: &str) -> Result<ExitCode, String> {
        let args = self.arguments(
            "create",
            &["--out", "out", "--key", "key.pem", "--at", at, "in"],
        );
        let Command::Create(args) = args else {
            panic!("another command");
        };
        let at = args.at.unwrap();
        create::run(&args, at).map_err(|error| error.to_string())
    }

    fn check(&self, signer: &str, at: &str) -> Result<bool, String> {
        let args = self.arguments("check", &["out", "--signer", signer, "--at", at]);
        let Command::Check(args) = args else {
            panic!("another command");
        };
        let at = args.at.unwrap();
        let code = check::run(&args, at).map_err(|error| error.to_string())?;
        Ok(code == ExitCode::SUCCESS)
    }

    fn signer(&self) -> String {
        hex::encode(read_key(&self.path("key.pem")).unwrap().public_key())
    }

    /// The command as the line is read; names of files are those of this folder.
    fn arguments(&self, command: &str, arguments: &[&str]) -> Command {
        let full = arguments.iter().map(|argument| {
            let is_file = ["out", "key.pem", "in"].contains(argument);
            if is_file {
                self.path(argument).display().to_string()
            } else {
                (*argument).to_owned()
            }
        });
        let line = ["sealgate", "bundle", command].map(str::to_owned);
        let cli = <Cli as clap::Parser>::try_parse_from(line.into_iter().chain(full)).unwrap();
        let Top::Bundle(command) = cli.command else {
            panic!("another command");
        };
        command
    }
}

#[test]
fn what_was_made_is_believed_in_its_time() {
    let bench = Bench::new();
    bench
        .put(&format!("in/{DRIVER_NAME}"), DRIVER)
        .put("in/vcek.der", VCEK)
        .put("in/ocsp.der", OCSP)
        .put("in/ocsp.der.source", b"https://ocsp.example/\n");
    assert_eq!(bench.create(THEN), Ok(ExitCode::SUCCESS));
    let signer = bench.signer();
    let cases = [
        ("2025-08-21T11:59:59Z", false),
        (THEN, true),
        ("2025-08-22T06:47:07Z", true),
        ("2025-08-22T06:47:08Z", false),
        ("2025-09-20T12:00:00Z", false),
    ];
    for (at, holds) in cases {
        assert_eq!(bench.check(&signer, at), Ok(holds), "{at}");
    }
    let bundle = config::bundle::load_signed(&bench.path("out"), &[[0; 32]]);
    assert!(bundle.unwrap_err().to_string().contains("bundle_signers"));

    let policy = format!("version = 1\nbundle_signers = [\"{signer}\"]\n");
    let policy = attestation::Policy::from_toml(&policy, &mut |_| unreachable!()).unwrap();
    let bundle = config::bundle::load(&bench.path("out"), &policy).unwrap();
    assert_eq!(bundle.golden_measurements().len(), 1);
    assert_eq!(bundle.golden_measurements()[0].measurements.len(), 21);
    assert_eq!(bundle.collateral().amd_certificates, [VCEK]);
    assert_eq!(bundle.collateral().ocsp, [OCSP]);
    let paths: Vec<_> = bundle
        .items()
        .iter()
        .map(|item| item.path.as_str())
        .collect();
    let nvidia = [
        "nvidia/NV_GPU_DRIVER_GH100_550.90.07.json",
        "nvidia/NV_GPU_DRIVER_GH100_550.90.07.xml",
    ];
    assert_eq!(paths[..2], nvidia);
    let sources: Vec<_> = bundle
        .items()
        .iter()
        .map(|item| item.source.as_str())
        .collect();
    assert!(sources[0].ends_with(DRIVER_NAME), "{sources:?}");
    assert_eq!(sources[2], "https://ocsp.example/");
    let end = bundle.manifest().unwrap().valid_until;
    assert_eq!(
        Some(end),
        attestation::time::from_rfc3339(THEN).map(|then| then + Duration::from_secs(30 * 86400))
    );
    assert_eq!(
        check::show(&bench.path("out"), end).ok(),
        Some(ExitCode::SUCCESS)
    );
}

#[test]
fn vendors_forms_are_understood() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let bench = Bench::new();
    let id = "NV_GPU_DRIVER_GH100_550.90.07";
    let answer =
        serde_json::json!({ "id": id, "rim": BASE64_STANDARD.encode(DRIVER), "rim_format": "TCG" });
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        BASE64_STANDARD.encode(VCEK)
    );
    bench
        .put("in/answer.json", answer.to_string().as_bytes())
        .put("in/vcek.pem", pem.as_bytes())
        .put("in/chain.pem", pem.repeat(2).as_bytes())
        .put("in/ocsp.dat", BASE64_STANDARD.encode(OCSP).as_bytes());
    assert_eq!(bench.create(THEN), Ok(ExitCode::SUCCESS));
    let signer = read_key(&bench.path("key.pem")).unwrap().public_key();
    let bundle = config::bundle::load_signed(&bench.path("out"), &[signer]).unwrap();
    assert_eq!(bundle.items().len(), 4);
    assert_eq!(bundle.collateral().amd_certificates, [VCEK]);
    assert_eq!(bundle.collateral().ocsp, [OCSP]);
    assert_eq!(bundle.golden_measurements()[0].id, id);
}

#[test]
fn a_file_that_is_no_piece_makes_no_bundle() {
    let text = std::str::from_utf8(DRIVER).unwrap();
    let changed = text.replacen("80161aac", "90161aac", 1).into_bytes();
    assert_ne!(changed, DRIVER);
    let cases: [(&str, &[u8], &str, &str); 8] = [
        (
            "changed",
            &changed,
            DRIVER_NAME,
            "NVIDIA's manifest: the document's digest is not the signed one",
        ),
        (
            "no id",
            DRIVER,
            "driver.xml",
            "NVIDIA's manifest, but under no id: name the file by it",
        ),
        (
            "another id",
            DRIVER,
            "NV_GPU_DRIVER_GH100_550.90.08.xml",
            "the id does not fit",
        ),
        ("ended", OCSP, "ocsp.der", "ended at 2025-08-22T06:47:08Z"),
        ("no piece", b"hello", "hello", "no revocation list"),
        ("empty", b"", "empty", "no revocation list"),
        (
            "rim no base64",
            br#"{"id":"NV_a","rim":"*"}"#,
            "a.json",
            "its `rim` is not base64",
        ),
        (
            "long",
            &[b'<'; piece::MAX_INPUT + 1],
            "long.xml",
            "file too large",
        ),
    ];
    for (name, bytes, file, expected) in cases {
        let bench = Bench::new();
        bench
            .put("in/vcek.der", VCEK)
            .put(&format!("in/{file}"), bytes);
        let at = if name == "ended" {
            "2025-08-22T06:47:08Z"
        } else {
            THEN
        };
        let error = bench.create(at).unwrap_err();
        assert!(
            error.contains(expected) && error.contains(file),
            "{name}: {error}"
        );
        assert!(!bench.path("out").exists(), "{name}");
    }
}

#[test]
fn create_writes_over_nothing_and_needs_something() {
    let bench = Bench::new();
    let error = bench.create(THEN).unwrap_err();
    assert!(error.contains("nothing to put in a bundle"), "{error}");
    bench.put("in/vcek.der", VCEK).put("in/copy.der", VCEK);
    let error = bench.create(THEN).unwrap_err();
    assert!(error.contains("two files give `amd/"), "{error}");
    fs::remove_file(bench.path("in/copy.der")).unwrap();
    fs::create_dir(bench.path("out")).unwrap();
    bench.put("out/note", b"");
    let error = bench.create(THEN).unwrap_err();
    assert!(error.ends_with("not empty: give a new folder"), "{error}");
    fs::remove_file(bench.path("out/note")).unwrap();
    assert_eq!(bench.create(THEN), Ok(ExitCode::SUCCESS));
}

#[test]
fn a_changed_bundle_is_refused() {
    let made = || {
        let bench = Bench::new();
        bench
            .put(&format!("in/{DRIVER_NAME}"), DRIVER)
            .put("in/vcek.der", VCEK);
        bench.create(THEN).unwrap();
        bench
    };
    let bench = made();
    let other = Bench::new().signer();
    let error = bench.check(&other, THEN).unwrap_err();
    assert!(error.contains("not a signature"), "{error}");
    let files = [
        "manifest.json",
        "manifest.sig",
        "nvidia/NV_GPU_DRIVER_GH100_550.90.07.json",
    ];
    for file in files {
        let bench = made();
        let path = format!("out/{file}");
        let mut bytes = fs::read(bench.path(&path)).unwrap();
        bytes[20] ^= 1;
        bench.put(&path, &bytes);
        assert!(bench.check(&bench.signer(), THEN).is_err(), "{file}");
    }
    fs::remove_file(bench.path("out/manifest.sig")).unwrap();
    let error = bench.check(&bench.signer(), THEN).unwrap_err();
    assert!(error.contains("manifest.sig"), "{error}");
}

/// A signer can sign what NVIDIA did not: `check` finds it.
#[test]
fn golden_measurements_are_held_against_their_manifest() {
    use attestation::bundle::{ItemKind, MANIFEST, Manifest, SIGNATURE};
    use sha2::{Digest as _, Sha256};
    const GOLDEN: &str = "nvidia/NV_GPU_DRIVER_GH100_550.90.07.json";
    const RIM: &str = "nvidia/NV_GPU_DRIVER_GH100_550.90.07.xml";
    let forge = |change: &dyn Fn(&Bench, &mut Manifest)| {
        let bench = Bench::new();
        bench.put(&format!("in/{DRIVER_NAME}"), DRIVER);
        bench.create(THEN).unwrap();
        let manifest = format!("out/{MANIFEST}");
        let mut signed = Manifest::from_json(&fs::read(bench.path(&manifest)).unwrap()).unwrap();
        change(&bench, &mut signed);
        let signed = signed.to_json().unwrap();
        let signature = read_key(&bench.path("key.pem")).unwrap().sign(&signed);
        bench
            .put(&manifest, &signed)
            .put(&format!("out/{SIGNATURE}"), signature.as_bytes());
        bench.check(&bench.signer(), THEN)
    };
    assert_eq!(forge(&|_, _| {}), Ok(true));
    let other_values = forge(&|bench, signed| {
        let path = format!("out/{GOLDEN}");
        let text = fs::read_to_string(bench.path(&path)).unwrap();
        let forged = text.replacen("80161a", "90161a", 1);
        assert_ne!(forged, text);
        bench.put(&path, forged.as_bytes());
        signed.items[0].sha256 = Sha256::digest(&forged).into();
    });
    assert_eq!(other_values, Ok(false));
    let no_rim = forge(&|_, signed| signed.items.retain(|item| item.kind != ItemKind::GpuRim));
    assert_eq!(no_rim, Ok(false));
    let elsewhere = forge(&|bench, signed| {
        fs::create_dir(bench.path("out/other")).unwrap();
        bench.put("out/other/rim.xml", DRIVER);
        signed
            .items
            .iter_mut()
            .find(|item| item.path == RIM)
            .unwrap()
            .path = "other/rim.xml".to_owned();
    });
    assert_eq!(elsewhere, Ok(false));
}

#[test]
fn a_key_is_its_owners_alone_and_never_written_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let path = bench.path("key.pem");
    let before = fs::read(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(keygen(&path), Err(Error::File { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    bench.put("key.pem", b"-----BEGIN PRIVATE KEY-----");
    let error = bench.create(THEN).unwrap_err();
    assert!(
        error.ends_with("not an Ed25519 private key in PKCS #8 PEM"),
        "{error}"
    );
}
