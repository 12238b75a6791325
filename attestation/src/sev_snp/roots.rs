//! AMD's roots and the authorities under them, pinned: DER compiled in, SHA-256 beside it.
//!
//! Source: AMD's key distribution service, `/vcek/v1/{product}/cert_chain` and
//! `/vlek/v1/{product}/cert_chain`. The authorities are here so that evidence may leave them out;
//! they are verified under the root all the same.

use crate::sev_snp::Product;

/// The certificates of one product line.
pub(crate) struct AmdRoot {
    pub(crate) product: Product,
    /// AMD root key, self-signed.
    pub(crate) ark: &'static [u8],
    /// AMD SEV key, which signs VCEKs.
    pub(crate) ask: &'static [u8],
    /// AMD SEV VLEK key, which signs VLEKs.
    pub(crate) asvk: &'static [u8],
}

/// Every root that AMD has published for SEV-SNP.
pub(crate) const AMD_ROOTS: [AmdRoot; 3] = [
    AmdRoot {
        product: Product::Milan,
        ark: include_bytes!("roots/milan-ark.der"),
        ask: include_bytes!("roots/milan-ask.der"),
        asvk: include_bytes!("roots/milan-asvk.der"),
    },
    AmdRoot {
        product: Product::Genoa,
        ark: include_bytes!("roots/genoa-ark.der"),
        ask: include_bytes!("roots/genoa-ask.der"),
        asvk: include_bytes!("roots/genoa-asvk.der"),
    },
    AmdRoot {
        product: Product::Turin,
        ark: include_bytes!("roots/turin-ark.der"),
        ask: include_bytes!("roots/turin-ask.der"),
        asvk: include_bytes!("roots/turin-asvk.der"),
    },
];

/// SHA-256 of the three ARKs, in the order of [`AMD_ROOTS`]. A root is trusted by this value: one
/// whose bytes have another is not used.
pub(crate) const ARK_SHA256: [&str; 3] = [
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{Certificate, Scheme};
    use crate::digest::sha256;

    #[test]
    fn every_pinned_chain_holds_and_has_its_digest() {
        for (root, digest) in AMD_ROOTS.iter().zip(ARK_SHA256) {
            assert_eq!(hex::encode(sha256(&[root.ark])), digest);
            let ark = Certificate::parse(root.ark).unwrap();
            assert_eq!(ark.check_issued_by(&ark), Ok(()));
            assert_eq!(ark.check_authority(1, Scheme::RsaPss), Ok(()));
            for authority in [root.ask, root.asvk] {
                let authority = Certificate::parse(authority).unwrap();
                assert_eq!(authority.check_issued_by(&ark), Ok(()));
                assert_eq!(authority.check_authority(0, Scheme::RsaPss), Ok(()));
            }
        }
    }
}
