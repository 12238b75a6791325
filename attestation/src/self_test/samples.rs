//! The samples: recorded evidence of real processors (`tests/data/README.md`), and what is done to it.
//!
//! Every kind of evidence has its row here, and in it a change for each way to be forged.

use crate::answer::EvidenceKind;
use crate::self_test::Part::{Certificate, Collateral, Golden, Report};
use crate::self_test::{Change, Question, Sample, To};

pub(super) const SAMPLES: &[Sample] = &[MILAN, GENOA, MILAN_VLEK, TDX, NITRO, GPU];

const ZERO: &str = "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";
const NO_QUESTION: Question = Question {
    report_data: None,
    nonce: None,
};
const ZERO_DATA: Question = report_data(ZERO);
const OTHER_DATA: Question = report_data(
    "01010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101",
);
const OTHER_NONCE: Question =
    nonce("0101010101010101010101010101010101010101010101010101010101010101");

const fn report_data(hex: &'static str) -> Question {
    Question {
        report_data: Some(hex),
        ..NO_QUESTION
    }
}

const fn nonce(hex: &'static str) -> Question {
    Question {
        nonce: Some(hex),
        ..NO_QUESTION
    }
}

pub(super) const fn change(name: &'static str, to: To, check: &'static str) -> Change {
    Change { name, to, check }
}

const MILAN_REPORT: &[u8] = include_bytes!("../../tests/data/milan/report.bin");
const MILAN_VCEK: &[u8] = include_bytes!("../../tests/data/milan/vcek.pem");
const MILAN_OTHER_VCEK: &[u8] = include_bytes!("../../tests/data/milan-v2/vcek.der");
const GENOA_VCEK: &[u8] = include_bytes!("../../tests/data/genoa/vcek.pem");
const VLEK: &[u8] = include_bytes!("../../tests/data/trustee/test-vlek.der");

/// Accepts the Milan sample, and nothing that it does not need.
const MILAN_POLICY: &str = "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"milan\"]\n\
    revocation = \"off\"\nmeasurements = [\"5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f\
    98189887920ab2fa0096903a0c23fca1\"]\n\
    [sev_snp.minimum_tcb.milan]\nbootloader = 4\ntee = 0\nsnp = 24\nmicrocode = 219\n";

pub(super) const MILAN: Sample = Sample {
    name: "AMD SEV-SNP, Milan",
    kind: EvidenceKind::SevSnp,
    report: MILAN_REPORT,
    certificates: &[MILAN_VCEK],
    collateral: &[],
    golden: &[],
    question: ZERO_DATA,
    open: &[],
    policy: MILAN_POLICY,
    at: "2026-06-01T00:00:00Z",
    changes: MILAN_CHANGES,
};

#[rustfmt::skip]
const MILAN_CHANGES: &[Change] = &[
    change("a forged measurement", To::Flipped(Report, 0x90, 1), "report signature"),
    change("forged report data", To::Flipped(Report, 0x8f, 0x80), "report signature"),
    change("the last signed byte forged", To::Flipped(Report, 0x29f, 1), "report signature"),
    change("a forged signature", To::Flipped(Report, 0x2a0, 1), "report signature"),
    change("debugging allowed", To::Flipped(Report, 0x0a, 1 << 3), "debug"),
    change("debugging allowed, under the old signature", To::Flipped(Report, 0x0a, 1 << 3), "report signature"),
    change("a forged certificate", To::Flipped(Certificate(0), 1350, 1), "leaf certificate"),
    change("a time before its certificate", To::Time("2026-02-04T00:00:00Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2033-02-06T00:00:00Z"), "certificate validity"),
    change("the key of another chip", To::Certificates(&[MILAN_OTHER_VCEK]), "report signature"),
    change("the key of a cloud's provider", To::Certificates(&[VLEK]), "report signature"),
    change("no certificate", To::Certificates(&[]), "certificates"),
    change("no revocation list", To::Policy("revocation = \"off\"", "revocation = \"required\""), "revocation list"),
    change("another measurement in the policy", To::Policy("5feee30d", "5feee30e"), "measurement"),
    change("a higher TCB in the policy", To::Policy("microcode = 219", "microcode = 220"), "reported TCB"),
    change("another product in the policy", To::Policy("products = [\"milan\"]", "products = []"), "product"),
    change("a policy for other evidence", To::Policy(MILAN_POLICY, "version = 1"), "policy section"),
    change("another question", To::Question(OTHER_DATA), "report data"),
];

