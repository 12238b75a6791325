//! NVIDIA's manifests: which are believed, when, and what they say.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

use std::time::SystemTime;

use attestation::chain::ChainError;
use attestation::time::from_rfc3339;
use rim::{MAX_RIM, Rim, RimError, SignatureError, TagError, verify};

const DRIVER: &[u8] = include_bytes!("data/NV_GPU_DRIVER_GH100_550.90.07.xml");
const DRIVER_ID: &str = "NV_GPU_DRIVER_GH100_550.90.07";
const VBIOS: &[u8] = include_bytes!("data/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml");
const VBIOS_ID: &str = "NV_GPU_VBIOS_1010_0200_882_96009F0001";
const NEWER: &[u8] = include_bytes!("data/NV_GPU_DRIVER_GH100_550.144.03.xml");
const OLD_VBIOS: &[u8] = include_bytes!("data/1010_0200_882_96005E0001_PROD.swidtag");
const OLD_DRIVER: &[u8] = include_bytes!("data/Driver_RIM_test_no_gpu.swidtag");
const OTHER_VBIOS: &[u8] =
    include_bytes!("data/NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml");
const BAD_SIGNATURE: &[u8] = include_bytes!("data/incorrect_signature_driver_rim.xml");
const BAD_CHAIN: &[u8] = include_bytes!("data/incorrect_cert_chain_driver_rim.xml");
const BAD_DIGEST: &[u8] = include_bytes!("data/NV_GPU_DRIVER_GH100_570.124.03_expired.xml");

const THEN: &str = "2025-10-24T12:00:00Z";

fn at(text: &str) -> SystemTime {
    from_rfc3339(text).unwrap()
}

fn driver(xml: &str) -> Result<Rim, RimError> {
    verify(xml.as_bytes(), DRIVER_ID, at(THEN))
}

fn driver_text() -> String {
    String::from_utf8(DRIVER.to_vec()).unwrap()
}

