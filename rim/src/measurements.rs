//! What a manifest says: a software identification tag (ISO/IEC 19770-2) with measurements, after
//! TCG's RIM information model.

use attestation::nvidia::{GoldenMeasurement, GoldenMeasurements};
use roxmltree::{Document, Node};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const RIM: &str = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
/// The namespace that hashes stand in.
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
/// Bytes of a hash of SHA-384.
const HASH_LEN: usize = 48;
/// Most values that one index may have.
const MAX_ALTERNATIVES: usize = 64;
/// Longest id, in bytes.
const MAX_ID: usize = 128;

/// Why a signed document is no manifest that is understood, or not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// An element that is not there exactly once.
    #[error("`{0}` is not there exactly once")]
    Element(&'static str),
    /// An attribute that is missing or has another value.
    #[error("`{0}` is not {1}")]
    Attribute(&'static str, &'static str),
    /// A measurement that breaks a rule.
    #[error("measurement {index}: `{attribute}` is not {expected}")]
    Measurement {
        /// Its place in the manifest, from 0.
        index: usize,
        /// The attribute.
        attribute: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// One index twice.
    #[error("measurement index {0} appears twice")]
    Duplicate(u8),
    /// Nothing to measure.
    #[error("no active measurement")]
    NoneActive,
    /// No id of a manifest.
    #[error("an id is `NV_`, then up to {MAX_ID} letters, digits, `_`, `.` and `-`")]
    Id,
    /// The id of another manifest.
    #[error("the id does not fit: the manifest is for version {version} of {product}")]
    OtherId {
        /// The version that it is for.
        version: String,
        /// The product that it is for.
        product: String,
    },
}

/// The active measurements and the product.
pub(crate) fn read(
    document: &Document<'_>,
    id: &str,
) -> Result<(GoldenMeasurements, String), TagError> {
    let root = document.root_element();
    if !root.has_tag_name((SWID, "SoftwareIdentity")) {
        return Err(TagError::Element("SoftwareIdentity"));
    }
    for kind in ["corpus", "patch", "supplemental"] {
        require(root.attribute(kind), kind, "false")?;
    }
    let meta = only(root, "Meta")?;
    require(meta.attribute("PayloadType"), "PayloadType", "direct")?;
    let spec = meta.attribute((RIM, "BindingSpec"));
    require(spec, "BindingSpec", "RIMIM")?;
    let version = stated(meta, "colloquialVersion")?;
    let product = stated(meta, "product")?;
    check_id(id, version, product, meta.attribute("edition"))?;
    let golden = GoldenMeasurements {
        id: id.to_owned(),
        version: version.to_owned(),
        measurements: active(only(root, "Payload")?)?,
    };
    Ok((golden, product.to_owned()))
}

/// The child of that name, which must be the only one.
fn only<'a, 'input>(
    root: Node<'a, 'input>,
    name: &'static str,
) -> Result<Node<'a, 'input>, TagError> {
    let mut found = root.children().filter(|it| it.has_tag_name((SWID, name)));
    match (found.next(), found.next()) {
        (Some(element), None) => Ok(element),
        _ => Err(TagError::Element(name)),
    }
}

fn require(
    value: Option<&str>,
    name: &'static str,
    expected: &'static str,
) -> Result<(), TagError> {
    let same = value == Some(expected);
    same.then_some(())
        .ok_or(TagError::Attribute(name, expected))
}

fn stated<'a>(meta: Node<'a, '_>, name: &'static str) -> Result<&'a str, TagError> {
    let value = meta.attribute(name).filter(|value| !value.is_empty());
    value.ok_or(TagError::Attribute(name, "a text"))
}

/// A driver's id ends with product and version; a VBIOS's with the version in upper case without
/// its dots, after the board's numbers, which the manifest does not have.
fn check_id(id: &str, version: &str, product: &str, edition: Option<&str>) -> Result<(), TagError> {
    let is_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if id.len() > MAX_ID || !id.bytes().all(is_id) {
        return Err(TagError::Id);
    }
    let rest = id.strip_prefix("NV_").ok_or(TagError::Id)?;
    let fits = if rest.contains("DRIVER_") {
        rest.ends_with(&format!("DRIVER_{product}_{version}"))
    } else {
        rest.ends_with(&format!(
            "_{}",
            version.replace('.', "").to_ascii_uppercase()
        ))
    };
    let fits = fits && (!rest.starts_with("GPU_") || edition == Some("GPU"));
    fits.then_some(()).ok_or_else(|| TagError::OtherId {
        version: version.to_owned(),
        product: product.to_owned(),
    })
}

/// The active measurements, by rising SPDM index.
fn active(payload: Node<'_, '_>) -> Result<Vec<GoldenMeasurement>, TagError> {
    let mut seen = Vec::new();
    let mut measurements = Vec::new();
    for (place, resource) in payload.children().filter(Node::is_element).enumerate() {
        let (measurement, active) = read_resource(resource, place)?;
        if seen.contains(&measurement.index) {
            return Err(TagError::Duplicate(measurement.index));
        }
        seen.push(measurement.index);
        if active {
            measurements.push(measurement);
        }
    }
    if measurements.is_empty() {
        return Err(TagError::NoneActive);
    }
    measurements.sort_by_key(|measurement| measurement.index);
    Ok(measurements)
}