const GENOA: Sample = Sample {
    name: "AMD SEV-SNP, Genoa",
    report: include_bytes!("../../tests/data/genoa/report.bin"),
    certificates: &[GENOA_VCEK],
    policy: "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"genoa\"]\n\
        revocation = \"off\"\nmeasurements = [\"5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f\
        98189887920ab2fa0096903a0c23fca1\"]\n\
        [sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\nsnp = 23\nmicrocode = 84\n",
    changes: GENOA_CHANGES,
    ..MILAN
};

#[rustfmt::skip]
const GENOA_CHANGES: &[Change] = &[
    change("a forged measurement", To::Flipped(Report, 0x90, 1), "report signature"),
    change("a forged signature", To::Flipped(Report, 0x2a0, 1), "report signature"),
    change("debugging allowed", To::Flipped(Report, 0x0a, 1 << 3), "debug"),
    change("a time before its certificate", To::Time("2026-02-04T00:00:00Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2033-02-06T00:00:00Z"), "certificate validity"),
    change("the report of a Milan chip", To::Report(MILAN_REPORT), "report signature"),
    change("the key of a Milan chip", To::Certificates(&[MILAN_VCEK]), "report signature"),
    change("another measurement in the policy", To::Policy("5feee30d", "5feee30e"), "measurement"),
    change("another question", To::Question(OTHER_DATA), "report data"),
];

const MILAN_VLEK: Sample = Sample {
    name: "AMD SEV-SNP, Milan under a VLEK",
    report: include_bytes!("../../tests/data/trustee/test-vlek-report.bin"),
    certificates: &[VLEK],
    question: report_data(
        "819770b7e6ea6df8dd8fd4dd146b073c0bf4f3ce5b0977ecac486e3a05ed1bd5\
         4e2a7ac1f5d1ca02e7d7d5ef9f73b8574fd9359e3a480d741a4478e8a7bc27ca",
    ),
    policy: "version = 1\n[sev_snp]\namd_roots = true\nproducts = [\"milan\"]\n\
        revocation = \"off\"\nvmpl = 1\nallow_provisional_firmware = true\n\
        vlek_csp_ids = [\"CN=cc-us-east-2.amazonaws.com\"]\n\
        measurements = [\"8922ebbdd00ec2c541f36a6e7a82a8773a7accb451ed67bc94e740dbe92c93c4\
        e8c9af857f5ceeb5a493df2a570d7bf0\"]\n\
        [sev_snp.minimum_tcb.milan]\nbootloader = 4\ntee = 0\nsnp = 24\nmicrocode = 217\n",
    at: "2025-06-01T00:00:00Z",
    changes: VLEK_CHANGES,
    ..MILAN
};

#[rustfmt::skip]
const VLEK_CHANGES: &[Change] = &[
    change("a forged measurement", To::Flipped(Report, 0x90, 1), "report signature"),
    change("a forged signature", To::Flipped(Report, 0x2a0, 1), "report signature"),
    change("a time before its certificate", To::Time("2024-12-09T00:00:00Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2025-12-11T00:00:00Z"), "certificate validity"),
    change("the key of a chip", To::Certificates(&[MILAN_VCEK]), "report signature"),
    change("another provider in the policy", To::Policy("us-east-2", "us-east-1"), "VLEK provider"),
    change("another VMPL in the policy", To::Policy("vmpl = 1", "vmpl = 0"), "VMPL"),
    change("another question", To::Question(ZERO_DATA), "report data"),
];

