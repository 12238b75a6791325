//! What a document says, against the reference values of a policy.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::check::{Checks, NEEDS_POLICY, one_of, one_of_hex};
use crate::nitro::NitroPolicy;
use crate::nitro::document::Document;
use crate::time::to_rfc3339;

/// The registers, in the order in which a policy holds their lists: image, kernel, application, role
/// of the parent instance, its id, signer of the image.
const PCRS: [(&str, u64); 6] = [
    ("PCR0", 0),
    ("PCR1", 1),
    ("PCR2", 2),
    ("PCR3", 3),
    ("PCR4", 4),
    ("PCR8", 8),
];

/// The registers that measure the image must be there and must not be zero: an enclave in debug
/// mode, whose console its host reads, has zeros.
pub(super) fn check_launch(checks: &mut Checks, document: &Document<'_>) {
    let image = [0, 1, 2].map(|number| document.pcrs.get(&number));
    let missing = image.iter().filter(|pcr| pcr.is_none()).count();
    checks.record(
        "PCRs",
        missing == 0,
        "PCR0, PCR1 and PCR2",
        match missing {
            0 => "all three".to_owned(),
            _ => format!("{missing} of them missing"),
        },
    );
    let zero = image
        .iter()
        .flatten()
        .any(|pcr| pcr.iter().all(|byte| *byte == 0));
    let seen = if zero {
        "a register that is zero: debug mode"
    } else {
        "none is zero"
    };
    checks.record("debug", !zero, "PCR0, PCR1 and PCR2 not zero", seen);
}

/// Everything that depends on the policy.
pub(super) fn check(
    checks: &mut Checks,
    policy: Option<&NitroPolicy>,
    document: &Document<'_>,
    asked: SystemTime,
) {
    for (name, number) in PCRS {
        let pcr = document.pcrs.get(&number);
        let seen = pcr.map_or_else(|| "none".to_owned(), hex::encode);
        checks.against(name, policy, NEEDS_POLICY, seen, |policy| {
            let list = policy.pcrs.iter().find(|(listed, _)| *listed == number);
            match list.and_then(|(_, list)| list.as_ref()) {
                Some(list) => {
                    let passed = pcr.is_some_and(|pcr| list.contains(pcr));
                    (passed, one_of_hex(list))
                }
                None => (true, "any".to_owned()),
            }
        });
    }
    let module_id = document.module_id;
    checks.against(
        "module id",
        policy,
        NEEDS_POLICY,
        module_id,
        |policy| match &policy.module_ids {
            Some(list) => {
                let passed = list.iter().any(|listed| listed == module_id);
                (passed, one_of(list))
            }
            None => (true, "any".to_owned()),
        },
    );
    check_timestamp(checks, policy, document, asked);
}

/// The time in the document, which the host's clock gave, lies near that of the question on either
/// side.
fn check_timestamp(
    checks: &mut Checks,
    policy: Option<&NitroPolicy>,
    document: &Document<'_>,
    asked: SystemTime,
) {
    let made = Duration::from_millis(document.timestamp_ms);
    let seen = UNIX_EPOCH
        .checked_add(made)
        .map_or_else(|| "a time out of range".to_owned(), to_rfc3339);
    checks.against("timestamp", policy, NEEDS_POLICY, seen, |policy| {
        let asked_since = asked.duration_since(UNIX_EPOCH);
        let passed = asked_since.is_ok_and(|asked| asked.abs_diff(made) <= policy.maximum_age);
        let seconds = policy.maximum_age.as_secs();
        (
            passed,
            format!("within {seconds} s of {}", to_rfc3339(asked)),
        )
    });
}
