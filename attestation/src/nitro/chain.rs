//! The certificates: from AWS's root, or a software root, down to the key that signed the document.

use std::iter;
use std::time::SystemTime;

use crate::certificate::{Certificate, CertificateError, Scheme, check_validity};
use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::nitro::document::Document;
use crate::root::{TrustedRoot, has_digest, one_of_trusted};

/// AWS's root for Nitro Enclaves, G1, self-signed. Source: AWS's own download of
/// `AWS_NitroEnclaves_Root-G1.zip`.
pub(super) const AWS_ROOT: &[u8] = include_bytes!("roots/aws-nitro-enclaves-g1.der");
/// Its SHA-256, as AWS publishes it. The root is trusted by this value.
pub(super) const AWS_ROOT_SHA256: &str =
    "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";

/// AWS's root, if its bytes have the pinned digest.
pub(super) fn aws_root() -> Option<TrustedRoot> {
    TrustedRoot::pinned(Root::Aws, AWS_ROOT, AWS_ROOT_SHA256)
}

/// Whether these bytes are AWS's root.
pub(super) fn is_aws(der: &[u8]) -> bool {
    has_digest(der, AWS_ROOT_SHA256)
}

/// A chain that holds: the leaf, and what it hangs from.
pub(super) struct Chain {
    pub(super) leaf: Certificate,
    pub(super) root: Root,
    /// When the first of its certificates ends.
    pub(super) not_after: SystemTime,
}

/// Verifies the chain of a document; `None` where a later check has nothing to stand on.
pub(super) fn verify(
    checks: &mut Checks,
    document: &Document<'_>,
    input: &Input<'_>,
    roots: &[TrustedRoot],
) -> Option<Chain> {
    let (leaf, authorities) = checks.step(
        "certificates",
        "the leaf and its authorities in the document, none beside it",
        parse(document, input.certificates),
    )?;
    let given = document.cabundle.first().copied();
    let root = roots.iter().find(|root| given == Some(root.der()));
    checks.record(
        "root",
        root.is_some(),
        one_of_trusted(roots),
        root.map_or_else(
            || "another certificate first in `cabundle`".to_owned(),
            TrustedRoot::describe,
        ),
    );
    let root = root?;

    // From the trusted copy of the root down; the one in the document was only compared.
    let chain: Vec<_> = iter::once(root.certificate())
        .chain(&authorities)
        .chain([&leaf])
        .collect();
    let held = check_links(&chain).map(|()| ((), format!("{} certificates", chain.len())));
    checks.step(
        "certificate chain",
        "each certificate signed by the one above, which may",
        held,
    )?;
    check_validity(checks, &chain, &leaf, input.now);
    Some(Chain {
        root: root.kind(),
        not_after: chain
            .iter()
            .map(|certificate| certificate.not_after())
            .min()?,
        leaf,
    })
}

/// The leaf, and the authorities between it and the root, uppermost first.
fn parse(
    document: &Document<'_>,
    beside: &[Vec<u8>],
) -> Result<((Certificate, Vec<Certificate>), String), String> {
    if !beside.is_empty() {
        return Err(format!("{} beside the document", beside.len()));
    }
    let parse = |der: &[u8]| Certificate::parse(der).map_err(|error| error.to_string());
    let leaf = parse(document.certificate)?;
    let authorities = document.cabundle.iter().skip(1);
    let authorities = authorities
        .map(|der| parse(der))
        .collect::<Result<Vec<_>, _>>()?;
    let seen = format!("{}, {} above", leaf.common_name(), authorities.len());
    Ok(((leaf, authorities), seen))
}

fn check_links(chain: &[&Certificate]) -> Result<(), CertificateError> {
    for (pair, below) in chain.windows(2).rev().zip(0_u8..) {
        let [above, certificate] = pair else { continue };
        certificate.check_issued_by(above)?;
        above.check_authority(below, Scheme::EcdsaP384)?;
    }
    chain.last().map_or(Ok(()), |leaf| leaf.check_leaf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_root_has_its_digest_and_signs_itself() {
        let root = aws_root().unwrap();
        assert_eq!(root.kind(), Root::Aws);
        assert!(is_aws(root.der()));
        let certificate = root.certificate();
        assert_eq!(certificate.check_issued_by(certificate), Ok(()));
        assert_eq!(certificate.check_authority(0, Scheme::EcdsaP384), Ok(()));
        assert_eq!(root.describe(), "aws.nitro-enclaves");
    }
}
