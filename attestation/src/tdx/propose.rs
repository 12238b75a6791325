//! What a policy would say to accept a quote.

use crate::collateral::Collateral;
use crate::proposal::{Line, Table};
use crate::tdx::chain;
use crate::tdx::collateral;
use crate::tdx::quote::{ATTRIBUTE_KL, ATTRIBUTE_PKS, Quote, TdReport};

/// Reads a quote, and proposes the table that would accept it.
///
/// # Errors
/// What cannot be read.
pub(crate) fn propose(quote: &[u8], delivered: &Collateral) -> Result<Vec<Table>, String> {
    let quote = Quote::parse(quote).map_err(|error| format!("no TDX quote: {error}"))?;
    let report = &quote.report;
    let mut lines = vec![root(&quote), evaluation_number(delivered)];
    lines.extend(registers(report));
    let is_set = |bit| report.td_attributes & bit != 0;
    for (key, bit, confirm) in [
        (
            "allow_pks",
            ATTRIBUTE_PKS,
            "the TD uses supervisor protection keys",
        ),
        ("allow_kl", ATTRIBUTE_KL, "the TD uses key locker"),
    ] {
        if is_set(bit) {
            lines.push(Line::new(key, "true", confirm));
        }
    }
    lines.push(Line::new(
        "minimum_tee_tcb_svn",
        format!("\"{}\"", hex::encode(report.tee_tcb_svn)),
        "security versions of the TDX module: confirm that no later one mends what you must not \
         live with",
    ));
    Ok(vec![Table::new("tdx", lines)])
}

fn root(quote: &Quote<'_>) -> Line {
    if chain::names_intel(quote.pck_chain) {
        return Line::new(
            "intel_root",
            "true",
            "the certificates name Intel's root, which is built in",
        );
    }
    Line::one(
        "software_roots",
        "software-root.pem",
        "the certificates do not name Intel's root: give the file of the software root, and know \
         that it protects nothing",
    )
}

fn evaluation_number(delivered: &Collateral) -> Line {
    let numbers = delivered.tdx.iter();
    let number = numbers
        .filter_map(|piece| collateral::evaluation_number(piece))
        .max();
    Line::new(
        "minimum_tcb_evaluation_number",
        number.unwrap_or_default().to_string(),
        "the number of Intel's TCB data: raise it to the newest that you know, and never lower it",
    )
}

fn registers(report: &TdReport) -> Vec<Line> {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &report.rtmrs;
    let always: [(&'static str, &[u8; 48], &'static str); 6] = [
        (
            "mrseam",
            &report.mrseam,
            "the TDX module: compare with Intel's release of it",
        ),
        (
            "mrtd",
            &report.mrtd,
            "the TD's firmware: compare with what the build of your image prints",
        ),
        (
            "rtmr0",
            rtmr0,
            "the TD's configuration: compare with a TD that you set up yourself",
        ),
        (
            "rtmr1",
            rtmr1,
            "the kernel: compare with what the build of your image prints",
        ),
        (
            "rtmr2",
            rtmr2,
            "command line and initial file system: compare likewise",
        ),
        (
            "rtmr3",
            rtmr3,
            "what the TD measured while it ran: leave the line out if that changes",
        ),
    ];
    let named: [(&'static str, &[u8; 48], &'static str); 3] = [
        (
            "mrconfigid",
            &report.mrconfigid,
            "the configuration that the owner named",
        ),
        ("mrowner", &report.mrowner, "the TD's owner"),
        (
            "mrownerconfig",
            &report.mrownerconfig,
            "the configuration that the owner asked for",
        ),
    ];
    let set = named.into_iter().filter(|(_, value, _)| **value != [0; 48]);
    let lines = always.into_iter().chain(set);
    lines
        .map(|(key, value, confirm)| Line::hex(key, value, confirm))
        .collect()
}
