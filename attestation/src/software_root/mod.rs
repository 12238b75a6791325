//! Evidence for machines without a TEE: a root of one's own, and reports signed under it.
//!
//! The certificates have the shape of AMD's and the reports the real format, so that the real
//! verifier judges them. It accepts them only under a policy that names the root's file. Nothing
//! here is used for verifying, and no hardware stands behind what it signs: whoever has the files
//! can make any report.

pub(crate) mod der;
mod issue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::thread;
use std::time::{Duration, SystemTime};

use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use x509_cert::der::pem::{self, LineEnding};
use zeroize::Zeroizing;

use crate::answer::{EvidenceItem, EvidenceKind};
use crate::certificate::{Certificate, CertificateError};
use crate::collateral::Collateral;
use crate::sev_snp::endorsement::HWID;
use crate::sev_snp::report::{self, ECDSA_P384_SHA384, POLICY_RESERVED_ONE, POLICY_SMT, Report};
use issue::{Issuer, Leaf};

/// CPUID of the processor that reports claim: Genoa.
const CPUID: [u8; 3] = [0x19, 0x11, 0x01];
/// The TCB that reports and certificate claim: bootloader 10, tee 0, snp 23, microcode 84.
const TCB: [u8; 8] = [10, 0, 0, 0, 0, 0, 23, 84];
/// Firmware 1.55 build 40.
const FIRMWARE: [u8; 3] = [40, 55, 1];
/// TSME off, ECC on, aliases checked.
const PLATFORM_INFO: u64 = 0x25;
/// Certificates begin this much before they are made, so that no clock is behind them.
const BACKDATE: Duration = Duration::from_secs(24 * 60 * 60);
/// Ten years.
const VALIDITY: Duration = Duration::from_secs(3652 * 24 * 60 * 60);

const CERTIFICATE_LABEL: &str = "CERTIFICATE";
const KEY_LABEL: &str = "PRIVATE KEY";

/// Why a software root was not made or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SoftwareRootError {
    /// The cryptographic library refused to make a key or a signature.
    #[error("key generation or signing refused")]
    Crypto,
    /// The time cannot be written in a certificate.
    #[error("time out of range")]
    Time,
    /// Not the PEM that [`SoftwareRoot`] writes.
    #[error("{0} is not the PEM expected")]
    Pem(&'static str),
    /// The private key is none for P-384.
    #[error("private key rejected: {0}")]
    Key(#[source] KeyRejected),
    /// A certificate cannot be used.
    #[error("certificate rejected: {0}")]
    Certificate(#[from] CertificateError),
    /// The private key belongs to another certificate.
    #[error("private key does not belong to the certificate")]
    OtherKey,
    /// The certificate names no 64-byte hardware id.
    #[error("certificate names no hardware id")]
    HardwareId,
}

impl From<Unspecified> for SoftwareRootError {
    fn from(_: Unspecified) -> Self {
        Self::Crypto
    }
}

/// A software root's files: `ark.pem`, `ask.pem`, `vcek.pem` and `vcek.key`.
///
/// The private keys of ARK and ASK are gone once the certificates are signed: a root signs for one
/// VCEK, and is replaced as a whole.
pub struct SoftwareRoot {
    ark: String,
    ask: String,
    vcek: String,
    vcek_key: Zeroizing<String>,
}

impl SoftwareRoot {
    /// Makes keys and certificates, valid for ten years from `now`. Takes seconds: two RSA-4096
    /// keys, each on its own thread.
    ///
    /// # Errors
    /// If the cryptographic library refuses, or `now` fits no certificate.
    pub fn generate(now: SystemTime) -> Result<Self, SoftwareRootError> {
        let (ark_key, ask_key) = thread::scope(|scope| {
            let ark = scope.spawn(|| RsaKeyPair::generate(KeySize::Rsa4096));
            let ask = RsaKeyPair::generate(KeySize::Rsa4096);
            let ark = ark.join().map_err(|_| SoftwareRootError::Crypto)?;
            Ok::<_, SoftwareRootError>((ark?, ask?))
        })?;
        let not_before = now.checked_sub(BACKDATE).ok_or(SoftwareRootError::Time)?;
        let not_after = now.checked_add(VALIDITY).ok_or(SoftwareRootError::Time)?;
        let issuer = Issuer::new(ark_key, ask_key, not_before, not_after);
        let vcek_key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)?;
        let mut chip_id = [0; 64];
        SystemRandom::new().fill(&mut chip_id)?;
        let leaf = Leaf::genoa(vcek_key.public_key().as_ref(), &TCB, &chip_id);
        let pkcs8 = vcek_key.to_pkcs8v1()?;
        Ok(Self {
            ark: to_pem(CERTIFICATE_LABEL, &issuer.ark()?)?,
            ask: to_pem(CERTIFICATE_LABEL, &issuer.ask()?)?,
            vcek: to_pem(CERTIFICATE_LABEL, &issuer.leaf(&leaf)?)?,
            vcek_key: Zeroizing::new(to_pem(KEY_LABEL, pkcs8.as_ref())?),
        })
    }

    /// The root certificate, which a policy names: `ark.pem`.
    pub fn ark_pem(&self) -> &str {
        &self.ark
    }

    /// The authority's certificate: `ask.pem`.
    pub fn ask_pem(&self) -> &str {
        &self.ask
    }

    /// The certificate of the key that signs reports: `vcek.pem`.
    pub fn vcek_pem(&self) -> &str {
        &self.vcek
    }

    /// The private key that signs reports, PKCS #8: `vcek.key`.
    pub fn vcek_key_pem(&self) -> &Zeroizing<String> {
        &self.vcek_key
    }
}

impl fmt::Debug for SoftwareRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareRoot(..)")
    }
}

