//! Roots that a policy trusts: vendors' own, which are compiled in and pinned by digest, and software
//! roots, whose files it names.

use std::io;

use crate::certificate::{Certificate, CertificateError, Scheme};
use crate::check::Checks;
use crate::claims::Root;
use crate::digest::sha256;
use crate::policy::PolicyError;

/// Most software roots that one table of a policy can name.
const MAX_SOFTWARE_ROOTS: usize = 16;

/// A root that a policy trusts.
#[derive(Clone, Debug)]
pub(crate) struct TrustedRoot {
    kind: Root,
    der: Vec<u8>,
    certificate: Certificate,
}

impl TrustedRoot {
    /// A vendor's root, if its bytes have the pinned digest.
    pub(crate) fn pinned(kind: Root, der: &[u8], digest: &str) -> Option<Self> {
        if !has_digest(der, digest) {
            return None;
        }
        Some(Self {
            kind,
            der: der.to_vec(),
            certificate: Certificate::parse(der).ok()?,
        })
    }

    pub(crate) fn kind(&self) -> Root {
        self.kind
    }

    pub(crate) fn is_software(&self) -> bool {
        self.kind == Root::Software
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) fn describe(&self) -> String {
        let name = self.certificate.common_name();
        match self.kind {
            Root::Software => format!("{name}, a {}", Root::Software.as_str()),
            _ => name,
        }
    }
}

/// Whether these bytes have a SHA-256, given in hex.
pub(crate) fn has_digest(der: &[u8], digest: &str) -> bool {
    hex::encode(sha256(&[der])) == digest
}

/// What the check of a root expects.
pub(crate) fn one_of_trusted(roots: &[TrustedRoot]) -> String {
    let trusted: Vec<_> = roots.iter().map(TrustedRoot::describe).collect();
    format!("a root that the policy trusts: {}", trusted.join("; "))
}

/// Finds the root above an authority, by what tells that a root's certificate signed it.
pub(crate) fn find<'a>(
    checks: &mut Checks,
    roots: &'a [TrustedRoot],
    authority: &Certificate,
    signed: impl Fn(&Certificate) -> bool,
) -> Option<&'a TrustedRoot> {
    let root = roots.iter().find(|root| signed(&root.certificate));
    let seen = root.map_or_else(
        || format!("{} is signed by none of them", authority.common_name()),
        TrustedRoot::describe,
    );
    checks.record("root", root.is_some(), one_of_trusted(roots), seen);
    root
}

/// What software roots for one kind of evidence are.
pub(crate) struct SoftwareRoots {
    /// The key that names their files.
    pub(crate) key: &'static str,
    /// Levels of authorities under them.
    pub(crate) below: u8,
    pub(crate) scheme: Scheme,
    /// SHA-256 of the vendor's own roots, in hex, which no policy can name as software roots.
    pub(crate) vendors: &'static [&'static str],
    /// The error for a file that is one of them.
    pub(crate) vendors_own: fn(String) -> PolicyError,
}

impl SoftwareRoots {
    /// Reads the files of self-signed certificates; `digests` gets the SHA-256 of each.
    pub(crate) fn read(
        &self,
        paths: Vec<String>,
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        digests: &mut Vec<[u8; 32]>,
    ) -> Result<Vec<TrustedRoot>, PolicyError> {
        if paths.len() > MAX_SOFTWARE_ROOTS {
            return Err(PolicyError::OutOfRange {
                key: self.key,
                range: "at most 16 files",
            });
        }
        let mut roots = Vec::new();
        for path in paths {
            let der = read_certificate(&path, read_file)?;
            digests.push(sha256(&[&der]));
            if self.vendors.iter().any(|digest| has_digest(&der, digest)) {
                return Err((self.vendors_own)(path));
            }
            let root = self.root(der);
            roots.push(root.map_err(|source| PolicyError::RootCertificate { path, source })?);
        }
        Ok(roots)
    }

    fn root(&self, der: Vec<u8>) -> Result<TrustedRoot, CertificateError> {
        let certificate = Certificate::parse(&der)?;
        certificate.check_authority(self.below, self.scheme)?;
        certificate.check_issued_by(&certificate)?;
        Ok(TrustedRoot {
            kind: Root::Software,
            der,
            certificate,
        })
    }
}

/// Reads a file of one certificate, PEM or DER.
fn read_certificate(
    path: &str,
    read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, PolicyError> {
    let bytes = read_file(path).map_err(|source| PolicyError::Read {
        path: path.to_owned(),
        source,
    })?;
    match x509_cert::der::pem::decode_vec(&bytes) {
        Ok(("CERTIFICATE", der)) => Ok(der),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sev_snp::roots::AMD_ROOTS;

    const ROOTS: SoftwareRoots = SoftwareRoots {
        key: "software_roots",
        below: 1,
        scheme: Scheme::RsaPss,
        vendors: &[],
        vendors_own: |path| PolicyError::AmdAsSoftware { path },
    };

    #[test]
    fn a_software_root_is_an_authority_that_signed_itself() {
        let (ark, ask) = (AMD_ROOTS[0].ark.to_vec(), AMD_ROOTS[0].ask.to_vec());
        let root = ROOTS.root(ark).unwrap();
        assert!(root.is_software());
        assert!(root.describe().ends_with(", a software root"));
        let usage = CertificateError::Usage("an authority");
        assert_eq!(
            ROOTS.root(ask.clone()).err(),
            Some(usage),
            "one above leaves"
        );
        let above_leaves = SoftwareRoots { below: 0, ..ROOTS };
        let issued = above_leaves.root(ask).err();
        assert_eq!(issued, Some(CertificateError::Issuer));
    }

    #[test]
    fn files_are_few_and_each_is_part_of_the_policy() {
        let read = |count: usize| {
            let mut digests = Vec::new();
            let paths = vec!["ark.der".to_owned(); count];
            let read = ROOTS.read(paths, &mut |_| Ok(AMD_ROOTS[0].ark.to_vec()), &mut digests);
            (read, digests)
        };
        let (most, digests) = read(MAX_SOFTWARE_ROOTS);
        assert_eq!(most.unwrap().len(), MAX_SOFTWARE_ROOTS);
        let digest = sha256(&[AMD_ROOTS[0].ark]);
        assert_eq!(digests, vec![digest; MAX_SOFTWARE_ROOTS]);
        let (more, _) = read(MAX_SOFTWARE_ROOTS + 1);
        assert!(matches!(more, Err(PolicyError::OutOfRange { .. })));
    }

    #[test]
    fn a_vendors_root_is_pinned_and_no_software_root() {
        let ark = AMD_ROOTS[0].ark;
        let digest = hex::encode(sha256(&[ark]));
        assert!(TrustedRoot::pinned(Root::Amd, ark, &digest).is_some());
        let other = hex::encode(sha256(&[b"other"]));
        assert!(TrustedRoot::pinned(Root::Amd, ark, &other).is_none());
        let digest: &'static str = digest.leak();
        let roots = SoftwareRoots {
            vendors: &*vec![digest].leak(),
            ..ROOTS
        };
        let read = roots.read(
            vec!["ark.der".to_owned()],
            &mut |_| Ok(ark.to_vec()),
            &mut Vec::new(),
        );
        assert!(matches!(read, Err(PolicyError::AmdAsSoftware { .. })));
    }
}
