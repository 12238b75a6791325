//! AMD's product generations, and how each lays out its TCB.

use std::fmt;

/// A generation of EPYC processors with SEV-SNP.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// Zen 3.
    Milan,
    /// Zen 4, with Bergamo and Siena.
    Genoa,
    /// Zen 5.
    Turin,
}

impl Product {
    /// Every generation.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::Genoa => "genoa",
            Self::Turin => "turin",
        }
    }

    /// The generation of a certificate's product name, which may go on after a `-`: `Milan-B0`.
    pub(crate) fn from_certificate_name(name: &str) -> Option<Self> {
        match name.split('-').next()? {
            "Milan" => Some(Self::Milan),
            "Genoa" => Some(Self::Genoa),
            "Turin" => Some(Self::Turin),
            _ => None,
        }
    }

    /// The generation of a CPUID family and model, extended parts included.
    pub(crate) fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// How many bytes of the report's chip id the product uses; the rest is zero.
    pub(crate) fn hwid_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Security versions of a processor's firmware: the trusted computing base.
///
/// Ordered by no single number: one TCB is at least another if each part is ([`Tcb::meets`]).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tcb {
    /// Boot loader of the secure processor's management controller; Turin only.
    pub fmc: Option<u8>,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Microcode of the cores.
    pub microcode: u8,
}

impl Tcb {
    /// Reads a TCB word as its product lays it out; `None` if a reserved byte is not zero.
    pub(crate) fn from_word(product: Product, word: [u8; 8]) -> Option<Self> {
        match (product, word) {
            (Product::Milan | Product::Genoa, [bootloader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Self {
                    fmc: None,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                })
            }
            (Product::Turin, [fmc, bootloader, tee, snp, 0, 0, 0, microcode]) => Some(Self {
                fmc: Some(fmc),
                bootloader,
                tee,
                snp,
                microcode,
            }),
            _ => None,
        }
    }

    /// The lesser of each part.
    pub(crate) fn least(&self, other: &Self) -> Self {
        Self {
            fmc: self.fmc.min(other.fmc),
            bootloader: self.bootloader.min(other.bootloader),
            tee: self.tee.min(other.tee),
            snp: self.snp.min(other.snp),
            microcode: self.microcode.min(other.microcode),
        }
    }

    /// Whether every part is at least the minimum's.
    pub fn meets(&self, minimum: &Self) -> bool {
        self.fmc.unwrap_or(0) >= minimum.fmc.unwrap_or(0)
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        let Self {
            bootloader,
            tee,
            snp,
            microcode,
            ..
        } = self;
        write!(
            f,
            "bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_met_part_by_part() {
        let tcb = Tcb {
            fmc: Some(1),
            bootloader: 2,
            tee: 3,
            snp: 4,
            microcode: 5,
        };
        assert!(tcb.meets(&tcb));
        let one_above = [
            Tcb {
                fmc: Some(2),
                ..tcb
            },
            Tcb {
                bootloader: 3,
                ..tcb
            },
            Tcb { tee: 4, ..tcb },
            Tcb { snp: 5, ..tcb },
            Tcb {
                microcode: 6,
                ..tcb
            },
        ];
        for minimum in one_above {
            assert!(!tcb.meets(&minimum), "{minimum}");
            assert!(minimum.meets(&tcb), "{minimum}");
        }
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for product in Product::ALL {
            let reserved = if product == Product::Turin {
                4..7
            } else {
                2..6
            };
            for at in reserved {
                let mut word = [1, 1, 0, 0, 0, 0, 0, 1];
                assert!(Tcb::from_word(product, word).is_some());
                word[at] = 1;
                assert_eq!(Tcb::from_word(product, word), None, "{product} byte {at}");
            }
        }
    }
}
