//! NVIDIA's device root, pinned: DER compiled in, SHA-256 beside it.
//!
//! Source: `verifier_device_root.pem` of NVIDIA/nvtrust.

/// `NVIDIA Device Identity CA`, self-signed, 2021-11-05 to 9999-12-31.
pub(crate) const DEVICE_ROOT: &[u8] = include_bytes!("roots/device-identity-ca.der");

/// The root is trusted by this value: bytes that have another are not used.
pub(crate) const DEVICE_ROOT_SHA256: &str =
    "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{Certificate, Scheme};
    use crate::digest::sha256;

    #[test]
    fn the_pinned_root_has_its_digest_and_signed_itself() {
        assert_eq!(hex::encode(sha256(&[DEVICE_ROOT])), DEVICE_ROOT_SHA256);
        let root = Certificate::parse(DEVICE_ROOT).unwrap();
        assert_eq!(root.check_issued_by(&root), Ok(()));
        assert_eq!(root.check_authority(3, Scheme::EcdsaP384), Ok(()));
        assert_eq!(root.common_name(), "NVIDIA Device Identity CA");
    }
}