/// The driver's manifest with one text in the place of another, which is there once.
fn edited(from: &str, to: &str) -> String {
    let text = driver_text();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

#[test]
fn genuine_manifests_are_believed_in_their_time() {
    let cases = [
        (DRIVER, DRIVER_ID, THEN, "2026-06-01T02:08:29Z", 21),
        (VBIOS, VBIOS_ID, THEN, "2026-02-22T23:17:58Z", 12),
        (
            NEWER,
            "NV_GPU_DRIVER_GH100_550.144.03",
            THEN,
            "2026-12-30T16:56:50Z",
            21,
        ),
        (
            OTHER_VBIOS,
            "NV_GPU_VBIOS_1010_0200_882_96005E0001",
            THEN,
            "2025-12-12T23:58:03Z",
            12,
        ),
        (
            OLD_VBIOS,
            "NV_GPU_VBIOS_1010_0200_882_96005E0001",
            "2025-06-01T00:00:00Z",
            "2025-06-22T09:30:33Z",
            12,
        ),
        (
            OLD_DRIVER,
            "NV_GPU_DRIVER_GH100_545.00",
            "2025-06-01T00:00:00Z",
            "2025-06-26T06:10:12Z",
            21,
        ),
    ];
    for (xml, id, then, end, count) in cases {
        let rim = verify(xml, id, at(then)).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(rim.golden.id, id);
        assert_eq!(rim.golden.measurements.len(), count, "{id}");
        assert_eq!(rim.product, "GH100", "{id}");
        assert_eq!(rim.not_after, at(end), "{id}");
        assert!(verify(xml, id, at(end)).is_ok(), "{id}: its last second");
        for outside in ["2028-01-01T00:00:00Z", "2023-03-17T00:00:00Z"] {
            let error = verify(xml, id, at(outside)).unwrap_err();
            let dates = matches!(
                error,
                RimError::Chain(ChainError::Validity { number: 1, .. })
            );
            assert!(dates, "{id} at {outside}: {error}");
        }
    }
}

#[test]
fn each_bad_sample_is_refused_for_its_own_reason() {
    let refusal = |xml: &[u8], id: &str| verify(xml, id, at(THEN)).unwrap_err().to_string();
    let cases = [
        (
            "changed signature",
            BAD_SIGNATURE,
            "NV_GPU_DRIVER_GH100_550.144.03",
            "the signature does not verify",
        ),
        (
            "another chain",
            BAD_CHAIN,
            "NV_GPU_VBIOS_1010_0200_882_9700830009",
            "2 certificates, not 4",
        ),
        (
            "changed document",
            BAD_DIGEST,
            "NV_GPU_DRIVER_GH100_570.124.03",
            "the document's digest is not the signed one",
        ),
        (
            "expired leaf",
            OLD_DRIVER,
            "NV_GPU_DRIVER_GH100_545.00",
            "certificates: certificate 1 is valid from 2023-06-27T06:10:12Z to \
             2025-06-26T06:10:12Z, not at 2025-10-24T12:00:00Z",
        ),
    ];
    for (name, xml, id, expected) in cases {
        assert_eq!(refusal(xml, id), expected, "{name}");
    }
}

/// What the driver's and VBIOS's manifests of the recorded H100 report say. Index i of a manifest is
/// SPDM index i + 1.
#[test]
fn active_measurements_become_golden_ones() {
    let driver = verify(DRIVER, DRIVER_ID, at(THEN)).unwrap().golden;
    assert_eq!(driver.version, "550.90.07");
    let of = |golden: &attestation::nvidia::GoldenMeasurements| -> Vec<u8> {
        golden.measurements.iter().map(|it| it.index).collect()
    };
    let expected: Vec<u8> = [8].into_iter().chain(22..=41).collect();
    assert_eq!(of(&driver), expected);
    let first = "80161aac5e7509f038a6457b111e048207d1dc0e78edbb8c172fca4139c1d5f29cda67ecdd261fdc9203b76387f7389f";
    assert_eq!(driver.measurements[0].values, [hex::decode(first).unwrap()]);
    let counts = driver.measurements.iter().map(|it| it.values.len());
    let several: Vec<_> = of(&driver)
        .into_iter()
        .zip(counts)
        .filter(|it| it.1 > 1)
        .collect();
    assert_eq!(
        several,
        [(24, 2), (25, 2), (33, 2), (35, 2), (36, 4), (37, 2)]
    );
    let second = "ec056c2b9e3a568261d0092b8aa1dadb19377382174ba5503a3059cabd2dd1ea82bef1b905ab8a3769832092ddefd30d";
    assert_eq!(
        driver.measurements[12].values[1],
        hex::decode(second).unwrap()
    );

    let vbios = verify(VBIOS, VBIOS_ID, at(THEN)).unwrap().golden;
    assert_eq!(vbios.version, "96.00.9F.00.01");
    let expected: Vec<u8> = (1..=7).chain(9..=13).collect();
    assert_eq!(of(&vbios), expected);
    assert_eq!(
        of(&vbios)
            .iter()
            .filter(|it| of(&driver).contains(it))
            .count(),
        0
    );

    for golden in [driver, vbios] {
        let json = golden.to_json().unwrap();
        let read = attestation::nvidia::GoldenMeasurements::from_json(&json).unwrap();
        assert_eq!(read, golden);
    }
}

#[test]
fn the_id_must_be_the_manifests() {
    let cases = [
        (DRIVER, "NV_GPU_DRIVER_GH100_550.90.08"),
        (DRIVER, "NV_GPU_DRIVER_GB100_550.90.07"),
        (DRIVER, "NV_GPU_DRIVER_GH100_1550.90.07"),
        (DRIVER, "NV_GPU_VBIOS_1010_0200_882_96009F0001"),
        (VBIOS, "NV_GPU_VBIOS_1010_0200_882_96009F0002"),
        (VBIOS, "NV_GPU_VBIOS_1010_0200_882_096009F0001"),
        (VBIOS, "NV_GPU_DRIVER_GH100_550.90.07"),
    ];
    for (xml, id) in cases {
        let error = verify(xml, id, at(THEN)).unwrap_err();
        let other = matches!(error, RimError::Tag(TagError::OtherId { .. }));
        assert!(other, "{id}: {error}");
    }
    let long = format!("NV_GPU_VBIOS_{}_96009F0001", "1".repeat(128));
    for id in ["", "../NV_GPU_DRIVER", "GPU_DRIVER_GH100_550.90.07", &long] {
        let error = verify(DRIVER, id, at(THEN)).unwrap_err();
        assert!(
            matches!(error, RimError::Tag(TagError::Id)),
            "{id}: {error}"
        );
    }
}

/// Every byte with its lowest bit flipped, and every bit of what the signature says of itself.
#[test]
fn every_flipped_byte_is_refused() {
    let text = driver_text();
    let signature = text.find("<ds:Signature").unwrap()..text.find("<ds:KeyInfo>").unwrap();
    let mut xml = DRIVER.to_vec();
    for at_byte in 0..xml.len() {
        let bits = if signature.contains(&at_byte) {
            0..8
        } else {
            0..1
        };
        for bit in bits {
            xml[at_byte] ^= 1 << bit;
            let verified = verify(&xml, DRIVER_ID, at(THEN));
            xml[at_byte] ^= 1 << bit;
            assert!(verified.is_err(), "byte {at_byte}, bit {bit}");
        }
    }
}

/// What can be written in another way without another meaning, and is believed: blanks in base64
/// and between tags of what is not signed, and the ways to write an attribute.
#[test]
fn what_canonical_xml_makes_equal_is_equal() {
    let cases = [
        (
            "declaration",
            format!("<?xml version=\"1.0\"?>\n{}", driver_text()),
        ),
        ("line ends", driver_text().replace('\n', "\r\n")),
        ("blanks at the end", driver_text() + "\n\n"),
        (
            "blanks in the signature",
            edited("<ds:KeyInfo>", "\n<ds:KeyInfo >\t"),
        ),
        ("quotes", edited("edition=\"GPU\"", "edition = 'GPU'")),
    ];
    let genuine = driver(&driver_text()).unwrap();
    for (name, xml) in cases {
        let read = driver(&xml).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, genuine, "{name}");
    }
}

