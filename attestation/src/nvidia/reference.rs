//! A device against the vendor's words and the policy's: certificates, firmware, measurements.

use std::time::SystemTime;

use crate::answer::EvidenceKind;
use crate::check::Checks;
use crate::input::Input;
use crate::nvidia::chain::Chain;
use crate::nvidia::device::{Device, Gpu, Switch};
use crate::nvidia::fwid::TcbInfo;
use crate::nvidia::policy::Requirement;
use crate::nvidia::report::Report;
use crate::nvidia::version::VbiosVersion;
use crate::nvidia::{GoldenMeasurements, NvidiaPolicy};
use crate::ocsp::{self, OcspError};
use crate::time::to_rfc3339;

/// What is seen of golden measurements where there is no bundle to hold them.
const NO_BUNDLE: &str = "no bundle was given";
/// How the names of switches' chips begin; all others are GPUs'.
const SWITCH: &str = "LS";

/// What the certificates say of the chip, against each other and the policy.
pub(super) fn check_architecture(
    checks: &mut Checks,
    chain: &Chain,
    kind: EvidenceKind,
    policy: Option<&NvidiaPolicy>,
) {
    let architecture = chain.architecture();
    let names = [&chain.device, &chain.provisioner].map(|it| it.common_name());
    let agree = names
        .iter()
        .all(|name| name.split(' ').any(|word| word == architecture));
    checks.record(
        "certified architecture",
        agree,
        format!("{architecture}, as the leaf says"),
        names.join(", "),
    );
    let of_chip = match architecture.starts_with(SWITCH) {
        true => EvidenceKind::NvidiaNvswitch,
        false => EvidenceKind::NvidiaGpu,
    };
    checks.record(
        "device kind",
        kind == of_chip,
        of_chip.as_str(),
        kind.as_str(),
    );
    checks.against(
        "architecture",
        policy,
        "a policy's `architectures`",
        architecture.as_str(),
        |policy| {
            let listed = &policy.architectures;
            let expected = format!("one of {}", listed.join(", "));
            (listed.contains(&architecture), expected)
        },
    );
}

/// Ties the report to the key that signed it, beyond the signature: by the firmware that the key was
/// derived for, or by the device that derived it.
pub(super) fn check_identity(checks: &mut Checks, chain: &Chain, device: &Device<'_>) {
    let info = TcbInfo::of(&chain.leaf);
    if let Device::Gpu(gpu) = device {
        check_fwid(checks, gpu, info.as_ref().map_err(ToString::to_string));
    }
    if let Device::Switch(switch) = device {
        check_switch_id(checks, switch, &chain.device.subject_serial_number());
    }
    let seen = match &info {
        Ok(TcbInfo { flags: None, .. }) => "none stated".to_owned(),
        Ok(TcbInfo {
            flags: Some(flags), ..
        }) => format!("{flags:#04x}"),
        Err(error) => error.to_string(),
    };
    checks.record(
        "firmware flags",
        info.is_ok_and(|info| info.is_safe()),
        "neither insecure nor recovery nor debug",
        seen,
    );
}

fn check_fwid(checks: &mut Checks, gpu: &Gpu<'_>, info: Result<&TcbInfo, String>) {
    // A leaf may hold zeros in the place of an id that it has not.
    let is_id = gpu.fwid.iter().any(|byte| *byte != 0);
    let passed = info
        .as_ref()
        .is_ok_and(|info| is_id && info.fwids.contains(gpu.fwid));
    let expected = info.map_or_else(
        |error| format!("one in the leaf, which has {error}"),
        |info| {
            let ids: Vec<_> = info.fwids.iter().map(hex::encode).collect();
            ids.join(" or ")
        },
    );
    checks.record("firmware id", passed, expected, hex::encode(gpu.fwid));
}

/// The device's own name in its certificate ends with the id.
fn check_switch_id(checks: &mut Checks, switch: &Switch<'_>, serial_number: &str) {
    let id = hex::encode_upper(switch.id);
    checks.record(
        "device id",
        serial_number.ends_with(&id),
        format!("the end of the certificate's {serial_number}"),
        id,
    );
}

