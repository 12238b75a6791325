//! X.509 certificates, as far as a vendor's short chains need them.
//!
//! Signatures are checked over the bytes that were received: the parsed form is read, never
//! written again. A serial number may be zero, as some of AMD's are.

use std::time::SystemTime;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED,
    RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Encode, Header, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::{Certificate as Parsed, TbsCertificate, Version};

use crate::check::Checks;
use crate::digest::sha256;
use crate::time::to_rfc3339;

/// Longest certificate, in bytes; AMD's have under 1,700.
pub(crate) const MAX_CERTIFICATE: usize = 8 * 1024;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SERIAL_NUMBER_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");

/// Most extensions of one certificate; vendors' have under 20.
const MAX_EXTENSIONS: usize = 64;

/// RSA-4096, the size of every key in AMD's chains above the leaf.
const RSA_MODULUS_LEN: usize = 512;
/// 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Why a certificate is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than any certificate here can be.
    #[error("certificate of {len} bytes exceeds the limit of {MAX_CERTIFICATE}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not one DER certificate.
    #[error("not one DER certificate")]
    Der,
    /// Not X.509 version 3, or its two statements of the signature algorithm differ.
    #[error("not a consistent X.509 version 3 certificate")]
    Inconsistent,
    /// More than any vendor puts in.
    #[error("{0} extensions exceed the limit of {MAX_EXTENSIONS}")]
    TooManyExtensions(usize),
    /// An extension twice.
    #[error("extension {0} appears twice")]
    DuplicateExtension(ObjectIdentifier),
    /// A critical extension that is not understood.
    #[error("critical extension {0} is unknown")]
    UnknownCritical(ObjectIdentifier),
    /// The key is of another kind than its place in the chain asks for.
    #[error("public key is not {0}")]
    Key(&'static str),
    /// Basic constraints or key usage do not allow its place in the chain.
    #[error("not allowed to be {0}")]
    Usage(&'static str),
    /// It names another issuer.
    #[error("issuer's name differs")]
    Issuer,
    /// The issuer's signature is not of a known scheme, or does not verify.
    #[error("issuer's signature does not verify")]
    Signature,
}

/// How the authorities of a chain sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// RSA-4096 with PSS and SHA-384: AMD.
    RsaPss,
    /// ECDSA on P-384 with SHA-384: AWS and NVIDIA.
    EcdsaP384,
    /// ECDSA on P-256 with SHA-256: Intel.
    EcdsaP256,
}

/// A certificate, parsed; nothing about it is verified.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The signed bytes, as received.
    tbs: Vec<u8>,
    parsed: Parsed,
}

