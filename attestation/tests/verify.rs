//! From an answer to a verified node and its key, or to the first check that refuses.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed helper fails its test"
)]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::bundle::{BundleItem, BundleKey, ItemKind, Manifest};
use attestation::software_root::{SoftwareRoot, SoftwareSigner};
use attestation::statement::{
    ClaimedKey, Dialect, Draft, EngineLocation, PublicKey, Software, Suite, X_WING_KEY_LEN,
};
use attestation::{
    Answer, Bundle, Collateral, CpuClaims, EvidenceItem, EvidenceKind, Expected, Ineligible, Nonce,
    Policy, Root, StatementDigest, appraise, appraise_item, binding, verify,
};

const NOW: u64 = 1_780_272_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const MEASUREMENT: [u8; 48] = [0x11; 48];

static ROOT: LazyLock<SoftwareRoot> = LazyLock::new(|| SoftwareRoot::generate(at(NOW)).unwrap());

fn at(unix: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix)
}

fn nonce() -> Nonce {
    Nonce::from([0x77; 32])
}

fn key(key_id: u8, not_before: u64, not_after: u64) -> ClaimedKey {
    let public_key = PublicKey::X25519([key_id.max(9); 32]);
    ClaimedKey {
        key_id,
        suite: Suite::X25519,
        public_key,
        not_before,
        not_after,
    }
}

/// The same with X-Wing; the half that is ML-KEM's has only zeros for coefficients.
fn x_wing(key_id: u8, not_before: u64, not_after: u64) -> ClaimedKey {
    let mut public_key = [0; X_WING_KEY_LEN];
    public_key[X_WING_KEY_LEN - 1] = key_id;
    ClaimedKey {
        suite: Suite::XWing,
        public_key: PublicKey::XWing(Arc::new(public_key)),
        ..key(key_id, not_before, not_after)
    }
}

fn draft() -> Draft {
    Draft {
        node_id: "node-1".to_owned(),
        keys: vec![key(20, NOW - HOUR, NOW + DAY)],
        receipt_key: [3; 32],
        tls_spki_sha256: None,
        models: vec!["tiny".to_owned()],
        engine: EngineLocation::Local,
        config_sha256: [5; 32],
        software: Software {
            name: "sealgate".to_owned(),
            version: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
        },
    }
}

fn policy(settings: &str) -> Policy {
    let text = format!(
        "version = 1\n{settings}\n[sev_snp]\nsoftware_roots = [\"ark.pem\"]\nproducts = [\"genoa\"]\n\
         measurements = [\"{}\"]\n[sev_snp.minimum_tcb.genoa]\nbootloader = 10\ntee = 0\nsnp = 23\n\
         microcode = 84\n",
        hex::encode(MEASUREMENT)
    );
    Policy::from_toml(&text, &mut |_| Ok(ROOT.ark_pem().as_bytes().to_vec())).unwrap()
}

/// What an honest node answers, with a statement of its choice.
fn answer(draft: &Draft, devices: Vec<EvidenceItem>) -> Answer {
    let signer = SoftwareSigner::from_pem(ROOT.vcek_key_pem(), ROOT.vcek_pem(), ROOT.ask_pem());
    let statement = draft.to_json().unwrap();
    let reports: Vec<_> = devices
        .iter()
        .map(|device| device.report.as_slice())
        .collect();
    let data = binding::report_data(&StatementDigest::of(&statement), &nonce(), &reports);
    let mut evidence = vec![signer.unwrap().evidence(data, MEASUREMENT).unwrap()];
    evidence.extend(devices);
    Answer {
        statement,
        nonce: nonce(),
        evidence,
    }
}

/// A bundle of one revocation list, signed, in force from a day ago until `manifest` ends; the list
/// ends at `list`.
fn bundle(manifest: u64, list: u64) -> Bundle {
    let (key, _) = BundleKey::generate().unwrap();
    let manifest = Manifest {
        created: at(NOW - DAY),
        valid_until: at(manifest),
        items: vec![BundleItem {
            path: "list.crl".to_owned(),
            kind: ItemKind::AmdCrl,
            sha256: *StatementDigest::of(b"").as_bytes(),
            source: "a test".to_owned(),
            fetched_at: at(NOW - DAY),
            valid_until: at(list),
        }],
    };
    let manifest = manifest.to_json().unwrap();
    let signature = key.sign(&manifest);
    let signers = [key.public_key()];
    Bundle::load(&manifest, signature.as_bytes(), &signers, &mut |_| {
        Ok(Vec::new())
    })
    .unwrap()
}

