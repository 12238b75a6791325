//! Whether NVIDIA revoked somebody who signed its manifests: asked of the OCSP responses among the
//! files, once, before a bundle is made.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use attestation::{
    bundle::ItemKind,
    chain::{StatusError, check_status},
    ocsp::{self, OcspError},
};

use super::{Error, piece::Piece};
use crate::cli::terminal;

/// Checks that each certificate behind each manifest is called good at `now`. The responses that say
/// so are taken out: no verifier asks about a manifest's signers, and they live for a day.
pub(super) fn check(pieces: &mut Vec<(&PathBuf, Piece)>, now: SystemTime) -> Result<(), Error> {
    let responses: Vec<_> = pieces
        .iter()
        .filter(|(_, piece)| piece.kind == ItemKind::Ocsp)
        .map(|(_, piece)| piece.content.as_slice())
        .collect();
    for (path, piece) in pieces.iter() {
        check_status(&piece.signers, &responses, now).map_err(|source| Error::Signer {
            path: (*path).clone(),
            source,
        })?;
    }
    let chains: Vec<_> = pieces
        .iter()
        .map(|(_, piece)| piece.signers.clone())
        .collect();
    pieces.retain(|(path, piece)| {
        let calls_good = |(certificate, issuer): (&Vec<u8>, &Vec<u8>)| {
            ocsp::check([piece.content.as_slice()], certificate, issuer, now).is_ok()
        };
        let mut pairs = chains
            .iter()
            .flat_map(|chain| chain.iter().zip(chain.iter().skip(1)));
        let is_used = piece.kind == ItemKind::Ocsp && pairs.any(calls_good);
        if is_used {
            terminal::note(format_args!(
                "{}: left out: it shows a manifest's signer to be good, which is checked here alone",
                path.display()
            ));
        }
        !is_used
    });
    Ok(())
}

/// What to do about a certificate that is not shown to be good.
pub(super) fn remedy(path: &Path, status: &StatusError) -> String {
    match status.source {
        OcspError::Revoked(_) | OcspError::Unknown => "leave the manifest out".to_owned(),
        _ => format!(
            "fetch its status with `sealgate bundle fetch nvidia --ocsp {}`",
            path.display()
        ),
    }
}
