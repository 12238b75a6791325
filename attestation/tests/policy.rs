//! The policies in `docs/policy.md` are policies.

#![allow(clippy::unwrap_used, reason = "a failed helper fails its test")]

use attestation::policy::MAX_POLICY;
use attestation::software_root::SoftwareRoot;
use attestation::{Policy, PolicyError};
use std::time::{Duration, UNIX_EPOCH};

const PAGE: &str = include_str!("../../docs/policy.md");

#[test]
fn the_documented_policies_load() {
    let now = UNIX_EPOCH + Duration::from_secs(1_780_272_000);
    let root = SoftwareRoot::generate(now).unwrap();
    let blocks = PAGE.split("```toml\n").skip(1);
    let policies: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(policies.len() > 2);
    for text in policies {
        let mut asked = Vec::new();
        let policy = Policy::from_toml(text, &mut |path| {
            asked.push(path.to_owned());
            Ok(root.ark_pem().as_bytes().to_vec())
        });
        policy.unwrap();
        let expected: &[&str] = if text.contains("software_roots") {
            &["software-root/ark.pem"]
        } else {
            &[]
        };
        assert_eq!(asked, expected);
    }
}

#[test]
fn a_policy_has_a_longest_length() {
    let load = |len: usize| {
        let mut text = "version = 1\n[nitro]\naws_root = true\n".to_owned();
        text.push_str("pcr0 = []\npcr1 = []\npcr2 = []\n#");
        text.push_str(&" ".repeat(len - text.len()));
        Policy::from_toml(&text, &mut |_| unreachable!())
    };
    load(MAX_POLICY).unwrap();
    let error = load(MAX_POLICY + 1).unwrap_err();
    assert!(matches!(error, PolicyError::TooLong { .. }), "{error}");
}

/// Every key that a policy can have is on the page.
#[test]
fn every_key_is_documented() {
    let names = |section: &str| {
        let text = format!("version = 1\n{section}\nunknown = 1\n");
        let error = Policy::from_toml(&text, &mut |_| unreachable!())
            .unwrap_err()
            .to_string();
        let (_, names) = error.split_once("expected one of ").unwrap();
        names.lines().next().unwrap().to_owned()
    };
    for section in [
        "",
        "[sev_snp]",
        "[sev_snp.minimum_tcb.genoa]",
        "[tdx]",
        "[nitro]",
        "[nvidia]",
    ] {
        for name in names(section).split(", ") {
            assert!(PAGE.contains(name.trim()), "{name} is not documented");
        }
    }
}