#[test]
fn a_bundle_bounds_the_appraisal_and_is_named_in_it() {
    let answer = answer(&draft(), Vec::new());
    let policy = policy("");
    let verify = |bundle: &Bundle| verify(&answer, &policy, bundle, &nonce(), at(NOW));
    assert_eq!(verify(&Bundle::empty()).unwrap().bundle_digest(), None);
    let cases = [
        ("policy", NOW + DAY, NOW + DAY, NOW + HOUR),
        ("manifest", NOW + 60, NOW + DAY, NOW + 60),
        ("list", NOW + DAY, NOW + 90, NOW + 90),
        ("list that has ended", NOW + DAY, NOW, NOW + HOUR),
    ];
    for (name, manifest, list, end) in cases {
        let bundle = bundle(manifest, list);
        let node = verify(&bundle).unwrap();
        assert_eq!(node.expires_at(), at(end), "{name}");
        assert_eq!(node.bundle_digest(), bundle.digest(), "{name}");
        let appraisal = appraise(&answer, &policy, &bundle, None, at(NOW));
        assert_eq!(appraisal.bundle_digest(), bundle.digest(), "{name}");
        assert_eq!(appraisal.checks()[0].name, "bundle", "{name}");
    }
    let ended = bundle(NOW, NOW + DAY);
    assert_eq!(verify(&ended).unwrap_err().check, "bundle");
    let cpu = &answer.evidence[0];
    let item = |bundle| appraise_item(cpu, Some(&policy), bundle, Expected::default(), at(NOW));
    assert_eq!(item(&ended).refusal().unwrap().check, "bundle");
    assert_eq!(item(&ended).bundle_digest(), ended.digest());
    assert_ne!(
        item(&bundle(NOW + 1, NOW)).refusal().unwrap().check,
        "bundle"
    );
}

#[test]
fn a_good_answer_makes_a_node_that_expires() {
    let answer = answer(&draft(), vec![]);
    let answer = Answer::from_json(&answer.to_json().unwrap()).unwrap();
    let node = verify(&answer, &policy(""), &Bundle::empty(), &nonce(), at(NOW)).unwrap();
    assert_eq!(node.node_id(), "node-1");
    assert_eq!(node.models(), ["tiny"]);
    assert_eq!(
        node.statement_digest(),
        StatementDigest::of(&answer.statement)
    );
    assert_eq!((node.tee(), node.root()), ("sev-snp", Root::Software));
    assert_eq!(node.root().to_string(), "\"software root\"");
    assert_eq!(node.verified_at(), at(NOW));
    assert_eq!(node.expires_at(), at(NOW + HOUR));
    let CpuClaims::SevSnp(claims) = &node.claims().cpu else {
        unreachable!("the node's evidence is SEV-SNP")
    };
    assert_eq!(claims.measurement, MEASUREMENT);
    assert_eq!(node.policy_digest(), policy("").digest());

    let key = node.sealing_key(at(NOW)).unwrap();
    assert_eq!(key.key_id(), 20);
    assert_eq!(key.statement_digest(), node.statement_digest());
    assert_eq!(
        key.at(at(NOW + HOUR - 1)),
        Some(&PublicKey::X25519([20; 32]))
    );
    assert_eq!(key.at(at(NOW + HOUR)), None);
    assert!(node.sealing_key(at(NOW + HOUR - 1)).is_ok());
    assert_eq!(
        node.sealing_key(at(NOW + HOUR)).unwrap_err(),
        Ineligible::AppraisalExpired
    );
}

