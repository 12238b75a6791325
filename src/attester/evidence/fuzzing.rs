//! What the fuzz targets call: parsers of bytes that a host, a module or a library gives.
//!
//! Built only for fuzzing.

use super::{
    certificate_table::{CertificateTable, SigningKey},
    nitro, pem,
};

/// A host's table of certificates, with what a report says of its key.
pub fn certificate_table(bytes: &[u8]) {
    if let Ok(table) = CertificateTable::parse(bytes) {
        drop(table.chain(SigningKey::of(bytes)));
    }
}

/// A secure module's response.
pub fn secure_module_response(bytes: &[u8]) {
    drop(nitro::document(bytes));
}

/// Certificates and revocation lists in either form.
pub fn pem(bytes: &[u8]) {
    drop(pem::certificates(bytes));
    drop(pem::crls(bytes));
}
