//! What in a policy lets nothing pass, though every key of it is right by itself.

use crate::nitro::NitroPolicy;
use crate::nvidia::{NvidiaPolicy, Requirement};
use crate::policy::Policy;
use crate::sev_snp::SnpPolicy;
use crate::tdx::TdxPolicy;

/// x87 and SSE, which every TD uses (Intel SDM volume 1, section 13.3).
const XFAM_ALWAYS: u64 = 0b11;
/// The only chip that is no GPU.
const SWITCH: &str = "LS_10";

/// What keeps evidence out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Review {
    /// Whether no node can pass, whatever its evidence.
    pub accepts_no_node: bool,
    /// Each reason why something cannot pass, in words, with its key.
    pub reasons: Vec<String>,
}

impl Policy {
    /// Looks for what contradicts itself.
    pub fn review(&self) -> Review {
        let mut reasons = Vec::new();
        let mut cpu_can_pass = false;
        let tables = [
            self.sev_snp().map(|table| ("sev_snp", of_snp(table))),
            self.tdx().map(|table| ("tdx", of_tdx(table))),
            self.nitro().map(|table| ("nitro", of_nitro(table))),
        ];
        for (table, found) in tables.into_iter().flatten() {
            cpu_can_pass |= found.is_empty();
            reasons.extend(found.into_iter().map(|words| format!("{table}.{words}")));
        }
        let mut accepts_no_node = !cpu_can_pass;
        let has_cpu = self.sev_snp.is_some() || self.tdx.is_some() || self.nitro.is_some();
        if !has_cpu {
            reasons.push(
                "no table for a CPU's evidence: a node always sends some, so give [sev_snp], [tdx] \
                 or [nitro]"
                    .to_owned(),
            );
        }
        if self.config_sha256.as_ref().is_some_and(Vec::is_empty) {
            accepts_no_node = true;
            reasons.push(format!("config_sha256{EMPTY}"));
        }
        if let Some(nvidia) = self.nvidia() {
            let mut found = of_nvidia(nvidia);
            if nvidia.measurements == Requirement::Required && self.bundle_signers().is_empty() {
                found.push(
                    "measurements: required, and no `bundle_signers`: golden measurements come in \
                     a bundle alone, so no device passes"
                        .to_owned(),
                );
            }
            accepts_no_node |= !found.is_empty() && nvidia.minimum_gpus > 0;
            let only_nitro = self.nitro.is_some() && self.sev_snp.is_none() && self.tdx.is_none();
            if only_nitro && nvidia.minimum_gpus > 0 {
                accepts_no_node = true;
                found.push(
                    "minimum_gpus: asks for GPUs, and [nitro] is the only table for a CPU: an \
                     enclave has none"
                        .to_owned(),
                );
            }
            reasons.extend(found.into_iter().map(|words| format!("nvidia.{words}")));
        }
        Review {
            accepts_no_node,
            reasons,
        }
    }
}

const EMPTY: &str = " is empty: an empty list allows nothing";

/// The keys of the lists that are there and empty.
fn empty<'a>(lists: impl IntoIterator<Item = (&'a str, Option<usize>)>) -> Vec<String> {
    let lists = lists.into_iter().filter(|(_, len)| *len == Some(0));
    lists.map(|(key, _)| format!("{key}{EMPTY}")).collect()
}

fn len<T>(list: &Option<Vec<T>>) -> Option<usize> {
    list.as_ref().map(Vec::len)
}

/// Whether a list of what is accepted holds nothing but what is denied.
fn all_denied<T: PartialEq>(accepted: &Option<Vec<T>>, denied: &[T]) -> bool {
    let accepted = accepted.as_deref().unwrap_or_default();
    !accepted.is_empty() && accepted.iter().all(|one| denied.contains(one))
}

fn of_snp(table: &SnpPolicy) -> Vec<String> {
    let mut found = empty([
        ("products", Some(table.products.len())),
        ("measurements", Some(table.measurements.len())),
        ("host_data", len(&table.host_data)),
        ("id_key_digests", len(&table.id_key_digests)),
        ("author_key_digests", len(&table.author_key_digests)),
        ("chip_ids", len(&table.chip_ids)),
    ]);
    if all_denied(&table.chip_ids, &table.denied_chip_ids) {
        found.push("chip_ids: each of them is in denied_chip_ids".to_owned());
    }
    found
}