/// Under another policy evidence does not become younger than it is.
#[test]
fn verified_again_it_is_as_old_as_before_and_ends_no_later() {
    let answer = answer(&draft(), vec![]);
    let again = |before: &str, after: &str, passed: u64| {
        let (bundle, nonce) = (Bundle::empty(), nonce());
        let node = verify(&answer, &policy(before), &bundle, &nonce, at(NOW)).unwrap();
        node.verify_again(&answer, &policy(after), &bundle, &nonce, at(NOW + passed))
    };
    let (hour, minute) = ("", "appraisal_max_age_s = 60");
    let cases = [
        ("the old end is earlier", minute, hour, 59, Some(60)),
        ("the old end has come", minute, hour, 60, None),
        ("the new end is earlier", hour, minute, 59, Some(60)),
        ("by the new policy it is too old", hour, minute, 60, None),
        ("nothing changed", hour, hour, 10, Some(HOUR)),
    ];
    for (name, before, after, passed, ends) in cases {
        let node = again(before, after, passed);
        let Some(ends) = ends else {
            let refusal = node.unwrap_err();
            assert_eq!(refusal.check, "evidence age", "{name}");
            assert_eq!(refusal.seen, "verified at 2026-06-01T00:00:00Z", "{name}");
            continue;
        };
        let node = node.expect(name);
        assert_eq!(node.expires_at(), at(NOW + ends), "{name}");
        assert_eq!(node.verified_at(), at(NOW), "{name}");
        assert_eq!(node.policy_digest(), policy(after).digest(), "{name}");
    }
    let refusal = again(hour, "config_sha256 = []", 1).unwrap_err();
    assert_eq!(refusal.check, "configuration");

    // The key to seal to has become another, which ends sooner.
    let mut short = draft();
    short.keys = vec![key(20, NOW - HOUR, NOW + DAY), key(21, NOW + 1, NOW + 30)];
    let answer = self::answer(&short, vec![]);
    let node = verify(&answer, &policy(hour), &Bundle::empty(), &nonce(), at(NOW)).unwrap();
    let node = node
        .verify_again(
            &answer,
            &policy(minute),
            &Bundle::empty(),
            &nonce(),
            at(NOW + 2),
        )
        .unwrap();
    assert_eq!(node.expires_at(), at(NOW + 30));
}

#[test]
fn the_earliest_end_counts() {
    let mut short = draft();
    short.keys = vec![key(20, NOW - HOUR, NOW + 60)];
    let node = verify(
        &answer(&short, vec![]),
        &policy(""),
        &Bundle::empty(),
        &nonce(),
        at(NOW),
    )
    .unwrap();
    assert_eq!(node.expires_at(), at(NOW + 60));

    // The software root's certificates last ten years, so the policy's age ends after them only
    // close to their end.
    let end = NOW + 3652 * DAY;
    let late = end - 60;
    let mut draft = draft();
    draft.keys = vec![key(20, late - HOUR, late + DAY)];
    let node = verify(
        &answer(&draft, vec![]),
        &policy(""),
        &Bundle::empty(),
        &nonce(),
        at(late),
    )
    .unwrap();
    assert_eq!(node.expires_at(), at(end));
}

#[test]
fn the_newest_key_in_its_life_is_sealed_to() {
    let mut draft = draft();
    draft.keys = vec![
        key(30, NOW + 600, NOW + DAY),
        key(20, NOW - HOUR, NOW + DAY),
        key(21, NOW - HOUR, NOW + DAY),
        key(10, NOW - DAY, NOW + DAY),
    ];
    let node = verify(
        &answer(&draft, vec![]),
        &policy(""),
        &Bundle::empty(),
        &nonce(),
        at(NOW),
    )
    .unwrap();
    let key_at = |time| node.sealing_key(at(time)).unwrap().key_id();
    assert_eq!(key_at(NOW), 20);
    assert_eq!(key_at(NOW + 599), 20);
    assert_eq!(key_at(NOW + 600), 30);
    assert_eq!(
        node.sealing_key(at(NOW - 2 * DAY)).unwrap_err(),
        Ineligible::NoKey
    );
}

/// Whatever else is newer: who could put an older key in front of it could put none there.
#[test]
fn an_x_wing_key_is_sealed_to_before_any_of_x25519() {
    let mut draft = draft();
    draft.keys = vec![
        key(20, NOW, NOW + DAY),
        x_wing(30, NOW - HOUR, NOW + DAY),
        x_wing(31, NOW + 600, NOW + DAY),
        x_wing(32, NOW + DAY, NOW + 2 * DAY),
        key(21, NOW - DAY, NOW + DAY),
    ];
    for member in ["", "require_pq = true"] {
        let verified = verify(
            &answer(&draft, vec![]),
            &policy(member),
            &Bundle::empty(),
            &nonce(),
            at(NOW),
        );
        let node = verified.unwrap();
        for (time, expected) in [(NOW, 30), (NOW + 599, 30), (NOW + 600, 31)] {
            let sealing = node.sealing_key(at(time)).unwrap();
            assert_eq!(
                (sealing.key_id(), sealing.suite()),
                (expected, Suite::XWing)
            );
            assert_eq!(sealing.at(at(time)).unwrap().as_bytes()[1215], expected);
            assert!(node.post_quantum_key(at(time)).is_ok());
        }
        let ids = |time| -> Vec<u8> {
            let keys = node.sealing_keys(at(time));
            keys.iter().map(|key| key.key_id).collect()
        };
        let all: [&[u8]; 2] = match member {
            "" => [&[20, 30, 21], &[31, 20, 30, 21]],
            _ => [&[30], &[31, 30]],
        };
        assert_eq!([ids(NOW), ids(NOW + 600)], all);
        assert!(ids(NOW + HOUR).is_empty(), "the appraisal has ended");
        assert!(node.post_quantum_key(at(NOW + HOUR)).is_err());
        let suites = match member {
            "" => &[Suite::XWing, Suite::X25519][..],
            _ => &[Suite::XWing],
        };
        assert_eq!(node.suites(at(NOW)), suites);
    }
}

