//! A platform of our own, under a software root: everything that Intel and its machines would sign,
//! with a place for every flaw.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use attestation::{
    Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Policy, appraise_item,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::der;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ROOT_NAME: &str = "Test SGX Root CA";
const CA_NAME: &str = "Test PCK Platform CA";
pub(crate) const PCK_SERIAL: u8 = 9;
pub(crate) const CA_SERIAL: u8 = 2;
pub(crate) const TCB_SERIAL: u8 = 3;

pub(crate) const FMSPC: [u8; 6] = [0xb0, 0xc0, 0x6f, 0, 0, 0];
pub(crate) const PPID: [u8; 16] = [0x77; 16];
pub(crate) const REPORT_DATA: [u8; 64] = [0xda; 64];

/// Offsets in the TD report.
pub(crate) const TEE_TCB_SVN: usize = 0;
pub(crate) const MRSEAM: usize = 16;
pub(crate) const MRSIGNERSEAM: usize = 64;
pub(crate) const SEAM_ATTRIBUTES: usize = 112;
pub(crate) const TD_ATTRIBUTES: usize = 120;
pub(crate) const XFAM: usize = 128;
pub(crate) const MRTD: usize = 136;
pub(crate) const MRCONFIGID: usize = 184;
pub(crate) const MROWNER: usize = 232;
pub(crate) const MROWNERCONFIG: usize = 280;
pub(crate) const RTMR0: usize = 328;
pub(crate) const REPORTDATA: usize = 520;
pub(crate) const TEE_TCB_SVN2: usize = 584;
pub(crate) const MRSERVICETD: usize = 600;

/// Offsets in the QE's report.
pub(crate) const QE_ATTRIBUTES: usize = 48;
pub(crate) const QE_MRSIGNER: usize = 128;
pub(crate) const QE_ISVPRODID: usize = 256;
pub(crate) const QE_ISVSVN: usize = 258;
const QE_REPORT_DATA: usize = 320;

pub(crate) struct Key {
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    pub(crate) fn generate() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .unwrap();
        let load = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        Self {
            asn1: load(&ECDSA_P256_SHA256_ASN1_SIGNING),
            fixed: load(&ECDSA_P256_SHA256_FIXED_SIGNING),
        }
    }

    fn sign_asn1(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.asn1.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.fixed.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }

    /// x and y.
    fn point(&self) -> &[u8] {
        &self.asn1.public_key().as_ref()[1..]
    }

    fn spki(&self) -> Vec<u8> {
        let algorithm = [
            der::oid("1.2.840.10045.2.1"),
            der::oid("1.2.840.10045.3.1.7"),
        ];
        let algorithm = der::sequence(&[&algorithm.concat()]);
        der::sequence(&[&algorithm, &der::bits(self.asn1.public_key().as_ref())])
    }

    /// Signs the body of a certificate or list.
    fn seal(&self, body: &[u8]) -> Vec<u8> {
        let algorithm = der::sequence(&[&der::oid(ECDSA_SHA256)]);
        let signature = der::bits(&self.sign_asn1(body));
        der::sequence(&[body, &algorithm, &signature])
    }
}

/// The keys of all parties, made once.
pub(crate) struct Keys {
    pub(crate) root: Key,
    pub(crate) authority: Key,
    pub(crate) pck: Key,
    pub(crate) tcb: Key,
    pub(crate) attestation: Key,
    pub(crate) stranger: Key,
}

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    root: Key::generate(),
    authority: Key::generate(),
    pck: Key::generate(),
    tcb: Key::generate(),
    attestation: Key::generate(),
    stranger: Key::generate(),
});

/// Begin and end.
pub(crate) type Window = (SystemTime, SystemTime);