const TDX_COLLATERAL: &[u8] = include_bytes!("../../tests/data/tdx/v4-uptodate/collateral.json");
const SGX_COLLATERAL: &[u8] = include_bytes!("../../tests/data/tdx/sgx/collateral.json");
const SGX_QUOTE: &[u8] = include_bytes!("../../tests/data/tdx/sgx/quote.bin");
const TDX_OTHER_QUOTE: &[u8] = include_bytes!("../../tests/data/tdx/trustee/tdx_quote_4.dat");
const TDX_POLICY: &str = "version = 1\n[tdx]\nintel_root = true\nminimum_tcb_evaluation_number = 17\n\
    minimum_tee_tcb_svn = \"06010300000000000000000000000000\"\nfmspcs = [\"b0c06f000000\"]\n\
    mrseam = [\"5b38e33a6487958b72c3c12a938eaa5e3fd4510c51aeeab58c7d5ecee41d7c43\
    6489d6c8e4f92f160b7cad34207b00c1\"]\n\
    mrtd = [\"91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407\
    de03ae6dc5f87f27428b2538873118b7\"]\n\
    rtmr0 = [\"44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c\
    48aca29b220b80b6a540cf994b9bc9c0\"]\n\
    rtmr1 = [\"0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7\
    aea8c323c173019b3093d54e579e9378\"]\n\
    rtmr2 = [\"d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3\
    ba80b70870d7330733642e01d48c3132\"]\n\
    rtmr3 = [\"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"]\n";

const TDX: Sample = Sample {
    name: "Intel TDX",
    kind: EvidenceKind::Tdx,
    report: include_bytes!("../../tests/data/tdx/v4-uptodate/quote.bin"),
    certificates: &[],
    collateral: &[TDX_COLLATERAL],
    golden: &[],
    question: report_data(
        "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9\
         eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20",
    ),
    open: &[],
    policy: TDX_POLICY,
    at: "2025-06-21T10:00:00Z",
    changes: TDX_CHANGES,
};

/// Header and TD report have 632 bytes. From there on: a length, the signature at 636, its key at
/// 700, the quoting enclave's report at 770 and its signature at 1154, the certificates at 1258.
#[rustfmt::skip]
const TDX_CHANGES: &[Change] = &[
    change("a forged header", To::Flipped(Report, 47, 1), "quote signature"),
    change("a forged MRTD", To::Flipped(Report, 184, 1), "quote signature"),
    change("the last signed byte forged", To::Flipped(Report, 631, 1), "quote signature"),
    change("a forged signature", To::Flipped(Report, 636, 1), "quote signature"),
    change("another key", To::Flipped(Report, 763, 1), "quote signature"),
    change("debugging allowed", To::Flipped(Report, 168, 1), "debug"),
    change("debugging allowed, under the old signature", To::Flipped(Report, 168, 1), "quote signature"),
    change("a service TD that may move it", To::Flipped(Report, 171, 1 << 5), "migratable"),
    change("the TD, signature and key of another machine", To::Head(TDX_OTHER_QUOTE, 764), "endorsements"),
    change("a forged report of the quoting enclave", To::Flipped(Report, 770, 1), "endorsements"),
    change("a forged signature of the platform", To::Flipped(Report, 1154, 1), "endorsements"),
    change("a forged certificate", To::Flipped(Report, 2990, 1), "endorsements"),
    change("an SGX quote", To::Report(SGX_QUOTE), "TEE type"),
    change("a quote of a TD in debug mode", To::Report(TDX_OTHER_QUOTE), "debug"),
    change("no collateral", To::Collateral(&[]), "collateral"),
    change("collateral for SGX", To::Collateral(&[SGX_COLLATERAL]), "collateral"),
    change("forged TCB info", To::Flipped(Collateral(0), 10084, 1), "endorsements"),
    change("a forged signature of the TCB info", To::Flipped(Collateral(0), 13290, 1), "endorsements"),
    change("a forged QE identity", To::Flipped(Collateral(0), 15841, 1), "endorsements"),
    change("a forged signature of the QE identity", To::Flipped(Collateral(0), 15941, 1), "endorsements"),
    change("a forged revocation list of the root", To::Flipped(Collateral(0), 2569, 1), "endorsements"),
    change("a forged revocation list", To::Flipped(Collateral(0), 7909, 1), "endorsements"),
    change("a time before its collateral", To::Time("2025-06-19T10:32:26Z"), "collateral"),
    change("a time after its collateral", To::Time("2025-07-19T10:00:35Z"), "collateral"),
    change("a time before its certificate", To::Time("2025-02-06T23:25:50Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2032-02-06T23:25:52Z"), "certificate validity"),
    change("another MRSEAM in the policy", To::Policy("5b38e33a", "5b38e33b"), "MRSEAM"),
    change("another MRTD in the policy", To::Policy("91eb2b44", "91eb2b45"), "MRTD"),
    change("another RTMR0 in the policy", To::Policy("44c0197b", "44c0197c"), "RTMR0"),
    change("another RTMR1 in the policy", To::Policy("0084452c", "0084452d"), "RTMR1"),
    change("another RTMR2 in the policy", To::Policy("d833feef", "d833feee"), "RTMR2"),
    change("another RTMR3 in the policy", To::Policy("rtmr3 = [\"00", "rtmr3 = [\"01"), "RTMR3"),
    change("a higher SVN in the policy", To::Policy("\"060103", "\"060104"), "TEE TCB SVN"),
    change("a newer TCB in the policy", To::Policy("number = 17", "number = 18"), "TCB evaluation number"),
    change("no status in the policy", To::Policy("[tdx]", "[tdx]\naccepted_tcb_statuses = []"), "TCB status"),
    change("another platform in the policy", To::Policy("fmspcs = [\"b0", "fmspcs = [\"b1"), "FMSPC"),
    change("the platform denied in the policy", To::Policy("fmspcs", "denied_fmspcs"), "FMSPC"),
    change("a policy for other evidence", To::Policy(TDX_POLICY, "version = 1"), "policy section"),
    change("another question", To::Question(ZERO_DATA), "report data"),
];