impl Certificate {
    /// Reads one DER certificate.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        Self::parse_knowing(der, &[])
    }

    /// Reads one DER certificate, in which extensions that the caller looks at may be critical.
    pub(crate) fn parse_knowing(
        der: &[u8],
        known: &[ObjectIdentifier],
    ) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertificateError::TooLong { len: der.len() });
        }
        let parsed = Parsed::from_der(der).map_err(|_| CertificateError::Der)?;
        let tbs = signed_bytes(der)
            .map_err(|_| CertificateError::Der)?
            .to_vec();
        let certificate = Self { tbs, parsed };
        let body = certificate.body();
        if body.version() != Version::V3
            || body.signature() != certificate.parsed.signature_algorithm()
        {
            return Err(CertificateError::Inconsistent);
        }
        certificate.check_extensions(known)?;
        Ok(certificate)
    }

    fn body(&self) -> &TbsCertificate {
        self.parsed.tbs_certificate()
    }

    fn extensions(&self) -> &[Extension] {
        self.body().extensions().map_or(&[], Vec::as_slice)
    }

    fn check_extensions(&self, known: &[ObjectIdentifier]) -> Result<(), CertificateError> {
        let count = self.extensions().len();
        if count > MAX_EXTENSIONS {
            return Err(CertificateError::TooManyExtensions(count));
        }
        for (at, extension) in self.extensions().iter().enumerate() {
            let id = extension.extn_id;
            if self
                .extensions()
                .iter()
                .skip(at)
                .filter(|e| e.extn_id == id)
                .count()
                > 1
            {
                return Err(CertificateError::DuplicateExtension(id));
            }
            let is_known = id == BASIC_CONSTRAINTS || id == KEY_USAGE || known.contains(&id);
            if extension.critical && !is_known {
                return Err(CertificateError::UnknownCritical(id));
            }
        }
        Ok(())
    }

    /// The content of an extension.
    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let mut extensions = self.extensions().iter();
        let extension = extensions.find(|extension| extension.extn_id == id)?;
        Some(extension.extn_value.as_bytes())
    }

    /// The subject's first common name; empty where there is none.
    pub(crate) fn common_name(&self) -> String {
        let name = self.body().subject().common_name().ok().flatten();
        name.map_or_else(String::new, |name| name.value().into_owned())
    }

    /// The subject's serial number (2.5.4.5), not the certificate's; empty where there is none.
    pub(crate) fn subject_serial_number(&self) -> String {
        let subject = self.body().subject();
        let name = subject.by_oid::<DirectoryString>(SERIAL_NUMBER_NAME);
        name.ok()
            .flatten()
            .map_or_else(String::new, |name| name.value().into_owned())
    }

    /// The subject's name, DER.
    pub(crate) fn subject_der(&self) -> Vec<u8> {
        self.body().subject().to_der().unwrap_or_default()
    }

    /// The serial number's content octets.
    pub(crate) fn serial(&self) -> &[u8] {
        self.body().serial_number().as_bytes()
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub(crate) fn key_sha256(&self) -> [u8; 32] {
        let key = self.body().subject_public_key_info().to_der();
        sha256(&[&key.unwrap_or_default()])
    }

    /// Whether the subject has this name.
    pub(crate) fn is_named(&self, name: &Name) -> bool {
        self.body().subject() == name
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.body().issuer()
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.body().issuer() == self.body().subject()
    }

    pub(crate) fn is_issued_by(&self, issuer: &Self) -> bool {
        self.body().issuer() == issuer.body().subject()
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        self.body().validity().not_before.to_system_time()
    }

    /// The last second of validity (RFC 5280 section 4.1.2.5).
    pub(crate) fn not_after(&self) -> SystemTime {
        self.body().validity().not_after.to_system_time()
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before() <= now && now <= self.not_after()
    }

    /// Checks that this certificate may issue others, with `below` levels of authorities under it,
    /// and that its key is of the chain's scheme.
    pub(crate) fn check_authority(
        &self,
        below: u8,
        scheme: Scheme,
    ) -> Result<(), CertificateError> {
        let error = CertificateError::Usage("an authority");
        let constraints = self.decode::<BasicConstraints>(BASIC_CONSTRAINTS, error)?;
        let usage = self.decode::<KeyUsage>(KEY_USAGE, error)?;
        let (Some(constraints), Some(usage)) = (constraints, usage) else {
            return Err(error);
        };
        let deep_enough = constraints
            .path_len_constraint
            .is_none_or(|most| below <= most);
        if !constraints.ca || !deep_enough || !usage.key_cert_sign() {
            return Err(error);
        }
        match scheme {
            Scheme::RsaPss => self.rsa_key().map(drop),
            Scheme::EcdsaP384 => self.p384_key().map(drop),
            Scheme::EcdsaP256 => self.p256_key().map(drop),
        }
    }

    /// Checks that this certificate may end a chain: no authority, and its key may sign.
    pub(crate) fn check_leaf(&self) -> Result<(), CertificateError> {
        let error = CertificateError::Usage("a signing key");
        let constraints = self.decode::<BasicConstraints>(BASIC_CONSTRAINTS, error)?;
        let usage = self.decode::<KeyUsage>(KEY_USAGE, error)?;
        let is_authority = constraints.is_some_and(|constraints| constraints.ca);
        if is_authority || usage.is_some_and(|usage| !usage.digital_signature()) {
            return Err(error);
        }
        self.p384_key().map(drop)
    }

    fn decode<'a, T: Decode<'a>>(
        &'a self,
        id: ObjectIdentifier,
        error: CertificateError,
    ) -> Result<Option<T>, CertificateError> {
        let content = self.extension(id);
        content
            .map(|der| T::from_der(der).map_err(|_| error))
            .transpose()
    }

    /// Checks that `issuer` is named as this certificate's issuer and signed it.
    pub(crate) fn check_issued_by(&self, issuer: &Self) -> Result<(), CertificateError> {
        if !self.is_issued_by(issuer) {
            return Err(CertificateError::Issuer);
        }
        let signature = self.parsed.signature().as_bytes();
        let signature = signature.ok_or(CertificateError::Signature)?;
        let verified = match self.parsed.signature_algorithm().oid {
            RSASSA_PSS => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, issuer.rsa_key()?)
                .verify(&self.tbs, signature),
            ECDSA_WITH_SHA384 => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, issuer.p384_key()?)
                    .verify(&self.tbs, signature)
            }
            ECDSA_WITH_SHA256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer.p256_key()?)
                    .verify(&self.tbs, signature)
            }
            _ => return Err(CertificateError::Signature),
        };
        verified.map_err(|_| CertificateError::Signature)
    }

    /// Whether this certificate may sign revocation lists and signed `message`: with RSA-PSS as AMD
    /// does, or with ECDSA on P-256 as Intel does.
    pub(crate) fn signed_list(
        &self,
        algorithm: &ObjectIdentifier,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let error = CertificateError::Usage("an issuer of revocation lists");
        let usage = self.decode::<KeyUsage>(KEY_USAGE, error).ok().flatten();
        let key = match *algorithm {
            RSASSA_PSS => self
                .rsa_key()
                .map(|key| UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)),
            ECDSA_WITH_SHA256 => self
                .p256_key()
                .map(|key| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)),
            _ => return false,
        };
        usage.is_some_and(|usage| usage.crl_sign())
            && key.is_ok_and(|key| key.verify(message, signature).is_ok())
    }

    /// Whether the key signed `message`; `signature` is r and s, big-endian, 48 bytes each.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        self.p384_key().is_ok_and(|key| {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key)
                .verify(message, signature)
                .is_ok()
        })
    }

    /// Whether the key signed `message`; `signature` is DER (RFC 3279 section 2.2.3).
    pub(crate) fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        self.p384_key().is_ok_and(|key| {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key)
                .verify(message, signature)
                .is_ok()
        })
    }

    /// The uncompressed point of a P-384 key.
    pub(crate) fn p384_key(&self) -> Result<&[u8], CertificateError> {
        self.ec_key(SECP384R1, CertificateError::Key("P-384"))
    }

    /// The uncompressed point of a P-256 key.
    fn p256_key(&self) -> Result<&[u8], CertificateError> {
        self.ec_key(SECP256R1, CertificateError::Key("P-256"))
    }

    fn ec_key(
        &self,
        expected: ObjectIdentifier,
        error: CertificateError,
    ) -> Result<&[u8], CertificateError> {
        let key = self.body().subject_public_key_info();
        let curve = key.algorithm.parameters.as_ref();
        let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(expected) {
            return Err(error);
        }
        key.subject_public_key.as_bytes().ok_or(error)
    }

    /// The `RSAPublicKey` of an RSA-4096 key.
    fn rsa_key(&self) -> Result<&[u8], CertificateError> {
        let error = CertificateError::Key("RSA-4096");
        let key = self.body().subject_public_key_info();
        let bytes = key.subject_public_key.as_bytes().ok_or(error)?;
        let (modulus, exponent) = rsa_numbers(bytes).map_err(|_| error)?;
        if key.algorithm.oid != RSA_ENCRYPTION
            || modulus.len() != RSA_MODULUS_LEN
            || exponent != RSA_EXPONENT
        {
            return Err(error);
        }
        Ok(bytes)
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        let exponent = UintRef::decode(reader)?;
        Ok::<_, der::Error>((modulus.as_bytes(), exponent.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

/// Checks that each certificate of a chain is valid at `now`; if so, the leaf's dates are shown.
pub(crate) fn check_validity(
    checks: &mut Checks,
    chain: &[&Certificate],
    leaf: &Certificate,
    now: SystemTime,
) {
    let invalid = chain
        .iter()
        .find(|certificate| !certificate.is_valid_at(now));
    let shown = invalid.copied().unwrap_or(leaf);
    checks.record(
        "certificate validity",
        invalid.is_none(),
        format!("every certificate valid at {}", to_rfc3339(now)),
        format!(
            "{} {} to {}",
            shown.common_name(),
            to_rfc3339(shown.not_before()),
            to_rfc3339(shown.not_after())
        ),
    );
}

/// The first element of the outer sequence, header included: what the issuer signed.
pub(crate) fn signed_bytes(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?;
    reader.tlv_bytes()
}

#[cfg(test)]
mod tests;