fn read_resource(
    resource: Node<'_, '_>,
    place: usize,
) -> Result<(GoldenMeasurement, bool), TagError> {
    let wrong = |attribute, expected| TagError::Measurement {
        index: place,
        attribute,
        expected,
    };
    if !resource.has_tag_name((SWID, "Resource")) {
        return Err(TagError::Element("Resource"));
    }
    if resource.attribute("type") != Some("Measurement") {
        return Err(wrong("type", "Measurement"));
    }
    let active = match resource.attribute("active") {
        Some("True") => true,
        Some("False") => false,
        _ => return Err(wrong("active", "True or False")),
    };
    if resource.attribute("size") != Some("48") {
        return Err(wrong("size", "48, the length of SHA-384"));
    }
    // SPDM counts from 1.
    let index = resource.attribute("index").and_then(decimal);
    let index = index.and_then(|index| index.checked_add(1));
    let index = index.and_then(|index| u8::try_from(index).ok());
    let index = index.ok_or_else(|| wrong("index", "0 to 254"))?;
    let count = resource.attribute("alternatives").and_then(decimal);
    let count = count.filter(|count| (1..=MAX_ALTERNATIVES).contains(count));
    let count = count.ok_or_else(|| wrong("alternatives", "1 to 64"))?;
    let there = resource.attributes();
    if there.filter(|it| it.name().starts_with("Hash")).count() != count {
        return Err(wrong("alternatives", "the number of hashes"));
    }
    let hash = |number: usize| {
        let text = resource.attribute((SHA384, format!("Hash{number}").as_str()))?;
        let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
        let bytes = hex::decode(text).ok()?;
        (lower && bytes.len() == HASH_LEN).then_some(bytes)
    };
    let values: Option<Vec<_>> = (0..count).map(hash).collect();
    let values = values.ok_or_else(|| wrong("Hash", "48 bytes of lower-case hex each"))?;
    Ok((GoldenMeasurement { index, values }, active))
}