/// Asks for the status of each certificate that the vendor can revoke; when the first of the
/// responses ends, if any was needed.
pub(super) fn check_revocation(
    checks: &mut Checks,
    chain: &Chain,
    input: &Input<'_>,
    policy: Option<&NvidiaPolicy>,
) -> Option<SystemTime> {
    let requirement = policy.map_or(Requirement::Required, |policy| policy.revocation);
    if requirement == Requirement::Off {
        checks.record(
            "revocation",
            true,
            "any: the policy asks for none",
            "not read",
        );
        return None;
    }
    let mut first_end = None;
    for (certificate, issuer) in chain.revocable() {
        let responses = input.collateral(|collateral| &collateral.ocsp);
        let good = ocsp::status(responses, certificate, issuer, input.now);
        // What nobody asks for and nobody gave is open, as all that needs a policy.
        if let (None, Err(OcspError::Missing)) = (policy, &good) {
            let name = certificate.common_name();
            checks.open(
                "revocation",
                "an OCSP response to look at",
                format!("none about {name}"),
            );
            continue;
        }
        let good = good.map(|good| {
            let from = to_rfc3339(good.this_update);
            let seen = format!("good, {from} to {}", to_rfc3339(good.not_after));
            (good.not_after, seen)
        });
        let expected = format!(
            "{} good at {}",
            certificate.common_name(),
            to_rfc3339(input.now)
        );
        let end = checks.step("revocation", &expected, good);
        first_end = [first_end, end].into_iter().flatten().min();
    }
    first_end
}

/// Compares what the device measured with what its firmware must measure.
pub(super) fn check_measurements(
    checks: &mut Checks,
    report: &Report<'_>,
    device: &Device<'_>,
    architecture: &str,
    input: &Input<'_>,
    policy: Option<&NvidiaPolicy>,
) {
    let requirement = policy.map_or(Requirement::Required, |policy| policy.measurements);
    if requirement == Requirement::Off {
        checks.record(
            "measurements",
            true,
            "any: the policy asks for none",
            "not compared",
        );
        return;
    }
    let golden = input.bundle.golden_measurements();
    let vbios = device.vbios();
    let (of_driver, of_vbios) = match device {
        Device::Gpu(gpu) => {
            let id = gpu.driver_manifest(architecture);
            let of_driver = Manifest::find(golden, id, gpu.driver);
            let of_vbios = Manifest::find(golden, gpu.vbios_manifest(), vbios);
            (Some(of_driver), of_vbios)
        }
        Device::Switch(switch) => {
            let of_vbios = Manifest::find(golden, switch.vbios_manifest(), vbios);
            (None, of_vbios)
        }
    };
    let is_asked = policy.is_some();
    let absent = match input.bundle.manifest() {
        Some(_) => "none in the bundle",
        None => NO_BUNDLE,
    };
    if let Some(of_driver) = &of_driver {
        of_driver.check("driver measurements", checks, report, is_asked, absent);
    }
    of_vbios.check("VBIOS measurements", checks, report, is_asked, absent);
    if let Some(of_driver) = of_driver {
        let shared = of_driver
            .indexes()
            .find(|index| of_vbios.indexes().any(|it| it == *index));
        checks.record(
            "measurement indexes",
            shared.is_none(),
            "none of both driver and VBIOS",
            shared.map_or_else(|| "none".to_owned(), |index| format!("index {index}")),
        );
    }
}

/// The golden measurements that a device has to meet.
struct Manifest<'a> {
    id: String,
    /// The version that the device reports.
    version: &'a str,
    found: Option<&'a GoldenMeasurements>,
}

impl<'a> Manifest<'a> {
    fn find(golden: &'a [GoldenMeasurements], id: String, version: &'a str) -> Self {
        Self {
            found: golden.iter().find(|it| it.id == id),
            id,
            version,
        }
    }

    fn indexes(&self) -> impl Iterator<Item = u8> {
        let measurements = self.found.map_or(&[][..], |it| it.measurements.as_slice());
        measurements.iter().map(|it| it.index)
    }

