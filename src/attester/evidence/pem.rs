//! Certificates and revocation lists, from the forms in which they lie in files.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};

/// First byte of everything that is signed in DER.
const SEQUENCE: u8 = 0x30;

/// The certificates in `bytes`, in DER: one in DER, or any number in PEM. Empty where there is none.
pub(super) fn certificates(bytes: &[u8]) -> Vec<Vec<u8>> {
    in_der::<CertificateDer<'_>>(bytes)
}

/// The revocation lists in `bytes`, likewise.
pub(super) fn crls(bytes: &[u8]) -> Vec<Vec<u8>> {
    in_der::<CertificateRevocationListDer<'_>>(bytes)
}

fn in_der<T: PemObject + AsRef<[u8]>>(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.first() == Some(&SEQUENCE) {
        return vec![bytes.to_vec()];
    }
    let blocks: Result<Vec<T>, _> = T::pem_slice_iter(bytes).collect();
    let blocks = blocks.unwrap_or_default();
    blocks.iter().map(|der| der.as_ref().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "text\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n\
                       -----BEGIN CERTIFICATE-----\nMAE=\n-----END CERTIFICATE-----\n\
                       -----BEGIN X509 CRL-----\nMAI=\n-----END X509 CRL-----\n";

    #[test]
    fn both_forms_are_read() {
        assert_eq!(certificates(PEM.as_bytes()), [[0x30, 0], [0x30, 1]]);
        assert_eq!(crls(PEM.as_bytes()), [[0x30, 2]]);
        assert_eq!(certificates(&[0x30, 1, 2]), [[0x30, 1, 2]]);
        let broken = PEM.replace("MAE=", "M?E=");
        for nothing in [
            "",
            "text",
            broken.as_str(),
            "-----BEGIN CERTIFICATE-----\nMAA=\n",
        ] {
            assert!(certificates(nothing.as_bytes()).is_empty(), "{nothing}");
        }
    }
}