/// The time of every appraisal unless told otherwise.
pub(crate) fn now() -> SystemTime {
    attestation::time::from_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

/// What is signed, by whom, and for how long. What [`Platform::default`] gives passes.
pub(crate) struct Platform {
    pub(crate) header: Vec<u8>,
    /// Type and size before the body, in version 5.
    pub(crate) descriptor: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) qe_report: Vec<u8>,
    pub(crate) fmspc: [u8; 6],
    pub(crate) issuer: &'static str,
    pub(crate) tcb_info: Value,
    pub(crate) qe_identity: Value,
    pub(crate) revoked_by_root: Vec<u8>,
    pub(crate) revoked_by_authority: Vec<u8>,
    pub(crate) root_window: Window,
    pub(crate) authority_window: Window,
    pub(crate) pck_window: Window,
    pub(crate) tcb_window: Window,
    pub(crate) root_crl: Window,
    pub(crate) pck_crl: Window,
    pub(crate) signs_authority: &'static Key,
    pub(crate) signs_pck: &'static Key,
    pub(crate) signs_tcb_info: &'static Key,
    pub(crate) signs_qe_identity: &'static Key,
    pub(crate) signs_root_crl: &'static Key,
    pub(crate) signs_pck_crl: &'static Key,
    pub(crate) signs_qe_report: &'static Key,
    pub(crate) signs_quote: &'static Key,
    /// Put after the signature data.
    pub(crate) padding: Vec<u8>,
    /// Whether the quote carries a copy of the root, and ends its PEM with a NUL.
    pub(crate) root_in_quote: bool,
    pub(crate) nul: bool,
}

