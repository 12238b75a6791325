//! Certificate revocation lists (RFC 5280 section 5).
//!
//! Here it is found out whether an issuer signed a list, and what is on it; whose lists count, and
//! from when to when, is for those who ask.

use std::time::SystemTime;

use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use crate::certificate::{Certificate, signed_bytes};

/// Longest list, in bytes: thousands of entries; AMD's have under 2 KiB, Intel's under 8 KiB.
const MAX_CRL: usize = 256 * 1024;

/// A list that its issuer signed.
pub(crate) struct Crl {
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: SystemTime,
    list: CertificateList,
}

impl Crl {
    /// Reads a list; `None` if `issuer` did not sign it or something in it is not understood.
    pub(crate) fn of(issuer: &Certificate, der: &[u8]) -> Option<Self> {
        if der.len() > MAX_CRL {
            return None;
        }
        let list = CertificateList::from_der(der).ok()?;
        let body = &list.tbs_cert_list;
        let extensions = body.crl_extensions.iter().flatten();
        let signature = list.signature.as_bytes()?;
        let usable = body.signature == list.signature_algorithm
            && !extensions.into_iter().any(|extension| extension.critical)
            && issuer.is_named(&body.issuer)
            && issuer.signed_list(
                &list.signature_algorithm.oid,
                signed_bytes(der).ok()?,
                signature,
            );
        usable.then_some(Self {
            this_update: body.this_update.to_system_time(),
            next_update: body.next_update?.to_system_time(),
            list,
        })
    }

    pub(crate) fn is_current(&self, now: SystemTime) -> bool {
        self.this_update <= now && now < self.next_update
    }

    /// Whether it has the serial number of a certificate, which its issuer has to have issued.
    /// Numbers are compared as they are: AMD's can be zero.
    pub(crate) fn lists(&self, certificate: &Certificate) -> bool {
        let revoked = self
            .list
            .tbs_cert_list
            .revoked_certificates
            .iter()
            .flatten();
        let mut serials = revoked.map(|entry| entry.serial_number.as_bytes());
        serials.any(|serial| serial == certificate.serial())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::software_root::der;

    /// Genoa's recorded VCEK has it: zero is a number like another.
    #[test]
    fn serial_number_zero_can_be_listed() {
        let pem = include_bytes!("../tests/data/genoa/vcek.pem");
        let (_, vcek) = x509_cert::der::pem::decode_vec(pem).unwrap();
        let vcek = Certificate::parse(&vcek).unwrap();
        assert_eq!(vcek.serial(), [0]);
        let algorithm = der::rsa_pss_sha384();
        let time = der::time("2026-06-01T00:00:00Z");
        for (serial, listed) in [(0, true), (1, false)] {
            let entry = der::sequence(&[&der::integer(serial), &time]);
            let entries = der::sequence(&[&entry]);
            let name = der::name(&[]);
            let parts = [&der::integer(1), &algorithm, &name, &time, &time, &entries];
            let body = der::sequence(&parts.map(Vec::as_slice));
            let list = der::sequence(&[&body, &algorithm, &der::bit_string(&[0])]);
            let crl = Crl {
                this_update: UNIX_EPOCH,
                next_update: UNIX_EPOCH,
                list: CertificateList::from_der(&list).unwrap(),
            };
            assert_eq!(crl.lists(&vcek), listed, "{serial}");
        }
    }
}
