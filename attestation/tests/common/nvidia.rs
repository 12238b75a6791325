//! Makes NVIDIA devices that exist nowhere: five certificates under a root of one's own, SPDM
//! reports, and OCSP responses, each part of which a test can bend.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "test support: a failed helper fails its test, and each test uses a part of it"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::nvidia::{GoldenMeasurement, GoldenMeasurements};
use attestation::time::to_rfc3339;
use attestation::{Collateral, EvidenceItem, EvidenceKind};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use x509_cert::der::asn1::ObjectIdentifier;

pub const NOW: u64 = 1_780_272_000;
pub const HOUR: u64 = 3600;
pub const DAY: u64 = 24 * HOUR;

/// Places in [`Device::levels`].
pub const LEAF: usize = 0;
pub const DEVICE: usize = 1;
pub const PROVISIONER: usize = 2;
pub const IDENTITY: usize = 3;
pub const ROOT: usize = 4;

pub const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub const KEY_USAGE: &str = "2.5.29.15";
pub const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
pub const COMPOSITE_DEVICE_ID: &str = "2.23.133.5.4.1";
pub const TCB_INFO: &str = "2.23.133.5.4.1.1";
pub const OCSP_SIGNING: &str = "1.3.6.1.5.5.7.3.9";
pub const OCSP_NO_CHECK: &str = "1.3.6.1.5.5.7.48.1.5";
pub const SHA1_ID: &str = "1.3.14.3.2.26";
pub const SHA256_ID: &str = "2.16.840.1.101.3.4.2.1";
pub const SHA384_ID: &str = "2.16.840.1.101.3.4.2.2";
pub const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
pub const FWID: [u8; 48] = [0xf1; 48];
pub const SWITCH_ID: [u8; 8] = [0x20, 0x3e, 0xb3, 0x1a, 0xd9, 0xed, 0x00, 0x08];

pub const GOOD: [u8; 2] = [0x80, 0];
pub const UNKNOWN: [u8; 2] = [0x82, 0];

pub fn at(unix: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix)
}

// DER

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let header = match len {
        0..0x80 => vec![tag, len as u8],
        0x80..0x100 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [header, content.to_vec()].concat()
}

pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub fn oid(id: &str) -> Vec<u8> {
    tlv(6, ObjectIdentifier::new_unwrap(id).as_bytes())
}

pub fn time(unix: u64) -> Vec<u8> {
    let text: String = to_rfc3339(at(unix))
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    tlv(0x18, format!("{text}Z").as_bytes())
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}

fn name(common_name: &str, serial_number: &str) -> Vec<u8> {
    let part = |id: &str, text: &str| tlv(0x31, &seq(&[&oid(id), &tlv(0x0c, text.as_bytes())]));
    let serial = match serial_number {
        "" => vec![],
        text => part("2.5.4.5", text),
    };
    seq(&[&serial, &part("2.5.4.3", common_name)])
}

/// `BasicConstraints` of an authority.
pub fn constraints(path_len: Option<u8>) -> Vec<u8> {
    let path_len = path_len.map(|len| tlv(2, &[len])).unwrap_or_default();
    seq(&[&[1, 1, 0xff], &path_len])
}

/// keyCertSign or digitalSignature alone.
pub fn key_usage(byte: u8) -> Vec<u8> {
    tlv(3, &[byte.trailing_zeros() as u8, byte])
}

pub const KEY_CERT_SIGN: u8 = 0b0000_0100;
pub const DIGITAL_SIGNATURE: u8 = 0b1000_0000;

fn fwid(digest: &[u8]) -> Vec<u8> {
    seq(&[&oid(SHA384_ID), &tlv(4, digest)])
}

/// Hopper's extension.
pub fn composite_device_id(digest: &[u8]) -> Vec<u8> {
    seq(&[&tlv(2, &[1]), &seq(&[]), &fwid(digest)])
}

/// Blackwell's extension: vendor, firmware ids, flags.
pub fn tcb_info(digests: &[[u8; 48]], flags: &[u8]) -> Vec<u8> {
    let ids: Vec<_> = digests.iter().map(|digest| fwid(digest)).collect();
    let flags = tlv(0x87, &[&[0], flags].concat());
    seq(&[&tlv(0x80, b"NVIDIA"), &tlv(0xa6, &ids.concat()), &flags])
}

