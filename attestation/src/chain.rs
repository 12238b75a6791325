//! Chains of P-384 certificates up to a pinned root, for those who verify what vendors sign outside
//! of evidence.

use std::time::SystemTime;

use crate::certificate::{Certificate, CertificateError, Scheme};
use crate::digest::sha256;
use crate::ocsp::{self, OcspError};
use crate::time::to_rfc3339;

/// Most certificates of a chain.
const MAX_CHAIN: usize = 8;

/// Why a chain is not believed. Certificates are counted from 1, the leaf.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Too few or too many.
    #[error("a chain of {0} certificates, not of 2 to {MAX_CHAIN}")]
    Length(usize),
    /// The last certificate is not the pinned root.
    #[error("the last certificate is not the pinned root")]
    Root,
    /// A certificate that does not fit its place.
    #[error("certificate {number}: {source}")]
    Certificate {
        /// Which.
        number: u8,
        /// What is wrong.
        source: CertificateError,
    },
    /// A certificate outside its dates.
    #[error(
        "certificate {number} is valid from {} to {}, not at {}",
        to_rfc3339(*not_before), to_rfc3339(*not_after), to_rfc3339(*now)
    )]
    Validity {
        /// Which.
        number: u8,
        /// Its first second.
        not_before: SystemTime,
        /// Its last second.
        not_after: SystemTime,
        /// The time asked about.
        now: SystemTime,
    },
}

/// A certificate of a chain that no OCSP response calls good.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("certificate {number}, {name}: {source}")]
pub struct StatusError {
    /// Which, counted from 1, the leaf.
    pub number: usize,
    /// Its common name; empty where it has none.
    pub name: String,
    /// What the responses show.
    pub source: OcspError,
}

/// Checks that among `responses` each certificate of a chain, leaf first, is called good at `now`.
///
/// The last, the root, is not asked about; that it is trusted is for [`ChainKey::verify`] to say.
///
/// # Errors
/// [`StatusError`] names the first certificate that is not.
pub fn check_status(
    chain: &[Vec<u8>],
    responses: &[&[u8]],
    now: SystemTime,
) -> Result<(), StatusError> {
    let pairs = chain.iter().zip(chain.iter().skip(1));
    for (number, (certificate, issuer)) in (1..).zip(pairs) {
        let status = ocsp::check(responses.iter().copied(), certificate, issuer, now);
        status.map_err(|source| StatusError {
            number,
            name: Certificate::parse(certificate)
                .map_or_else(|_| String::new(), |it| it.common_name()),
            source,
        })?;
    }
    Ok(())
}

/// The key at the end of a chain that holds.
#[must_use]
#[derive(Clone, Debug)]
pub struct ChainKey {
    leaf: Certificate,
    not_after: SystemTime,
}

impl ChainKey {
    /// Verifies a chain, leaf first and root last, at `now`: the root by the SHA-256 of its DER,
    /// and of each certificate its issuer's name and signature, its constraints and its dates.
    ///
    /// # Errors
    /// [`ChainError`] names the certificate that does not fit.
    pub fn verify(
        chain: &[Vec<u8>],
        root_sha256: &[u8; 32],
        now: SystemTime,
    ) -> Result<Self, ChainError> {
        if !(2..=MAX_CHAIN).contains(&chain.len()) {
            return Err(ChainError::Length(chain.len()));
        }
        if chain.last().map(|root| sha256(&[root])) != Some(*root_sha256) {
            return Err(ChainError::Root);
        }
        let wrong = |number| move |source| ChainError::Certificate { number, source };
        let parsed = (1..).zip(chain);
        let parsed: Vec<_> = parsed
            .map(|(number, der)| Ok((number, Certificate::parse(der).map_err(wrong(number))?)))
            .collect::<Result<_, _>>()?;
        let (_, leaf) = parsed.first().ok_or(ChainError::Length(0))?;
        leaf.check_leaf().map_err(wrong(1))?;
        for ((number, certificate), (above, issuer)) in parsed.iter().zip(parsed.iter().skip(1)) {
            // The leaf's issuer has no authority below it, the next has one, and so on.
            issuer
                .check_authority(number.saturating_sub(1), Scheme::EcdsaP384)
                .map_err(wrong(*above))?;
            certificate
                .check_issued_by(issuer)
                .map_err(wrong(*number))?;
        }
        let mut end = leaf.not_after();
        for (number, certificate) in &parsed {
            if !certificate.is_valid_at(now) {
                return Err(ChainError::Validity {
                    number: *number,
                    not_before: certificate.not_before(),
                    not_after: certificate.not_after(),
                    now,
                });
            }
            end = end.min(certificate.not_after());
        }
        Ok(Self {
            leaf: leaf.clone(),
            not_after: end,
        })
    }

    /// Whether the leaf's key signed `message` with ECDSA and SHA-384; `signature` is r and s,
    /// big-endian, 48 bytes each.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 96]) -> bool {
        self.leaf.verifies(message, signature)
    }

    /// When the first of the certificates ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf's common name; empty where it has none.
    pub fn common_name(&self) -> String {
        self.leaf.common_name()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_chain_has_from_two_to_eight_certificates() {
        let verified = |len: usize| {
            let chain = vec![b"root".to_vec(); len];
            ChainKey::verify(&chain, &sha256(&[b"another root"]), UNIX_EPOCH)
        };
        for len in [0, 1, MAX_CHAIN + 1] {
            let error = verified(len).unwrap_err();
            assert!(
                matches!(error, ChainError::Length(it) if it == len),
                "{error}"
            );
        }
        for len in [2, MAX_CHAIN] {
            let error = verified(len).unwrap_err();
            assert!(matches!(error, ChainError::Root), "{error}");
        }
    }
}
