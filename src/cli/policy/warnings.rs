//! What in a policy is allowed and deserves a second look.

use attestation::{Policy, sev_snp::Product};

/// Each in words, with the key.
pub(super) fn of(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(snp) = policy.sev_snp() else {
        return warnings;
    };
    let mut warn = |applies: bool, words: &str| {
        if applies {
            warnings.push(words.to_owned());
        }
    };
    warn(
        snp.trusts_software(),
        "sev_snp.software_roots: whoever has a software root's files can make any evidence",
    );
    warn(
        snp.accepts(Product::Milan),
        "sev_snp.products: keys of Milan chips can be extracted in software, so that any report can \
         be forged; list chip_ids of machines whose owner you trust",
    );
    warn(
        snp.accepts_no_measurement(),
        "sev_snp.measurements is empty: every report is refused",
    );
    warn(
        !snp.demands_alias_check(),
        "sev_snp.required_platform_info: without alias-check-complete memory can be aliased (BadRAM)",
    );
    warn(
        snp.accepts_provisional_firmware(),
        "sev_snp.allow_provisional_firmware: the host can roll the firmware back",
    );
    warnings
}
