use std::fs;

use attestation::{
    Answer, EvidenceItem, EvidenceKind, Root, StatementDigest, binding,
    software_root::{SoftwareRoot, SoftwareSigner},
    statement::{ClaimedKey, Draft, EngineLocation, PublicKey, Software, Suite},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser;

use super::*;

/// The command as it is typed.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: VerifyArgs,
}

fn data(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("attestation/tests/data")
        .join(path)
        .display()
        .to_string()
}

fn parse(words: &[&str]) -> Result<VerifyArgs, clap::Error> {
    let words = ["verify"].iter().chain(words);
    Command::try_parse_from(words).map(|command| command.args)
}

fn judge(words: &[&str]) -> Result<(Vec<Judged>, Vec<Unusable>), Unusable> {
    let args = parse(words).unwrap();
    judge_all(&args, args.at.unwrap())
}

fn judge_one(words: &[&str]) -> Result<Judged, Unusable> {
    let (mut judged, mut unusable) = judge(words)?;
    match unusable.pop() {
        Some(unusable) => Err(unusable),
        None => Ok(judged.remove(0)),
    }
}

fn appraise_one(words: &[&str]) -> Result<Appraisal, Unusable> {
    judge_one(words).map(|judged| judged.appraisal)
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("sealgate-verify-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const AT: &str = "2026-06-01T00:00:00Z";
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000\
                     0000000000000000000000000000000000000000000000000000000000000000";

fn genoa_policy() -> String {
    let report = fs::read(data("genoa/report.bin")).unwrap();
    format!(
        "version = 1\n[sev_snp]\namd_roots = true\nrevocation = \"off\"\nproducts = [\"genoa\"]\nmeasurements = [\"{}\"]\n\
         [sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\nsnp = 23\nmicrocode = 84\n",
        hex::encode(&report[0x90..0xc0])
    )
}

#[test]
fn a_raw_report_is_read_in_every_form() {
    let folder = Folder::new("forms");
    let policy = folder.write("policy.toml", genoa_policy());
    let report = fs::read(data("genoa/report.bin")).unwrap();
    let vcek = fs::read_to_string(data("genoa/vcek.pem")).unwrap();
    let der = certificate_der(&vcek);
    let hex_lines: String =
        hex::encode(&report)
            .chars()
            .enumerate()
            .fold(String::new(), |mut out, (at, c)| {
                if at % 64 == 0 {
                    out.push('\n');
                }
                out.push(c);
                out
            });
    let reports = [
        data("genoa/report.bin"),
        folder.write("hex", hex::encode(&report)),
        folder.write("upper", hex::encode_upper(&report) + "\n"),
        folder.write("lines", hex_lines),
        folder.write("base64", STANDARD.encode(&report)),
    ];
    let certificates = [
        vec![data("genoa/vcek.pem"), data("genoa/ask.pem")],
        vec![data("genoa/vcek.pem")],
        vec![folder.write("vcek.der", &der)],
        vec![folder.write("vcek.b64", STANDARD.encode(&der))],
        vec![folder.write(
            "both.pem",
            fs::read_to_string(data("genoa/ask.pem")).unwrap() + &vcek,
        )],
    ];
    for report in &reports {
        for certificates in &certificates {
            let mut words = vec!["--tee", "sev-snp", report, "--at", AT, "--policy", &policy];
            words.extend(["--report-data", ZEROS]);
            words.extend(certificates.iter().flat_map(|path| ["--certs", path]));
            let appraisal = appraise_one(&words).unwrap();
            assert_eq!(appraisal.refusal(), None, "{report} {certificates:?}");
        }
    }
}

fn certificate_der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

#[test]
fn without_a_policy_nothing_is_accepted_and_what_is_needed_is_said() {
    let (report, vcek) = (data("genoa/report.bin"), data("genoa/vcek.pem"));
    let words = ["--tee", "sev-snp", &report, "--certs", &vcek, "--at", AT];
    let judged = judge_one(&words).unwrap();
    assert!(!judged.appraisal.accepted());
    let text = output::text(&judged, output::Style::Plain);
    let verdict = text.lines().last().unwrap();
    assert_eq!(
        verdict,
        "not judged (root amd): no check failed, but some could not be made: give --policy, \
         --report-data"
    );
    let json: serde_json::Value = serde_json::from_str(&output::json(&[judged])).unwrap();
    assert_eq!(json[0]["verdict"], "not-judged");
    assert_eq!(json[0]["policy"], serde_json::Value::Null);
    assert!(text.contains("  passed      report signature: expected verifies; seen verifies\n"));
    assert!(text.contains("  not checked measurement: expected a policy to compare with; seen "));
}

#[test]
fn what_cannot_be_used_says_what_to_do() {
    let folder = Folder::new("unusable");
    let empty = folder.write("empty", "");
    let long = folder.write("long", vec![b' '; 1024 * 1024 + 1]);
    let bad_policy = folder.write("bad.toml", "version = 1\nallow_debug = true\n");
    let policy = folder.write("policy.toml", genoa_policy());
    let (report, vcek, ask) = (
        data("genoa/report.bin"),
        data("genoa/vcek.pem"),
        data("genoa/ask.pem"),
    );
    let raw = ["--tee", "sev-snp", "--at", "0"];
    let cases: [(&[&str], &str); 11] = [
        (&["/nowhere", "--at", "0"], "/nowhere: "),
        (
            &[&report, "--at", "0", "--policy", &policy, "--nonce", "00"],
            "the nonce of an answer is 64",
        ),
        (
            &[&report, "--at", "0"],
            "an answer is appraised against a policy: give --policy FILE",
        ),
        (
            &[&report, "--at", "0", "--policy", &policy],
            "(for a raw report give --tee)",
        ),
        (
            &[&long, "--at", "0", "--policy", &policy],
            "larger than 1048576 bytes",
        ),
        (
            &[&report, "--at", "0", "--policy", &bad_policy],
            "unknown field `allow_debug`",
        ),
        (
            &[&report, "--at", "0", "--policy", "/nowhere"],
            "/nowhere: ",
        ),
        (
            &[&report],
            "needs the certificate of the chip's key: give it with --certs, --collateral",
        ),
        (&[&report, "--certs", &empty], "holds no certificate"),
        (
            &[&report, "--certs", &ask],
            "none of the certificates holds a P-384 key",
        ),
        (
            &[&empty, "--certs", &vcek],
            "no sev-snp evidence: that is 1184 bytes",
        ),
    ];
    for (words, expected) in cases {
        let words = if words.contains(&"--at") {
            words.to_vec()
        } else {
            [&raw, words].concat()
        };
        let error = appraise_one(&words).err().map(|error| error.to_string());
        assert!(
            error
                .as_deref()
                .is_some_and(|error| error.contains(expected)),
            "{error:?}"
        );
    }
}

#[test]
fn arguments_are_checked_before_anything_is_read() {
    let cases: [&[&str]; 9] = [
        &[],
        &["f", "--nonce", ""],
        &["f", "--nonce", "0A"],
        &["f", "--at", "1780000000000"],
        &["f", "--at", "yesterday"],
        &["f", "--tee", "sgx"],
        &["f", "--certs", "c"],
        &["f", "--report-data", ZEROS],
        &["f", "--tee", "sev-snp", "--report-data", "00"],
    ];
    for words in cases {
        assert!(parse(words).is_err(), "{words:?}");
    }
    let unix = parse(&["f", "--at", "1780272000"]).unwrap().at;
    assert_eq!(unix, parse(&["f", "--at", AT]).unwrap().at);
}

#[test]
fn an_answer_under_a_software_root_says_so() {
    let folder = Folder::new("answer");
    let now = from_rfc3339(AT).unwrap();
    let root = SoftwareRoot::generate(now).unwrap();
    folder.write("ark.pem", root.ark_pem());
    let measurement = [0x11; 48];
    let policy = genoa_policy().replace("amd_roots = true", "software_roots = [\"ark.pem\"]");
    let (before, _) = policy.split_once("measurements").unwrap();
    let (_, after) = policy.split_once("[sev_snp.minimum").unwrap();
    let listed = hex::encode(measurement);
    let text = format!("{before}measurements = [\"{listed}\"]\n[sev_snp.minimum{after}");
    let policy = folder.write("policy.toml", text);
    let answer = answer_of(&root, measurement);
    let file = folder.write("answer.json", answer.to_json().unwrap());
    let nonce = answer.nonce.to_string();

    let good = [
        file.as_str(),
        "--policy",
        &policy,
        "--at",
        AT,
        "--nonce",
        &nonce,
    ];
    let judged = judge_one(&good).unwrap();
    assert_eq!(judged.appraisal.refusal(), None);
    assert_eq!(judged.appraisal.root(), Some(Root::Software));
    let text = output::text(&judged, output::Style::Plain);
    assert!(
        text.ends_with("accepted (software root: no hardware stands behind it)"),
        "{text}"
    );
    let colour = output::text(&judged, output::Style::Colour);
    assert!(colour.contains("\u{1b}[1;33msoftware root\u{1b}[0m"));
    let json: serde_json::Value = serde_json::from_str(&output::json(&[judged])).unwrap();
    let digest = hex::encode(Sha256::digest(fs::read(&file).unwrap()));
    assert!(
        text.contains(&format!("evidence sha256 {digest}, policy ")),
        "{text}"
    );
    assert_eq!(json[0]["evidence_sha256"], digest);
    assert_eq!(json[0]["appraised_at"], AT);
    assert_eq!(json[0]["fresh"], true);
    assert_eq!(json[0]["not_after"], "2026-06-01T01:00:00Z");
    assert_eq!(json[0]["policy"].as_str().unwrap().len(), 64);
    assert_eq!(json[0]["sealgate"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json[0]["accepted"], true);
    assert_eq!(json[0]["root"], "software root");

    let other = "0".repeat(64);
    let stale = [
        file.as_str(),
        "--policy",
        &policy,
        "--at",
        AT,
        "--nonce",
        &other,
    ];
    assert_eq!(
        appraise_one(&stale).unwrap().refusal().unwrap().check,
        "nonce"
    );
    let kept = [file.as_str(), "--policy", &policy, "--at", AT];
    assert!(appraise_one(&kept).unwrap().accepted());
}

/// A bundle of one file, Intel's collateral, in a folder; gives its signer.
fn bundle_of(folder: &Folder, collateral: &[u8]) -> String {
    use attestation::bundle::{BundleItem, BundleKey, ItemKind, MANIFEST, Manifest, SIGNATURE};
    use sha2::{Digest as _, Sha256};
    let time = |text| from_rfc3339(text).unwrap();
    let item = BundleItem {
        path: "collateral.json".to_owned(),
        kind: ItemKind::TdxCollateral,
        sha256: Sha256::digest(collateral).into(),
        source: "a test".to_owned(),
        fetched_at: time("2025-06-20T00:00:00Z"),
        valid_until: time("2025-07-19T00:00:00Z"),
    };
    let manifest = Manifest {
        created: time("2025-06-20T00:00:00Z"),
        valid_until: time("2025-07-10T00:00:00Z"),
        items: vec![item],
    };
    let manifest = manifest.to_json().unwrap();
    let (key, _) = BundleKey::generate().unwrap();
    folder.write("collateral.json", collateral);
    folder.write(SIGNATURE, key.sign(&manifest));
    folder.write(MANIFEST, manifest);
    hex::encode(key.public_key())
}

/// A quote without collateral of its own.
#[test]
fn evidence_can_rest_on_a_bundle_that_a_signer_of_the_policy_signed() {
    let (folder, dir) = (Folder::new("bundle-policy"), Folder::new("bundle"));
    let quote = fs::read(data("tdx/v4-uptodate/quote.bin")).unwrap();
    let collateral = fs::read(data("tdx/v4-uptodate/collateral.json")).unwrap();
    let report = attestation::tdx::Quote::parse(&quote).unwrap().report;
    let signer = bundle_of(&dir, &collateral);
    let policy = |signer: &str| {
        let text = format!(
            "version = 1\nbundle_signers = [\"{signer}\"]\n[tdx]\nintel_root = true\n\
             minimum_tcb_evaluation_number = 17\nmrseam = [\"{}\"]\nmrtd = [\"{}\"]\n\
             rtmr1 = \"any\"\nrtmr2 = \"any\"\n",
            hex::encode(report.mrseam),
            hex::encode(report.mrtd)
        );
        folder.write(&format!("{signer}.toml"), text)
    };
    let (believed, other) = (policy(&signer), policy(&"0".repeat(64)));
    let (quote, report_data) = (
        data("tdx/v4-uptodate/quote.bin"),
        hex::encode(report.report_data),
    );
    let bundle = dir.0.display().to_string();
    let appraise_with = |policy: &str, at: &str, more: &[&str]| {
        let raw = ["--tee", "tdx", "--report-data", &report_data, &quote];
        let words = [&raw[..], &["--policy", policy, "--at", at], more].concat();
        appraise_one(&words)
    };
    let at = "2025-07-01T00:00:00Z";
    let with_bundle = ["--bundle", bundle.as_str()];
    let refusal = |at: &str, more: &[&str]| {
        let appraisal = appraise_with(&believed, at, more).unwrap();
        appraisal.refusal().map(|refusal| refusal.check)
    };
    assert_eq!(refusal(at, &with_bundle), None);
    assert_eq!(refusal(at, &[]), Some("collateral"));
    assert_eq!(
        refusal("2025-07-10T00:00:00Z", &with_bundle),
        Some("bundle")
    );

    let not_signed = |policy: &str| {
        let error = appraise_with(policy, at, &with_bundle).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(&bundle), "{error}");
        assert!(error.contains("is not a signature of"), "{error}");
    };
    not_signed(&other);
    let manifest = dir.0.join("manifest.json");
    let changed = fs::read_to_string(&manifest).unwrap();
    let changed = changed.replacen("2025-07-10", "2026-07-10", 1);
    fs::write(&manifest, changed).unwrap();
    not_signed(&believed);
}

fn answer_of(root: &SoftwareRoot, measurement: [u8; 48]) -> Answer {
    let unix = 1_780_272_000;
    let key = ClaimedKey {
        key_id: 1,
        suite: Suite::X25519,
        public_key: PublicKey::X25519([9; 32]),
        not_before: unix - 60,
        not_after: unix + 3600,
    };
    let draft = Draft {
        node_id: "node-1".to_owned(),
        keys: vec![key],
        receipt_key: [3; 32],
        tls_spki_sha256: None,
        models: vec!["tiny".to_owned()],
        engine: EngineLocation::Local,
        config_sha256: [5; 32],
        software: Software {
            name: "sealgate".to_owned(),
            version: "0".to_owned(),
            commit: String::new(),
        },
    };
    let statement = draft.to_json().unwrap();
    let nonce = Nonce::from([7; 32]);
    let data = binding::report_data(&StatementDigest::of(&statement), &nonce, &[]);
    let signer = SoftwareSigner::from_pem(root.vcek_key_pem(), root.vcek_pem(), root.ask_pem());
    let item: EvidenceItem = signer.unwrap().evidence(data, measurement).unwrap();
    assert_eq!(item.kind, EvidenceKind::SevSnp);
    Answer {
        statement,
        nonce,
        evidence: vec![item],
    }
}

const OF_GPU: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";

/// What a policy asks of the devices of a machine together no report of one device shows.
#[test]
fn a_device_alone_is_not_judged_as_a_machine_of_them() {
    let folder = Folder::new("gpu");
    let policy = folder.write(
        "policy.toml",
        "version = 1\n[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\n\
         minimum_gpus = 8\nrevocation = \"off\"\nmeasurements = \"off\"\n",
    );
    let none = folder.write("none.toml", "version = 1\n");
    let report = data("nvidia/hopper/report.bin");
    let chain = data("nvidia/hopper/cert_chain.pem");
    let words = |policy| {
        let at = "2025-08-21T12:00:00Z";
        let given = ["--certs", &chain, "--nonce", OF_GPU, "--policy", policy];
        let words = ["--tee", "nvidia-gpu", "--at", at, &report];
        [&words[..], &given[..]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let judge_words = |words: &[String]| {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        judge(&words)
    };
    let (judged, _) = judge_words(&words(&policy)).unwrap();
    let text = output::text(&judged[0], output::Style::Plain);
    for open in ["GPU count", "distinct devices", "uniform GPUs"] {
        assert!(text.contains(&format!("not checked {open}: ")), "{text}");
    }
    assert!(
        text.ends_with(
            "not judged (root nvidia): no check failed, but some need the devices of a machine \
             together, as a node's answer holds them"
        ),
        "{text}"
    );
    let (refused, _) = judge_words(&words(&none)).unwrap();
    assert_eq!(
        refused[0].appraisal.refusal().unwrap().check,
        "policy section"
    );
    assert_eq!(refused[0].appraisal.checks().len(), 1, "one thing is said");

    let twice = [words(&policy), vec![report.clone()]].concat();
    let (_, unusable) = judge_words(&twice).unwrap();
    assert!(
        unusable[0]
            .to_string()
            .contains("1 files of certificates for 2 reports")
    );
    let paired = [twice, vec!["--certs".to_owned(), chain.clone()]].concat();
    let (judged, unusable) = judge_words(&paired).unwrap();
    assert_eq!((judged.len(), unusable.len()), (2, 0));
    assert_eq!(same_devices(&judged).len(), 1);
}

#[test]
fn without_a_policy_what_a_gpu_lacks_is_open() {
    let (report, chain) = (
        data("nvidia/hopper/report.bin"),
        data("nvidia/hopper/cert_chain.pem"),
    );
    let at = "2025-08-21T12:00:00Z";
    let words = [
        "--tee",
        "nvidia-gpu",
        &report,
        "--certs",
        &chain,
        "--at",
        at,
    ];
    let judged = judge_one(&words).unwrap();
    let text = output::text(&judged, output::Style::Plain);
    for open in [
        "revocation: ",
        "driver measurements: expected golden measurements as in ",
    ] {
        assert!(text.contains(&format!("not checked {open}")), "{text}");
    }
    assert!(text.contains("seen no bundle was given\n"), "{text}");
    let verdict = text.lines().last().unwrap();
    let options = "give --policy, --nonce, --collateral, --bundle";
    assert!(
        verdict.starts_with("not judged (root nvidia)") && verdict.ends_with(options),
        "{text}"
    );
}

#[test]
fn a_chips_certificate_is_found_wherever_it_was_given() {
    let folder = Folder::new("chips");
    let (genoa, milan) = (data("genoa/report.bin"), data("milan/report.bin"));
    let (of_genoa, of_milan) = (data("genoa/vcek.pem"), data("milan/vcek.pem"));
    let signed = |judged: &Judged| {
        let checks = judged.appraisal.checks();
        checks
            .iter()
            .any(|it| it.name == "report signature" && it.passed())
    };
    let tee = ["--tee", "sev-snp", "--at", AT];
    let cases: [(&str, &[&str]); 4] = [
        ("collateral", &[&genoa, "--collateral", &of_genoa]),
        (
            "both, in one order",
            &[&genoa, &milan, "--certs", &of_genoa, "--certs", &of_milan],
        ),
        (
            "both, in another",
            &[&genoa, &milan, "--certs", &of_milan, "--certs", &of_genoa],
        ),
        (
            "collateral of both",
            &[
                &genoa,
                &milan,
                "--collateral",
                &of_milan,
                "--collateral",
                &of_genoa,
            ],
        ),
    ];
    for (name, words) in cases {
        let (judged, unusable) = judge(&[&tee, words].concat()).unwrap();
        assert!(unusable.is_empty() && judged.iter().all(signed), "{name}");
    }

    // A whole chain beside Azure's capture that has no certificate of its own.
    let capture = fs::read_to_string(data("azure/evidence-v1.json")).unwrap();
    let mut capture: serde_json::Value = serde_json::from_str(&capture).unwrap();
    let vcek = capture.as_object_mut().unwrap().remove("vcek").unwrap();
    let vcek = base64::engine::general_purpose::URL_SAFE
        .decode(vcek.as_str().unwrap())
        .unwrap();
    let vcek = STANDARD.encode(vcek);
    let ask = fs::read_to_string(data("milan/ask.pem")).unwrap();
    let chain =
        format!("-----BEGIN CERTIFICATE-----\n{vcek}\n-----END CERTIFICATE-----\n{ask}{ask}");
    let (capture, chain) = (
        folder.write("capture", capture.to_string()),
        folder.write("chain", chain),
    );
    let words = [
        "--tee",
        "azure-snp",
        "--at",
        AT,
        &capture,
        "--certs",
        &chain,
    ];
    assert!(signed(&judge_one(&words).unwrap()));
}

#[test]
fn the_good_files_are_judged_beside_the_bad() {
    let (report, vcek) = (data("genoa/report.bin"), data("genoa/vcek.pem"));
    let words = [
        "--tee", "sev-snp", "--at", AT, &report, "/nowhere", "--certs", &vcek,
    ];
    let (judged, unusable) = judge(&words).unwrap();
    assert_eq!((judged.len(), unusable.len()), (1, 1));
    assert!(unusable[0].to_string().starts_with("/nowhere: "));
}

#[test]
fn raw_evidence_has_nonces_of_any_length() {
    let document = data("nitro/evervault-zero-pcr.cose");
    let words = ["--tee", "nitro", "--at", "1695049411", &document];
    let seen = |judged: Judged, name| {
        let mut checks = judged.appraisal.checks().iter();
        checks.find(|it| it.name == name).cloned().unwrap()
    };
    let nonce = seen(judge_one(&words).unwrap(), "nonce");
    assert_ne!(nonce.seen, "none");
    let asked = [&words[..], &["--nonce", &nonce.seen]].concat();
    assert!(
        seen(judge_one(&asked).unwrap(), "nonce").passed(),
        "{}",
        nonce.seen
    );
}
