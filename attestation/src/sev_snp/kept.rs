//! Certificates of chips' keys that came as collateral, for reports that come without.

use crate::certificate::Certificate;
use crate::input::Input;
use crate::sev_snp::chain::has_pinned_authority;
use crate::sev_snp::{Report, SigningKey, endorsement};

/// The leaf whose hardware id and TCB fit the report, with its authority where none is built in;
/// nothing where none fits. What is found is verified like any other.
pub(super) fn find(input: &Input<'_>, report: &Report) -> Vec<Vec<u8>> {
    let parsed: Vec<_> = input
        .collateral(|collateral| &collateral.amd_certificates)
        .filter_map(|der| Some((der, Certificate::parse(der).ok()?)))
        .collect();
    let fits = |(_, leaf): &&(&[u8], Certificate)| {
        SigningKey::of(leaf) == Some(SigningKey::Vcek) && endorsement::fits(leaf, report)
    };
    let Some((der, leaf)) = parsed.iter().find(fits) else {
        return Vec::new();
    };
    let mut others = parsed.iter();
    let authority = others.find(|(_, other)| leaf.is_issued_by(other));
    let authority = authority.filter(|_| !has_pinned_authority(leaf));
    let found = [Some(*der), authority.map(|(der, _)| *der)];
    found.into_iter().flatten().map(<[u8]>::to_vec).collect()
}
