//! What a policy would say to accept a document.

use crate::nitro::chain::is_aws;
use crate::nitro::document::Document;
use crate::proposal::{Line, Table};

/// Reads a document, and proposes the table that would accept it.
///
/// # Errors
/// What cannot be read.
pub(crate) fn propose(document: &[u8]) -> Result<Vec<Table>, String> {
    let document =
        Document::parse(document).map_err(|error| format!("no Nitro document: {error}"))?;
    let mut lines = vec![root(&document)];
    let registers = [
        (
            "pcr0",
            0,
            "the enclave's image: compare with what `nitro-cli build-enclave` prints",
        ),
        ("pcr1", 1, "kernel and boot file system: compare likewise"),
        ("pcr2", 2, "the application: compare likewise"),
        ("pcr3", 3, "the IAM role of the parent instance"),
        (
            "pcr4",
            4,
            "the id of the parent instance: leave the line out to accept any",
        ),
        (
            "pcr8",
            8,
            "the certificate that signed the image: compare with your own",
        ),
    ];
    for (key, number, confirm) in registers {
        let pcr = document.pcrs.get(&number);
        if let Some(pcr) = pcr.filter(|pcr| pcr.iter().any(|byte| *byte != 0)) {
            lines.push(Line::hex(key, pcr, confirm));
        }
    }
    Ok(vec![Table::new("nitro", lines)])
}

fn root(document: &Document<'_>) -> Line {
    if document.cabundle.first().is_some_and(|der| is_aws(der)) {
        return Line::new(
            "aws_root",
            "true",
            "the document names AWS's root, which is built in",
        );
    }
    Line::one(
        "software_roots",
        "software-root.pem",
        "the document does not name AWS's root: give the file of the software root, and know that \
         it protects nothing",
    )
}