const NITRO_DEBUG: &[u8] = include_bytes!("../../tests/data/nitro/evervault-debug.cose");
const NITRO_POLICY: &str = "version = 1\n[nitro]\naws_root = true\n\
    pcr0 = [\"8bb159f202bb95d6d4d98e0e103918246cea734f1d57cd263e4fd56075ed53f6\
    fa8c68854817a32749a241e11874c26b\"]\n\
    pcr1 = [\"3b4a7e1b5f13c5a1000b3ed32ef8995ee13e9876329f9bc72650b918329ef9cf\
    4e2e4d1e1e37375dab0ba56ba0974d03\"]\n\
    pcr2 = [\"f4e86b12ad3df5f9fea962ff706c23ee190b463740a32f1a679a3cd1070a7731\
    ddd83328fe3db5e8143ea94344b6fb95\"]\n\
    pcr3 = [\"957daeb0196a044bd93133dc03d41017db77bacb95d21c410906f0207960f63e\
    86d08a5a5160bdacf30a8297154eaeaa\"]\n\
    pcr4 = [\"5ecf4fb14c100ccc62999e094c99819ce9e51dd7c9497602d1cdf68b98cba25c\
    153406046d9f9096f9d059211c7cbca3\"]\n\
    module_ids = [\"i-0bee92034f3d60691-enc01943c5eaab3ad6a\"]\n";

/// It holds neither user data nor a nonce, so nothing shows it to be fresh.
pub(super) const NITRO: Sample = Sample {
    name: "AWS Nitro",
    kind: EvidenceKind::Nitro,
    report: include_bytes!("../../tests/data/nitro/eu-central-1.cose"),
    certificates: &[],
    collateral: &[],
    golden: &[],
    question: NO_QUESTION,
    open: &["report data", "nonce"],
    policy: NITRO_POLICY,
    at: "2025-01-06T16:07:05Z",
    changes: NITRO_CHANGES,
};

