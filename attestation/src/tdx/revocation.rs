//! Intel's certificate revocation lists, out of every piece of collateral that is at hand.
//!
//! The lists of the piece that was chosen are verified with it and show that nothing newer was kept
//! back. Here every other list counts too, the verifier's and the node's, current or not, if the root
//! or the platform's authority signed it: for refusing alone. Any other list is passed over, so that
//! nobody can add one to harm anybody but himself.

use std::collections::BTreeSet;

use crate::certificate::Certificate;
use crate::check::Checks;
use crate::crl::Crl;
use crate::input::Input;
use crate::tdx::chain::Chain;
use crate::tdx::collateral;
use crate::time::to_rfc3339;

/// Checks that no list has the platform's certificate, its authority's, or that of who signed the
/// collateral. Certificates and collateral have to be verified already; `signers` is `None` where
/// the latter's cannot be told.
pub(super) fn check(
    checks: &mut Checks,
    input: &Input<'_>,
    chain: &Chain<'_>,
    signers: Option<&[Certificate; 2]>,
) {
    let (root, authority) = (chain.root.certificate(), &chain.certificates.authority);
    let past = input.bundle.past_tdx().iter().map(Vec::as_slice);
    let pieces = input.collateral(|collateral| &collateral.tdx).chain(past);
    // The lists of many families are the same.
    let lists: BTreeSet<_> = pieces.flat_map(collateral::lists).collect();
    let signed_by = |issuer| -> Vec<Crl> {
        let lists = lists.iter();
        lists.filter_map(|der| Crl::of(issuer, der)).collect()
    };
    let (of_root, of_authority) = (signed_by(root), signed_by(authority));

    let mut by_root = signers.into_iter().flatten().chain([authority]);
    let on = |lists: &[Crl], certificate: &Certificate| {
        let list = lists.iter().find(|list| list.lists(certificate))?;
        let from = to_rfc3339(list.this_update);
        Some(format!(
            "{} is on one from {from}",
            certificate.common_name()
        ))
    };
    let listed = on(&of_authority, &chain.certificates.leaf)
        .or_else(|| by_root.find_map(|certificate| on(&of_root, certificate)));
    let unknown = signers
        .is_none()
        .then(|| "who signed the collateral cannot be told".to_owned());
    let refused = listed.or(unknown);
    let count = of_root.len().saturating_add(of_authority.len());
    checks.record(
        "platform revocation",
        refused.is_none(),
        "no list, current or not, has the platform, its authority or who signed the collateral",
        refused.unwrap_or_else(|| format!("on none of {count} lists")),
    );
}