fn of_tdx(table: &TdxPolicy) -> Vec<String> {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &table.rtmrs;
    let mut found = empty([
        (
            "accepted_tcb_statuses",
            Some(table.accepted_tcb_statuses.len()),
        ),
        ("mrseam", Some(table.mrseam.len())),
        ("mrtd", Some(table.mrtd.len())),
        ("rtmr0", len(rtmr0)),
        ("rtmr1", len(rtmr1)),
        ("rtmr2", len(rtmr2)),
        ("rtmr3", len(rtmr3)),
        ("mrconfigid", len(&table.mrconfigid)),
        ("mrowner", len(&table.mrowner)),
        ("mrownerconfig", len(&table.mrownerconfig)),
        ("fmspcs", len(&table.fmspcs)),
        ("ppids", len(&table.ppids)),
    ]);
    if all_denied(&table.fmspcs, &table.denied_fmspcs) {
        found.push("fmspcs: each of them is in denied_fmspcs".to_owned());
    }
    if all_denied(&table.ppids, &table.denied_ppids) {
        found.push("ppids: each of them is in denied_ppids".to_owned());
    }
    if table.allowed_xfam & XFAM_ALWAYS != XFAM_ALWAYS {
        found.push("allowed_xfam: bits 0 and 1 (0x3) are on in every TD, so allow them".to_owned());
    }
    found
}

fn of_nitro(table: &NitroPolicy) -> Vec<String> {
    let registers = table.pcrs.iter();
    let names = ["pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8"];
    let registers = names.into_iter().zip(registers.map(|(_, list)| len(list)));
    empty(registers.chain([("module_ids", len(&table.module_ids))]))
}

fn of_nvidia(table: &NvidiaPolicy) -> Vec<String> {
    let mut found = empty([
        ("architectures", Some(table.architectures.len())),
        ("modes", Some(table.modes.len())),
        ("driver_versions", len(&table.driver_versions)),
        ("vbios_versions", len(&table.vbios_versions)),
        ("devices", len(&table.devices)),
    ]);
    let is_gpu = |name: &String| name != SWITCH;
    let architectures = &table.architectures;
    if table.minimum_gpus > 0 && !architectures.is_empty() && !architectures.iter().any(is_gpu) {
        found
            .push("architectures: names switches alone, and minimum_gpus asks for GPUs".to_owned());
    }
    if all_denied(&table.devices, &table.denied_devices) {
        found.push("devices: each of them is in denied_devices".to_owned());
    }
    let listed = table.driver_versions.as_deref().unwrap_or_default();
    if let (Some(minimum), Some(newest)) = (&table.minimum_driver, listed.iter().max())
        && newest < minimum
    {
        found.push(format!(
            "minimum_driver: {minimum} is above every one of driver_versions"
        ));
    }
    found
}

impl TdxPolicy {
    /// Whether any configuration of the firmware passes: tables that the host gives are measured
    /// there alone.
    pub fn accepts_any_firmware_configuration(&self) -> bool {
        let [rtmr0, ..] = &self.rtmrs;
        rtmr0.is_none()
    }
}

/// What is both accepted and denied, by the key that accepts it; the denial counts.
impl Policy {
    /// The keys whose lists name something that another list denies.
    pub fn denied_and_accepted(&self) -> Vec<&'static str> {
        fn both<T: PartialEq>(accepted: &Option<Vec<T>>, denied: &[T]) -> bool {
            let mut accepted = accepted.iter().flatten();
            accepted.any(|one| denied.contains(one))
        }
        let snp = self.sev_snp.as_ref();
        let tdx = self.tdx.as_ref();
        let nvidia = self.nvidia.as_ref();
        let keys = [
            (
                snp.is_some_and(|it| both(&it.chip_ids, &it.denied_chip_ids)),
                "sev_snp.chip_ids",
            ),
            (
                tdx.is_some_and(|it| both(&it.fmspcs, &it.denied_fmspcs)),
                "tdx.fmspcs",
            ),
            (
                tdx.is_some_and(|it| both(&it.ppids, &it.denied_ppids)),
                "tdx.ppids",
            ),
            (
                nvidia.is_some_and(|it| both(&it.devices, &it.denied_devices)),
                "nvidia.devices",
            ),
        ];
        let keys = keys.into_iter().filter(|(is_there, _)| *is_there);
        keys.map(|(_, key)| key).collect()
    }
}
