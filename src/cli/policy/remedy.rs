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

const NEW_EVIDENCE: Remedy = Remedy::Elsewhere("ask the node for new evidence");
const FORGED: Remedy = Remedy::Elsewhere(
    "no policy accepts this: the evidence was altered, or is not what it says it is",
);
const GUEST: Remedy = Remedy::Elsewhere("no policy accepts this: start the guest otherwise");

/// By the names of checks.
const REMEDIES: [(&str, Remedy); 42] = [
    // Of an answer as a whole.
    (
        "nonce",
        Remedy::Elsewhere("give --nonce as the answer was asked with, or ask anew"),
    ),
    ("statement", FORGED),
    ("engine", Remedy::Key("allow_remote_engine")),
    ("configuration", Remedy::List("config_sha256")),
    ("suites", Remedy::Key("required_suites")),
    (
        "key life",
        Remedy::Elsewhere("set keys.life_s in the node's configuration to a week or less"),
    ),
    ("sealing key", NEW_EVIDENCE),
    (
        "policy section",
        Remedy::Elsewhere("add the table that is named to the policy"),
    ),
    ("TEE", FORGED),
    ("report data", FORGED),
    // AMD SEV-SNP.
    ("report", FORGED),
    ("signature algorithm", FORGED),
    (
        "certificates",
        Remedy::Elsewhere("let the node send the chip's certificate (docs/operating.md)"),
    ),
    ("leaf certificate", FORGED),
    (
        "root",
        Remedy::Key("sev_snp.amd_roots or sev_snp.software_roots"),
    ),
    ("certificate validity", NEW_EVIDENCE),
    ("report signature", FORGED),
    ("signing key", FORGED),
    (
        "chip key mask",
        Remedy::Elsewhere("let the host unmask the chip's key"),
    ),
    ("product name", FORGED),
    (
        "certified TCB",
        Remedy::Elsewhere("give the certificate of the TCB that the report is of"),
    ),
    (
        "hardware id",
        Remedy::Elsewhere("give the certificate of the chip that signed"),
    ),
    ("guest policy", GUEST),
    ("debug", GUEST),
    ("migration agent", GUEST),
    ("SMT", Remedy::Key("sev_snp.allow_smt")),
    ("CXL memory", Remedy::Key("sev_snp.allow_cxl")),
    (
        "single socket",
        Remedy::Key("sev_snp.require_single_socket"),
    ),
    ("VMPL", Remedy::Key("sev_snp.vmpl")),
    ("guest SVN", Remedy::Key("sev_snp.minimum_guest_svn")),
    (
        "platform info",
        Remedy::Key("sev_snp.required_platform_info"),
    ),
    ("product", Remedy::List("sev_snp.products")),
    ("VLEK provider", Remedy::List("sev_snp.vlek_csp_ids")),
    ("reported TCB", Remedy::Key("sev_snp.minimum_tcb")),
    ("committed TCB", Remedy::Key("sev_snp.minimum_tcb")),
    ("launch TCB", Remedy::Key("sev_snp.minimum_tcb")),
    (
        "firmware",
        Remedy::Key("sev_snp.allow_provisional_firmware"),
    ),
    ("measurement", Remedy::List("sev_snp.measurements")),
    ("host data", Remedy::List("sev_snp.host_data")),
    ("ID key digest", Remedy::List("sev_snp.id_key_digests")),
    (
        "author key digest",
        Remedy::List("sev_snp.author_key_digests"),
    ),
    ("chip id", Remedy::List("sev_snp.chip_ids")),
];

/// In words, what would satisfy the check `name`, of which `seen` was seen.
pub(super) fn of(name: &str, seen: &str) -> String {
    let found = REMEDIES.iter().find(|(known, _)| *known == name);
    match found.map(|(_, remedy)| *remedy) {
        Some(Remedy::List(key)) => format!("to accept it, add \"{seen}\" to `{key}`"),
        Some(Remedy::Key(key)) => format!("to accept it, change `{key}`"),
        Some(Remedy::Elsewhere(words)) => words.to_owned(),
        None => "see docs/policy.md".to_owned(),
    }
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
            let key = row.split('`').nth(1).unwrap();
            for bracket in row.split("[`").skip(1) {
                let Some((names, _)) = bracket.split_once("`]") else {
                    continue;
                };
                for name in names.split("`, `") {
                    let remedy = REMEDIES.iter().find(|(known, _)| *known == name);
                    let (Remedy::List(of) | Remedy::Key(of)) = remedy.expect(name).1 else {
                        panic!("{name} is decided by {key}");
                    };
                    assert!(of.contains(key), "{name}: {of} is not {key}");
                    compared += 1;
                }
            }
        }
        assert!(compared >= 16, "{compared}");
    }

    #[test]
    fn names_are_there_once() {
        for (at, (name, _)) in REMEDIES.iter().enumerate() {
            let first = REMEDIES.iter().position(|(known, _)| known == name);
            assert_eq!(first, Some(at), "{name}");
        }
    }
}
