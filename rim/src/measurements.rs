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
