//! AMD's certificate revocation lists (RFC 5280 section 5), which its root keys sign.
//!
//! A list counts if the very root signed it that the chain ends in. Any such list, current or not,
//! can revoke; only a current one shows that nothing newer was kept back.

use std::time::SystemTime;

use crate::certificate::Certificate;
use crate::check::{Checks, NEEDS_POLICY};
use crate::claims::Root;
use crate::crl::Crl;
use crate::input::Input;
use crate::sev_snp::SnpPolicy;
use crate::sev_snp::chain::Chain;
use crate::sev_snp::policy::Revocation;
use crate::sev_snp::roots::AMD_ROOTS;
use crate::time::to_rfc3339;

/// Which of AMD's roots signed a list, and when the list ends.
pub(crate) fn signed_by_amd(der: &[u8]) -> Option<(String, SystemTime)> {
    AMD_ROOTS.iter().find_map(|root| {
        let root = Certificate::parse(root.ark).ok()?;
        Some((root.common_name(), signed_until(&root, der)?))
    })
}

/// When a list ends; `None` if `root` did not sign it.
pub(crate) fn signed_until(root: &Certificate, der: &[u8]) -> Option<SystemTime> {
    Crl::of(root, der).map(|list| list.next_update)
}

/// Checks that neither the authority nor the leaf is revoked. Returns when the list ends that shows
/// it.
pub(super) fn check(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&SnpPolicy>,
    chain: &Chain,
) -> Option<SystemTime> {
    let pieces = input.collateral(|collateral| &collateral.amd_crls);
    let signed: Vec<_> = pieces
        .filter_map(|der| Crl::of(&chain.root_certificate, der))
        .collect();
    let current = signed.iter().filter(|crl| crl.is_current(input.now));
    let newest = current.max_by_key(|crl| crl.this_update);
    let wanted = policy.map(|policy| policy.revocation_for(chain.root));

    let describe = |crl: &Crl| {
        let to = to_rfc3339(crl.next_update);
        format!("one from {} to {to}", to_rfc3339(crl.this_update))
    };
    let seen = newest
        .or(signed.first())
        .map_or_else(|| "none that this root signed".to_owned(), describe);
    checks.against("revocation list", wanted, NEEDS_POLICY, seen, |wanted| {
        let at = to_rfc3339(input.now);
        match wanted {
            Revocation::Required => (newest.is_some(), format!("one that is current at {at}")),
            Revocation::IfPresent => (
                newest.is_some() || signed.is_empty(),
                format!("none, or one that is current at {at}"),
            ),
            Revocation::Off => (true, "any".to_owned()),
        }
    });
    let certificates = [&chain.authority, &chain.leaf];
    let mut revoked = certificates
        .into_iter()
        .filter(|certificate| signed.iter().any(|crl| crl.lists(certificate)));
    let revoked = revoked.next();
    let seen = revoked.map_or_else(
        || format!("in none of {} lists", signed.len()),
        |certificate| format!("{} is listed", certificate.common_name()),
    );
    checks.against(
        "revocation",
        wanted,
        NEEDS_POLICY,
        seen,
        |wanted| match wanted {
            Revocation::Off => (true, "any".to_owned()),
            Revocation::Required | Revocation::IfPresent => (
                revoked.is_none(),
                "neither authority nor leaf is listed".to_owned(),
            ),
        },
    );
    let used = wanted.is_some_and(|wanted| wanted != Revocation::Off);
    newest.filter(|_| used).map(|crl| crl.next_update)
}

impl SnpPolicy {
    /// What is asked of a chain. Where the policy does not say: AMD publishes lists for its own
    /// roots, so they are required; a software root has none.
    fn revocation_for(&self, root: Root) -> Revocation {
        self.revocation.unwrap_or(match root {
            Root::Software => Revocation::Off,
            _ => Revocation::Required,
        })
    }
}