impl Default for Platform {
    fn default() -> Self {
        let keys = &*KEYS;
        let long = (now() - 400 * DAY, now() + 400 * DAY);
        let list = (now() - 10 * DAY, now() + 20 * DAY);
        let mut header = vec![4, 0, 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0];
        header.extend(hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
        header.extend([0; 20]);
        let mut body = vec![0; 584];
        body[TEE_TCB_SVN..][..3].copy_from_slice(&[6, 1, 3]);
        body[MRSEAM..][..48].fill(0x5e);
        body[TD_ATTRIBUTES..][..8].copy_from_slice(&0x1000_0000u64.to_le_bytes());
        body[XFAM..][..8].copy_from_slice(&0x602e7u64.to_le_bytes());
        body[MRTD..][..48].fill(0x3d);
        for at in 0..4u8 {
            body[RTMR0 + 48 * usize::from(at)..][..48].fill(0xb0 + at);
        }
        body[REPORTDATA..][..64].copy_from_slice(&REPORT_DATA);
        let mut qe_report = vec![0; 384];
        qe_report[QE_ATTRIBUTES] = 0x11;
        qe_report[QE_MRSIGNER..][..32].fill(0xdc);
        qe_report[QE_ISVPRODID] = 2;
        qe_report[QE_ISVSVN] = 5;
        Self {
            header,
            descriptor: vec![],
            body,
            qe_report,
            fmspc: FMSPC,
            issuer: CA_NAME,
            tcb_info: tcb_info(),
            qe_identity: qe_identity(),
            revoked_by_root: vec![],
            revoked_by_authority: vec![],
            root_window: long,
            authority_window: long,
            pck_window: long,
            tcb_window: long,
            root_crl: list,
            pck_crl: list,
            signs_authority: &keys.root,
            signs_pck: &keys.authority,
            signs_tcb_info: &keys.tcb,
            signs_qe_identity: &keys.tcb,
            signs_root_crl: &keys.root,
            signs_pck_crl: &keys.authority,
            signs_qe_report: &keys.pck,
            signs_quote: &keys.attestation,
            padding: vec![],
            root_in_quote: true,
            nul: true,
        }
    }
}

fn components(values: &[u8]) -> Value {
    let of = |at| values.get(at).copied().unwrap_or(0);
    (0..16).map(|at| json!({"svn": of(at)})).collect()
}

fn tcb_info() -> Value {
    let module = json!({
        "mrsigner": "0".repeat(96), "attributes": "0".repeat(16), "attributesMask": "F".repeat(16),
    });
    let level = |pcesvn: u16, tdx: &[u8], date: &str, status: &str| {
        json!({
            "tcb": {"sgxtcbcomponents": components(&[2, 2]), "pcesvn": pcesvn,
                    "tdxtcbcomponents": components(tdx)},
            "tcbDate": date, "tcbStatus": status,
        })
    };
    let mut identity = module.clone();
    identity["id"] = json!("TDX_01");
    identity["tcbLevels"] = json!([
        {"tcb": {"isvsvn": 4}, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": "UpToDate"},
        {"tcb": {"isvsvn": 2}, "tcbDate": "2023-08-09T00:00:00Z", "tcbStatus": "OutOfDate"},
    ]);
    json!({
        "id": "TDX", "version": 3,
        "issueDate": "2026-05-20T00:00:00Z", "nextUpdate": "2026-06-19T00:00:00Z",
        "fmspc": "B0C06F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
        "tdxModule": module, "tdxModuleIdentities": [identity],
        "tcbLevels": [
            level(11, &[5, 0, 2], "2025-03-12T00:00:00Z", "UpToDate"),
            level(5, &[5, 0, 2], "2023-08-09T00:00:00Z", "OutOfDate"),
        ],
    })
}

fn qe_identity() -> Value {
    json!({
        "id": "TD_QE", "version": 2,
        "issueDate": "2026-05-20T00:00:00Z", "nextUpdate": "2026-06-19T00:00:00Z",
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": "DC".repeat(32), "isvprodid": 2,
        "tcbLevels": [
            {"tcb": {"isvsvn": 4}, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": "UpToDate"},
        ],
    })
}

impl Platform {
    /// The same with a TD report 1.5, in a quote of version 5.
    pub(crate) fn version_5() -> Self {
        let mut platform = Self::default();
        platform.header[0] = 5;
        platform.descriptor = vec![3, 0, 0x88, 2, 0, 0];
        let svn = platform.body[..16].to_vec();
        platform.body.extend(svn);
        platform.body.extend([0; 48]);
        platform
    }

    pub(crate) fn root() -> Vec<u8> {
        Self::default().root_certificate()
    }

    fn root_certificate(&self) -> Vec<u8> {
        certificate(
            &KEYS.root,
            (1, self.root_window),
            (ROOT_NAME, ROOT_NAME),
            &KEYS.root,
            &authority(),
        )
    }

    /// The platform's, its authority's and the root's.
    pub(crate) fn certificates(&self) -> [Vec<u8>; 3] {
        let leaf_extensions = [usage(0xc0), self.sgx_extension()].concat();
        [
            certificate(
                self.signs_pck,
                (PCK_SERIAL, self.pck_window),
                (self.issuer, "Test PCK Certificate"),
                &KEYS.pck,
                &leaf_extensions,
            ),
            certificate(
                self.signs_authority,
                (CA_SERIAL, self.authority_window),
                (ROOT_NAME, self.issuer),
                &KEYS.authority,
                &authority(),
            ),
            self.root_certificate(),
        ]
    }

    fn pck_chain(&self) -> Vec<u8> {
        let used = if self.root_in_quote { 3 } else { 2 };
        let chain = self.certificates();
        let pem = chain.iter().take(used).map(|der| to_pem(der));
        let mut text = pem.collect::<String>().into_bytes();
        if self.nul {
            text.push(0);
        }
        text
    }

    /// The platform's identity and TCB, as Intel writes them into its certificate.
    fn sgx_extension(&self) -> Vec<u8> {
        const SGX: &str = "1.2.840.113741.1.13.1";
        let entry =
            |id: &str, value: Vec<u8>| der::sequence(&[&der::oid(&format!("{SGX}.{id}")), &value]);
        let cpusvn = [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut tcb: Vec<u8> = (1..=16u8)
            .zip(cpusvn)
            .flat_map(|(at, svn)| entry(&format!("2.{at}"), der::integer(svn)))
            .collect();
        tcb.extend(entry("2.17", der::integer(11)));
        tcb.extend(entry("2.18", der::octets(&cpusvn)));
        let entries = [
            entry("1", der::octets(&PPID)),
            entry("2", der::sequence(&[&tcb])),
            entry("3", der::octets(&[0, 0])),
            entry("4", der::octets(&self.fmspc)),
            entry("5", der::tlv(0x0a, &[&[1]])),
        ];
        der::extension(SGX, false, &der::sequence(&[&entries.concat()]))
    }

    pub(crate) fn quote(&self) -> Vec<u8> {
        self.quote_with_chain(&self.pck_chain())
    }

    pub(crate) fn quote_with_chain(&self, chain: &[u8]) -> Vec<u8> {
        let signed = [&self.header[..], &self.descriptor, &self.body].concat();
        let auth: Vec<u8> = (0..32).collect();
        let mut qe_report = self.qe_report.clone();
        let hash = digest(&SHA256, &[self.signs_quote.point(), &auth].concat());
        qe_report[QE_REPORT_DATA..][..32].copy_from_slice(hash.as_ref());
        let certification = [
            &qe_report[..],
            &self.signs_qe_report.sign(&qe_report),
            &[32, 0],
            &auth,
            &[5, 0],
            &len(chain),
            chain,
        ]
        .concat();
        let data = [
            &self.signs_quote.sign(&signed)[..],
            self.signs_quote.point(),
            &[6, 0],
            &len(&certification),
            &certification,
        ]
        .concat();
        [&signed[..], &len(&data), &data, &self.padding].concat()
    }

    pub(crate) fn collateral(&self) -> Value {
        let tcb_certificate = certificate(
            &KEYS.root,
            (TCB_SERIAL, self.tcb_window),
            (ROOT_NAME, "Test TCB Signing"),
            &KEYS.tcb,
            &usage(0xc0),
        );
        let chain = to_pem(&tcb_certificate) + &to_pem(&self.root_certificate());
        let (tcb_info, qe_identity) = (self.tcb_info.to_string(), self.qe_identity.to_string());
        let crl = |key: &Key, issuer, window, revoked: &[u8]| {
            hex::encode(revocation_list(key, issuer, window, revoked))
        };
        json!({
            "pck_crl_issuer_chain": "",
            "root_ca_crl": crl(self.signs_root_crl, ROOT_NAME, self.root_crl, &self.revoked_by_root),
            "pck_crl": crl(self.signs_pck_crl, CA_NAME, self.pck_crl, &self.revoked_by_authority),
            "tcb_info_issuer_chain": chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": hex::encode(self.signs_tcb_info.sign(tcb_info.as_bytes())),
            "qe_identity_issuer_chain": chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": hex::encode(self.signs_qe_identity.sign(qe_identity.as_bytes())),
        })
    }

    pub(crate) fn appraise(&self, policy: &Policy, at: SystemTime) -> Appraisal {
        let pieces = [self.collateral().to_string().into_bytes()];
        appraise(&self.quote(), &pieces, Some(policy), Some(REPORT_DATA), at)
    }
}

pub(crate) fn appraise(
    quote: &[u8],
    pieces: &[Vec<u8>],
    policy: Option<&Policy>,
    report_data: Option<[u8; 64]>,
    at: SystemTime,
) -> Appraisal {
    let item = EvidenceItem {
        kind: EvidenceKind::Tdx,
        report: quote.to_vec(),
        certificates: vec![],
        collateral: Collateral {
            tdx: pieces.to_vec(),
            ..Collateral::default()
        },
    };
    let expected = Expected {
        report_data,
        nonce: None,
    };
    appraise_item(&item, policy, &Bundle::empty(), expected, at)
}

pub(crate) fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn len(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_le_bytes()
}

fn usage(bits: u8) -> Vec<u8> {
    der::extension(
        "2.5.29.15",
        true,
        &der::tlv(3, &[&[u8::try_from(bits.trailing_zeros()).unwrap(), bits]]),
    )
}

pub(crate) fn authority() -> Vec<u8> {
    let constraints = der::extension("2.5.29.19", true, &der::sequence(&[&[1, 1, 0xff]]));
    [constraints, usage(0b0000_0110)].concat()
}

pub(crate) fn certificate(
    signer: &Key,
    (serial, window): (u8, Window),
    (issuer, subject): (&str, &str),
    key: &Key,
    extensions: &[u8],
) -> Vec<u8> {
    let validity = [der::time(window.0), der::time(window.1)].concat();
    let body = der::sequence(&[
        &der::tlv(0xa0, &[&der::integer(2)]),
        &der::integer(serial),
        &der::sequence(&[&der::oid(ECDSA_SHA256)]),
        &der::name(issuer),
        &der::sequence(&[&validity]),
        &der::name(subject),
        &key.spki(),
        &der::tlv(0xa3, &[&der::sequence(&[extensions])]),
    ]);
    signer.seal(&body)
}

fn revocation_list(signer: &Key, issuer: &str, window: Window, revoked: &[u8]) -> Vec<u8> {
    let entry = |serial: &u8| der::sequence(&[&der::integer(*serial), &der::time(window.0)]);
    let entries: Vec<u8> = revoked.iter().flat_map(entry).collect();
    let entries = if entries.is_empty() {
        vec![]
    } else {
        der::sequence(&[&entries])
    };
    // Authority key identifier and number, which every list has.
    let key = der::extension(
        "2.5.29.35",
        false,
        &der::sequence(&[&der::tlv(0x80, &[&[1; 20]])]),
    );
    let number = der::extension("2.5.29.20", false, &der::integer(1));
    let extensions = der::sequence(&[&key, &number]);
    let body = der::sequence(&[
        &der::integer(1),
        &der::sequence(&[&der::oid(ECDSA_SHA256)]),
        &der::name(issuer),
        &der::time(window.0),
        &der::time(window.1),
        &entries,
        &der::tlv(0xa0, &[&extensions]),
    ]);
    signer.seal(&body)
}