// Keys and certificates

#[derive(Clone)]
pub struct Key(Arc<Vec<u8>>);

impl Key {
    pub fn generate() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self(Arc::new(key.to_pkcs8v1().unwrap().as_ref().to_vec()))
    }

    pub fn public(&self) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.0).unwrap();
        key.public_key().as_ref().to_vec()
    }

    /// r and s, 48 bytes each.
    pub fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.0).unwrap();
        key.sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.0).unwrap();
        key.sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    fn spki(&self) -> Vec<u8> {
        let algorithm = seq(&[&oid("1.2.840.10045.2.1"), &oid("1.3.132.0.34")]);
        seq(&[&algorithm, &bits(&self.public())])
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub fn sha256(&self) -> [u8; 32] {
        digest(&SHA256, &self.spki()).as_ref().try_into().unwrap()
    }
}

/// One certificate of a chain.
#[derive(Clone)]
pub struct Level {
    pub key: Key,
    pub common_name: String,
    /// The subject's serial number, not the certificate's.
    pub subject_serial: String,
    pub serial: Vec<u8>,
    pub not_before: u64,
    pub not_after: u64,
    /// Id, critical, content.
    pub extensions: Vec<(&'static str, bool, Vec<u8>)>,
    /// Signs in the issuer's place.
    pub signer: Option<Key>,
    /// Stands for the issuer's name.
    pub issuer_name: Option<String>,
}

impl Level {
    fn new(common_name: &str, serial: u8, extensions: Vec<(&'static str, bool, Vec<u8>)>) -> Self {
        Self {
            key: Key::generate(),
            common_name: common_name.to_owned(),
            subject_serial: String::new(),
            serial: vec![0x40, serial],
            not_before: NOW - 100 * DAY,
            not_after: NOW + 100 * DAY,
            extensions,
            signer: None,
            issuer_name: None,
        }
    }

    fn authority(common_name: &str, serial: u8) -> Self {
        let usage = key_usage(KEY_CERT_SIGN);
        let extensions = vec![
            (BASIC_CONSTRAINTS, true, constraints(None)),
            (KEY_USAGE, true, usage),
        ];
        Self::new(common_name, serial, extensions)
    }

    pub fn name(&self) -> Vec<u8> {
        name(&self.common_name, &self.subject_serial)
    }

    pub fn set_extension(&mut self, id: &'static str, content: Vec<u8>) {
        let old = self.extensions.iter_mut().find(|it| it.0 == id).unwrap();
        old.2 = content;
    }

    pub fn remove_extension(&mut self, id: &'static str) {
        self.extensions.retain(|it| it.0 != id);
    }

    pub fn issued_by(&self, issuer: &Level) -> Vec<u8> {
        let algorithm = seq(&[&oid(ECDSA_SHA384)]);
        let issuer_name = match &self.issuer_name {
            Some(other) => name(other, ""),
            None => issuer.name(),
        };
        let extension = |(id, critical, content): &(&str, bool, Vec<u8>)| {
            let critical: &[u8] = if *critical { &[1, 1, 0xff] } else { &[] };
            seq(&[&oid(id), critical, &tlv(4, content)])
        };
        let extensions: Vec<_> = self.extensions.iter().map(extension).collect();
        let body = seq(&[
            &tlv(0xa0, &tlv(2, &[2])),
            &tlv(2, &self.serial),
            &algorithm,
            &issuer_name,
            &seq(&[&time(self.not_before), &time(self.not_after)]),
            &self.name(),
            &self.key.spki(),
            &tlv(0xa3, &seq(&[&extensions.concat()])),
        ]);
        let signer = self.signer.as_ref().unwrap_or(&issuer.key);
        seq(&[&body, &algorithm, &bits(&signer.sign_der(&body))])
    }
}

// OCSP

/// A response about one level.
#[derive(Clone)]
pub struct Ocsp {
    /// `CertStatus`, DER.
    pub status: Vec<u8>,
    pub this_update: u64,
    pub next_update: Option<u64>,
    pub hash: &'static str,
    /// `None` lets the issuer sign by itself.
    pub responder: Option<Level>,
    /// Signs in the responder's place.
    pub signer: Option<Key>,
    pub signature_algorithm: &'static str,
    /// Stands for the digest of the signer's key.
    pub responder_id: Option<Vec<u8>>,
    /// How often the responder's certificate is there.
    pub certificates: usize,
    /// Stand for the true ones.
    pub serial: Option<Vec<u8>>,
    pub issuer_name: Option<Vec<u8>>,
    pub issuer_key: Option<Vec<u8>>,
    /// Of the single response, and of the whole one.
    pub extensions: [Option<bool>; 2],
    /// Stands before the content of the outer sequence.
    pub response_status: u8,
    /// Stands for the time at which it was made.
    pub produced_at: Option<Vec<u8>>,
    /// Stands behind the single response's parts, the data's and the basic response's.
    pub rests: [Vec<u8>; 3],
}

impl Ocsp {
    pub fn good() -> Self {
        let extensions = vec![
            (KEY_USAGE, true, key_usage(DIGITAL_SIGNATURE)),
            (EXTENDED_KEY_USAGE, true, seq(&[&oid(OCSP_SIGNING)])),
            (OCSP_NO_CHECK, false, vec![5, 0]),
        ];
        Self {
            status: GOOD.to_vec(),
            this_update: NOW - HOUR,
            next_update: Some(NOW + 23 * HOUR),
            hash: SHA384_ID,
            responder: Some(Level::new("Responder", 0x70, extensions)),
            signer: None,
            signature_algorithm: ECDSA_SHA384,
            responder_id: None,
            certificates: 1,
            serial: None,
            issuer_name: None,
            issuer_key: None,
            extensions: [None, None],
            response_status: 0,
            produced_at: None,
            rests: [const { Vec::new() }; 3],
        }
    }

