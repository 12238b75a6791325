//! What a verification costs, by kind of evidence: from bytes to verdict, on one core, policy and
//! bundle read before.
//!
//! `cargo bench -p attestation` on an idle machine. Recorded evidence is appraised by itself; whole
//! answers come from a software root, since no recorded GPU is bound to a statement.

#![allow(clippy::unwrap_used, reason = "a failed helper ends the benchmark")]

#[path = "../tests/common/nvidia.rs"]
mod maker;

use std::time::{Duration, SystemTime};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, Manifest};
use attestation::software_root::{SoftwareRoot, SoftwareSigner};
use attestation::statement::{ClaimedKey, Draft, EngineLocation, PublicKey, Software, Suite};
use attestation::time::from_rfc3339;
use attestation::{
    Answer, Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Nonce, Outcome,
    Policy, StatementDigest, appraise_item, binding, verify,
};
use aws_lc_rs::digest::{SHA256, digest};
use divan::Bencher;
use maker::{DAY, Device, HOUR, NOW};

fn main() {
    divan::main();
}

/// One piece of evidence, and all that its appraisal takes.
struct Recorded {
    item: EvidenceItem,
    policy: Policy,
    bundle: Bundle,
    expected: Expected,
    now: SystemTime,
}

impl Recorded {
    fn new(kind: EvidenceKind, report: &[u8], policy: &str, now: &str) -> Self {
        Self {
            item: EvidenceItem {
                kind,
                report: report.to_vec(),
                certificates: Vec::new(),
                collateral: Collateral::default(),
            },
            policy: Policy::from_toml(policy, &mut |_| unreachable!()).unwrap(),
            bundle: Bundle::empty(),
            expected: Expected::default(),
            now: from_rfc3339(now).unwrap(),
        }
    }

    fn appraise(&self) -> Appraisal {
        let Self { item, policy, .. } = self;
        appraise_item(item, Some(policy), &self.bundle, self.expected, self.now)
    }

    /// Times it, once it is shown that nothing failed: what is refused early costs less.
    fn bench(&self, bencher: Bencher) {
        let appraisal = self.appraise();
        let failed = |outcome| outcome == Outcome::Failed;
        let mut checks = appraisal.checks().iter();
        assert!(!checks.any(|check| failed(check.outcome)), "{appraisal:?}");
        bencher.bench(|| divan::black_box(self).appraise());
    }
}