#[test]
fn xml_beyond_the_part_that_is_read_is_refused() {
    let deep = format!("{}{}", "<a>".repeat(17), "</a>".repeat(17));
    let not_too_deep = format!("{}{}", "<a>".repeat(16), "</a>".repeat(16));
    let wide = format!("<a>{}</a>", "<b/>".repeat(4096));
    let namespaces = format!(
        "<a {}/>",
        (0..33)
            .map(|n| format!("xmlns:n{n}=\"u\" "))
            .collect::<String>()
    );
    let attributes = format!(
        "<a {}/>",
        (0..4097).map(|n| format!("n{n}=\"\" ")).collect::<String>()
    );
    let cases = [
        (
            "type",
            format!("<!DOCTYPE a>{}", driver_text()),
            "XML with a comment, document type or CDATA section, which no manifest has",
        ),
        (
            "comment",
            edited("<ds:KeyInfo>", "<!-- --><ds:KeyInfo>"),
            "XML with a comment, document type or CDATA section, which no manifest has",
        ),
        (
            "instruction",
            edited("<ds:KeyInfo>", "<?a?><ds:KeyInfo>"),
            "XML with a processing instruction, which no manifest has",
        ),
        (
            "reference",
            edited("GPU\"", "&#71;PU\""),
            "XML with a reference, which no manifest has",
        ),
        (
            "attribute of XML",
            edited("<ds:KeyInfo>", "<ds:KeyInfo xml:lang=\"en\">"),
            "XML with an attribute of XML itself, which no manifest has",
        ),
        (
            "XML's namespace under another prefix",
            edited(
                "<ds:KeyInfo>",
                "<ds:KeyInfo xmlns:x=\"http://www.w3.org/XML/1998/namespace\" x:lang=\"en\">",
            ),
            "not well-formed XML: the 'xml' namespace URI is used for not 'xml' prefix at 70:818",
        ),
        (
            "XML's own prefix",
            edited(
                "<ds:KeyInfo>",
                "<ds:KeyInfo xmlns:xml=\"http://www.w3.org/XML/1998/namespace\">",
            ),
            "XML with a declaration of XML's own prefix, which no manifest has",
        ),
        (
            "declaration under a prefix",
            edited("<ds:KeyInfo>", "<ds:KeyInfo ds:xmlns=\"u\">"),
            "XML with a declaration under a prefix, which no manifest has",
        ),
        (
            "default namespace twice",
            edited("<ds:KeyInfo>", "<ds:KeyInfo xmlns=\"u\" xmlns=\"v\">"),
            "XML with a namespace declared twice, which no manifest has",
        ),
        ("depth", deep, "more than 16 levels of elements"),
        (
            "16 levels",
            not_too_deep,
            "0 signatures, not one directly in the document's element",
        ),
        ("width", wide, "not well-formed XML: nodes limit reached"),
        ("namespaces", namespaces, "more than 32 namespaces"),
        ("attributes", attributes, "more than 4096 attributes"),
        (
            "empty",
            String::new(),
            "not well-formed XML: the document does not have a root node",
        ),
        (
            "length",
            " ".repeat(MAX_RIM + 1),
            "manifest of 131073 bytes exceeds the limit of 131072",
        ),
    ];
    for (name, xml, expected) in cases {
        assert_eq!(driver(&xml).unwrap_err().to_string(), expected, "{name}");
    }
    let error = verify(b"<a>\xff</a>", DRIVER_ID, at(THEN)).unwrap_err();
    assert_eq!(error.to_string(), "not UTF-8 text");
}