#[test]
fn where_the_policy_requires_pq_nothing_else_is_sealed_to_or_given_out() {
    let mut draft = draft();
    let dialect = ClaimedKey {
        suite: Suite::EhbpX25519,
        ..key(40, NOW, NOW + DAY)
    };
    draft.keys = vec![key(20, NOW, NOW + DAY), x_wing(30, NOW, NOW + 600), dialect];
    let verified = |member: &str| {
        verify(
            &answer(&draft, vec![]),
            &policy(member),
            &Bundle::empty(),
            &nonce(),
            at(NOW),
        )
        .unwrap()
    };
    let node = verified("require_pq = true");
    assert_eq!(node.expires_at(), at(NOW + 600), "with its X-Wing key");
    assert_eq!(node.sealing_key(at(NOW)).unwrap().key_id(), 30);
    let end = node.sealing_key(at(NOW + 600)).unwrap_err();
    assert_eq!(end, Ineligible::AppraisalExpired);
    let early = node.sealing_key(at(NOW - 1)).unwrap_err();
    assert_eq!(early, Ineligible::NoKey);
    for dialect in Dialect::ALL {
        let refused = node.dialect_key(dialect, at(NOW)).unwrap_err();
        assert_eq!(refused, Ineligible::Forbidden(dialect));
        assert!(policy("require_pq = true").forbids(dialect));
    }
    assert_eq!(node.suites(at(NOW)), [Suite::XWing]);
    let without = verified("");
    assert!(without.dialect_key(Dialect::Ehbp, at(NOW)).is_ok());
    let all = [Suite::XWing, Suite::X25519, Suite::EhbpX25519];
    assert_eq!(without.suites(at(NOW)), all);
    let later = without.post_quantum_key(at(NOW + 600)).unwrap_err();
    assert_eq!(later, Ineligible::AppraisalExpired);

    draft.keys.retain(|key| key.suite != Suite::XWing);
    let appraisal = appraise(
        &answer(&draft, vec![]),
        &policy("require_pq = true"),
        &Bundle::empty(),
        Some(&nonce()),
        at(NOW),
    );
    let refusal = appraisal.refusal().unwrap();
    assert_eq!(refusal.check, "suites");
    assert_eq!(refusal.expected, "a key in its life for each of [x-wing]");
    assert_eq!(refusal.seen, "none for [x-wing]");
}

