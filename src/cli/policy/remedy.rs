//! What would satisfy a check: the key of the policy that decides it, or what to do elsewhere.

/// How a check that failed can be made to pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Remedy {
    /// What was seen belongs into a list of the policy.
    List(&'static str),
    /// A key of the policy has to be loosened.
    Key(&'static str),
    /// Nothing in a policy changes it.
    Elsewhere(&'static str),
}

use Remedy::{Elsewhere, Key, List};

const ASK_ANEW: Remedy = Elsewhere("ask the node for new evidence");
const FORGED: Remedy =
    Elsewhere("no policy accepts this: the evidence was altered, or is not what it says it is");
const GUEST: Remedy = Elsewhere("no policy accepts this: start the guest otherwise");
const PLATFORM: Remedy =
    Elsewhere("no policy accepts this: the platform has to be set up otherwise");

/// By the names of checks; one name can stand for several kinds of evidence.
#[rustfmt::skip]
const REMEDIES: &[(&[&str], Remedy)] = &[
    // Of an answer as a whole.
    (&["nonce", "report nonce"], Elsewhere("give --nonce as the evidence was asked with, or ask anew")),
    (&["engine"], Key("allow_remote_engine")),
    (&["configuration"], List("config_sha256")),
    (&["suites"], Key("required_suites")),
    (&["key life"], Elsewhere("set keys.life_s in the node's configuration to a week or less")),
    (&["sealing key", "certificate validity", "evidence age"], ASK_ANEW),
    (&["policy section"], Elsewhere("add the table that is named to the policy")),
    (&["bundle"], Elsewhere("make the bundle anew (sealgate bundle create)")),
    (&["statement", "TEE", "report data", "user data"], FORGED),
    (&["root"], Key("amd_roots, intel_root, aws_root, nvidia_root or software_roots, in the table of the TEE")),
    (&["certificates"], Elsewhere("let the node send the certificates (docs/operating.md)")),
    // AMD SEV-SNP.
    (&["report", "signature algorithm", "leaf certificate", "report signature", "signing key", "product name"], FORGED),
    (&["chip key mask"], PLATFORM),
    (&["certified TCB"], Elsewhere("give the certificate of the TCB that the report is of")),
    (&["hardware id"], Elsewhere("give the certificate of the chip that signed")),
    (&["guest policy", "debug", "migration agent"], GUEST),
    (&["SMT"], Key("allow_smt")),
    (&["CXL memory"], Key("allow_cxl")),
    (&["single socket"], Key("require_single_socket")),
    (&["VMPL"], Key("vmpl")),
    (&["guest SVN"], Key("minimum_guest_svn")),
    (&["platform info"], Key("required_platform_info")),
    (&["product"], List("products")),
    (&["VLEK provider"], List("vlek_csp_ids")),
    (&["reported TCB", "committed TCB", "launch TCB"], Key("minimum_tcb")),
    (&["firmware"], Key("allow_provisional_firmware")),
    (&["measurement"], List("measurements")),
    (&["host data"], List("host_data")),
    (&["ID key digest"], List("id_key_digests")),
    (&["author key digest"], List("author_key_digests")),
    (&["chip id"], List("chip_ids")),
    (&["denied chip"], Key("denied_chip_ids")),
    (&["revocation list"], Key("revocation, or give the vendor's list (a bundle, or the node)")),
    (&["revocation"], Key("revocation, or give what says that the certificate is good")),
    (&["launch mitigations", "current mitigations"], Key("minimum_launch_mitigations or minimum_current_mitigations")),
    // Intel TDX.
    (&["quote header", "quote", "quote version", "quote signature", "TEE type", "attestation key type", "QE vendor"], FORGED),
    (&["TD under debug", "migratable", "PERFMON", "SEPT_VE_DISABLE", "TD attributes"], GUEST),
    (&["MRSIGNERSEAM", "SEAM attributes", "MRSERVICETD"], PLATFORM),
    (&["collateral"], Elsewhere("give Intel's collateral for the platform: a bundle, or let the node send it")),
    (&["endorsements"], Elsewhere("fetch Intel's collateral anew; if it stays so, the platform is not what it says it is")),
    (&["platform revocation"], Elsewhere("no policy accepts this: Intel revoked the platform, or who vouches for it")),
    (&["TCB status", "current TCB status", "QE TCB status"], List("accepted_tcb_statuses")),
    (&["TCB advisories"], List("accepted_advisories")),
    (&["TCB evaluation number"], Key("minimum_tcb_evaluation_number")),
    (&["TEE TCB SVN", "current TEE TCB SVN"], Key("minimum_tee_tcb_svn")),
    (&["MRSEAM"], List("mrseam")),
    (&["MRTD"], List("mrtd")),
    (&["RTMR0"], List("rtmr0")),
    (&["RTMR1"], List("rtmr1")),
    (&["RTMR2"], List("rtmr2")),
    (&["RTMR3"], List("rtmr3")),
    (&["MRCONFIGID"], List("mrconfigid")),
    (&["MROWNER"], List("mrowner")),
    (&["MROWNERCONFIG"], List("mrownerconfig")),
    (&["PKS"], Key("allow_pks")),
    (&["KL"], Key("allow_kl")),
    (&["XFAM"], Key("allowed_xfam")),
    (&["FMSPC"], Key("fmspcs or denied_fmspcs")),
    (&["PPID"], Key("ppids or denied_ppids")),
    // AWS Nitro.
    (&["document", "digest", "certificate chain", "document signature", "PCRs"], FORGED),
    (&["PCR0"], List("pcr0")),
    (&["PCR1"], List("pcr1")),
    (&["PCR2"], List("pcr2")),
    (&["PCR3"], List("pcr3")),
    (&["PCR4"], List("pcr4")),
    (&["PCR8"], List("pcr8")),
    (&["module id"], List("module_ids")),
    (&["timestamp"], Key("maximum_age_s, or ask anew")),
    // NVIDIA.
    (&["authorities", "device data", "certified architecture", "device kind", "firmware id", "device id", "devices"], FORGED),
    (&["firmware flags"], PLATFORM),
    (&["architecture"], List("architectures")),
    (&["GPU count"], Key("minimum_gpus")),
    (&["uniform GPUs"], Key("require_uniform_gpus")),
    (&["distinct devices"], FORGED),
    (&["switches"], Elsewhere("let the node send evidence of every switch")),
    (&["mode"], List("modes")),
    (&["driver measurements", "VBIOS measurements", "measurement indexes"], Key("measurements, or put NVIDIA's manifest of this version into the bundle")),
    (&["minimum driver"], Key("minimum_driver")),
    (&["driver version"], List("driver_versions")),
    (&["minimum VBIOS"], Key("minimum_vbios")),
    (&["VBIOS version"], List("vbios_versions")),
    (&["device"], Key("devices")),
    (&["denied device"], Key("denied_devices")),
    // Azure.
    (&["capture", "HCL report", "attestation key", "quote signature", "PCR digest"], FORGED),
];

/// In words, what would satisfy the check `name`, of which `seen` was seen.
pub(super) fn of(name: &str, seen: &str) -> String {
    match find(name) {
        Some(List(key)) => format!("to accept it, add \"{seen}\" to `{key}`"),
        Some(Key(key)) => format!("to accept it, change {key}"),
        Some(Elsewhere(words)) => words.to_owned(),
        None => "see docs/policy.md".to_owned(),
    }
}

fn find(name: &str) -> Option<Remedy> {
    let mut all = REMEDIES.iter();
    all.find(|(names, _)| names.contains(&name))
        .map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/policy.md");

    /// The page names the check behind each key in brackets: here stands the same.
    #[test]
    fn the_page_and_the_program_name_the_same_keys() {
        let mut compared = 0;
        for row in PAGE.lines().filter(|line| line.starts_with("| `")) {
            let cell = row.split('|').nth(1).unwrap();
            let keys: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
            for bracket in row.split("[`").skip(1) {
                let Some((names, _)) = bracket.split_once("`]") else {
                    continue;
                };
                for name in names.split("`, `") {
                    let Some(List(of) | Key(of)) = find(name) else {
                        panic!("{name} is decided by {keys:?}");
                    };
                    let agrees = keys.iter().any(|key| of.contains(key));
                    assert!(agrees, "{name}: {of} is none of {keys:?}");
                    compared += 1;
                }
            }
        }
        assert!(compared >= 60, "{compared}");
    }

    /// The page also names the checks that no policy changes: each has words here.
    #[test]
    fn every_check_on_the_page_has_a_remedy() {
        let page = PAGE.replace('\n', " ");
        for bracket in page.split("[`").skip(1) {
            let Some((names, _)) = bracket.split_once("`]") else {
                continue;
            };
            for name in names
                .split('`')
                .step_by(2)
                .filter(|name| !name.contains('['))
            {
                assert!(find(name).is_some(), "{name}");
            }
        }
    }
}
