//! Writes the little DER that a certificate takes.

use x509_cert::der::asn1::ObjectIdentifier;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const TRUE: [u8; 3] = [0x01, 0x01, 0xff];
const NULL: [u8; 2] = [0x05, 0x00];
const ID_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const ID_MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const ID_RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// Tag, length, and the parts one after another.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match (significant.as_slice(), u8::try_from(significant.len())) {
        ([], _) => out.push(0),
        ([short @ 0..=0x7f], _) => out.push(*short),
        (long, Ok(count)) => {
            out.push(0x80 | count);
            out.extend(long);
        }
        // A length has at most eight bytes.
        (_, Err(_)) => {}
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, parts)
}

/// `[number] EXPLICIT`.
pub(crate) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, &[content])
}

pub(crate) fn oid(id: ObjectIdentifier) -> Vec<u8> {
    tlv(OBJECT_IDENTIFIER, &[id.as_bytes()])
}

/// A number that is not negative.
pub(crate) fn integer(value: u8) -> Vec<u8> {
    let sign: &[u8] = if value < 0x80 { &[] } else { &[0] };
    tlv(INTEGER, &[sign, &[value]])
}

/// Big-endian bytes as a positive number; the first byte is made 1 to 0x7f.
pub(crate) fn serial(mut bytes: [u8; 16]) -> Vec<u8> {
    bytes[0] = bytes[0] & 0x7f | 1;
    tlv(INTEGER, &[&bytes])
}

pub(crate) fn ia5_string(text: &str) -> Vec<u8> {
    tlv(IA5_STRING, &[text.as_bytes()])
}

pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], bytes])
}

/// `BIT STRING` of named bits (X.690 section 11.2.2): `unused` bits at the end are not there.
pub(crate) fn named_bits(unused: u8, byte: u8) -> Vec<u8> {
    tlv(BIT_STRING, &[&[unused, byte]])
}

/// A time given as RFC 3339: `UTCTime` before 2050, as RFC 5280 section 4.1.2.5 asks.
pub(crate) fn time(rfc3339: &str) -> Vec<u8> {
    let digits: String = rfc3339.chars().filter(char::is_ascii_digit).collect();
    match digits.strip_prefix("20") {
        Some(short) if digits.as_str() < "2050" => tlv(UTC_TIME, &[short.as_bytes(), b"Z"]),
        _ => tlv(GENERALIZED_TIME, &[digits.as_bytes(), b"Z"]),
    }
}

/// A name of one attribute in each of its parts.
pub(crate) fn name(attributes: &[(ObjectIdentifier, &str)]) -> Vec<u8> {
    let part = |(id, text): &(ObjectIdentifier, &str)| {
        let text = tlv(UTF8_STRING, &[text.as_bytes()]);
        tlv(SET, &[&sequence(&[&oid(*id), &text])])
    };
    let parts: Vec<_> = attributes.iter().map(part).collect();
    sequence(&[&parts.concat()])
}

pub(crate) fn extension(id: ObjectIdentifier, critical: bool, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    sequence(&[&oid(id), critical, &tlv(OCTET_STRING, &[content])])
}

/// `BasicConstraints` of an authority.
pub(crate) fn authority_constraints(path_len: Option<u8>) -> Vec<u8> {
    let path_len = path_len.map(integer).unwrap_or_default();
    sequence(&[&TRUE, &path_len])
}

pub(crate) fn with_null(id: ObjectIdentifier) -> Vec<u8> {
    sequence(&[&oid(id), &NULL])
}

/// The algorithm identifier of RSA-PSS with SHA-384 and a salt of 48 bytes (RFC 4055 section 3.1).
pub(crate) fn rsa_pss_sha384() -> Vec<u8> {
    let hash = with_null(ID_SHA384);
    let mask = sequence(&[&oid(ID_MGF1), &hash]);
    let parameters = [
        explicit(0, &hash),
        explicit(1, &mask),
        explicit(2, &integer(48)),
    ];
    sequence(&[&oid(ID_RSASSA_PSS), &sequence(&[&parameters.concat()])])
}
