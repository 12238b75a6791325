//! Intel's root, pinned: DER compiled in, SHA-256 beside it.
//!
//! Source: `https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer`.

/// Intel SGX Root CA, self-signed, to 2049.
pub(crate) const INTEL_SGX_ROOT_CA: &[u8] = include_bytes!("roots/intel-sgx-root-ca.der");

/// SHA-256 of the root. It is trusted by this value: other bytes are not used.
pub(crate) const INTEL_SGX_ROOT_CA_SHA256: &str =
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{Certificate, Scheme};
    use crate::digest::sha256;

    #[test]
    fn the_pinned_root_has_its_digest_and_signs_itself() {
        let digest = hex::encode(sha256(&[INTEL_SGX_ROOT_CA]));
        assert_eq!(digest, INTEL_SGX_ROOT_CA_SHA256);
        let root = Certificate::parse(INTEL_SGX_ROOT_CA).unwrap();
        assert_eq!(root.check_issued_by(&root), Ok(()));
        assert_eq!(root.check_authority(1, Scheme::EcdsaP256), Ok(()));
    }
}
