//! What would satisfy a check: the key of the policy that decides it, or what to do elsewhere.
//!
//! Nothing out of evidence that is not shown to be genuine is offered for a policy: whoever altered
//! it would be admitted.

use attestation::{Appraisal, Check, EvidenceKind, text::printable};

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
    (&["engine"], Key("allow_remote_engine, or for a gateway allow_attested_engine")),
    (&["configuration"], List("config_sha256")),
    (&["suites"], Key("required_suites or require_pq, or let the node make such a key (`keys.suites` and `dialects` of its configuration)")),
    (&["key life"], Elsewhere("set keys.life_s in the node's configuration to a week or less")),
    (&["sealing key"], Elsewhere("ask the node for new evidence; under require_pq it needs x-wing in `keys.suites` of its configuration")),
    (&["certificate validity", "evidence age"], ASK_ANEW),
    (&["policy section"], Elsewhere("add this table to the policy: `sealgate policy from-evidence` proposes one, and docs/policy.md tells what stands in it")),
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

/// Checks beside those of [`FORGED`] without which nothing shows that what a report says is so.
const GENUINE: [&str; 8] = [
    "root",
    "certificates",
    "certified TCB",
    "hardware id",
    "collateral",
    "endorsements",
    "policy section",
    "certificate validity",
];

/// What an appraisal leaves in doubt.
pub(super) struct Doubts {
    /// Checks that show the evidence to be genuine and did not pass, with their devices.
    open: Vec<(Option<usize>, &'static str)>,
    /// Whether the nonce that was given is another one than the evidence's.
    is_other_nonce: bool,
}

impl Doubts {
    pub(super) fn of(appraisal: &Appraisal) -> Self {
        let failed = || appraisal.checks().iter().filter(|check| !check.passed());
        let open = failed().filter(|check| shows_genuine(check.name));
        Self {
            open: open.map(|check| (check.device, check.name)).collect(),
            is_other_nonce: failed().any(|check| check.name == "nonce"),
        }
    }

    /// What casts doubt on a check's value. The CPU's report vouches for the devices too.
    fn on(&self, check: &Check) -> Option<&'static str> {
        let mut open = self.open.iter();
        let found = open.find(|(device, _)| device.is_none() || *device == check.device);
        found.map(|(_, name)| *name)
    }
}

fn shows_genuine(name: &str) -> bool {
    find(name) == Some(FORGED) || GENUINE.contains(&name)
}

/// In words, what would satisfy a check that did not pass.
pub(super) fn of(check: &Check, kind: Option<EvidenceKind>, doubts: &Doubts) -> String {
    let follows = ["report data", "report nonce", "user data"].contains(&check.name);
    if follows && doubts.is_other_nonce {
        return "follows from the nonce: ask with the right one before this is judged".to_owned();
    }
    if check.name == "root" {
        return root(kind);
    }
    match (find(check.name), doubts.on(check)) {
        (Some(List(_) | Key(_)), Some(doubt)) => format!(
            "nothing of this evidence belongs into a policy: `{doubt}` does not show it to be genuine"
        ),
        (Some(List(key)), None) => {
            let seen = printable(&check.seen);
            format!("to accept it, add \"{seen}\" to `{key}`")
        }
        (Some(Key(key)), None) => format!("to accept it, change {key}"),
        (Some(Elsewhere(words)), _) => words.to_owned(),
        (None, _) => "see docs/policy.md".to_owned(),
    }
}

/// Roots are trusted by the vendor's key, or by the file of a root of one's own.
fn root(kind: Option<EvidenceKind>) -> String {
    let (key, table) = match kind {
        Some(EvidenceKind::SevSnp | EvidenceKind::AzureSnp) => ("amd_roots", "sev_snp"),
        Some(EvidenceKind::Tdx) => ("intel_root", "tdx"),
        Some(EvidenceKind::Nitro) => ("aws_root", "nitro"),
        Some(EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch) => ("nvidia_root", "nvidia"),
        None => return "see docs/policy.md".to_owned(),
    };
    format!(
        "hardware hangs from the vendor's root: `{key} = true` in [{table}] trusts it; no policy \
         should trust another, but a software root of your own in `software_roots`"
    )
}

fn find(name: &str) -> Option<Remedy> {
    let mut all = REMEDIES.iter();
    all.find(|(names, _)| names.contains(&name))
        .map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    use attestation::Outcome;

    const PAGE: &str = include_str!("../../../docs/policy.md");

    fn check(name: &'static str, device: Option<usize>) -> Check {
        Check {
            name,
            device,
            expected: String::new(),
            seen: "ab".to_owned(),
            outcome: Outcome::Failed,
        }
    }

    /// Whoever altered evidence must not be let in by the advice.
    #[test]
    fn nothing_of_doubtful_evidence_is_offered() {
        let doubts = |open: &[(Option<usize>, &'static str)], is_other_nonce| Doubts {
            open: open.to_vec(),
            is_other_nonce,
        };
        let snp = Some(EvidenceKind::SevSnp);
        let measurement = check("measurement", None);
        let offered = of(&measurement, snp, &doubts(&[], false));
        assert_eq!(offered, "to accept it, add \"ab\" to `measurements`");
        let alone = of(
            &measurement,
            snp,
            &doubts(&[(Some(1), "report signature")], false),
        );
        assert_eq!(alone, offered, "a device's is not the CPU's");
        for doubt in [
            "report signature",
            "root",
            "report data",
            "certified TCB",
            "policy section",
        ] {
            assert!(shows_genuine(doubt), "{doubt}");
            for (name, device) in [
                ("measurement", None),
                ("VMPL", None),
                ("driver version", Some(1)),
            ] {
                let words = of(&check(name, device), snp, &doubts(&[(None, doubt)], false));
                assert!(
                    words.contains(&format!("`{doubt}` does not show it")),
                    "{name}: {words}"
                );
                assert!(!words.contains("ab\""), "{name}: {words}");
            }
        }
        let words = of(&check("report data", None), snp, &doubts(&[], true));
        assert!(words.starts_with("follows from the nonce"), "{words}");
        let root = of(&check("root", None), snp, &doubts(&[(None, "root")], false));
        assert!(
            root.contains("amd_roots") && !root.contains("intel_root"),
            "{root}"
        );
    }

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
