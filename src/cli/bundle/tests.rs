use std::{fs, time::Duration};

use tempfile::TempDir;

use attestation::bundle::ItemKind;

use super::{piece::Piece, *};
use crate::cli::{Cli, Command as Top};
use nvidia::{DAY, Device, HOUR, Key, Ocsp, UNKNOWN};

#[path = "../../../attestation/tests/common/nvidia.rs"]
mod nvidia;

const DRIVER: &[u8] = include_bytes!("../../../rim/tests/data/NV_GPU_DRIVER_GH100_550.90.07.xml");
const DRIVER_NAME: &str = "NV_GPU_DRIVER_GH100_550.90.07.xml";
const VCEK: &[u8] = include_bytes!("../../../attestation/tests/data/milan-v2/vcek.der");
const OCSP: &[u8] = include_bytes!("../../../attestation/tests/data/nvidia/hopper/ocsp-l2.der");
/// About the certificates of the driver's manifest, from the last to the first.
const SIGNERS: [(&str, &[u8]); 3] = [
    (
        "l2.der",
        include_bytes!("../../../rim/tests/data/ocsp/l2.der"),
    ),
    (
        "l3.der",
        include_bytes!("../../../rim/tests/data/ocsp/l3.der"),
    ),
    (
        "l4.der",
        include_bytes!("../../../rim/tests/data/ocsp/driver-l4.der"),
    ),
];
const VBIOS_SIGNER: &[u8] = include_bytes!("../../../rim/tests/data/ocsp/vbios-l4.der");
const THEN: &str = "2025-10-24T12:00:00Z";

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

    /// Puts the driver's manifest, and what shows its signers to be good.
    fn put_driver(&self) -> &Self {
        self.put(&format!("in/{DRIVER_NAME}"), DRIVER);
        for (name, response) in SIGNERS {
            self.put(&format!("in/{name}"), response);
        }
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

/// About a GPU, six hours before and eighteen after [`THEN`].
fn gpu_response() -> Vec<u8> {
    let then = attestation::time::from_rfc3339(THEN).unwrap();
    let then = then.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut device = Device::gpu([0; 32]);
    device.ocsp[0] = Some(Ocsp {
        this_update: then.as_secs() - 6 * HOUR,
        next_update: Some(then.as_secs() + 18 * HOUR),
        ..Ocsp::good()
    });
    device.ocsp_responses().remove(0)
}

#[test]
fn what_was_made_is_believed_in_its_time() {
    let bench = Bench::new();
    let ocsp = gpu_response();
    bench
        .put_driver()
        .put("in/vcek.der", VCEK)
        .put("in/ocsp.der", &ocsp)
        .put("in/ocsp.der.source", b"https://ocsp.example/\n");
    assert_eq!(bench.create(THEN), Ok(ExitCode::SUCCESS));
    let signer = bench.signer();
    let cases = [
        ("2025-10-24T11:59:59Z", false),
        (THEN, true),
        ("2025-10-25T05:59:59Z", true),
        ("2025-10-25T06:00:00Z", false),
        ("2025-11-23T12:00:00Z", false),
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
    assert_eq!(bundle.collateral().ocsp, [ocsp]);
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
    assert_eq!(sources.len(), 4, "{sources:?}");
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
    let ocsp = gpu_response();
    for (name, response) in SIGNERS {
        bench.put(&format!("in/{name}"), response);
    }
    bench
        .put("in/answer.json", answer.to_string().as_bytes())
        .put("in/vcek.pem", pem.as_bytes())
        .put("in/chain.pem", pem.repeat(2).as_bytes())
        .put("in/ocsp.dat", BASE64_STANDARD.encode(&ocsp).as_bytes());
    assert_eq!(bench.create(THEN), Ok(ExitCode::SUCCESS));
    let signer = read_key(&bench.path("key.pem")).unwrap().public_key();
    let bundle = config::bundle::load_signed(&bench.path("out"), &[signer]).unwrap();
    assert_eq!(bundle.items().len(), 4);
    assert_eq!(bundle.collateral().amd_certificates, [VCEK]);
    assert_eq!(bundle.collateral().ocsp, [ocsp]);
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
fn a_manifest_needs_the_good_status_of_each_signer() {
    let forged = {
        let mut response = SIGNERS[2].1.to_vec();
        let at = response.len() / 4;
        response[at] ^= 1;
        response
    };
    let leaf = "certificate 1, HCC RIM L4 Signer: ";
    let missing = "no OCSP response about it";
    let cases = [
        ("none", vec![], THEN, format!("{leaf}{missing}")),
        (
            "not the upper one's",
            vec![SIGNERS[1], SIGNERS[2]],
            THEN,
            format!("certificate 3, NVIDIA Reference Value GH100 CA: {missing}"),
        ),
        (
            "not the middle one's",
            vec![SIGNERS[0], SIGNERS[2]],
            THEN,
            format!("certificate 2, NVIDIA Reference Value L3 GH100 002: {missing}"),
        ),
        (
            "about the signer of another manifest",
            vec![SIGNERS[0], SIGNERS[1], ("l4.der", VBIOS_SIGNER)],
            THEN,
            format!("{leaf}{missing}"),
        ),
        (
            "changed",
            vec![SIGNERS[0], SIGNERS[1], ("l4.der", &forged)],
            THEN,
            leaf.to_owned(),
        ),
        (
            "from later",
            SIGNERS.to_vec(),
            "2025-10-24T11:32:20Z",
            format!("{leaf}OCSP response is not valid yet"),
        ),
        (
            "ended",
            SIGNERS.to_vec(),
            "2025-10-25T11:32:21Z",
            "ended at 2025-10-25T11:32:21Z".to_owned(),
        ),
    ];
    for (name, responses, at, expected) in cases {
        let bench = Bench::new();
        bench.put(&format!("in/{DRIVER_NAME}"), DRIVER);
        for (file, response) in responses {
            bench.put(&format!("in/{file}"), response);
        }
        let error = bench.create(at).unwrap_err();
        assert!(error.contains(&expected), "{name}: {error}");
        if name != "ended" {
            let path = bench.path(&format!("in/{DRIVER_NAME}"));
            let remedy = format!(
                "fetch its status with `sealgate bundle fetch nvidia --ocsp {}`",
                path.display()
            );
            assert!(error.starts_with(&path.display().to_string()), "{error}");
            assert!(error.ends_with(&remedy), "{name}: {error}");
        }
        assert!(!bench.path("out").exists(), "{name}");
    }
}

/// NVIDIA revoked none of the recorded signers: here sign others.
#[test]
fn a_manifest_whose_signer_is_revoked_makes_no_bundle() {
    let now = nvidia::at(nvidia::NOW);
    let path = PathBuf::from("NV_a.xml");
    let piece = |kind, content: Vec<u8>, signers| Piece {
        path: String::new(),
        kind,
        what: String::new(),
        content,
        valid_until: now + Duration::from_secs(DAY),
        signers,
    };
    let left = |device: &Device, more: Vec<Vec<u8>>| {
        let signers = [&device.certificates()[1..], &[device.root()]].concat();
        let mut pieces = vec![(&path, piece(ItemKind::GpuRim, vec![], signers))];
        let responses = device.ocsp_responses().into_iter().chain(more);
        pieces.extend(responses.map(|it| (&path, piece(ItemKind::Ocsp, it, vec![]))));
        let checked = signers::check(&mut pieces, now).map_err(|error| error.to_string());
        checked.map(|()| pieces.len())
    };
    let good = Device::gpu([0; 32]);
    assert_eq!(left(&good, vec![]), Ok(1));
    assert_eq!(left(&good, vec![gpu_response()]), Ok(2));
    type Flaw = fn(&mut Ocsp);
    let cases: [(&str, Flaw, &str); 4] = [
        (
            "revoked",
            |it| it.status = Ocsp::revoked(Some(1)),
            "revoked, reason 1: leave the manifest out",
        ),
        (
            "on hold",
            |it| it.status = Ocsp::revoked(Some(6)),
            "revoked, reason 6: leave the manifest out",
        ),
        (
            "unknown",
            |it| it.status = UNKNOWN.to_vec(),
            "does not know it: leave the manifest out",
        ),
        (
            "signed by a stranger",
            |it| it.signer = Some(Key::generate()),
            "not signed by the issuer or a responder of its own: fetch its status with `sealgate bundle fetch nvidia --ocsp NV_a.xml`",
        ),
    ];
    for at in 0..3 {
        for (name, flaw, expected) in &cases {
            let mut device = good.clone();
            flaw(device.ocsp[at].as_mut().unwrap());
            let error = left(&device, vec![]).unwrap_err();
            assert!(
                error.contains(&format!("certificate {}, ", at + 1)),
                "{name}: {error}"
            );
            assert!(error.ends_with(expected), "{name}: {error}");
            // Good responses beside it outweigh a stranger's word alone.
            let beside = left(&device, good.ocsp_responses());
            assert_eq!(beside.is_ok(), *name == "signed by a stranger", "{name}");
        }
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
        bench.put_driver().put("in/vcek.der", VCEK);
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
        bench.put_driver();
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