/// The name begins at 23, PCR0 at 104, the leaf at 932, the authorities at 1590, 2126, 2838 and
/// 3645 with the root first, the signature at 4685.
#[rustfmt::skip]
const NITRO_CHANGES: &[Change] = &[
    change("a forged name", To::Flipped(Report, 26, 1), "document signature"),
    change("a forged PCR0", To::Flipped(Report, 104, 1), "document signature"),
    change("a forged time", To::Flipped(Report, 94, 1), "document signature"),
    change("a forged key", To::Flipped(Report, 4500, 1), "document signature"),
    change("a forged signature", To::Flipped(Report, 4685, 1), "document signature"),
    change("the last byte forged", To::Flipped(Report, 4780, 1), "document signature"),
    change("another algorithm", To::Flipped(Report, 5, 1), "signature algorithm"),
    change("another root", To::Flipped(Report, 1590 + 532, 1), "root"),
    change("a forged authority of the region", To::Flipped(Report, 2126 + 708, 1), "certificate chain"),
    change("a forged authority of the zone", To::Flipped(Report, 2838 + 803, 1), "certificate chain"),
    change("a forged authority of the instance", To::Flipped(Report, 3645 + 711, 1), "certificate chain"),
    change("a forged leaf", To::Flipped(Report, 932 + 644, 1), "certificate chain"),
    change("a certificate beside it", To::Certificates(&[VLEK]), "certificates"),
    change("a document of debug mode", To::Report(NITRO_DEBUG), "debug"),
    change("a document that is over", To::Report(NITRO_DEBUG), "certificate validity"),
    change("a time before its certificate", To::Time("2025-01-06T16:07:01Z"), "certificate validity"),
    change("a time after its certificate", To::Time("2025-01-06T19:07:06Z"), "certificate validity"),
    change("a time six minutes later", To::Time("2025-01-06T16:13:05Z"), "timestamp"),
    change("another PCR0 in the policy", To::Policy("8bb159f2", "8bb159f3"), "PCR0"),
    change("another PCR1 in the policy", To::Policy("3b4a7e1b", "3b4a7e1c"), "PCR1"),
    change("another PCR2 in the policy", To::Policy("f4e86b12", "f4e86b13"), "PCR2"),
    change("another PCR3 in the policy", To::Policy("957daeb0", "957daeb1"), "PCR3"),
    change("another PCR4 in the policy", To::Policy("5ecf4fb1", "5ecf4fb2"), "PCR4"),
    change("a signed image in the policy", To::Policy("[nitro]", "[nitro]\npcr8 = []"), "PCR8"),
    change("another enclave in the policy", To::Policy("i-0bee", "i-0bef"), "module id"),
    change("a policy for other evidence", To::Policy(NITRO_POLICY, "version = 1"), "policy section"),
    change("a question by its nonce", To::Question(OTHER_NONCE), "nonce"),
    change("a question by its user data", To::Question(ZERO_DATA), "report data"),
];

const GPU_CHAIN: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/cert_chain.pem");
const OTHER_GPU_CHAIN: &[u8] = include_bytes!("../../tests/data/nvidia/invalid-signature.pem");
const BLACKWELL_CHAIN: &[u8] = include_bytes!("../../tests/data/nvidia/blackwell/cert_chain.pem");
const OCSP_IDENTITY: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/ocsp-l2.der");
const OCSP_PROVISIONER: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/ocsp-l3.der");
const OCSP_DEVICE: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/ocsp-l4.der");
const DRIVER: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/driver-golden.json");
const VBIOS: &[u8] = include_bytes!("../../tests/data/nvidia/hopper/vbios-golden.json");
const GPU_POLICY: &str = "version = 1\n[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\n\
    minimum_gpus = 1\nmodes = [\"spt\"]\nminimum_driver = \"550.90.07\"\n\
    minimum_vbios = { GH100 = \"96.00.9f.00.01\" }\n\
    devices = [\"0456ef114633549618e8fbe54ece97118b2f034f11b036980137a15264a46d07\"]\n";

const GPU: Sample = Sample {
    name: "NVIDIA H100",
    kind: EvidenceKind::NvidiaGpu,
    report: include_bytes!("../../tests/data/nvidia/hopper/report.bin"),
    certificates: &[GPU_CHAIN],
    collateral: &[OCSP_IDENTITY, OCSP_PROVISIONER, OCSP_DEVICE],
    golden: &[DRIVER, VBIOS],
    question: nonce("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"),
    open: &[],
    policy: GPU_POLICY,
    at: "2025-08-21T12:00:00Z",
    changes: GPU_CHANGES,
};