/// Policies whose every key is right and that let nothing pass.
#[test]
fn what_lets_nothing_pass_is_found() {
    let root = SoftwareRoot::generate(UNIX_EPOCH + Duration::from_secs(1_780_272_000)).unwrap();
    let review = |text: &str| {
        let text = format!("version = 1\n{text}");
        let ark = root.ark_pem().as_bytes().to_vec();
        let policy = Policy::from_toml(&text, &mut |_| Ok(ark.clone()));
        policy
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .review()
    };
    let digest = |byte: &str, len: usize| byte.repeat(len);
    let snp = |more: &str| {
        let measurement = digest("11", 48);
        format!(
            "[sev_snp]\namd_roots = true\nproducts = [\"genoa\"]\n\
             measurements = [\"{measurement}\"]\n{more}\n[sev_snp.minimum_tcb.genoa]\n\
             bootloader = 1\ntee = 1\nsnp = 1\nmicrocode = 1\n"
        )
    };
    let tdx = |more: &str| {
        let value = digest("11", 48);
        format!(
            "[tdx]\nintel_root = true\nminimum_tcb_evaluation_number = 1\nmrseam = [\"{value}\"]\n\
             mrtd = [\"{value}\"]\nrtmr1 = \"any\"\nrtmr2 = \"any\"\n{more}\n"
        )
    };
    let pcrs = "[nitro]\naws_root = true\npcr1 = [\"PCR\"]\npcr2 = [\"PCR\"]\n";
    let nitro = |more: &str| pcrs.replace("PCR", &digest("11", 48)) + more;
    let pcr0 = format!("pcr0 = [\"{}\"]\n", digest("11", 48));
    let nvidia =
        |more: &str| format!("[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\n{more}\n");
    let lab = "minimum_gpus = 1\nmeasurements = \"off\"\n";
    let chip = digest("ab", 64);
    let cases = [
        ("all is well", snp(""), false, None),
        ("two tables", snp("") + &tdx(""), false, None),
        ("GPUs too", snp("") + &nvidia(lab), false, None),
        (
            "nothing",
            String::new(),
            true,
            Some("no table for a CPU's evidence"),
        ),
        (
            "GPUs alone",
            nvidia(lab),
            true,
            Some("no table for a CPU's evidence"),
        ),
        (
            "no signer",
            snp("") + &nvidia("minimum_gpus = 1"),
            true,
            Some("nvidia.measurements: required, and no `bundle_signers`"),
        ),
        (
            "no signer, and no GPU needed",
            snp("") + &nvidia("minimum_gpus = 0"),
            false,
            Some("nvidia.measurements: required, and no `bundle_signers`"),
        ),
        (
            "enclaves with GPUs",
            nitro(&pcr0) + &nvidia(lab),
            true,
            Some("an enclave has none"),
        ),
        (
            "pcr0",
            nitro("pcr0 = []"),
            true,
            Some("nitro.pcr0 is empty"),
        ),
        (
            "no enclave by name",
            nitro(&format!("{pcr0}module_ids = []")),
            true,
            Some("nitro.module_ids is empty"),
        ),
        (
            "chip_ids",
            snp("chip_ids = []"),
            true,
            Some("sev_snp.chip_ids is empty"),
        ),
        (
            "one chip, denied",
            snp(&format!(
                "chip_ids = [\"{chip}\"]\ndenied_chip_ids = [\"{chip}\"]"
            )),
            true,
            Some("sev_snp.chip_ids: each of them is in denied_chip_ids"),
        ),
        ("rtmr0", tdx("rtmr0 = []"), true, Some("tdx.rtmr0 is empty")),
        (
            "a dead table beside another",
            snp("") + &tdx("rtmr0 = []"),
            false,
            Some("tdx.rtmr0 is empty"),
        ),
        (
            "xfam",
            tdx("allowed_xfam = 0x602e4"),
            true,
            Some("tdx.allowed_xfam: bits 0 and 1"),
        ),
        (
            "switches alone",
            snp("") + &nvidia(lab).replace("GH100", "LS_10"),
            true,
            Some("nvidia.architectures: names switches alone"),
        ),
        (
            "no chip",
            snp("") + &nvidia(lab).replace("\"GH100\"", ""),
            true,
            Some("nvidia.architectures is empty"),
        ),
        (
            "old drivers alone",
            snp("")
                + &nvidia(&format!(
                    "{lab}minimum_driver = \"560\"\ndriver_versions = [\"550.90.07\"]"
                )),
            true,
            Some("is above every one of driver_versions"),
        ),
        (
            "no configuration",
            format!("config_sha256 = []\n{}", snp("")),
            true,
            Some("config_sha256 is empty"),
        ),
    ];
    for (name, text, accepts_no_node, reason) in cases {
        let found = review(&text);
        assert_eq!(found.accepts_no_node, accepts_no_node, "{name}: {found:?}");
        match reason {
            None => assert!(found.reasons.is_empty(), "{name}: {found:?}"),
            Some(reason) => {
                let said = found.reasons.iter().any(|it| it.contains(reason));
                assert!(said, "{name}: {found:?}");
            }
        }
    }
}

#[test]
fn an_error_says_what_is_meant() {
    let snp = "[sev_snp.minimum_tcb.genoa]\nbootloader = 300\n";
    let cases = [
        (
            "a misspelt table beside its own parts",
            format!("[sevsnp]\namd_roots = true\n{snp}"),
            "`sevsnp` is no key of a policy",
        ),
        (
            "no number of a byte",
            format!("[sev_snp]\n{snp}"),
            "line 4: `bootloader = 300`: invalid value: integer `300`, expected a whole number from 0 to 255",
        ),
        (
            "an unknown chip",
            "[nvidia]\nnvidia_root = true\narchitectures = [\"GH1000\"]\nminimum_gpus = 1\n"
                .to_owned(),
            "`nvidia.architectures` names `GH1000`, which is none of GH100, ",
        ),
        (
            "an unknown chip's VBIOS",
            "[nvidia]\nnvidia_root = true\narchitectures = [\"GH100\"]\nminimum_gpus = 1\n\
             minimum_vbios = { LS10 = \"96.00.9f.00.01\" }\n"
                .to_owned(),
            "`nvidia.minimum_vbios` names `LS10`",
        ),
        (
            "upper case",
            format!("bundle_signers = [\"{}\"]", "AB".repeat(32)),
            "not 32 bytes of lower-case hex: write it in lower case",
        ),
        (
            "a long line",
            format!("unknown = \"{}\"", "x".repeat(7000)),
            "unknown field `unknown`",
        ),
    ];
    for (name, text, expected) in cases {
        let text = format!("version = 1\n{text}");
        let error = Policy::from_toml(&text, &mut |_| unreachable!());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(
            !error.contains('\n') && error.len() < 500,
            "{name}: {error}"
        );
    }
}