/// Signs reports under a software root.
pub struct SoftwareSigner {
    key: EcdsaKeyPair,
    chip_id: [u8; 64],
    certificates: Vec<Vec<u8>>,
}

impl SoftwareSigner {
    /// Takes up the files `vcek.key`, `vcek.pem` and `ask.pem`.
    ///
    /// # Errors
    /// If one is not what [`SoftwareRoot`] wrote, or they do not belong together.
    pub fn from_pem(vcek_key: &str, vcek: &str, ask: &str) -> Result<Self, SoftwareRootError> {
        let pkcs8 = Zeroizing::new(from_pem(KEY_LABEL, vcek_key, "vcek.key")?);
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pkcs8)
            .map_err(SoftwareRootError::Key)?;
        let vcek = from_pem(CERTIFICATE_LABEL, vcek, "vcek.pem")?;
        let ask = from_pem(CERTIFICATE_LABEL, ask, "ask.pem")?;
        let leaf = Certificate::parse(&vcek)?;
        leaf.check_issued_by(&Certificate::parse(&ask)?)?;
        if leaf.p384_key()? != key.public_key().as_ref() {
            return Err(SoftwareRootError::OtherKey);
        }
        let chip_id = leaf.extension(HWID).and_then(|id| id.try_into().ok());
        Ok(Self {
            key,
            chip_id: chip_id.ok_or(SoftwareRootError::HardwareId)?,
            certificates: vec![vcek, ask],
        })
    }

    /// DER certificates as evidence carries them: VCEK, ASK.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// Makes evidence that reports `report_data`. `measurement` stands where a TEE's launch digest
    /// would; what it is, is up to the caller.
    ///
    /// # Errors
    /// [`SoftwareRootError::Crypto`] if signing is refused.
    pub fn evidence(
        &self,
        report_data: [u8; 64],
        measurement: [u8; 48],
    ) -> Result<EvidenceItem, SoftwareRootError> {
        Ok(EvidenceItem {
            kind: EvidenceKind::SevSnp,
            report: self.sign(&self.report(report_data, measurement))?,
            certificates: self.certificates.clone(),
            collateral: Collateral::default(),
        })
    }

    /// A version 3 report of a Genoa processor, not yet signed.
    pub fn report(&self, report_data: [u8; 64], measurement: [u8; 48]) -> Report {
        Report {
            version: 3,
            guest_svn: 0,
            policy: POLICY_SMT | POLICY_RESERVED_ONE,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: 0,
            signature_algorithm: ECDSA_P384_SHA384,
            current_tcb: TCB,
            platform_info: PLATFORM_INFO,
            flags: 0,
            report_data,
            measurement,
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [0; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: TCB,
            cpuid: CPUID,
            chip_id: self.chip_id,
            committed_tcb: TCB,
            current_version: FIRMWARE,
            committed_version: FIRMWARE,
            launch_tcb: TCB,
            launch_mitigations: 0,
            current_mitigations: 0,
        }
    }

    /// Signs a report: 1184 bytes in the hardware's format.
    ///
    /// # Errors
    /// [`SoftwareRootError::Crypto`] if signing is refused.
    pub fn sign(&self, report: &Report) -> Result<Vec<u8>, SoftwareRootError> {
        let message = report.to_signed_bytes();
        let signature = self.key.sign(&SystemRandom::new(), &message)?;
        let signature = signature.as_ref().try_into();
        let signature = signature.map_err(|_| SoftwareRootError::Crypto)?;
        Ok(report::assemble(&message, signature))
    }
}

impl fmt::Debug for SoftwareSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareSigner(..)")
    }
}

fn to_pem(label: &'static str, der: &[u8]) -> Result<String, SoftwareRootError> {
    pem::encode_string(label, LineEnding::LF, der).map_err(|_| SoftwareRootError::Pem(label))
}

fn from_pem(label: &str, text: &str, file: &'static str) -> Result<Vec<u8>, SoftwareRootError> {
    match pem::decode_vec(text.as_bytes()) {
        Ok((found, der)) if found == label => Ok(der),
        _ => Err(SoftwareRootError::Pem(file)),
    }
}
