//! Recorded evidence, and what the sources make of it together.

use std::sync::Mutex;

use attestation::{Collateral, EvidenceKind};

use super::*;
use crate::config::{self, node::NodeConfig};

const MILAN: &[u8] = include_bytes!("../../../attestation/tests/data/milan/report.bin");
const MILAN_VCEK: &[u8] = include_bytes!("../../../attestation/tests/data/milan/vcek.pem");
const MILAN_ASK: &[u8] = include_bytes!("../../../attestation/tests/data/milan/ask.pem");

const TDX_QUOTE: &[u8] =
    include_bytes!("../../../attestation/tests/data/tdx/v4-uptodate/quote.bin");

pub(crate) fn tdx_quote() -> Vec<u8> {
    TDX_QUOTE.to_vec()
}

/// A genuine report with its VCEK and ASK, in DER.
pub(crate) fn milan() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let der = |pem| pem::certificates(pem).remove(0);
    (MILAN.to_vec(), der(MILAN_VCEK), der(MILAN_ASK))
}

pub(super) fn question() -> Question {
    Question {
        report_data: [0xd5; 64],
        nonce: [0x5d; 32],
    }
}

fn item(kind: EvidenceKind, report: &[u8]) -> EvidenceItem {
    EvidenceItem {
        kind,
        report: report.to_vec(),
        certificates: Vec::new(),
        collateral: Collateral::default(),
    }
}

/// A CPU that remembers what it was asked.
struct Cpu(Arc<Mutex<Vec<Question>>>);

impl CpuSource for Cpu {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        self.0.lock().unwrap().push(*question);
        Ok(item(EvidenceKind::Nitro, b"cpu"))
    }
}

/// Devices that answer with their names and the nonce.
struct Devices(&'static [&'static str]);

impl DeviceSource for Devices {
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<EvidenceItem>, EvidenceError> {
        let answer =
            |name: &&str| item(EvidenceKind::NvidiaGpu, &[name.as_bytes(), nonce].concat());
        Ok(self.0.iter().map(answer).collect())
    }
}

fn configured(evidence: &str, dir: &std::path::Path) -> Loaded<NodeConfig> {
    let text = format!("node_id = \"n\"\n{evidence}\n[[engine]]\nurl = \"builtin:echo\"\n");
    config::parse(&dir.join("node.toml"), &text, std::iter::empty()).unwrap()
}

#[test]
fn devices_answer_first_and_the_cpu_vouches_for_them() {
    let config = configured("[evidence]\nsource = \"nitro\"", std::path::Path::new(""));
    let asked = Arc::default();
    let sources = Sources {
        cpu: Arc::new(Cpu(Arc::clone(&asked))),
        devices: vec![Box::new(Devices(&["a", "b"])), Box::new(Devices(&["c"]))],
        delivery: Delivery::open(&config, config.value.evidence.collateral(), Instant::now())
            .unwrap(),
    };
    let (statement, nonce) = (StatementDigest::of(b"{}"), Nonce::from([7; 32]));
    let evidence = sources.evidence(&statement, &nonce).unwrap();
    let gpu_nonce = binding::gpu_nonce(&statement, &nonce);
    let report = |name: &str| [name.as_bytes(), &gpu_nonce].concat();
    let expected = [b"cpu".to_vec(), report("a"), report("b"), report("c")];
    let seen: Vec<_> = evidence.iter().map(|item| item.report.clone()).collect();
    assert_eq!(seen, expected);
    let devices: Vec<&[u8]> = seen[1..].iter().map(Vec::as_slice).collect();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].nonce, [7; 32]);
    assert_eq!(
        asked[0].report_data,
        binding::report_data(&statement, &nonce, &devices)
    );
}

#[test]
fn missing_hardware_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    std::fs::write(dir.path().join("ask.pem"), MILAN_ASK).unwrap();
    let cases = [
        (
            "source = \"configfs-tsm\"\nroot = \"tsm\"",
            "tsm is not there",
        ),
        (
            "source = \"sev-guest\"\ndevice = \"sev-guest\"",
            "sealgate doctor",
        ),
        ("source = \"nitro\"\ndevice = \"nsm\"", "sealgate doctor"),
        (
            "source = \"nitro\"\ndevice = \"nsm\"\n[evidence.collateral]\ntdx = [\"lost\"]",
            "nsm",
        ),
        (
            "source = \"sev-guest\"\ngpus = { source = \"nvml\", library = \"libno-such.so\" }",
            "libno-such.so",
        ),
        (
            "source = \"configfs-tsm\"\ncertificates = [\"lost.pem\"]",
            "lost.pem",
        ),
        (
            "source = \"configfs-tsm\"\ncertificates = [\"empty.pem\"]",
            "empty.pem: holds no certificate",
        ),
        (
            "source = \"sev-guest\"\ncertificates = [\"ask.pem\"]",
            "evidence.certificates: none holds a P-384 key",
        ),
    ];
    for (evidence, named) in cases {
        let config = configured(&format!("[evidence]\n{evidence}"), dir.path());
        let Err(error) = Sources::open(&config, &config.value.evidence) else {
            panic!("{evidence}: opened")
        };
        let error = error.to_string();
        assert!(error.contains(named), "{evidence}: {error}");
    }
}

#[test]
fn certificates_in_files_are_put_into_order() {
    let dir = tempfile::tempdir().unwrap();
    let (_, vcek, ask) = milan();
    std::fs::write(
        dir.path().join("chain.pem"),
        [MILAN_ASK, MILAN_VCEK].concat(),
    )
    .unwrap();
    std::fs::write(dir.path().join("ask.der"), &ask).unwrap();
    std::fs::write(dir.path().join("vcek.der"), &vcek).unwrap();
    let config = configured("[evidence]\nsource = \"nitro\"", dir.path());
    for files in [&["chain.pem"][..], &["ask.der", "vcek.der"]] {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let Certificates::Files(found) = Certificates::open(&config, &files).unwrap() else {
            panic!("the host would be asked")
        };
        assert_eq!(found, [vcek.clone(), ask.clone()]);
    }
}