/// A number in its one decimal form.
fn decimal(text: &str) -> Option<usize> {
    let number = text.parse::<usize>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVER: &str = include_str!("../tests/data/NV_GPU_DRIVER_GH100_550.90.07.xml");
    const ID: &str = "NV_GPU_DRIVER_GH100_550.90.07";
    /// The first measurement, which is not active.
    const FIRST: &str =
        r#"<ns0:Resource type="Measurement" index="0" active="False" alternatives="1""#;

    fn read_text(text: &str) -> Result<GoldenMeasurements, String> {
        let document = Document::parse(text).unwrap();
        let read = read(&document, ID).map_err(|error| error.to_string());
        read.map(|(golden, _)| golden)
    }

    /// What is said of a document with the first of one text changed.
    fn changed(from: &str, to: &str) -> Result<GoldenMeasurements, String> {
        let text = DRIVER.replacen(from, to, 1);
        assert_ne!(text, DRIVER, "{from}");
        read_text(&text)
    }

    #[test]
    fn each_rule_refuses() {
        let zeros = "0".repeat(96);
        let hash = format!("ns2:Hash0=\"{zeros}\"");
        let active = DRIVER.replace("active=\"True\"", "active=\"False\"");
        assert_eq!(read_text(&active), Err("no active measurement".to_owned()));
        let cases = [
            (
                "tag",
                "<SoftwareIdentity xmlns=\"http",
                "<SoftwareIdentity xmlns=\"https",
                "`SoftwareIdentity` is not there exactly once",
            ),
            (
                "corpus",
                "corpus=\"false\"",
                "corpus=\"true\"",
                "`corpus` is not false",
            ),
            (
                "patch",
                "patch=\"false\"",
                "patch=\"true\"",
                "`patch` is not false",
            ),
            (
                "supplemental",
                "supplemental=\"false\"",
                "",
                "`supplemental` is not false",
            ),
            (
                "no meta",
                "<ns0:Meta",
                "<ns0:Mete",
                "`Meta` is not there exactly once",
            ),
            (
                "two metas",
                "<ns0:Entity",
                "<ns0:Meta/><ns0:Entity",
                "`Meta` is not there exactly once",
            ),
            (
                "meta elsewhere",
                "<ns0:Meta",
                "<ns1:Meta",
                "`Meta` is not there exactly once",
            ),
            (
                "payload type",
                "PayloadType=\"direct\"",
                "PayloadType=\"indirect\"",
                "`PayloadType` is not direct",
            ),
            (
                "format",
                "ns1:BindingSpec=\"RIMIM\"",
                "ns1:BindingSpec=\"other\"",
                "`BindingSpec` is not RIMIM",
            ),
            (
                "format of no namespace",
                "ns1:BindingSpec=",
                "BindingSpec=",
                "`BindingSpec` is not RIMIM",
            ),
            (
                "no version",
                "colloquialVersion=\"550.90.07\"",
                "",
                "`colloquialVersion` is not a text",
            ),
            (
                "empty product",
                "product=\"GH100\"",
                "product=\"\"",
                "`product` is not a text",
            ),
            (
                "another version",
                "550.90.07",
                "550.90.08",
                "the id does not fit: the manifest is for version 550.90.08 of GH100",
            ),
            (
                "another product",
                "product=\"GH100\"",
                "product=\"GB100\"",
                "the id does not fit: the manifest is for version 550.90.07 of GB100",
            ),
            (
                "another edition",
                "edition=\"GPU\"",
                "edition=\"SWITCH\"",
                "the id does not fit: the manifest is for version 550.90.07 of GH100",
            ),
            (
                "two payloads",
                "<ns0:Entity",
                "<ns0:Payload/><ns0:Entity",
                "`Payload` is not there exactly once",
            ),
            (
                "another element",
                FIRST,
                &FIRST.replace("Resource", "File"),
                "`Resource` is not there exactly once",
            ),
            (
                "type",
                FIRST,
                &FIRST.replace("\"Measurement\"", "\"Other\""),
                "measurement 0: `type` is not Measurement",
            ),
            (
                "active",
                FIRST,
                &FIRST.replace("False", "false"),
                "measurement 0: `active` is not True or False",
            ),
            (
                "size of SHA-256",
                "size=\"48\"",
                "size=\"32\"",
                "measurement 0: `size` is not 48, the length of SHA-384",
            ),
            (
                "no size",
                " size=\"48\"",
                "",
                "measurement 0: `size` is not 48, the length of SHA-384",
            ),
            (
                "index twice",
                "index=\"0\"",
                "index=\"1\"",
                "measurement index 2 appears twice",
            ),
            (
                "index beyond SPDM's",
                "index=\"0\"",
                "index=\"255\"",
                "measurement 0: `index` is not 0 to 254",
            ),
            (
                "index in another form",
                "index=\"0\"",
                "index=\"00\"",
                "measurement 0: `index` is not 0 to 254",
            ),
            (
                "index with a sign",
                "index=\"0\"",
                "index=\"+0\"",
                "measurement 0: `index` is not 0 to 254",
            ),
            (
                "no value",
                "alternatives=\"1\"",
                "alternatives=\"0\"",
                "measurement 0: `alternatives` is not 1 to 64",
            ),
            (
                "too many values",
                "alternatives=\"1\"",
                "alternatives=\"65\"",
                "measurement 0: `alternatives` is not 1 to 64",
            ),
            (
                "a value more",
                "alternatives=\"1\"",
                "alternatives=\"2\"",
                "measurement 0: `alternatives` is not the number of hashes",
            ),
            (
                "a value less",
                "alternatives=\"2\"",
                "alternatives=\"1\"",
                "measurement 23: `alternatives` is not the number of hashes",
            ),
            (
                "another name",
                "ns2:Hash0=",
                "ns2:Hash1=",
                "measurement 0: `Hash` is not 48 bytes of lower-case hex each",
            ),
            (
                "no namespace",
                "ns2:Hash0=",
                "Hash0=",
                "measurement 0: `Hash` is not 48 bytes of lower-case hex each",
            ),
            (
                "short",
                &hash,
                &hash.replacen("00", "", 1),
                "measurement 0: `Hash` is not 48 bytes of lower-case hex each",
            ),
            (
                "upper case",
                &hash,
                &hash.replacen("00", "AA", 1),
                "measurement 0: `Hash` is not 48 bytes of lower-case hex each",
            ),
            (
                "no hex",
                &hash,
                &hash.replacen("00", "gg", 1),
                "measurement 0: `Hash` is not 48 bytes of lower-case hex each",
            ),
        ];
        for (name, from, to, expected) in cases {
            assert_eq!(changed(from, to), Err(expected.to_owned()), "{name}");
        }
    }

    #[test]
    fn bounds_and_order() {
        let golden = changed(
            "index=\"0\" active=\"False\"",
            "index=\"254\" active=\"True\"",
        )
        .unwrap();
        assert_eq!(golden.measurements.last().map(|it| it.index), Some(255));
        assert_eq!(golden.measurements.len(), 22);
        let hashes: String = (0..64)
            .map(|at| format!("ns2:Hash{at}=\"{}\" ", "0".repeat(96)))
            .collect();
        let one = format!("alternatives=\"1\" ns2:Hash0=\"{}\"", "0".repeat(96));
        assert!(changed(&one, &format!("alternatives=\"64\" {hashes}")).is_ok());
        let long = format!("NV_{}", "a".repeat(MAX_ID - 3));
        assert!(matches!(
            check_id(&long, "b", "c", None),
            Err(TagError::OtherId { .. })
        ));
        assert!(matches!(
            check_id(&(long + "a"), "b", "c", None),
            Err(TagError::Id)
        ));
        assert!(
            check_id(
                "NV_SWITCH_BIOS_5612_0002_890_96105E0001",
                "96.10.5e.00.01",
                "LS10",
                None
            )
            .is_ok()
        );
    }
}