/// However new they are, and also where nothing else is there.
#[test]
fn keys_of_the_dialects_are_given_out_and_never_sealed_to() {
    let of = |suite, key: ClaimedKey| ClaimedKey { suite, ..key };
    let mut draft = draft();
    draft.keys = vec![
        of(Suite::SeedX25519, key(40, NOW, NOW + DAY)),
        of(Suite::EhbpX25519, key(30, NOW - 10, NOW + DAY)),
        of(Suite::EhbpX25519, key(31, NOW - 20, NOW + DAY)),
        of(Suite::EhbpX25519, key(32, NOW + 60, NOW + 120)),
        key(20, NOW - HOUR, NOW + DAY),
    ];
    let verified = |settings: &str| {
        let answer = answer(&draft, vec![]);
        verify(
            &answer,
            &policy(settings),
            &Bundle::empty(),
            &nonce(),
            at(NOW),
        )
        .unwrap()
    };
    let node = verified("");
    assert_eq!(node.sealing_key(at(NOW)).unwrap().key_id(), 20);
    let given = |dialect, time| {
        let key = node.dialect_key(dialect, at(time))?;
        assert_eq!(key.dialect(), dialect);
        assert_eq!(key.statement_digest(), node.statement_digest());
        assert_eq!(key.at(at(time)), Some(&[key.key_id(); 32]));
        assert_eq!(key.at(key.expires_at()), None);
        Ok((key.key_id(), key.expires_at()))
    };
    assert_eq!(given(Dialect::Seed, NOW), Ok((40, at(NOW + HOUR))));
    assert_eq!(given(Dialect::Ehbp, NOW + 59), Ok((30, at(NOW + HOUR))));
    assert_eq!(given(Dialect::Ehbp, NOW + 60), Ok((32, at(NOW + 120))));
    assert_eq!(given(Dialect::Ehbp, NOW + 120), Ok((30, at(NOW + HOUR))));
    let ended = Err(Ineligible::AppraisalExpired);
    assert_eq!(given(Dialect::Ehbp, NOW + HOUR), ended);
    assert_eq!(given(Dialect::Seed, NOW - 1), Err(Ineligible::NoKey));

    let node = verified("forbid_dialects = [\"seed\"]");
    let refused = node.dialect_key(Dialect::Seed, at(NOW)).unwrap_err();
    assert_eq!(refused, Ineligible::Forbidden(Dialect::Seed));
    assert_eq!(refused.to_string(), "the policy forbids the dialect seed");
    assert!(node.dialect_key(Dialect::Ehbp, at(NOW)).is_ok());
    assert_eq!(node.sealing_key(at(NOW)).unwrap().key_id(), 20);
}

#[test]
fn each_flaw_is_refused_by_its_check() {
    let with = |change: fn(&mut Draft)| {
        let mut draft = draft();
        change(&mut draft);
        answer(&draft, vec![])
    };
    let gpu = EvidenceItem {
        kind: EvidenceKind::NvidiaGpu,
        report: vec![1],
        certificates: vec![vec![2]],
        collateral: Collateral::default(),
    };
    let changed = |change: fn(&mut Answer)| {
        let mut answer = answer(&draft(), vec![]);
        change(&mut answer);
        answer
    };
    let pinned = format!("config_sha256 = [\"{}\"]", "05".repeat(32));
    let cases = [
        (
            "remote engine",
            with(|d| d.engine = EngineLocation::Remote),
            "",
            Some("engine"),
        ),
        (
            "remote engine allowed",
            with(|d| d.engine = EngineLocation::Remote),
            "allow_remote_engine = true",
            None,
        ),
        (
            "a gateway",
            with(|d| d.engine = EngineLocation::Attested),
            "",
            Some("engine"),
        ),
        (
            "a gateway where remote engines are allowed",
            with(|d| d.engine = EngineLocation::Attested),
            "allow_remote_engine = true",
            Some("engine"),
        ),
        (
            "a remote engine where gateways are allowed",
            with(|d| d.engine = EngineLocation::Remote),
            "allow_attested_engine = true",
            Some("engine"),
        ),
        (
            "a gateway allowed",
            with(|d| d.engine = EngineLocation::Attested),
            "allow_attested_engine = true",
            None,
        ),
        ("configuration pinned", with(|_| {}), &pinned, None),
        (
            "another configuration",
            with(|d| d.config_sha256 = [6; 32]),
            &pinned,
            Some("configuration"),
        ),
        (
            "no configuration",
            with(|_| {}),
            "config_sha256 = []",
            Some("configuration"),
        ),
        ("no key", with(|d| d.keys.clear()), "", Some("sealing key")),
        (
            "keys of dialects alone",
            with(|d| d.keys[0].suite = Suite::EhbpX25519),
            "",
            Some("sealing key"),
        ),
        (
            "a dialect's key of over a week",
            with(|d| {
                let mut long = key(21, NOW, NOW + 7 * DAY + 1);
                long.suite = Suite::SeedX25519;
                d.keys.push(long);
            }),
            "",
            Some("key life"),
        ),
        (
            "suite there",
            with(|_| {}),
            "required_suites = [\"x25519\"]",
            None,
        ),
        (
            "an X-Wing key alone",
            with(|d| d.keys = vec![x_wing(20, NOW, NOW + DAY)]),
            "required_suites = [\"x-wing\"]",
            None,
        ),
        (
            "no X-Wing key",
            with(|_| {}),
            "required_suites = [\"x-wing\"]",
            Some("suites"),
        ),
        (
            "an X-Wing key that has ended",
            with(|d| d.keys.push(x_wing(21, NOW - HOUR, NOW))),
            "require_pq = true",
            Some("suites"),
        ),
        (
            "suite without a key in its life",
            with(|d| d.keys = vec![key(20, NOW - HOUR, NOW)]),
            "required_suites = [\"x25519\"]",
            Some("suites"),
        ),
        (
            "key ended",
            with(|d| d.keys = vec![key(20, NOW - HOUR, NOW)]),
            "",
            Some("sealing key"),
        ),
        (
            "key not begun",
            with(|d| d.keys = vec![key(20, NOW + 1, NOW + HOUR)]),
            "",
            Some("sealing key"),
        ),
        (
            "key of a week",
            with(|d| d.keys = vec![key(20, NOW, NOW + 7 * DAY)]),
            "",
            None,
        ),
        (
            "key of over a week",
            with(|d| d.keys = vec![key(20, NOW, NOW + 7 * DAY + 1)]),
            "",
            Some("key life"),
        ),
        (
            "a device",
            answer(&draft(), vec![gpu]),
            "",
            Some("policy section"),
        ),
        (
            "device taken out",
            changed(|a| a.evidence[0] = answer(&draft(), vec![item()]).evidence.remove(0)),
            "",
            Some("report data"),
        ),
        (
            "another TEE",
            changed(|a| a.evidence[0].kind = EvidenceKind::Tdx),
            "",
            Some("policy section"),
        ),
        (
            "Azure's report",
            changed(|a| a.evidence[0].kind = EvidenceKind::AzureSnp),
            "",
            Some("TEE"),
        ),
        (
            "no evidence",
            changed(|a| a.evidence.clear()),
            "",
            Some("TEE"),
        ),
        (
            "statement no JSON",
            changed(|a| a.statement = b"{".to_vec()),
            "",
            Some("statement"),
        ),
        (
            "one byte more",
            changed(|a| a.statement.push(b' ')),
            "",
            Some("report data"),
        ),
        (
            "another's statement",
            changed(|a| a.statement = answer(&other(), vec![]).statement),
            "",
            Some("report data"),
        ),
        (
            "another's nonce",
            changed(|a| a.nonce = Nonce::from([0; 32])),
            "",
            Some("nonce"),
        ),
    ];
    for (name, answer, settings, expected) in cases {
        let result = verify(
            &answer,
            &policy(settings),
            &Bundle::empty(),
            &nonce(),
            at(NOW),
        );
        assert_eq!(
            result.err().map(|refusal| refusal.check),
            expected,
            "{name}"
        );
    }
}

