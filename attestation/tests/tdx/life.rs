//! How long an appraisal holds, and what it says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::statement::{ClaimedKey, Draft, EngineLocation, PublicKey, Software, Suite};
use attestation::tdx::TcbStatus;
use attestation::time::to_rfc3339;
use attestation::{
    Answer, Bundle, Collateral, CpuClaims, EvidenceItem, EvidenceKind, Nonce, Root,
    StatementDigest, VerifiedNode, binding, verify,
};

use crate::platform::{DAY, FMSPC, PPID, Platform, REPORTDATA, now};
use crate::policy;
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3600);

/// What a node on the platform answers, appraised for a week at most.
fn verified(mut platform: Platform) -> VerifiedNode {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let draft = Draft {
        node_id: "node-1".to_owned(),
        keys: vec![ClaimedKey {
            key_id: 20,
            suite: Suite::X25519,
            public_key: PublicKey::X25519([9; 32]),
            not_before: seconds(now()),
            not_after: seconds(now() + 7 * DAY),
        }],
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
    };
    let statement = draft.to_json().unwrap();
    let nonce = Nonce::from([0x77; 32]);
    let report_data = binding::report_data(&StatementDigest::of(&statement), &nonce, &[]);
    platform.body[REPORTDATA..][..64].copy_from_slice(&report_data);
    let item = EvidenceItem {
        kind: EvidenceKind::Tdx,
        report: platform.quote(),
        certificates: vec![],
        collateral: Collateral {
            tdx: vec![platform.collateral().to_string().into_bytes()],
            ..Collateral::default()
        },
    };
    let answer = Answer {
        statement,
        nonce,
        evidence: vec![item],
    };
    let text = crate::policy_text("accepted_advisories = [\"INTEL-SA-00001\"]").replace(
        "version = 1\n",
        "version = 1\nappraisal_max_age_s = 604800\n",
    );
    let policy = attestation::Policy::from_toml(&text, &mut |_| Ok(Platform::root())).unwrap();
    verify(&answer, &policy, &Bundle::empty(), &nonce, now()).unwrap()
}

#[test]
fn the_claims_are_what_quote_and_platform_say() {
    let mut platform = Platform::version_5();
    platform.qe_identity["tcbEvaluationDataNumber"] = json!(18);
    platform.tcb_info["tcbLevels"][0]["advisoryIDs"] = json!(["INTEL-SA-00001"]);
    let body = platform.body.clone();
    let node = verified(platform);
    assert_eq!((node.tee(), node.root()), ("tdx", Root::Software));
    assert_eq!(node.expires_at(), now() + 7 * DAY);
    let CpuClaims::Tdx(claims) = &node.claims().cpu else {
        unreachable!("the node's evidence is TDX")
    };
    assert_eq!((claims.fmspc, claims.ppid.as_slice()), (FMSPC, &PPID[..]));
    assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
    assert_eq!(claims.tcb_evaluation_number, 17);
    assert_eq!(claims.advisories, ["INTEL-SA-00001"]);
    assert_eq!(claims.report.mrtd, [0x3d; 48]);
    assert_eq!(claims.report.rtmrs[3], body[472..520]);
    assert!(claims.report.current.is_some());
    assert!(policy("").tdx().is_some());
}

/// A part's name, and what lets it end.
type Part = (&'static str, fn(&mut Platform));

fn end() -> SystemTime {
    now() + HOUR
}

#[test]
fn an_appraisal_ends_with_the_first_thing_behind_it() {
    let parts: [Part; 7] = [
        ("PCK certificate", |p| p.pck_window.1 = end()),
        ("authority", |p| p.authority_window.1 = end()),
        ("TCB signer", |p| p.tcb_window.1 = end()),
        ("root's list", |p| p.root_crl.1 = end()),
        ("PCK list", |p| p.pck_crl.1 = end()),
        ("TCB info", |p| {
            p.tcb_info["nextUpdate"] = json!(to_rfc3339(end()))
        }),
        ("QE identity", |p| {
            p.qe_identity["nextUpdate"] = json!(to_rfc3339(end()))
        }),
    ];
    for (name, set) in parts {
        let mut platform = Platform::default();
        set(&mut platform);
        assert_eq!(verified(platform).expires_at(), end(), "{name}");
    }
}
