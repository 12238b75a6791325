//! The little DER that Intel's certificates and revocation lists take.

use attestation::time::to_rfc3339;
use std::time::SystemTime;

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(u8::try_from(len).unwrap()),
        _ => {
            out.push(0x82);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    if (0x80..0x100).contains(&len) {
        out.truncate(1);
        out.extend([0x81, u8::try_from(len).unwrap()]);
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    let numbers: Vec<u64> = text.split('.').map(|it| it.parse().unwrap()).collect();
    let mut out = vec![u8::try_from(numbers[0] * 40 + numbers[1]).unwrap()];
    for number in &numbers[2..] {
        let groups = (0..9).rev().map(|at| (number >> (7 * at)) & 0x7f);
        let mut groups: Vec<u8> = groups.map(|it| u8::try_from(it).unwrap()).collect();
        let first = groups.iter().position(|it| *it != 0).unwrap_or(8);
        groups.drain(..first);
        let last = groups.len() - 1;
        groups[..last].iter_mut().for_each(|it| *it |= 0x80);
        out.extend(groups);
    }
    tlv(6, &[&out])
}

/// A small number, not negative.
pub(crate) fn integer(value: u8) -> Vec<u8> {
    let sign: &[u8] = if value < 0x80 { &[] } else { &[0] };
    tlv(2, &[sign, &[value]])
}

pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(4, &[bytes])
}

pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes])
}

/// A time as certificates write it before 2050.
pub(crate) fn time(time: SystemTime) -> Vec<u8> {
    let text = to_rfc3339(time);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    tlv(0x17, &[&digits.as_bytes()[2..], b"Z"])
}

/// A name that is one common name.
pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let text = tlv(0x0c, &[common_name.as_bytes()]);
    sequence(&[&tlv(0x31, &[&sequence(&[&oid("2.5.4.3"), &text])])])
}

pub(crate) fn extension(id: &str, critical: bool, content: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), critical, &octets(content)])
}
