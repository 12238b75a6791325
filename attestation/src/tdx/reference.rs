//! What a quote and its platform say, against the reference values of a policy.

use std::collections::BTreeSet;

use dcap_qvl::QuoteClaims;

use crate::check::{Checks, NEEDS_POLICY, joined, one_of, one_of_hex};
use crate::tdx::quote::{
    ATTRIBUTE_DEBUG, ATTRIBUTE_KL, ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, ATTRIBUTE_PKS,
    ATTRIBUTE_SEPT_VE_DISABLE, ATTRIBUTES_UNDER_DEBUG, TdReport,
};
use crate::tdx::{TcbStatus, TdxPolicy};

/// TD attributes with a check of their own; all others are zero.
const ATTRIBUTES_KNOWN: u64 = ATTRIBUTE_DEBUG
    | ATTRIBUTES_UNDER_DEBUG
    | ATTRIBUTE_SEPT_VE_DISABLE
    | ATTRIBUTE_MIGRATABLE
    | ATTRIBUTE_PKS
    | ATTRIBUTE_KL
    | ATTRIBUTE_PERFMON;

/// x87 and SSE state, which every TD has (Intel TDX module specification, `XFAM_FIXED1`).
const XFAM_ALWAYS: u64 = 0b11;

/// What no policy of ours can change about a TD.
pub(crate) fn check_td(checks: &mut Checks, report: &TdReport) {
    let attributes = report.td_attributes;
    let zero = |mask| attributes & mask == 0;
    for (name, mask) in [
        ("debug", ATTRIBUTE_DEBUG),
        ("TD under debug", ATTRIBUTES_UNDER_DEBUG),
        ("migratable", ATTRIBUTE_MIGRATABLE),
        ("PERFMON", ATTRIBUTE_PERFMON),
    ] {
        checks.record(name, zero(mask), "off", on_or_off(!zero(mask)));
    }
    let disabled = !zero(ATTRIBUTE_SEPT_VE_DISABLE);
    checks.record("SEPT_VE_DISABLE", disabled, "on", on_or_off(disabled));
    checks.record(
        "TD attributes",
        zero(!ATTRIBUTES_KNOWN),
        "no bit but those with a name",
        format!("{attributes:#018x}"),
    );
    checks.record(
        "MRSIGNERSEAM",
        report.mrsignerseam == [0; 48],
        "zero: Intel's module",
        hex::encode(report.mrsignerseam),
    );
    checks.record(
        "SEAM attributes",
        report.seam_attributes == 0,
        "0x0",
        format!("{:#x}", report.seam_attributes),
    );
    if let Some(current) = &report.current {
        checks.record(
            "MRSERVICETD",
            current.mrservicetd == [0; 48],
            "zero: no service TD",
            hex::encode(current.mrservicetd),
        );
    }
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What the policy asks of the TD itself.
pub(crate) fn check_report(checks: &mut Checks, policy: Option<&TdxPolicy>, report: &TdReport) {
    check_features(checks, policy, report);
    check_svns(checks, policy, report);
    let mut against = Against { checks, policy };
    against.listed("MRSEAM", &report.mrseam, |policy| &policy.mrseam);
    against.listed("MRTD", &report.mrtd, |policy| &policy.mrtd);
    let names = ["RTMR0", "RTMR1", "RTMR2", "RTMR3"];
    for (at, (name, rtmr)) in names.into_iter().zip(&report.rtmrs).enumerate() {
        against.listed_or_any(name, rtmr, |policy| {
            policy.rtmrs.get(at).and_then(|list| list.as_deref())
        });
    }
    against.listed_or_zero("MRCONFIGID", &report.mrconfigid, |policy| {
        policy.mrconfigid.as_deref()
    });
    against.listed_or_zero("MROWNER", &report.mrowner, |policy| {
        policy.mrowner.as_deref()
    });
    against.listed_or_zero("MROWNERCONFIG", &report.mrownerconfig, |policy| {
        policy.mrownerconfig.as_deref()
    });
}

fn check_features(checks: &mut Checks, policy: Option<&TdxPolicy>, report: &TdReport) {
    let is_on = |bit| report.td_attributes & bit != 0;
    let mut feature = |name, bit, allowed: fn(&TdxPolicy) -> bool| {
        let seen = on_or_off(is_on(bit));
        checks.against(name, policy, NEEDS_POLICY, seen, |policy| {
            let either = allowed(policy);
            let expected = if either { "either" } else { "off" };
            (either || !is_on(bit), expected.to_owned())
        });
    };
    feature("PKS", ATTRIBUTE_PKS, |policy| policy.allow_pks);
    feature("KL", ATTRIBUTE_KL, |policy| policy.allow_kl);
    let xfam = report.xfam;
    let seen = format!("{xfam:#x}");
    checks.against("XFAM", policy, NEEDS_POLICY, seen, |policy| {
        let allowed = policy.allowed_xfam;
        let passed = xfam & XFAM_ALWAYS == XFAM_ALWAYS && xfam & !allowed == 0;
        (
            passed,
            format!("{XFAM_ALWAYS:#x}, and no bit outside {allowed:#x}"),
        )
    });
}

/// The minimum holds for the module that launched the TD and for the one that runs now.
fn check_svns(checks: &mut Checks, policy: Option<&TdxPolicy>, report: &TdReport) {
    let mut svn = |name, svn: &[u8; 16]| {
        let seen = hex::encode(svn);
        checks.against(name, policy, NEEDS_POLICY, seen, |policy| {
            match &policy.minimum_tee_tcb_svn {
                Some(minimum) => (
                    svn.iter().zip(minimum).all(|(svn, least)| svn >= least),
                    format!("each byte at least that of {}", hex::encode(minimum)),
                ),
                None => (true, "any".to_owned()),
            }
        });
    };
    svn("TEE TCB SVN", &report.tee_tcb_svn);
    if let Some(current) = &report.current {
        svn("current TEE TCB SVN", &current.tee_tcb_svn2);
    }
}

/// What the policy asks of the platform, once certificates and collateral vouch for the quote.
pub(crate) fn check_platform(
    checks: &mut Checks,
    policy: Option<&TdxPolicy>,
    claims: &QuoteClaims,
) {
    let mut status = |name, status: TcbStatus| {
        checks.against(name, policy, NEEDS_POLICY, status.as_str(), |policy| {
            let accepted = &policy.accepted_tcb_statuses;
            (accepted.contains(&status), one_of(accepted))
        });
    };
    status("TCB status", claims.tcb.status.into());
    if let Some(current) = &claims.platform.current_tcb_level {
        status("current TCB status", current.tcb_status.into());
    }
    status("QE TCB status", claims.qe.tcb_level.tcb_status.into());

    let advisories = advisories(claims);
    let seen = match advisories.as_slice() {
        [] => "none".to_owned(),
        some => joined(some),
    };
    checks.against("TCB advisories", policy, NEEDS_POLICY, seen, |policy| {
        let accepted = &policy.accepted_advisories;
        let passed = advisories.iter().all(|id| accepted.contains(id));
        let expected = match accepted.as_slice() {
            [] => "none".to_owned(),
            some => format!("none but {}", joined(some)),
        };
        (passed, expected)
    });
    let number = claims.tcb.eval_data_number;
    checks.against(
        "TCB evaluation number",
        policy,
        NEEDS_POLICY,
        number.to_string(),
        |policy| {
            let minimum = policy.minimum_tcb_evaluation_number;
            (number >= minimum, format!("at least {minimum}"))
        },
    );

    let pck = &claims.platform.pck;
    let mut against = Against { checks, policy };
    against.allowed("FMSPC", &pck.fmspc, |policy| {
        (policy.fmspcs.as_deref(), &policy.denied_fmspcs)
    });
    against.allowed("PPID", &pck.ppid, |policy| {
        (policy.ppids.as_deref(), &policy.denied_ppids)
    });
}

/// Intel's advisories for the module that launched the TD, the one that runs now and the quoting
/// enclave, each once.
pub(crate) fn advisories(claims: &QuoteClaims) -> Vec<String> {
    let current = claims.platform.current_tcb_level.iter();
    let current = current.flat_map(|level| &level.advisory_ids);
    let all: BTreeSet<_> = claims.tcb.advisory_ids.iter().chain(current).collect();
    all.into_iter().cloned().collect()
}

/// Checks of a value against a policy's lists.
struct Against<'a> {
    checks: &'a mut Checks,
    policy: Option<&'a TdxPolicy>,
}