fn pem(text: &str) -> Vec<Vec<u8>> {
    let blocks = text.split_inclusive("-----END CERTIFICATE-----\n");
    let decoded = blocks.map(|block| x509_cert::der::pem::decode_vec(block.as_bytes()).unwrap().1);
    decoded.collect()
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// Files signed by a key of one's own, loaded as a gateway loads them.
fn bundle(golden: &[Vec<u8>], now: SystemTime) -> Bundle {
    let (key, _) = BundleKey::generate().unwrap();
    let (created, valid_until) = (
        now.checked_sub(Duration::from_secs(HOUR)).unwrap(),
        now.checked_add(Duration::from_secs(HOUR)).unwrap(),
    );
    let items = golden.iter().enumerate().map(|(at, file)| BundleItem {
        path: at.to_string(),
        kind: ItemKind::GpuGoldenMeasurements,
        sha256: digest(&SHA256, file).as_ref().try_into().unwrap(),
        source: "recorded".to_owned(),
        fetched_at: created,
        valid_until,
    });
    let manifest = Manifest {
        created,
        valid_until,
        items: items.collect(),
    };
    let manifest = manifest.to_json().unwrap();
    let signature = key.sign(&manifest);
    let signers = [key.public_key()];
    let mut read = |path: &str| Ok(golden.get(path.parse::<usize>().unwrap()).unwrap().clone());
    Bundle::load(&manifest, signature.as_bytes(), &signers, &mut read).unwrap()
}

/// VCEK and ASK come with the report.
#[divan::bench]
fn sev_snp_milan(bencher: Bencher) {
    let policy = "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"milan\"]\n\
        revocation = \"off\"\nmeasurements = [\"5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c60\
        9388ed7f98189887920ab2fa0096903a0c23fca1\"]\n\
        [sev_snp.minimum_tcb.milan]\nbootloader = 4\ntee = 0\nsnp = 24\nmicrocode = 219\n";
    let report = include_bytes!("../tests/data/milan/report.bin");
    let mut recorded = Recorded::new(EvidenceKind::SevSnp, report, policy, "2026-06-01T00:00:00Z");
    let chain = [
        include_str!("../tests/data/milan/vcek.pem"),
        include_str!("../tests/data/milan/ask.pem"),
    ];
    recorded.item.certificates = chain.into_iter().flat_map(pem).collect();
    recorded.expected.report_data = Some([0; 64]);
    recorded.bench(bencher);
}

/// Certificates in the quote, collateral beside it.
#[divan::bench]
fn tdx(bencher: Bencher) {
    let policy = "version = 1\n[tdx]\nintel_root = true\nminimum_tcb_evaluation_number = 17\n\
        mrseam = [\"5b38e33a6487958b72c3c12a938eaa5e3fd4510c51aeeab58c7d5ecee41d7c43\
        6489d6c8e4f92f160b7cad34207b00c1\"]\n\
        mrtd = [\"91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407\
        de03ae6dc5f87f27428b2538873118b7\"]\nRTMRS";
    let rtmrs = [
        "rtmr0 = [\"44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c\
         48aca29b220b80b6a540cf994b9bc9c0\"]",
        "rtmr1 = [\"0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7\
         aea8c323c173019b3093d54e579e9378\"]",
        "rtmr2 = [\"d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3\
         ba80b70870d7330733642e01d48c3132\"]",
    ];
    let policy = policy.replace("RTMRS", &rtmrs.join("\n"));
    let quote = include_bytes!("../tests/data/tdx/v4-uptodate/quote.bin");
    let mut recorded = Recorded::new(EvidenceKind::Tdx, quote, &policy, "2025-06-21T10:00:00Z");
    let collateral = include_bytes!("../tests/data/tdx/v4-uptodate/collateral.json");
    recorded.item.collateral.tdx = vec![collateral.to_vec()];
    recorded.expected.report_data = Some(hex(
        "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9\
         eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20",
    ));
    recorded.bench(bencher);
}

/// Five certificates in the document, which answers no question.
#[divan::bench]
fn nitro(bencher: Bencher) {
    let policy = "version = 1\n[nitro]\naws_root = true\n\
        pcr0 = [\"8bb159f202bb95d6d4d98e0e103918246cea734f1d57cd263e4fd56075ed53f6\
        fa8c68854817a32749a241e11874c26b\"]\n\
        pcr1 = [\"3b4a7e1b5f13c5a1000b3ed32ef8995ee13e9876329f9bc72650b918329ef9cf\
        4e2e4d1e1e37375dab0ba56ba0974d03\"]\n\
        pcr2 = [\"f4e86b12ad3df5f9fea962ff706c23ee190b463740a32f1a679a3cd1070a7731\
        ddd83328fe3db5e8143ea94344b6fb95\"]\n";
    let document = include_bytes!("../tests/data/nitro/eu-central-1.cose");
    let now = "2025-01-06T16:07:05Z";
    Recorded::new(EvidenceKind::Nitro, document, policy, now).bench(bencher);
}

/// Four certificates, three OCSP responses, golden measurements of driver and VBIOS.
#[divan::bench]
fn gpu_h100(bencher: Bencher) {
    let policy = "version = 1\n[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\n\
        minimum_gpus = 1\n";
    let report = include_bytes!("../tests/data/nvidia/hopper/report.bin");
    let now = "2025-08-21T12:00:00Z";
    let mut recorded = Recorded::new(EvidenceKind::NvidiaGpu, report, policy, now);
    recorded.item.certificates = pem(include_str!("../tests/data/nvidia/hopper/cert_chain.pem"));
    recorded.item.collateral.ocsp = vec![
        include_bytes!("../tests/data/nvidia/hopper/ocsp-l2.der").to_vec(),
        include_bytes!("../tests/data/nvidia/hopper/ocsp-l3.der").to_vec(),
        include_bytes!("../tests/data/nvidia/hopper/ocsp-l4.der").to_vec(),
    ];
    let golden = [
        include_bytes!("../tests/data/nvidia/hopper/driver-golden.json").to_vec(),
        include_bytes!("../tests/data/nvidia/hopper/vbios-golden.json").to_vec(),
    ];
    recorded.bundle = bundle(&golden, recorded.now);
    let nonce = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";
    recorded.expected.nonce = nonce.parse().ok();
    recorded.bench(bencher);
}

const NONCE: [u8; 32] = [0x11; 32];
const MEASUREMENT: [u8; 48] = [0x22; 48];

fn statement() -> Vec<u8> {
    let key = ClaimedKey {
        key_id: 1,
        suite: Suite::X25519,
        public_key: PublicKey::X25519([3; 32]),
        not_before: NOW.saturating_sub(HOUR),
        not_after: NOW.saturating_add(DAY),
    };
    let draft = Draft {
        node_id: "node-1".to_owned(),
        keys: vec![key],
        receipt_key: [4; 32],
        tls_spki_sha256: None,
        models: vec!["tiny".to_owned()],
        engine: EngineLocation::Local,
        config_sha256: [5; 32],
        software: Software {
            name: "sealgate".to_owned(),
            version: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
        },
    };
    draft.to_json().unwrap()
}

/// A whole answer, read from JSON and verified: an SEV-SNP report that binds so many GPUs, each
/// with chain, OCSP responses and golden measurements.
#[divan::bench(args = [0, 1, 8])]
fn answer_with_gpus(bencher: Bencher, count: usize) {
    let now = maker::at(NOW);
    let statement = statement();
    let (digest, nonce) = (StatementDigest::of(&statement), Nonce::from(NONCE));
    let first = Device::gpu(binding::gpu_nonce(&digest, &nonce));
    let gpus: Vec<_> = (0..count).map(|_| first.sibling().item()).collect();

    let cpu = SoftwareRoot::generate(now).unwrap();
    let signer = SoftwareSigner::from_pem(cpu.vcek_key_pem(), cpu.vcek_pem(), cpu.ask_pem());
    let reports: Vec<_> = gpus.iter().map(|gpu| gpu.report.as_slice()).collect();
    let data = binding::report_data(&digest, &nonce, &reports);
    let mut evidence = vec![signer.unwrap().evidence(data, MEASUREMENT).unwrap()];
    evidence.extend(gpus);
    let answer = Answer {
        statement,
        nonce,
        evidence,
    };
    let answer = answer.to_json().unwrap();

    let policy = format!(
        "version = 1\n[sev_snp]\nsoftware_roots = [\"ark.pem\"]\nproducts = [\"genoa\"]\n\
         measurements = [\"{}\"]\n[sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\nsnp = 23\n\
         microcode = 84\n[nvidia]\nsoftware_roots = [\"root.der\"]\narchitectures = [\"GH100\"]\n\
         minimum_gpus = {count}\n",
        hex::encode(MEASUREMENT)
    );
    let mut read = |path: &str| match path {
        "ark.pem" => Ok(cpu.ark_pem().as_bytes().to_vec()),
        _ => Ok(first.root()),
    };
    let policy = Policy::from_toml(&policy, &mut read).unwrap();
    let golden = Device::golden();
    let golden: Vec<_> = golden.iter().map(|it| it.to_json().unwrap()).collect();
    let bundle = bundle(&golden, now);
    let verified = || {
        let answer = Answer::from_json(divan::black_box(&answer)).unwrap();
        verify(&answer, &policy, &bundle, &nonce, now).unwrap()
    };
    assert_eq!(verified().claims().devices.len(), count);
    bencher.bench(verified);
}