    pub fn revoked(reason: Option<u8>) -> Vec<u8> {
        let reason = reason.map(|reason| tlv(0xa0, &tlv(0x0a, &[reason])));
        let reason = reason.unwrap_or_default();
        tlv(0xa1, &[time(NOW - DAY), reason].concat())
    }

    pub fn single(&self, subject: &Level, issuer: &Level) -> Vec<u8> {
        let algorithm = match self.hash {
            SHA1_ID => &SHA1_FOR_LEGACY_USE_ONLY,
            SHA256_ID => &SHA256,
            _ => &SHA384,
        };
        let issuer_name = self.issuer_name.clone().unwrap_or_else(|| issuer.name());
        let issuer_key = self
            .issuer_key
            .clone()
            .unwrap_or_else(|| issuer.key.public());
        let serial = self
            .serial
            .clone()
            .unwrap_or_else(|| subject.serial.clone());
        let id = seq(&[
            &seq(&[&oid(self.hash)]),
            &tlv(4, digest(algorithm, &issuer_name).as_ref()),
            &tlv(4, digest(algorithm, &issuer_key).as_ref()),
            &tlv(2, &serial),
        ]);
        let next = self.next_update.map(|next| tlv(0xa0, &time(next)));
        seq(&[
            &id,
            &self.status,
            &time(self.this_update),
            &next.unwrap_or_default(),
            &extensions(self.extensions[0]),
            &self.rests[0],
        ])
    }

    pub fn response(&self, subject: &Level, issuer: &Level) -> Vec<u8> {
        self.response_of(&[self.single(subject, issuer)], issuer)
    }