fn item() -> EvidenceItem {
    EvidenceItem {
        kind: EvidenceKind::NvidiaGpu,
        report: vec![1],
        certificates: vec![vec![2]],
        collateral: Collateral::default(),
    }
}

fn other() -> Draft {
    Draft {
        node_id: "node-2".to_owned(),
        ..draft()
    }
}

#[test]
fn evidence_does_not_answer_a_later_question() {
    let later = Nonce::from([0x78; 32]);
    let mut answer = answer(&draft(), vec![]);
    answer.nonce = later;
    let refusal = verify(&answer, &policy(""), &Bundle::empty(), &later, at(NOW)).unwrap_err();
    assert_eq!(refusal.check, "report data");
}

#[test]
fn a_policy_without_the_section_refuses() {
    let policy = Policy::from_toml("version = 1", &mut |_| unreachable!()).unwrap();
    let refusal = verify(
        &answer(&draft(), vec![]),
        &policy,
        &Bundle::empty(),
        &nonce(),
        at(NOW),
    )
    .unwrap_err();
    assert_eq!(refusal.check, "policy section");
}

#[test]
fn kept_evidence_is_appraised_without_a_nonce() {
    let answer = answer(&draft(), vec![]);
    let appraisal = appraise(&answer, &policy(""), &Bundle::empty(), None, at(NOW));
    assert!(appraisal.accepted());
    assert_eq!(appraisal.root(), Some(Root::Software));
    let nonce = appraisal
        .checks()
        .iter()
        .find(|check| check.name == "nonce")
        .unwrap();
    assert!(nonce.expected.contains("freshness is not shown"));
}

#[test]
fn private_parts_are_not_shown() {
    assert_eq!(format!("{:?}", *ROOT), "SoftwareRoot(..)");
    let signer = SoftwareSigner::from_pem(ROOT.vcek_key_pem(), ROOT.vcek_pem(), ROOT.ask_pem());
    assert_eq!(format!("{:?}", signer.unwrap()), "SoftwareSigner(..)");
}