/// The nonce begins at 4, the first measurement of the driver at 437, the driver's version at 3669,
/// the signature at 4021.
#[rustfmt::skip]
const GPU_CHANGES: &[Change] = &[
    change("a forged nonce", To::Flipped(Report, 4, 1), "report signature"),
    change("a forged measurement", To::Flipped(Report, 437, 1), "report signature"),
    change("another measurement of the driver", To::Flipped(Report, 437, 1), "driver measurements"),
    change("a forged version of the driver", To::Flipped(Report, 3669, 1), "report signature"),
    change("the last signed byte forged", To::Flipped(Report, 4020, 1), "report signature"),
    change("a forged signature", To::Flipped(Report, 4021, 1), "report signature"),
    change("the last byte forged", To::Flipped(Report, 4116, 1), "report signature"),
    change("the key of another GPU", To::Certificates(&[OTHER_GPU_CHAIN]), "report signature"),
    change("the key of a Blackwell GPU", To::Certificates(&[BLACKWELL_CHAIN]), "firmware id"),
    change("no certificate", To::Certificates(&[]), "certificates"),
    change("certificates of an AMD chip", To::Certificates(&[MILAN_VCEK, VLEK, MILAN_VCEK, VLEK]), "leaf certificate"),
    change("a forged leaf", To::Flipped(Certificate(0), 100, 1), "leaf certificate"),
    change("a forged device", To::Flipped(Certificate(1), 595, 1), "authorities"),
    change("a forged provisioner", To::Flipped(Certificate(2), 685, 1), "authorities"),
    change("a forged authority of its family", To::Flipped(Certificate(3), 653, 1), "root"),
    change("no OCSP response", To::Collateral(&[]), "revocation"),
    change("no OCSP response for the device", To::Collateral(&[OCSP_IDENTITY, OCSP_PROVISIONER]), "revocation"),
    change("a forged status", To::Flipped(Collateral(2), 227, 1), "revocation"),
    change("a forged signature of the status", To::Flipped(Collateral(2), 270, 1), "revocation"),
    change("a forged status of its provisioner", To::Flipped(Collateral(1), 235, 1), "revocation"),
    change("a forged status of its family", To::Flipped(Collateral(0), 235, 1), "revocation"),
    change("a time before its status", To::Time("2025-08-21T06:47:06Z"), "revocation"),
    change("a time after its status", To::Time("2025-08-22T06:47:09Z"), "revocation"),
    change("a time before its certificates", To::Time("2022-02-28T23:59:59Z"), "certificate validity"),
    change("no golden measurements", To::Golden(&[]), "driver measurements"),
    change("no golden measurements of the driver", To::Golden(&[VBIOS]), "driver measurements"),
    change("no golden measurements of the VBIOS", To::Golden(&[DRIVER]), "VBIOS measurements"),
    change("another driver's golden measurement", To::Flipped(Golden(0), 98, 1), "driver measurements"),
    change("another VBIOS's golden measurement", To::Flipped(Golden(1), 233, 1), "VBIOS measurements"),
    change("another chip in the policy", To::Policy("[\"GH100\"]", "[\"GB100\"]"), "architecture"),
    change("another mode in the policy", To::Policy("\"spt\"", "\"ppcie\""), "mode"),
    change("a newer driver in the policy", To::Policy("550.90.07", "550.90.08"), "minimum driver"),
    change("a newer VBIOS in the policy", To::Policy("9f.00.01", "9f.00.02"), "minimum VBIOS"),
    change("another device in the policy", To::Policy("devices = [\"04", "devices = [\"14"), "device"),
    change("the device denied in the policy", To::Policy("devices", "denied_devices"), "denied device"),
    change("a policy for other evidence", To::Policy(GPU_POLICY, "version = 1"), "policy section"),
    change("another question", To::Question(OTHER_NONCE), "report nonce"),
];
