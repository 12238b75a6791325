//! What a policy would say to accept a report.

use crate::certificate::Certificate;
use crate::proposal::{Line, Table};
use crate::sev_snp::chain;
use crate::sev_snp::endorsement::{self, SigningKey};
use crate::sev_snp::policy::PlatformFeature;
use crate::sev_snp::report::{POLICY_CXL, POLICY_SINGLE_SOCKET, POLICY_SMT};
use crate::sev_snp::{Product, Report, Tcb};

/// Reads a report and its certificates, and proposes the tables that would accept them.
///
/// # Errors
/// What cannot be read.
pub(crate) fn propose(report: &[u8], certificates: &[Vec<u8>]) -> Result<Vec<Table>, String> {
    let report = Report::parse(report).map_err(|error| format!("no SEV-SNP report: {error}"))?;
    let leaf = certificates.first().ok_or("no certificate")?;
    let leaf = Certificate::parse(leaf).map_err(|error| format!("the certificate: {error}"))?;
    let product = endorsement::product_of(&leaf);
    let product = product.ok_or("the certificate names no known product")?;
    let minimum = lowest(product, &report).ok_or("the report's TCB has reserved bytes set")?;
    let mut lines = vec![root(certificates)];
    lines.push(Line::one(
        "products",
        product.as_str(),
        "the processor's generation: a broken one vouches for nothing (docs/policy.md)",
    ));
    lines.push(Line::hex(
        "measurements",
        &report.measurement,
        "the launch digest: compare with what the build of your image prints",
    ));
    lines.extend(settings(&report));
    lines.extend(identity(&report, &leaf));
    let name = format!("sev_snp.minimum_tcb.{product}");
    Ok(vec![
        Table::new("sev_snp", lines),
        Table::new(name, tcb(&minimum)),
    ])
}

fn root(certificates: &[Vec<u8>]) -> Line {
    let last = certificates
        .last()
        .and_then(|der| Certificate::parse(der).ok());
    if last.is_some_and(|last| chain::names_amd(&last)) {
        return Line::new(
            "amd_roots",
            "true",
            "the certificates name one of AMD's roots, which are built in",
        );
    }
    Line::one(
        "software_roots",
        "software-root/ark.pem",
        "the certificates name none of AMD's roots: give the file of the software root, and know \
         that it protects nothing",
    )
}

fn settings(report: &Report) -> Vec<Line> {
    let is_set = |bit| report.policy & bit != 0;
    let mut lines = vec![Line::new(
        "vmpl",
        report.vmpl.to_string(),
        "the privilege level of the guest: above 0 a paravisor below it is trusted too",
    )];
    if report.guest_svn > 0 {
        lines.push(Line::new(
            "minimum_guest_svn",
            report.guest_svn.to_string(),
            "the image's security version: no older one is accepted",
        ));
    }
    if !is_set(POLICY_SMT) {
        lines.push(Line::new(
            "allow_smt",
            "false",
            "the guest forbids simultaneous multithreading: go on asking for that",
        ));
    }
    if is_set(POLICY_CXL) {
        lines.push(Line::new(
            "allow_cxl",
            "true",
            "the guest's memory may lie on CXL devices",
        ));
    }
    if is_set(POLICY_SINGLE_SOCKET) {
        lines.push(Line::new(
            "require_single_socket",
            "true",
            "the guest is bound to one socket: go on asking for that",
        ));
    }
    let on = PlatformFeature::ALL
        .into_iter()
        .filter(|feature| report.platform_info & feature.bit() != 0);
    let names: Vec<_> = on.map(|it| format!("\"{}\"", it.as_str())).collect();
    lines.push(Line::new(
        "required_platform_info",
        format!("[{}]", names.join(", ")),
        "what the platform has on: without alias-check-complete memory can be aliased (BadRAM)",
    ));
    let committed = report.committed_tcb == report.current_tcb
        && report.committed_version == report.current_version;
    if !committed {
        lines.push(Line::new(
            "allow_provisional_firmware",
            "true",
            "the firmware is not committed: the host can still roll it back",
        ));
    }
    lines
}

fn identity(report: &Report, leaf: &Certificate) -> Vec<Line> {
    let fields: [(&'static str, &[u8], &'static str); 4] = [
        (
            "host_data",
            &report.host_data,
            "what the host gave at launch: compare with what your tools set",
        ),
        (
            "id_key_digests",
            &report.id_key_digest,
            "the key that signed the image's identity: compare with your own",
        ),
        (
            "author_key_digests",
            &report.author_key_digest,
            "the key that signed that key: compare with your own",
        ),
        (
            "chip_ids",
            &report.chip_id,
            "this very processor: confirm that it stands where nobody can touch it, or leave the \
             line out to accept any",
        ),
    ];
    let set = fields
        .into_iter()
        .filter(|(_, value, _)| value.iter().any(|byte| *byte != 0));
    let mut lines: Vec<_> = set
        .map(|(key, value, confirm)| Line::hex(key, value, confirm))
        .collect();
    if SigningKey::of(leaf) == Some(SigningKey::Vlek) {
        lines.push(Line::one(
            "vlek_csp_ids",
            endorsement::csp_id(leaf).unwrap_or_default(),
            "the cloud provider whose loaned key signed: it answers for all of its chips",
        ));
    }
    lines
}

/// The least of what the report says is running, committed and was there at launch.
fn lowest(product: Product, report: &Report) -> Option<Tcb> {
    let words = [report.reported_tcb, report.committed_tcb, report.launch_tcb];
    let [first, second, third] = words.map(|word| Tcb::from_word(product, word));
    Some(first?.least(&second?).least(&third?))
}

fn tcb(minimum: &Tcb) -> Vec<Line> {
    const CONFIRM: &str = "a security version of the firmware: confirm that no later one mends what \
                           you must not live with";
    let parts = [
        ("fmc", minimum.fmc),
        ("bootloader", Some(minimum.bootloader)),
        ("tee", Some(minimum.tee)),
        ("snp", Some(minimum.snp)),
        ("microcode", Some(minimum.microcode)),
    ];
    let there = parts
        .into_iter()
        .filter_map(|(key, version)| Some((key, version?)));
    there
        .map(|(key, version)| Line::new(key, version.to_string(), CONFIRM))
        .collect()
}
