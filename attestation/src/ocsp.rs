//! The status of a certificate, as its issuer's responder signs it: OCSP responses (RFC 6960).
//!
//! A response counts if it is about this certificate of this issuer, is signed by the issuer or by a
//! responder whose certificate the issuer signed for that purpose, and is in date. Anything but
//! "good" refuses, and a response that says so outweighs every other. A responder's certificate is
//! trusted for as long as it lives, for which its issuer must mark it `id-pkix-ocsp-nocheck` (RFC
//! 6960 section 4.2.2.2.1).

use std::time::SystemTime;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use x509_cert::der::asn1::{AnyRef, GeneralizedTime, IntRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Header, Length, Reader, SliceReader, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::certificate::{Certificate, CertificateError};

/// Longest response, in bytes; NVIDIA's have under 1,100.
pub const MAX_RESPONSE: usize = 16 * 1024;
/// Most certificates that come with a response; NVIDIA's bring one. Each costs a signature's check.
const MAX_CERTIFICATES: usize = 3;

const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const NO_CHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
const BASIC_RESPONSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ID_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const ID_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// The reason of a revocation that can be taken back (RFC 5280 section 5.3.1).
const CERTIFICATE_HOLD: u8 = 6;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]` to `[2]`, of one value.
const PLAIN: [u8; 3] = [0x80, 0x81, 0x82];
/// `[0]` to `[2]`, around other elements.
const AROUND: [u8; 3] = [0xa0, 0xa1, 0xa2];

/// Why no response shows a certificate to be good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OcspError {
    /// The certificate asked about, or its issuer's, cannot be used.
    #[error("certificate asked about: {0}")]
    Certificate(#[from] CertificateError),
    /// No response is about the certificate.
    #[error("no OCSP response about it")]
    Missing,
    /// Longer than [`MAX_RESPONSE`].
    #[error("OCSP response of {len} bytes exceeds the limit of {MAX_RESPONSE}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not one basic OCSP response, or one with a critical extension or with many certificates.
    #[error("malformed OCSP response")]
    Malformed,
    /// The responder gave no answer, but this status (RFC 6960 section 4.2.1).
    #[error("the OCSP responder answered with status {0} instead of a response")]
    Unsuccessful(u8),
    /// Neither the issuer nor a responder of its own signed it.
    #[error("OCSP response is not signed by the issuer or a responder of its own")]
    Signature,
    /// It begins later than now.
    #[error("OCSP response is not valid yet")]
    NotYetValid,
    /// It has ended, or does not say when it ends.
    #[error("OCSP response has expired")]
    Expired,
    /// The certificate is revoked or on hold.
    #[error("revoked, reason {0}")]
    Revoked(u8),
    /// The responder does not know the certificate.
    #[error("the OCSP responder does not know it")]
    Unknown,
}

/// A certificate that its issuer calls good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Good {
    /// When the response was true.
    pub this_update: SystemTime,
    /// When response or responder ends, whichever is first.
    pub not_after: SystemTime,
}

/// Looks for the certificate's status at `now`; certificates are DER.
///
/// The issuer must be trusted already, and `certificate` signed by it, which is checked again.
///
/// # Errors
/// If no response shows the certificate to be good.
pub fn check<'a>(
    responses: impl IntoIterator<Item = &'a [u8]>,
    certificate: &[u8],
    issuer: &[u8],
    now: SystemTime,
) -> Result<Good, OcspError> {
    let (certificate, issuer) = parse_both(certificate, issuer)?;
    status(responses, &certificate, &issuer, now)
}

/// The request that asks for the certificate's status, DER (RFC 6960 section 4.1); certificates are
/// DER.
///
/// # Errors
/// If a certificate cannot be used, or was not issued by `issuer`.
pub fn request(certificate: &[u8], issuer: &[u8]) -> Result<Vec<u8>, OcspError> {
    let (certificate, issuer) = parse_both(certificate, issuer)?;
    let key = digest(&SHA384, issuer.p384_key()?);
    let name = digest(&SHA384, &issuer.subject_der());
    let tlv = |tag, content: &[u8]| tlv(tag, content).map_err(|_| OcspError::Malformed);
    let algorithm = tlv(Tag::ObjectIdentifier, ID_SHA384.as_bytes())?;
    let id = [
        tlv(Tag::Sequence, &algorithm)?,
        tlv(Tag::OctetString, name.as_ref())?,
        tlv(Tag::OctetString, key.as_ref())?,
        tlv(Tag::Integer, certificate.serial())?,
    ];
    // OCSPRequest, tbsRequest, requestList, Request, CertID.
    let nested = (0..5).try_fold(id.concat(), |content, _| tlv(Tag::Sequence, &content))?;
    Ok(nested)
}

fn parse_both(certificate: &[u8], issuer: &[u8]) -> Result<(Certificate, Certificate), OcspError> {
    let certificate = Certificate::parse_knowing(certificate, &[EXTENDED_KEY_USAGE])?;
    let issuer = Certificate::parse(issuer)?;
    certificate.check_issued_by(&issuer)?;
    Ok((certificate, issuer))
}

fn tlv(tag: Tag, content: &[u8]) -> Result<Vec<u8>, x509_cert::der::Error> {
    let header = Header::new(tag, Length::try_from(content.len())?).to_der()?;
    Ok([&header, content].concat())
}

/// When the first of a response's answers ends; nothing about it is verified.
pub(crate) fn end(response: &[u8]) -> Result<SystemTime, OcspError> {
    if response.len() > MAX_RESPONSE {
        return Err(OcspError::TooLong {
            len: response.len(),
        });
    }
    let ends = Basic::parse(response)?
        .singles()?
        .into_iter()
        .map(|single| {
            let parts = single.children_of(SEQUENCE)?;
            // After the certificate's id, its status and the time of this update.
            let (next_update, _) = optional(parts.get(3..).unwrap_or_default(), AROUND[0]);
            next_update.ok_or(OcspError::Expired)?.only_child()?.time()
        });
    let ends: Vec<_> = ends.collect::<Result<_, _>>()?;
    ends.into_iter().min().ok_or(OcspError::Missing)
}

/// [`check`] for certificates that are parsed and whose signature was verified.
pub(crate) fn status<'a>(
    responses: impl IntoIterator<Item = &'a [u8]>,
    certificate: &Certificate,
    issuer: &Certificate,
    now: SystemTime,
) -> Result<Good, OcspError> {
    let asked = Asked::of(certificate, issuer)?;
    let mut good: Option<Good> = None;
    let mut refusal = OcspError::Missing;
    for response in responses {
        match asked.judge(response, now) {
            Ok(None) => {}
            Ok(Some(newer)) => {
                let last = good.filter(|good| good.not_after > newer.not_after);
                good = last.or(Some(newer));
            }
            Err(error @ (OcspError::Revoked(_) | OcspError::Unknown)) => return Err(error),
            Err(error) => refusal = error,
        }
    }
    good.ok_or(refusal)
}

/// The certificate asked about, in the words of a CertID.
struct Asked<'a> {
    issuer: &'a Certificate,
    issuer_name: Vec<u8>,
    issuer_key: &'a [u8],
    serial: &'a [u8],
}

/// What a response says of one certificate.
struct Single<'a> {
    status: Element<'a>,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
}

impl<'a> Asked<'a> {
    fn of(certificate: &'a Certificate, issuer: &'a Certificate) -> Result<Self, OcspError> {
        Ok(Self {
            issuer,
            issuer_name: issuer.subject_der(),
            issuer_key: issuer.p384_key()?,
            serial: certificate.serial(),
        })
    }

    /// What one response says; `None` if it is about other certificates.
    fn judge(&self, response: &[u8], now: SystemTime) -> Result<Option<Good>, OcspError> {
        if response.len() > MAX_RESPONSE {
            return Err(OcspError::TooLong {
                len: response.len(),
            });
        }
        let response = Basic::parse(response)?;
        let mut good = None;
        for single in response.singles()? {
            let Some(single) = self.read(single)? else {
                continue;
            };
            let responder_ends = response.verify(self.issuer, now)?;
            let status = check_status(single.status);
            // Whatever the dates: what was revoked stays so. A hold can be lifted.
            if let Err(OcspError::Revoked(reason)) = status
                && reason != CERTIFICATE_HOLD
            {
                return Err(OcspError::Revoked(reason));
            }
            let next_update = single.next_update.ok_or(OcspError::Expired)?;
            if now < single.this_update {
                return Err(OcspError::NotYetValid);
            }
            if now > next_update {
                return Err(OcspError::Expired);
            }
            status?;
            good = Some(Good {
                this_update: single.this_update,
                not_after: next_update.min(responder_ends),
            });
        }
        Ok(good)
    }

    /// `SingleResponse`, if it is about the certificate.
    fn read<'b>(&self, single: Element<'b>) -> Result<Option<Single<'b>>, OcspError> {
        let parts = single.children_of(SEQUENCE)?;
        let [id, status, this_update, rest @ ..] = parts.as_slice() else {
            return Err(OcspError::Malformed);
        };
        if !self.is_named_by(*id)? {
            return Ok(None);
        }
        let (next_update, rest) = optional(rest, AROUND[0]);
        let (extensions, rest) = optional(rest, AROUND[1]);
        check_extensions(extensions)?;
        if !rest.is_empty() {
            return Err(OcspError::Malformed);
        }
        let next_update = next_update.map(|it| it.only_child()?.time());
        Ok(Some(Single {
            status: *status,
            this_update: this_update.time()?,
            next_update: next_update.transpose()?,
        }))
    }

    /// Whether a `CertID` is that of the certificate.
    fn is_named_by(&self, id: Element<'_>) -> Result<bool, OcspError> {
        let parts = id.children_of(SEQUENCE)?;
        let [algorithm, name, key, serial] = parts.as_slice() else {
            return Err(OcspError::Malformed);
        };
        let Some(algorithm) = hash(*algorithm)? else {
            return Ok(false);
        };
        let serial = IntRef::from_der(serial.tagged(INTEGER)?.raw);
        let serial = serial.map_err(|_| OcspError::Malformed)?;
        let is_digest = |of: &[u8], element: &Element<'_>| {
            let digest = digest(algorithm, of);
            Ok::<_, OcspError>(digest.as_ref() == element.tagged(OCTET_STRING)?.content)
        };
        Ok(is_digest(&self.issuer_name, name)?
            && is_digest(self.issuer_key, key)?
            && serial.as_bytes() == self.serial)
    }
}

/// The algorithm of a `CertID`; `None` for one that is not used here.
fn hash(algorithm: Element<'_>) -> Result<Option<&'static Algorithm>, OcspError> {
    let parts = algorithm.children_of(SEQUENCE)?;
    let id = parts.first().ok_or(OcspError::Malformed)?.id()?;
    Ok(match id {
        ID_SHA384 => Some(&SHA384),
        ID_SHA256 => Some(&SHA256),
        _ => None,
    })
}

/// `CertStatus`.
fn check_status(status: Element<'_>) -> Result<(), OcspError> {
    if status.tag == PLAIN[0] && status.content.is_empty() {
        return Ok(());
    }
    if status.tag == AROUND[1] {
        return Err(OcspError::Revoked(reason(status)));
    }
    if status.tag == PLAIN[2] {
        return Err(OcspError::Unknown);
    }
    Err(OcspError::Malformed)
}

/// The reason of a revocation (RFC 5280 section 5.3.1); 0, "unspecified", where none is given.
fn reason(revoked: Element<'_>) -> u8 {
    let parts = revoked.children().unwrap_or_default();
    let given = parts.iter().find(|part| part.tag == AROUND[0]);
    let given = given.and_then(|part| part.only_child().ok());
    match given.map(|reason| (reason.tag, reason.content)) {
        Some((ENUMERATED, [reason])) => *reason,
        _ => 0,
    }
}

/// `BasicOCSPResponse`, its signature not verified.
struct Basic<'a> {
    data: Element<'a>,
    /// Who says that it signed: `ResponderID`.
    responder: Element<'a>,
    algorithm: Element<'a>,
    signature: Element<'a>,
    certificates: Vec<Element<'a>>,
}

impl<'a> Basic<'a> {
    /// Reads an `OCSPResponse`.
    fn parse(der: &'a [u8]) -> Result<Self, OcspError> {
        let parts = Element::only(der)?.children_of(SEQUENCE)?;
        let bytes = match parts.as_slice() {
            [status, bytes] if status.content == [0] && status.tag == ENUMERATED => bytes,
            [status] => {
                let [status] = status.tagged(ENUMERATED)?.content else {
                    return Err(OcspError::Malformed);
                };
                return Err(OcspError::Unsuccessful(*status));
            }
            _ => return Err(OcspError::Malformed),
        };
        let parts = bytes.tagged(AROUND[0])?.only_child()?;
        let parts = parts.children_of(SEQUENCE)?;
        let [kind, basic] = parts.as_slice() else {
            return Err(OcspError::Malformed);
        };
        if kind.id()? != BASIC_RESPONSE {
            return Err(OcspError::Malformed);
        }
        let basic = Element::only(basic.tagged(OCTET_STRING)?.content)?;
        let parts = basic.children_of(SEQUENCE)?;
        let [data, algorithm, signature, rest @ ..] = parts.as_slice() else {
            return Err(OcspError::Malformed);
        };
        let (certificates, rest) = optional(rest, AROUND[0]);
        if !rest.is_empty() {
            return Err(OcspError::Malformed);
        }
        let certificates = certificates.map(|it| it.only_child()?.children_of(SEQUENCE));
        let certificates = certificates.transpose()?.unwrap_or_default();
        if certificates.len() > MAX_CERTIFICATES {
            return Err(OcspError::Malformed);
        }
        let parts = data.children_of(SEQUENCE)?;
        // A version would stand first, and DER leaves out the only one there is.
        let responder = parts.first().ok_or(OcspError::Malformed)?;
        if ![AROUND[1], AROUND[2]].contains(&responder.tag) {
            return Err(OcspError::Malformed);
        }
        Ok(Self {
            data: *data,
            responder: *responder,
            algorithm: *algorithm,
            signature: *signature,
            certificates,
        })
    }

    /// Each `SingleResponse` of the `ResponseData`.
    fn singles(&self) -> Result<Vec<Element<'a>>, OcspError> {
        let parts = self.data.children_of(SEQUENCE)?;
        let [_responder, produced_at, singles, rest @ ..] = parts.as_slice() else {
            return Err(OcspError::Malformed);
        };
        produced_at.time()?;
        let (extensions, rest) = optional(rest, AROUND[1]);
        check_extensions(extensions)?;
        if !rest.is_empty() {
            return Err(OcspError::Malformed);
        }
        singles.children_of(SEQUENCE)
    }

    /// Verifies the signature; when the certificate of its key ends.
    fn verify(&self, issuer: &Certificate, now: SystemTime) -> Result<SystemTime, OcspError> {
        let parts = self.algorithm.children_of(SEQUENCE)?;
        let id = parts.first().ok_or(OcspError::Malformed)?.id()?;
        let [0, signature @ ..] = self.signature.tagged(BIT_STRING)?.content else {
            return Err(OcspError::Malformed);
        };
        let responders = self
            .certificates
            .iter()
            .filter_map(|certificate| responder(certificate.raw, issuer, now));
        let signers = [issuer.clone()].into_iter().chain(responders);
        let mut named = signers.filter(|signer| self.names(signer));
        let signer = named.find(|signer| signer.verifies_der(self.data.raw, signature));
        match signer {
            Some(signer) if id == ECDSA_WITH_SHA384 => Ok(signer.not_after()),
            _ => Err(OcspError::Signature),
        }
    }
}

impl Basic<'_> {
    /// Whether `ResponderID` is this signer's name, or the digest of its key.
    fn names(&self, signer: &Certificate) -> bool {
        let Ok(id) = self.responder.only_child() else {
            return false;
        };
        if self.responder.tag == AROUND[1] {
            return id.raw == signer.subject_der();
        }
        let key = signer.p384_key();
        // RFC 6960 section 4.2.1 wants SHA-1 there; it selects, and is no proof.
        let digest = key.map(|key| digest(&SHA1_FOR_LEGACY_USE_ONLY, key));
        id.tag == OCTET_STRING && digest.is_ok_and(|digest| digest.as_ref() == id.content)
    }
}

/// A certificate with which the issuer lets another sign its responses (RFC 6960 section 4.2.2.2).
fn responder(der: &[u8], issuer: &Certificate, now: SystemTime) -> Option<Certificate> {
    let certificate = Certificate::parse_knowing(der, &[EXTENDED_KEY_USAGE]).ok()?;
    let usage = ExtendedKeyUsage::from_der(certificate.extension(EXTENDED_KEY_USAGE)?).ok()?;
    certificate.check_leaf().ok()?;
    certificate.check_issued_by(issuer).ok()?;
    // NVIDIA's lists it among the purposes, where the RFC wants an extension.
    let is_beyond_revocation =
        usage.0.contains(&NO_CHECK) || certificate.extension(NO_CHECK).is_some();
    let authorised = usage.0.contains(&OCSP_SIGNING) && certificate.is_valid_at(now);
    (authorised && is_beyond_revocation).then_some(certificate)
}

/// No extension here may be critical: none is understood.
fn check_extensions(extensions: Option<Element<'_>>) -> Result<(), OcspError> {
    let Some(extensions) = extensions else {
        return Ok(());
    };
    for extension in extensions.only_child()?.children_of(SEQUENCE)? {
        let extension = Extension::from_der(extension.raw).map_err(|_| OcspError::Malformed)?;
        if extension.critical {
            return Err(OcspError::Malformed);
        }
    }
    Ok(())
}

/// One DER element.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// With its header.
    raw: &'a [u8],
}

impl<'a> Element<'a> {
    /// The one element that the bytes are.
    fn only(der: &'a [u8]) -> Result<Self, OcspError> {
        match elements(der)?.as_slice() {
            [only] => Ok(*only),
            _ => Err(OcspError::Malformed),
        }
    }

    fn tagged(self, tag: u8) -> Result<Self, OcspError> {
        (self.tag == tag)
            .then_some(self)
            .ok_or(OcspError::Malformed)
    }

    fn children(self) -> Result<Vec<Self>, OcspError> {
        elements(self.content)
    }

    fn children_of(self, tag: u8) -> Result<Vec<Self>, OcspError> {
        self.tagged(tag)?.children()
    }

    fn only_child(self) -> Result<Self, OcspError> {
        Self::only(self.content)
    }

    fn id(self) -> Result<ObjectIdentifier, OcspError> {
        ObjectIdentifier::from_der(self.raw).map_err(|_| OcspError::Malformed)
    }

    fn time(self) -> Result<SystemTime, OcspError> {
        let time = GeneralizedTime::from_der(self.tagged(GENERALIZED_TIME)?.raw);
        time.map(|time| time.to_system_time())
            .map_err(|_| OcspError::Malformed)
    }
}

fn elements(der: &[u8]) -> Result<Vec<Element<'_>>, OcspError> {
    let read = || {
        let mut reader = SliceReader::new(der)?;
        let mut elements = Vec::new();
        while !reader.is_finished() {
            let raw = reader.tlv_bytes()?;
            elements.push(Element {
                tag: raw.first().copied().unwrap_or_default(),
                content: AnyRef::from_der(raw)?.value(),
                raw,
            });
        }
        Ok::<_, x509_cert::der::Error>(elements)
    };
    read().map_err(|_| OcspError::Malformed)
}

/// Takes an optional element off the front.
fn optional<'a, 'b>(
    elements: &'b [Element<'a>],
    tag: u8,
) -> (Option<Element<'a>>, &'b [Element<'a>]) {
    match elements {
        [first, rest @ ..] if first.tag == tag => (Some(*first), rest),
        rest => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_response_that_is_too_long_is_not_looked_for() {
        let mut der = vec![0; MAX_RESPONSE];
        assert_eq!(end(&der), Err(OcspError::Malformed));
        der.push(0);
        let len = der.len();
        assert_eq!(end(&der), Err(OcspError::TooLong { len }));
    }
}
