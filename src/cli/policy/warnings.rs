//! What in a policy is allowed and deserves a second look.

use attestation::{
    Policy,
    nvidia::NvidiaPolicy,
    sev_snp::{Product, SnpPolicy},
    tdx::TdxPolicy,
};

/// Each in words, with the key.
pub(super) fn of(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, words: &str| {
        if applies {
            warnings.push(words.to_owned());
        }
    };
    warn(
        policy.allows_remote_engine(),
        "allow_remote_engine: prompts leave the TEE for an engine that no evidence covers",
    );
    warn(
        policy.allows_attested_engine() && !policy.pins_configuration(),
        "allow_attested_engine without config_sha256: a gateway hands prompts to whichever nodes its \
         own policy accepts",
    );
    for (table, trusts) in software_roots(policy) {
        let words = "whoever has a software root's files can make any evidence";
        warn(trusts, &format!("{table}.software_roots: {words}"));
    }
    for key in policy.denied_and_accepted() {
        warn(
            true,
            &format!("{key}: something in it is denied by another list, which counts"),
        );
    }
    if let Some(snp) = policy.sev_snp() {
        of_snp(snp, &mut warn);
    }
    if let Some(tdx) = policy.tdx() {
        of_tdx(tdx, &mut warn);
    }
    if let Some(nvidia) = policy.nvidia() {
        of_nvidia(nvidia, &mut warn);
    }
    warnings
}

/// By table, whether it trusts a software root.
pub(in crate::cli) fn software_roots(policy: &Policy) -> [(&'static str, bool); 4] {
    [
        (
            "sev_snp",
            policy.sev_snp().is_some_and(SnpPolicy::trusts_software),
        ),
        ("tdx", policy.tdx().is_some_and(TdxPolicy::trusts_software)),
        (
            "nitro",
            policy.nitro().is_some_and(|nitro| nitro.trusts_software()),
        ),
        (
            "nvidia",
            policy.nvidia().is_some_and(NvidiaPolicy::trusts_software),
        ),
    ]
}

fn of_snp(snp: &SnpPolicy, warn: &mut impl FnMut(bool, &str)) {
    warn(
        snp.accepts(Product::Milan),
        "sev_snp.products: keys of Milan chips can be extracted in software, so that any report can \
         be forged; list chip_ids of machines whose owner you trust",
    );
    warn(
        !snp.demands_alias_check(),
        "sev_snp.required_platform_info: without alias-check-complete memory can be aliased (BadRAM)",
    );
    warn(
        snp.accepts_provisional_firmware(),
        "sev_snp.allow_provisional_firmware: the host can roll the firmware back",
    );
    warn(
        snp.skips_revocation(),
        "sev_snp.revocation: chips pass that AMD has revoked, where no current list is there",
    );
}

fn of_tdx(tdx: &TdxPolicy, warn: &mut impl FnMut(bool, &str)) {
    warn(
        tdx.accepts_any_software(),
        "tdx.rtmr1, tdx.rtmr2: any kernel or any software passes under the firmware that is listed",
    );
    warn(
        tdx.accepts_any_firmware_configuration(),
        "tdx.rtmr0 is left open: what the host tells the firmware passes, ACPI tables included, and \
         is measured there alone",
    );
    warn(
        tdx.accepts_less_than_up_to_date(),
        "tdx.accepted_tcb_statuses: platforms pass that Intel does not call up to date",
    );
}

fn of_nvidia(nvidia: &NvidiaPolicy, warn: &mut impl FnMut(bool, &str)) {
    warn(
        nvidia.accepts_no_gpu(),
        "nvidia.minimum_gpus: a node passes that sends no evidence of its GPUs",
    );
    warn(
        nvidia.skips_revocation(),
        "nvidia.revocation: devices pass whose certificates may be revoked",
    );
    warn(
        nvidia.skips_measurements(),
        "nvidia.measurements: devices pass whatever their firmware measured, debug mode included",
    );
}
