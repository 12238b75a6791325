//! What a report says, against the reference values of a policy.

use crate::check::{Checks, NEEDS_POLICY, one_of, one_of_hex};
use crate::sev_snp::endorsement::{Endorsement, SigningKey};
use crate::sev_snp::policy::PlatformFeature;
use crate::sev_snp::report::{
    POLICY_CXL, POLICY_DEBUG, POLICY_MIGRATE_MA, POLICY_RESERVED_ONE, POLICY_RESERVED_ZERO,
    POLICY_SINGLE_SOCKET, POLICY_SMT, Report,
};
use crate::sev_snp::{Product, SnpPolicy, Tcb};

/// The guest policy's bits whose meaning no policy of ours can change.
pub(crate) fn check_guest_policy(checks: &mut Checks, report: &Report) {
    let is_set = |bit| report.policy & bit != 0;
    let seen = format!("{:#x}", report.policy);
    let reserved = is_set(POLICY_RESERVED_ONE) && !is_set(POLICY_RESERVED_ZERO);
    checks.record(
        "guest policy",
        reserved,
        "bit 17 one, bits above 24 zero",
        seen,
    );
    for (name, bit) in [
        ("debug", POLICY_DEBUG),
        ("migration agent", POLICY_MIGRATE_MA),
    ] {
        let seen = if is_set(bit) {
            "allowed"
        } else {
            "not allowed"
        };
        checks.record(name, !is_set(bit), "not allowed", seen);
    }
}

/// Everything that depends on the policy, and on the policy alone.
pub(crate) fn check(
    checks: &mut Checks,
    policy: Option<&SnpPolicy>,
    report: &Report,
    endorsement: Option<&Endorsement>,
) {
    check_settings(checks, policy, report);
    if let Some(endorsement) = endorsement {
        check_product(checks, policy, endorsement);
        check_tcbs(checks, policy, endorsement.product, report);
    }
    check_identity(checks, policy, report);
    check_denied_chip(checks, policy, report);
    check_mitigations(checks, policy, report);
}

fn check_settings(checks: &mut Checks, policy: Option<&SnpPolicy>, report: &Report) {
    let allowed = |bit| {
        if report.policy & bit != 0 {
            "allowed"
        } else {
            "not allowed"
        }
    };
    checks.against("SMT", policy, NEEDS_POLICY, allowed(POLICY_SMT), |policy| {
        let passed = policy.allow_smt || report.policy & POLICY_SMT == 0;
        (
            passed,
            if policy.allow_smt {
                "either"
            } else {
                "not allowed"
            }
            .to_owned(),
        )
    });
    checks.against(
        "CXL memory",
        policy,
        NEEDS_POLICY,
        allowed(POLICY_CXL),
        |policy| {
            let passed = policy.allow_cxl || report.policy & POLICY_CXL == 0;
            (
                passed,
                if policy.allow_cxl {
                    "either"
                } else {
                    "not allowed"
                }
                .to_owned(),
            )
        },
    );
    let single = report.policy & POLICY_SINGLE_SOCKET != 0;
    let seen = if single { "required" } else { "not required" };
    checks.against("single socket", policy, NEEDS_POLICY, seen, |policy| {
        let required = policy.require_single_socket;
        (
            single || !required,
            if required { "required" } else { "either" }.to_owned(),
        )
    });
    checks.against(
        "VMPL",
        policy,
        NEEDS_POLICY,
        report.vmpl.to_string(),
        |policy| {
            (
                report.vmpl == u32::from(policy.vmpl),
                policy.vmpl.to_string(),
            )
        },
    );
    checks.against(
        "guest SVN",
        policy,
        NEEDS_POLICY,
        report.guest_svn.to_string(),
        |policy| {
            let minimum = policy.minimum_guest_svn;
            (report.guest_svn >= minimum, format!("at least {minimum}"))
        },
    );
    let features = PlatformFeature::ALL.into_iter();
    let on = features.filter(|feature| report.platform_info & feature.bit() != 0);
    let on: Vec<_> = on.map(PlatformFeature::as_str).collect();
    let seen = format!("[{}] ({:#x})", on.join(", "), report.platform_info);
    checks.against("platform info", policy, NEEDS_POLICY, seen, |policy| {
        let required = &policy.required_platform_info;
        let passed = required
            .iter()
            .all(|feature| report.platform_info & feature.bit() != 0);
        let names: Vec<_> = required.iter().map(|feature| feature.as_str()).collect();
        (passed, format!("with [{}]", names.join(", ")))
    });
}

fn check_product(checks: &mut Checks, policy: Option<&SnpPolicy>, endorsement: &Endorsement) {
    let product = endorsement.product;
    checks.against(
        "product",
        policy,
        NEEDS_POLICY,
        product.as_str(),
        |policy| (policy.products.contains(&product), one_of(&policy.products)),
    );
    if endorsement.key == SigningKey::Vlek {
        let csp_id = endorsement.csp_id.as_ref();
        let seen = csp_id.map_or("no cloud provider", String::as_str);
        checks.against("VLEK provider", policy, NEEDS_POLICY, seen, |policy| {
            let passed = csp_id.is_some_and(|id| policy.vlek_csp_ids.contains(id));
            (passed, one_of(&policy.vlek_csp_ids))
        });
    }
}