    /// `absent` is what to say where there are none; who asks for them gets a refusal then.
    fn check(
        &self,
        name: &'static str,
        checks: &mut Checks,
        report: &Report<'_>,
        is_asked: bool,
        absent: &str,
    ) {
        let Self { id, version, found } = self;
        let Some(golden) = found else {
            let needed = format!("golden measurements as in {id}");
            match is_asked {
                true => _ = checks.record(name, false, needed, absent),
                false => checks.open(name, &needed, absent),
            }
            return;
        };
        let unmet = golden.measurements.iter().find(|expected| {
            let seen = report.measurement(expected.index);
            !expected.values.iter().any(|value| seen == Some(value))
        });
        let is_of_version = golden.version.eq_ignore_ascii_case(version);
        let seen = match unmet {
            _ if !is_of_version => format!("a manifest of version {}", golden.version),
            Some(unmet) => format!("another value at index {}", unmet.index),
            None => "equal".to_owned(),
        };
        checks.record(
            name,
            unmet.is_none() && is_of_version,
            format!("{} as in {id}", golden.measurements.len()),
            seen,
        );
    }
}

/// What only the policy can judge.
pub(super) fn check_policy(
    checks: &mut Checks,
    chain: &Chain,
    device: &Device<'_>,
    policy: Option<&NvidiaPolicy>,
) {
    check_vbios(checks, &chain.architecture(), device.vbios(), policy);
    if let Device::Gpu(gpu) = device {
        check_driver(checks, gpu.driver, policy);
        let needed = "a policy's `modes`";
        checks.against("mode", policy, needed, gpu.mode.as_str(), |policy| {
            let modes: Vec<_> = policy.modes.iter().map(|mode| mode.as_str()).collect();
            let expected = format!("one of {}", modes.join(", "));
            (policy.modes.contains(&gpu.mode), expected)
        });
    }
    let keys = [&chain.device, &chain.leaf].map(|certificate| certificate.key_sha256());
    let seen = keys.map(hex::encode).join(", leaf ");
    let needed = "a policy";
    checks.against("device", policy, needed, seen.as_str(), |policy| {
        let listed = policy.devices.as_ref();
        let passed = listed.is_none_or(|list| keys.iter().any(|key| list.contains(key)));
        (passed, any_or_one_of(listed.map(Vec::len)))
    });
    checks.against("denied device", policy, needed, seen.as_str(), |policy| {
        let denied = &policy.denied_devices;
        let passed = !keys.iter().any(|key| denied.contains(key));
        (
            passed,
            format!("none of {} that the policy denies", denied.len()),
        )
    });
}

fn check_driver(checks: &mut Checks, driver: &str, policy: Option<&NvidiaPolicy>) {
    let needed = "a policy";
    let version = driver.parse().ok();
    checks.against("minimum driver", policy, needed, driver, |policy| {
        let minimum = policy.minimum_driver.as_ref();
        let passed = minimum.is_none_or(|minimum| version.as_ref().is_some_and(|it| it >= minimum));
        (
            passed,
            minimum.map_or("any".to_owned(), |it| format!("at least {it}")),
        )
    });
    checks.against("driver version", policy, needed, driver, |policy| {
        let listed = policy.driver_versions.as_ref();
        let passed = listed.is_none_or(|list| version.as_ref().is_some_and(|it| list.contains(it)));
        (passed, any_or_one_of(listed.map(Vec::len)))
    });
}

fn check_vbios(
    checks: &mut Checks,
    architecture: &str,
    vbios: &str,
    policy: Option<&NvidiaPolicy>,
) {
    let needed = "a policy";
    let version = vbios.to_ascii_lowercase().parse::<VbiosVersion>().ok();
    checks.against("minimum VBIOS", policy, needed, vbios, |policy| {
        let minimum = policy.minimum_vbios.get(architecture);
        let passed = minimum.is_none_or(|minimum| version.is_some_and(|it| it >= *minimum));
        (
            passed,
            minimum.map_or("any".to_owned(), |it| format!("at least {it}")),
        )
    });
    checks.against("VBIOS version", policy, needed, vbios, |policy| {
        let listed = policy.vbios_versions.as_ref();
        let passed = listed.is_none_or(|list| version.is_some_and(|it| list.contains(&it)));
        (passed, any_or_one_of(listed.map(Vec::len)))
    });
}

fn any_or_one_of(listed: Option<usize>) -> String {
    listed.map_or_else(
        || "any".to_owned(),
        |count| format!("one of {count} that the policy lists"),
    )
}