impl Against<'_> {
    fn listed<const N: usize>(
        &mut self,
        name: &'static str,
        value: &[u8; N],
        list: impl FnOnce(&TdxPolicy) -> &[[u8; N]],
    ) {
        self.judge(name, value, |policy| {
            let list = list(policy);
            (list.contains(value), one_of_hex(list))
        });
    }

    fn listed_or_any<const N: usize>(
        &mut self,
        name: &'static str,
        value: &[u8; N],
        list: impl FnOnce(&TdxPolicy) -> Option<&[[u8; N]]>,
    ) {
        self.judge(name, value, |policy| match list(policy) {
            Some(list) => (list.contains(value), one_of_hex(list)),
            None => (true, "any".to_owned()),
        });
    }

    fn listed_or_zero<const N: usize>(
        &mut self,
        name: &'static str,
        value: &[u8; N],
        list: impl FnOnce(&TdxPolicy) -> Option<&[[u8; N]]>,
    ) {
        self.judge(name, value, |policy| match list(policy) {
            Some(list) => (list.contains(value), one_of_hex(list)),
            None => (*value == [0; N], "zero".to_owned()),
        });
    }

    /// Against a list of what is allowed, which may be left out, and one of what is not.
    fn allowed<const N: usize>(
        &mut self,
        name: &'static str,
        value: &[u8],
        lists: impl FnOnce(&TdxPolicy) -> (Option<&[[u8; N]]>, &[[u8; N]]),
    ) {
        self.judge(name, value, |policy| {
            let (allowed, denied) = lists(policy);
            let holds = |list: &[[u8; N]]| list.iter().any(|listed| listed == value);
            let passed = allowed.is_none_or(holds) && !holds(denied);
            let mut expected = allowed.map_or_else(|| "any".to_owned(), one_of_hex);
            if !denied.is_empty() {
                expected += &format!("; not {}", one_of_hex(denied));
            }
            (passed, expected)
        });
    }

    fn judge(
        &mut self,
        name: &'static str,
        value: &[u8],
        judge: impl FnOnce(&TdxPolicy) -> (bool, String),
    ) {
        let seen = hex::encode(value);
        self.checks
            .against(name, self.policy, NEEDS_POLICY, seen, judge);
    }
}
