//! Which verifier each piece of evidence goes to, and what binds the pieces of one answer.

use std::time::SystemTime;

use crate::answer::{Answer, EvidenceItem, EvidenceKind};
use crate::binding;
use crate::check::Checks;
use crate::claims::{Claims, CpuClaims, Root};
use crate::digest::{Nonce, StatementDigest};
use crate::input::{Context, Expected, Input};
use crate::policy::Policy;
use crate::{azure_snp, nitro, nvidia, sev_snp, tdx};

/// Appraises one piece of evidence by itself; where its certificates chain to, and when what it
/// rests on ends.
pub(crate) fn check_item(
    checks: &mut Checks,
    item: &EvidenceItem,
    expected: Expected,
    context: &Context<'_>,
) -> Option<(Root, SystemTime)> {
    let input = Input::of(item, context, expected);
    let policy = context.policy;
    match item.kind {
        EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch => {
            let section = section(checks, policy, "`nvidia`", Policy::nvidia)?;
            let claims = nvidia::run(checks, item.kind, &input, section);
            claims.map(|claims| (claims.root, claims.not_after))
        }
        EvidenceKind::AzureSnp => {
            let section = section(checks, policy, "`sev_snp`", Policy::sev_snp)?;
            let claims = azure_snp::run(checks, &input, section);
            claims.map(|claims| (claims.root, claims.not_after))
        }
        kind => {
            let claims = check_cpu(checks, kind, &input, policy);
            claims.map(|claims| (claims.root(), claims.not_after()))
        }
    }
}

/// Appraises the CPU's item and the devices', and what binds them.
pub(crate) fn check(
    checks: &mut Checks,
    answer: &Answer,
    nonce: &Nonce,
    context: &Context<'_>,
) -> Option<Claims> {
    let digest = StatementDigest::of(&answer.statement);
    let devices = answer.devices();
    let reports: Vec<_> = devices.iter().map(|it| it.report.as_slice()).collect();
    let of_cpu = Expected {
        report_data: Some(binding::report_data(&digest, nonce, &reports)),
        nonce: Some((*nonce.as_bytes()).into()),
    };
    let of_device = Expected {
        report_data: None,
        nonce: Some(binding::gpu_nonce(&digest, nonce).into()),
    };
    let policy = context.policy;
    let cpu = answer.evidence.first();
    // Azure's is a CPU's too, but binds no statement.
    let binds = |item: &EvidenceItem| item.kind.is_cpu() && item.kind != EvidenceKind::AzureSnp;
    let is_cpu = cpu.is_some_and(binds);
    let seen = cpu.map_or("none", |item| item.kind.as_str());
    checks.record("TEE", is_cpu, "a CPU's report", seen);
    let cpu = cpu.and_then(|item| {
        let input = Input::of(item, context, of_cpu);
        check_cpu(checks, item.kind, &input, policy)
    });

    let kinds: Vec<_> = devices.iter().map(|item| item.kind).collect();
    let section = match devices {
        [] => Some(policy.and_then(Policy::nvidia)),
        _ => section(checks, policy, "`nvidia`", Policy::nvidia),
    };
    // Without its table nothing more is asked of devices: the answer is refused.
    let Some(section) = section else {
        let devices = Vec::new();
        return Some(Claims { cpu: cpu?, devices });
    };
    let numbered = devices.iter().zip(1..);
    let devices: Vec<_> = numbered
        .filter_map(|(item, number)| {
            let input = Input::of(item, context, of_device);
            checks.of_device(number, |checks| {
                nvidia::run(checks, item.kind, &input, section)
            })
        })
        .collect();
    nvidia::check_set(checks, &kinds, &devices, section);
    Some(Claims { cpu: cpu?, devices })
}

fn check_cpu(
    checks: &mut Checks,
    kind: EvidenceKind,
    input: &Input<'_>,
    policy: Option<&Policy>,
) -> Option<CpuClaims> {
    match kind {
        EvidenceKind::SevSnp => {
            let section = section(checks, policy, "`sev_snp`", Policy::sev_snp)?;
            sev_snp::run(checks, input, section).map(CpuClaims::SevSnp)
        }
        EvidenceKind::Tdx => {
            let section = section(checks, policy, "`tdx`", Policy::tdx)?;
            tdx::run(checks, input, section).map(CpuClaims::Tdx)
        }
        EvidenceKind::Nitro => {
            let section = section(checks, policy, "`nitro`", Policy::nitro)?;
            nitro::run(checks, input, section).map(CpuClaims::Nitro)
        }
        EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch | EvidenceKind::AzureSnp => None,
    }
}

/// The table of a policy that is about a kind of evidence, or that there is no policy. A policy
/// without the table accepts none: that is said, and nothing else is looked at.
fn section<'a, T>(
    checks: &mut Checks,
    policy: Option<&'a Policy>,
    name: &str,
    of: impl Fn(&'a Policy) -> Option<&'a T>,
) -> Option<Option<&'a T>> {
    let Some(policy) = policy else {
        return Some(None);
    };
    let section = of(policy);
    let seen = if section.is_some() { name } else { "none" };
    checks.record("policy section", section.is_some(), name, seen);
    section.map(Some)
}