    /// A response that holds several.
    pub fn response_of(&self, singles: &[Vec<u8>], issuer: &Level) -> Vec<u8> {
        let own = self.responder.as_ref().map_or(&issuer.key, |it| &it.key);
        let by_key = digest(&SHA1_FOR_LEGACY_USE_ONLY, &own.public());
        let by_key = tlv(0xa2, &tlv(4, by_key.as_ref()));
        let data = seq(&[
            self.responder_id.as_deref().unwrap_or(&by_key),
            &self.produced_at.clone().unwrap_or_else(|| time(NOW - HOUR)),
            &seq(&[&singles.concat()]),
            &extensions(self.extensions[1]),
            &self.rests[1],
        ]);
        let signer = self.signer.as_ref().unwrap_or(own);
        let responder = self.responder.as_ref().map(|it| it.issued_by(issuer));
        let certificates = responder.map(|it| tlv(0xa0, &seq(&[&it.repeat(self.certificates)])));
        let basic = seq(&[
            &data,
            &seq(&[&oid(self.signature_algorithm)]),
            &bits(&signer.sign_der(&data)),
            &certificates.unwrap_or_default(),
            &self.rests[2],
        ]);
        let bytes = seq(&[&oid("1.3.6.1.5.5.7.48.1.1"), &tlv(4, &basic)]);
        seq(&[&tlv(0x0a, &[self.response_status]), &tlv(0xa0, &bytes)])
    }
}

fn extensions(critical: Option<bool>) -> Vec<u8> {
    let Some(critical) = critical else {
        return Vec::new();
    };
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    let nonce = seq(&[
        &oid("1.3.6.1.5.5.7.48.1.2"),
        critical,
        &tlv(4, &tlv(4, &[9; 8])),
    ]);
    tlv(0xa1, &seq(&[&nonce]))
}

// Devices

/// A device, all of whose parts can be bent.
#[derive(Clone)]
pub struct Device {
    pub kind: EvidenceKind,
    /// Leaf first, root last.
    pub levels: [Level; 5],
    pub nonce: [u8; 32],
    pub measurements: Vec<(u8, Vec<u8>)>,
    pub opaque: Vec<(u16, Vec<u8>)>,
    /// About the device, its provisioner and the identity authority.
    pub ocsp: [Option<Ocsp>; 3],
    /// Signs the report in the leaf's place.
    pub signer: Option<Key>,
}

impl Device {
    /// A Hopper GPU that every check passes.
    pub fn gpu(nonce: [u8; 32]) -> Self {
        let text = |text: &str| [text.as_bytes(), &[0]].concat();
        let leaf_extensions = vec![
            (KEY_USAGE, true, key_usage(DIGITAL_SIGNATURE)),
            (COMPOSITE_DEVICE_ID, false, composite_device_id(&FWID)),
        ];
        Self {
            kind: EvidenceKind::NvidiaGpu,
            levels: [
                Level::new("GH100 A01 GSP FMC LF", 1, leaf_extensions),
                Level::authority("GH100 A01 GSP BROM", 2),
                Level::authority("NVIDIA GH100 Provisioner ICA 1", 3),
                Level::authority("NVIDIA GH100 Identity", 4),
                Level::authority("Test Device Identity CA", 5),
            ],
            nonce,
            measurements: (1..=6).map(|index| (index, vec![index; 48])).collect(),
            opaque: vec![
                (6, vec![0, 0x9f, 0, 0x96, 1, 0, 0, 0]),
                (15, [b"882".as_slice(), &[0; 6]].concat()),
                (17, text("1010")),
                (18, text("0200")),
                (3, text("550.90.07")),
                (20, FWID.to_vec()),
                (21, vec![0x55]),
            ],
            ocsp: [const { None }; 3].map(|_: Option<Ocsp>| Some(Ocsp::good())),
            signer: None,
        }
    }

    /// Another device that the same provisioner made.
    pub fn sibling(&self) -> Self {
        let mut other = self.clone();
        for level in [LEAF, DEVICE] {
            other.levels[level].key = Key::generate();
            other.levels[level].serial = other.levels[level].key.public()[1..9].to_vec();
            other.levels[level].serial[0] = 0x41;
        }
        other
    }

    /// A switch of the same maker.
    pub fn switch(&self) -> Self {
        let mut switch = self.sibling();
        switch.kind = EvidenceKind::NvidiaNvswitch;
        let names = [
            "LS_10 A01 FSP FMC LF",
            "LS_10 A01 FSP BROM",
            "NVIDIA LS_10 Provisioner ICA 1",
        ];
        for (level, name) in switch.levels.iter_mut().zip(names) {
            level.common_name = name.to_owned();
        }
        let id = hex::encode_upper(SWITCH_ID);
        switch.levels[DEVICE].subject_serial = format!("50{id}");
        switch.opaque = vec![(6, b"96.10.55.00.01".to_vec()), (22, SWITCH_ID.to_vec())];
        switch
    }

