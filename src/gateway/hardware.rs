//! Hardware: what a key demands of the machine behind a node, by verified evidence alone.
//!
//! It is decided when a node is chosen, and again by the appraisal that its request rests on: what a node shows can
//! become another between the two.

use attestation::{EvidenceKind, VerifiedNode};

use crate::config::terms::{Tee, Tees};

/// What is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hardware {
    /// A bit for each kind of TEE that will do.
    tees: u8,
    /// Whether there has to be an NVIDIA GPU.
    gpu: bool,
}

impl Hardware {
    /// Any will do.
    pub(super) const ANY: Self = Self {
        tees: u8::MAX,
        gpu: false,
    };

    /// One of these kinds of TEE, where some are named, with a GPU, where one is required.
    pub(super) fn of(tees: Option<&Tees>, gpu: bool) -> Self {
        let named = |tees: &Tees| tees.iter().fold(0, |bits, tee| bits | bit(tee));
        Self {
            tees: tees.map_or(u8::MAX, named),
            gpu,
        }
    }

    /// What both demand.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            tees: self.tees & other.tees,
            gpu: self.gpu || other.gpu,
        }
    }

    /// Whether a node that was verified is on such hardware.
    pub(super) fn is_of(self, node: &VerifiedNode) -> bool {
        let devices = node.claims().devices.iter().map(|device| device.kind);
        self.takes(node.tee(), devices)
    }

    /// Whether a CPU of this kind, with these devices, will do. A kind that has no name here does for nobody who
    /// names some.
    fn takes(self, tee: &str, mut devices: impl Iterator<Item = EvidenceKind>) -> bool {
        let is_named = || {
            let tee = tee.parse().map(bit);
            tee.is_ok_and(|bit| self.tees & bit != 0)
        };
        (self.tees == u8::MAX || is_named())
            && (!self.gpu || devices.any(|kind| kind == EvidenceKind::NvidiaGpu))
    }
}

const fn bit(tee: Tee) -> u8 {
    match tee {
        Tee::SevSnp => 1,
        Tee::Tdx => 2,
        Tee::Nitro => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_decides_which_node_takes_a_keys_requests() {
        const GPU: EvidenceKind = EvidenceKind::NvidiaGpu;
        const SWITCH: EvidenceKind = EvidenceKind::NvidiaNvswitch;
        let nodes = [
            ("sev-snp", &[][..]),
            ("tdx", &[]),
            ("nitro", &[]),
            ("sev-snp", &[SWITCH, GPU]),
            ("tdx", &[SWITCH]),
            ("of-a-newer-version", &[GPU]),
        ];
        let cases = [
            ("{}", [true; 6]),
            (
                r#"{"tees":["sev-snp"]}"#,
                [true, false, false, true, false, false],
            ),
            (
                r#"{"tees":["tdx","nitro"]}"#,
                [false, true, true, false, true, false],
            ),
            (
                r#"{"tees":["sev-snp","tdx","nitro"]}"#,
                [true, true, true, true, true, false],
            ),
            (
                r#"{"require_gpu":true}"#,
                [false, false, false, true, false, true],
            ),
            (
                r#"{"tees":["sev-snp"],"require_gpu":true}"#,
                [false, false, false, true, false, false],
            ),
            (r#"{"tees":["tdx"],"require_gpu":true}"#, [false; 6]),
        ];
        for (terms, expected) in cases {
            let terms: crate::config::terms::KeyTerms = serde_json::from_str(terms).unwrap();
            let wanted = Hardware::of(terms.tees.as_ref(), terms.require_gpu);
            let taken = nodes.map(|(tee, devices)| wanted.takes(tee, devices.iter().copied()));
            assert_eq!(taken, expected, "{terms:?}");
            assert_eq!(wanted.and(Hardware::ANY), wanted);
            assert_eq!(Hardware::ANY.and(wanted), wanted);
        }
    }
}
