//! The devices of one machine together.

use std::collections::BTreeSet;

use crate::answer::EvidenceKind;
use crate::check::Checks;
use crate::nvidia::{Claims, Mode, NvidiaPolicy};

/// Appraises the devices of one machine together: how many, of which kinds, and that they fit.
///
/// All GPUs of a machine answer one nonce, so that nothing but their keys shows that one was not
/// reported twice.
pub(crate) fn check_set(
    checks: &mut Checks,
    items: &[EvidenceKind],
    devices: &[Claims],
    policy: Option<&NvidiaPolicy>,
) {
    checks.record(
        "devices",
        devices.len() == items.len(),
        format!("{}, each with a chain that holds", items.len()),
        devices.len().to_string(),
    );
    let gpus = || {
        devices
            .iter()
            .filter(|it| it.kind == EvidenceKind::NvidiaGpu)
    };
    if let Some(policy) = policy {
        checks.record(
            "GPU count",
            gpus().count() >= policy.minimum_gpus.into(),
            format!("at least {}", policy.minimum_gpus),
            gpus().count().to_string(),
        );
    }
    if devices.is_empty() {
        return;
    }
    let distinct = |key: fn(&Claims) -> [u8; 32]| devices.iter().map(key).collect::<BTreeSet<_>>();
    let leaves = distinct(|device| device.leaf_key).len();
    let chips = distinct(|device| device.device_key).len();
    checks.record(
        "distinct devices",
        leaves == devices.len() && chips == devices.len(),
        format!("{} devices", devices.len()),
        format!("{chips} device keys, {leaves} leaf keys"),
    );
    if policy.is_some_and(|policy| policy.require_uniform_gpus) {
        let kinds: BTreeSet<_> = gpus().map(describe).collect();
        checks.record(
            "uniform GPUs",
            kinds.len() <= 1,
            "one architecture, driver and mode",
            Vec::from_iter(kinds).join("; "),
        );
    }
    check_switches(checks, devices);
}

/// Leaves open what [`check_set`] would ask of the devices of a machine together.
pub(crate) fn leave_set_open(checks: &mut Checks, policy: &NvidiaPolicy) {
    let needed = "the devices of a machine together, as a node's answer holds them";
    let mut open = |asked: bool, name, seen: String| {
        if asked {
            checks.open(name, needed, seen);
        }
    };
    let minimum = policy.minimum_gpus;
    open(
        minimum > 0,
        "GPU count",
        format!("one report alone; the policy asks for {minimum}"),
    );
    let alone = || "one report alone".to_owned();
    open(true, "distinct devices", alone());
    open(policy.require_uniform_gpus, "uniform GPUs", alone());
    open(policy.modes.contains(&Mode::Ppcie), "switches", alone());
}

fn describe(gpu: &Claims) -> String {
    let driver = gpu.driver.as_deref().unwrap_or_default();
    let mode = gpu.mode.map_or("", Mode::as_str);
    format!("{} {driver} {mode}", gpu.architecture)
}

/// Under protected PCIe the links between GPUs are not encrypted, so every switch that a GPU is
/// linked to must have been appraised too.
fn check_switches(checks: &mut Checks, devices: &[Claims]) {
    let of_kind = |kind| {
        let chosen = devices.iter().filter(move |device| device.kind == kind);
        let ids = chosen.flat_map(|device| device.switches.iter().copied());
        ids.collect::<BTreeSet<_>>()
    };
    let linked = of_kind(EvidenceKind::NvidiaGpu);
    let appraised = of_kind(EvidenceKind::NvidiaNvswitch);
    let missing = linked.difference(&appraised).map(hex::encode);
    let missing: Vec<_> = missing.collect();
    checks.record(
        "switches",
        missing.is_empty(),
        format!(
            "evidence of each of {} that GPUs are linked to",
            linked.len()
        ),
        match missing.as_slice() {
            [] => format!("{} appraised", appraised.len()),
            missing => format!("none of {}", missing.join(", ")),
        },
    );
}
