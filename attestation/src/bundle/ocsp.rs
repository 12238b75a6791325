//! Questions about certificates (RFC 6960 section 4.1.1), for those who fetch the answers.

use aws_lc_rs::digest::{SHA384, digest};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

/// The identifier of SHA-384 (2.16.840.1.101.3.4.2.2) without parameters.
const SHA384_ALGORITHM: [u8; 13] = [
    0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
];
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// A request about one certificate, by SHA-384 and without a nonce, so that its answer can be kept.
/// `None` if either is no certificate, or names and keys are longer than any.
pub fn ocsp_request(certificate: &[u8], issuer: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let issuer = Certificate::from_der(issuer).ok()?;
    let issuer = issuer.tbs_certificate();
    let name = issuer.subject().to_der().ok()?;
    let key = issuer
        .subject_public_key_info()
        .subject_public_key
        .as_bytes()?;
    let serial = certificate
        .tbs_certificate()
        .serial_number()
        .to_der()
        .ok()?;
    let hashed = |bytes: &[u8]| wrapped(OCTET_STRING, &[digest(&SHA384, bytes).as_ref()]);
    let id = [
        SHA384_ALGORITHM.as_slice(),
        &hashed(&name)?,
        &hashed(key)?,
        &serial,
    ];
    // OCSPRequest, TBSRequest, the list, a Request and its CertID are each a sequence of one.
    let mut request = wrapped(SEQUENCE, &id)?;
    for _ in 0..4 {
        request = wrapped(SEQUENCE, &[&request])?;
    }
    Some(request)
}

/// A DER value of under 256 bytes.
fn wrapped(tag: u8, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let content = parts.concat();
    let len = u8::try_from(content.len()).ok()?;
    let mut value = vec![tag];
    if len >= 0x80 {
        value.push(0x81);
    }
    value.push(len);
    value.extend(content);
    Some(value)
}