#[test]
fn the_signature_has_one_form() {
    use SignatureError::{Algorithm, Base64, Certificates, Count, Element};
    let text = driver_text();
    let signature = &text[text.find("<ds:Signature ").unwrap()..text.rfind("</Soft").unwrap()];
    let data = &text[text.find("<ds:X509Data>").unwrap()..text.find("</ds:KeyInfo>").unwrap()];
    let certificate = &data[13..data.find("</ds:X509Certificate>").unwrap() + 21];
    let deeper = text.replace(signature, &format!("<a>{signature}</a>"));
    let enveloped =
        "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>";
    let twice = format!("<ds:Reference URI=\"\"/>{}", "<ds:Reference URI=\"\">");
    let method =
        "<ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"/>";
    let c14n = "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/>";
    let c14n_transform = "<ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"/>";
    let sha384 = "<ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"/>";
    let cases = [
        ("none", text.replace(signature, ""), Count(0)),
        (
            "two",
            text.replace(signature, &signature.repeat(2)),
            Count(2),
        ),
        ("not directly in the root", deeper, Count(1)),
        (
            "none in the namespace",
            text.replace("2000/09/xmldsig#\">", "2000/09/xmldsig\">"),
            Count(0),
        ),
        (
            "an object",
            edited("</ds:Signature>", "<ds:Object/></ds:Signature>"),
            Element("KeyInfo"),
        ),
        ("no key", text.replace(data, ""), Element("X509Data")),
        (
            "another canonical form",
            edited(
                c14n,
                &c14n.replace("2006/12/xml-c14n11", "2001/10/xml-exc-c14n#"),
            ),
            Algorithm("CanonicalizationMethod"),
        ),
        (
            "another signature",
            edited(method, &method.replace("ecdsa-sha384", "hmac-sha384")),
            Algorithm("SignatureMethod"),
        ),
        (
            "a parameter",
            edited(
                method,
                &method.replace("/>", "><ds:HMACOutputLength/></ds:SignatureMethod>"),
            ),
            Algorithm("SignatureMethod"),
        ),
        (
            "an id for a part",
            edited("URI=\"\"", "URI=\"#a\""),
            Algorithm("Reference"),
        ),
        (
            "no address",
            edited(" URI=\"\"", ""),
            Algorithm("Reference"),
        ),
        (
            "a type",
            edited(" URI=\"\"", " URI=\"\" Type=\"\""),
            Algorithm("Reference"),
        ),
        (
            "two references",
            edited("<ds:Reference URI=\"\">", &twice),
            Element("Reference"),
        ),
        (
            "a reference more",
            edited(
                "</ds:SignedInfo>",
                "<ds:Reference URI=\"\"/></ds:SignedInfo>",
            ),
            Element("Reference"),
        ),
        (
            "not enveloped",
            edited(enveloped, c14n_transform),
            Algorithm("Transform"),
        ),
        ("one transform", edited(enveloped, ""), Element("Transform")),
        (
            "three transforms",
            edited(enveloped, &enveloped.repeat(2)),
            Element("Transform"),
        ),
        (
            "another second transform",
            text.replace(c14n_transform, enveloped),
            Algorithm("Transform"),
        ),
        (
            "another digest",
            edited(sha384, &sha384.replace("sha384", "sha224")),
            Algorithm("DigestMethod"),
        ),
        (
            "no base64",
            edited("<ds:DigestValue>", "<ds:DigestValue>*"),
            Base64("DigestValue"),
        ),
        (
            "short digest",
            edited("<ds:DigestValue>gMJp", "<ds:DigestValue>"),
            Base64("DigestValue"),
        ),
        (
            "parts in a value",
            edited("<ds:DigestValue>", "<ds:DigestValue><a/>"),
            Element("DigestValue"),
        ),
        (
            "short signature",
            edited("<ds:SignatureValue>uA3a", "<ds:SignatureValue>"),
            Base64("SignatureValue"),
        ),
        (
            "three certificates",
            text.replacen(certificate, "", 1),
            Certificates(3),
        ),
        (
            "five certificates",
            text.replace(certificate, &certificate.repeat(2)),
            Certificates(5),
        ),
        (
            "another element",
            text.replacen(certificate, "<ds:X509CRL>AA==</ds:X509CRL>", 1),
            Element("X509Certificate"),
        ),
        (
            "certificate no base64",
            edited(certificate, "<ds:X509Certificate>A</ds:X509Certificate>"),
            Base64("X509Certificate"),
        ),
    ];
    for (name, xml, expected) in cases {
        match driver(&xml) {
            Err(RimError::Signature(error)) => assert_eq!(error, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// The root in the manifest is not believed, only the compiled-in one; and each link is checked.
#[test]
fn certificates_lead_to_the_pinned_root() {
    let text = driver_text();
    let certificates: Vec<_> = text
        .split("<ds:X509Certificate>")
        .skip(1)
        .map(|it| it.split('<').next().unwrap())
        .collect();
    let with = |order: [usize; 4]| {
        let mut parts: Vec<_> = text.split("<ds:X509Certificate>").collect();
        let owned: Vec<String> = (1..5)
            .map(|at| parts[at].replace(certificates[at - 1], certificates[order[at - 1]]))
            .collect();
        for (at, part) in owned.iter().enumerate() {
            parts[at + 1] = part;
        }
        driver(&parts.join("<ds:X509Certificate>")).map_err(|error| error.to_string())
    };
    assert!(with([0, 1, 2, 3]).is_ok());
    let cases = [
        (
            [0, 1, 2, 2],
            "certificates: the last certificate is not the pinned root",
        ),
        (
            [0, 0, 2, 3],
            "certificates: certificate 2: not allowed to be an authority",
        ),
        (
            [0, 2, 1, 3],
            "certificates: certificate 1: issuer's name differs",
        ),
        (
            [1, 1, 2, 3],
            "certificates: certificate 1: not allowed to be a signing key",
        ),
        (
            [0, 1, 3, 3],
            "certificates: certificate 2: issuer's name differs",
        ),
        (
            [0, 1, 1, 3],
            "certificates: certificate 3: not allowed to be an authority",
        ),
    ];
    for (order, expected) in cases {
        assert_eq!(with(order).unwrap_err(), expected, "{order:?}");
    }
}