/// The minimum holds for the TCB that the key was derived from, the one that cannot be rolled back
/// below, and the one at launch: any of them alone could be raised after the fact.
fn check_tcbs(checks: &mut Checks, policy: Option<&SnpPolicy>, product: Product, report: &Report) {
    let words = [
        ("reported TCB", report.reported_tcb),
        ("committed TCB", report.committed_tcb),
        ("launch TCB", report.launch_tcb),
    ];
    for (name, word) in words {
        let tcb = Tcb::from_word(product, word);
        let seen = tcb.map_or_else(|| "reserved bytes set".to_owned(), |tcb| tcb.to_string());
        checks.against(name, policy, NEEDS_POLICY, seen, |policy| {
            let minimum = policy.minimum_tcb.get(&product);
            let passed = tcb
                .zip(minimum)
                .is_some_and(|(tcb, minimum)| tcb.meets(minimum));
            let expected = minimum.map(|minimum| format!("at least {minimum}"));
            (
                passed,
                expected.unwrap_or_else(|| format!("a minimum for {product}")),
            )
        });
    }
    let committed = report.committed_tcb == report.current_tcb
        && report.committed_version == report.current_version;
    let seen = if committed {
        "committed"
    } else {
        "provisional"
    };
    checks.against("firmware", policy, NEEDS_POLICY, seen, |policy| {
        let either = policy.allow_provisional_firmware;
        (
            committed || either,
            if either { "either" } else { "committed" }.to_owned(),
        )
    });
}

fn check_identity(checks: &mut Checks, policy: Option<&SnpPolicy>, report: &Report) {
    let measurement = hex::encode(report.measurement);
    checks.against("measurement", policy, NEEDS_POLICY, measurement, |policy| {
        let passed = policy.measurements.contains(&report.measurement);
        (passed, one_of_hex(&policy.measurements))
    });
    let mut listed = Listed { checks, policy };
    listed.check("host data", &report.host_data, |policy| {
        policy.host_data.as_deref()
    });
    listed.check("ID key digest", &report.id_key_digest, |policy| {
        policy.id_key_digests.as_deref()
    });
    listed.check("author key digest", &report.author_key_digest, |policy| {
        policy.author_key_digests.as_deref()
    });
    listed.check("chip id", &report.chip_id, |policy| {
        policy.chip_ids.as_deref()
    });
}

/// A chip that does not tell its id, because a VLEK signed, could be any of those denied.
fn check_denied_chip(checks: &mut Checks, policy: Option<&SnpPolicy>, report: &Report) {
    let chip_id = &report.chip_id;
    let seen = hex::encode(chip_id);
    checks.against("denied chip", policy, NEEDS_POLICY, seen, |policy| {
        let denied = &policy.denied_chip_ids;
        let known = chip_id.iter().any(|byte| *byte != 0);
        match denied.len() {
            0 => (true, "any".to_owned()),
            count => (
                known && !denied.contains(chip_id),
                format!("a chip that is told, and none of {count} denied"),
            ),
        }
    });
}

/// Bits of the vectors that came with version 5; an older report cannot show them.
fn check_mitigations(checks: &mut Checks, policy: Option<&SnpPolicy>, report: &Report) {
    type Wanted = fn(&SnpPolicy) -> u64;
    let vectors: [(&str, u64, Wanted); 2] = [
        ("launch mitigations", report.launch_mitigations, |policy| {
            policy.minimum_launch_mitigations
        }),
        (
            "current mitigations",
            report.current_mitigations,
            |policy| policy.minimum_current_mitigations,
        ),
    ];
    for (name, vector, wanted) in vectors {
        let told = report.version >= 5;
        let seen = match told {
            true => format!("{vector:#x}"),
            false => format!("not told in version {}", report.version),
        };
        checks.against(name, policy, NEEDS_POLICY, seen, |policy| {
            match wanted(policy) {
                0 => (true, "any".to_owned()),
                wanted => (
                    told && vector & wanted == wanted,
                    format!("with {wanted:#x}"),
                ),
            }
        });
    }
}

/// Checks against lists that a policy may leave out.
struct Listed<'a> {
    checks: &'a mut Checks,
    policy: Option<&'a SnpPolicy>,
}

impl Listed<'_> {
    fn check<const N: usize>(
        &mut self,
        name: &'static str,
        value: &[u8; N],
        list: impl FnOnce(&SnpPolicy) -> Option<&[[u8; N]]>,
    ) {
        let seen = hex::encode(value);
        self.checks
            .against(name, self.policy, NEEDS_POLICY, seen, |policy| {
                match list(policy) {
                    Some(list) => (list.contains(value), one_of_hex(list)),
                    None => (true, "any".to_owned()),
                }
            });
    }
}