    pub fn set_record(&mut self, kind: u16, value: &[u8]) {
        self.opaque.retain(|it| it.0 != kind);
        self.opaque.push((kind, value.to_vec()));
    }

    pub fn remove_record(&mut self, kind: u16) {
        self.opaque.retain(|it| it.0 != kind);
    }

    /// Leaf first, root left out.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let issued = self.levels.iter().zip(&self.levels[1..]);
        issued
            .map(|(level, issuer)| level.issued_by(issuer))
            .collect()
    }

    pub fn root(&self) -> Vec<u8> {
        self.levels[ROOT].issued_by(&self.levels[ROOT])
    }

    pub fn unsigned_report(&self) -> Vec<u8> {
        let blocks: Vec<Vec<u8>> = self
            .measurements
            .iter()
            .map(|(index, value)| {
                let len = value.len() as u16;
                let size = (len + 3).to_le_bytes();
                let len = len.to_le_bytes();
                [&[*index, 1][..], &size, &[1], &len, value].concat()
            })
            .collect();
        let records: Vec<Vec<u8>> = self
            .opaque
            .iter()
            .map(|(kind, value)| {
                let len = (value.len() as u16).to_le_bytes();
                [&kind.to_le_bytes()[..], &len, value].concat()
            })
            .collect();
        let (count, blocks, records) = (blocks.len() as u8, blocks.concat(), records.concat());
        [
            &[0x11, 0xe0, 0x01, 0xff][..],
            &self.nonce,
            &[0, 0x11, 0x60, 0, 0, count],
            &(blocks.len() as u32).to_le_bytes()[..3],
            &blocks,
            &[0xbb; 32],
            &(records.len() as u16).to_le_bytes(),
            &records,
        ]
        .concat()
    }

    pub fn report(&self) -> Vec<u8> {
        let report = self.unsigned_report();
        let signer = self.signer.as_ref().unwrap_or(&self.levels[LEAF].key);
        let signature = signer.sign_fixed(&report);
        [report, signature].concat()
    }

    pub fn ocsp_responses(&self) -> Vec<Vec<u8>> {
        let about = self.ocsp.iter().zip(&self.levels[DEVICE..]);
        let responses = about.zip(&self.levels[PROVISIONER..]);
        responses
            .filter_map(|((ocsp, level), issuer)| Some(ocsp.as_ref()?.response(level, issuer)))
            .collect()
    }

    pub fn item(&self) -> EvidenceItem {
        EvidenceItem {
            kind: self.kind,
            report: self.report(),
            certificates: self.certificates(),
            collateral: Collateral {
                ocsp: self.ocsp_responses(),
                ..Collateral::default()
            },
        }
    }

    /// What an unbent device of its kind measures: its driver up to index 3, its VBIOS above.
    pub fn golden() -> Vec<GoldenMeasurements> {
        let of = |id: &str, version: &str, indexes: std::ops::RangeInclusive<u8>| {
            let measurement = |index| GoldenMeasurement {
                index,
                values: vec![vec![0xee; 48], vec![index; 48]],
            };
            GoldenMeasurements {
                id: id.to_owned(),
                version: version.to_owned(),
                measurements: indexes.map(measurement).collect(),
            }
        };
        vec![
            of("NV_GPU_DRIVER_GH100_550.90.07", "550.90.07", 1..=3),
            of(
                "NV_GPU_VBIOS_1010_0200_882_96009F0001",
                "96.00.9F.00.01",
                4..=5,
            ),
            of("NV_GPU_CC_DRIVER_GB100_550.90.07", "550.90.07", 1..=3),
            of("NV_GPU_CC_DRIVER_GB102_550.90.07", "550.90.07", 1..=3),
            of(
                "NV_SWITCH_BIOS_5612_0002_890_9610550001",
                "96.10.55.00.01",
                1..=5,
            ),
        ]
    }
}
