//! The attestation report's bytes (SEV-SNP firmware ABI, `ATTESTATION_REPORT`).

/// Length of a report, in bytes.
pub const REPORT_LEN: usize = 0x4a0;
/// Length of the part that is signed: everything before the signature.
pub const SIGNED_LEN: usize = 0x2a0;
/// Length of each of the signature's two numbers, zeros included.
const NUMBER_LEN: usize = 72;
/// Bytes of each number that carry data.
const P384_LEN: usize = 48;

/// Guest policy: the guest may run with SMT.
pub const POLICY_SMT: u64 = 1 << 16;
/// Guest policy: reserved, always one.
pub const POLICY_RESERVED_ONE: u64 = 1 << 17;
/// Guest policy: a migration agent may take the guest elsewhere.
pub const POLICY_MIGRATE_MA: u64 = 1 << 18;
/// Guest policy: the host may read the guest.
pub const POLICY_DEBUG: u64 = 1 << 19;
/// Guest policy: the guest runs on one socket only.
pub const POLICY_SINGLE_SOCKET: u64 = 1 << 20;
/// Guest policy: memory may lie on CXL devices.
pub const POLICY_CXL: u64 = 1 << 21;
/// The highest bit that has a meaning is 24 (ciphertext hiding); those above are zero.
pub const POLICY_RESERVED_ZERO: u64 = !((1 << 25) - 1);

/// Flags: the chip's identity and key are masked, so that the report is not signed.
pub const FLAG_MASK_CHIP_KEY: u32 = 1 << 1;

/// The signature algorithm ECDSA P-384 with SHA-384.
pub const ECDSA_P384_SHA384: u32 = 1;

/// A report's fields, in the order of its bytes. Nothing about them is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// 2 to 5; the layout is the same, later versions fill more of it.
    pub version: u32,
    /// The guest's security version, from its ID block.
    pub guest_svn: u32,
    /// The guest policy, see the `POLICY_` bits.
    pub policy: u64,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// The privilege level that asked for the report; `0xffff_ffff` if the host did.
    pub vmpl: u32,
    /// 1 is ECDSA P-384 with SHA-384.
    pub signature_algorithm: u32,
    /// The TCB that runs.
    pub current_tcb: [u8; 8],
    /// What the platform has switched on.
    pub platform_info: u64,
    /// Which key signed, and what is masked.
    pub flags: u32,
    /// What the guest asked to have reported.
    pub report_data: [u8; 64],
    /// The guest's launch digest.
    pub measurement: [u8; 48],
    /// What the host gave at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the ID key.
    pub author_key_digest: [u8; 48],
    /// The guest's report id.
    pub report_id: [u8; 32],
    /// Its migration agent's.
    pub report_id_ma: [u8; 32],
    /// The TCB that the signing key was derived from.
    pub reported_tcb: [u8; 8],
    /// CPUID family, model and stepping; zero before version 3.
    pub cpuid: [u8; 3],
    /// The chip's identity; zero if a VLEK signed.
    pub chip_id: [u8; 64],
    /// The TCB below which the platform cannot be rolled back.
    pub committed_tcb: [u8; 8],
    /// Firmware that runs: build, minor, major.
    pub current_version: [u8; 3],
    /// Firmware that is committed: build, minor, major.
    pub committed_version: [u8; 3],
    /// The TCB when the guest was launched.
    pub launch_tcb: [u8; 8],
    /// Mitigations at launch; zero before version 5.
    pub launch_mitigations: u64,
    /// Mitigations now; zero before version 5.
    pub current_mitigations: u64,
}

/// Why bytes are no report.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// Not [`REPORT_LEN`] bytes.
    #[error("{len} bytes")]
    Length {
        /// The length seen.
        len: usize,
    },
    /// A version whose layout is not known.
    #[error("version {0}")]
    Version(u32),
}

impl Report {
    /// Reads a report of a known version.
    ///
    /// # Errors
    /// If the length or the version is another.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let error = ReportError::Length { len: bytes.len() };
        let signed = bytes.first_chunk::<SIGNED_LEN>();
        let signed = signed.filter(|_| bytes.len() == REPORT_LEN).ok_or(error)?;
        let report = Self::read(&mut Fields(signed)).ok_or(error)?;
        match report.version {
            2..=5 => Ok(report),
            version => Err(ReportError::Version(version)),
        }
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            version: fields.u32()?,
            guest_svn: fields.u32()?,
            policy: fields.u64()?,
            family_id: fields.take()?,
            image_id: fields.take()?,
            vmpl: fields.u32()?,
            signature_algorithm: fields.u32()?,
            current_tcb: fields.take()?,
            platform_info: fields.u64()?,
            flags: fields.u32()?,
            report_data: fields.skip::<4>()?.take()?,
            measurement: fields.take()?,
            host_data: fields.take()?,
            id_key_digest: fields.take()?,
            author_key_digest: fields.take()?,
            report_id: fields.take()?,
            report_id_ma: fields.take()?,
            reported_tcb: fields.take()?,
            cpuid: fields.take()?,
            chip_id: fields.skip::<21>()?.take()?,
            committed_tcb: fields.take()?,
            current_version: fields.take()?,
            committed_version: fields.skip::<1>()?.take()?,
            launch_tcb: fields.skip::<1>()?.take()?,
            launch_mitigations: fields.u64()?,
            current_mitigations: fields.u64()?,
        })
    }

    /// Writes the part that is signed; reserved bytes are zero.
    ///
    /// For whoever makes reports. A verifier never writes what it received: signatures are checked
    /// over the bytes as they came.
    pub fn to_signed_bytes(&self) -> [u8; SIGNED_LEN] {
        let parts: [&[u8]; 30] = [
            &self.version.to_le_bytes(),
            &self.guest_svn.to_le_bytes(),
            &self.policy.to_le_bytes(),
            &self.family_id,
            &self.image_id,
            &self.vmpl.to_le_bytes(),
            &self.signature_algorithm.to_le_bytes(),
            &self.current_tcb,
            &self.platform_info.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &[0; 4],
            &self.report_data,
            &self.measurement,
            &self.host_data,
            &self.id_key_digest,
            &self.author_key_digest,
            &self.report_id,
            &self.report_id_ma,
            &self.reported_tcb,
            &self.cpuid,
            &[0; 21],
            &self.chip_id,
            &self.committed_tcb,
            &self.current_version,
            &[0],
            &self.committed_version,
            &[0],
            &self.launch_tcb,
            &self.launch_mitigations.to_le_bytes(),
            &self.current_mitigations.to_le_bytes(),
        ];
        let mut bytes = [0; SIGNED_LEN];
        for (byte, part) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *part;
        }
        bytes
    }
}

/// Reads little-endian fields one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn skip<const N: usize>(&mut self) -> Option<&mut Self> {
        self.take::<N>()?;
        Some(self)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// A report's bytes, cut into what is signed and the signature over it.
pub(crate) struct Signed<'a> {
    pub(crate) message: &'a [u8],
    /// r and s, big-endian, 48 bytes each.
    pub(crate) signature: [u8; 96],
}

impl<'a> Signed<'a> {
    /// Cuts a report; `None` if any byte outside the signed part and the signature's two numbers is
    /// not zero, so that no single bit can be changed without being noticed.
    ///
    /// A report's bytes are no identity all the same: s and the group's order less s both verify.
    pub(crate) fn from_report(bytes: &'a [u8]) -> Option<Self> {
        let (message, tail) = bytes.split_at_checked(SIGNED_LEN)?;
        let (r, tail) = tail.split_first_chunk::<NUMBER_LEN>()?;
        let (s, rest) = tail.split_first_chunk::<NUMBER_LEN>()?;
        let mut signature = [0; 96];
        let (r_out, s_out) = signature.split_at_mut(P384_LEN);
        copy_big_endian(r, r_out)?;
        copy_big_endian(s, s_out)?;
        rest.iter()
            .all(|byte| *byte == 0)
            .then_some(Self { message, signature })
    }
}

/// Turns a little-endian number around; `None` if it is longer than `out`.
fn copy_big_endian(number: &[u8; NUMBER_LEN], out: &mut [u8]) -> Option<()> {
    let (low, high) = number.split_at_checked(out.len())?;
    for (to, from) in out.iter_mut().rev().zip(low) {
        *to = *from;
    }
    high.iter().all(|byte| *byte == 0).then_some(())
}

/// Writes a report: the signed part, the signature in the report's form, and zeros.
pub(crate) fn assemble(message: &[u8; SIGNED_LEN], signature: &[u8; 96]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for number in signature.chunks(P384_LEN) {
        bytes.extend(number.iter().rev());
        bytes.extend([0; NUMBER_LEN - P384_LEN]);
    }
    bytes.resize(REPORT_LEN, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each field begins where the ABI says: numbered bytes come back from their offsets.
    #[test]
    fn fields_lie_where_the_abi_says() {
        let mut bytes: Vec<u8> = (0..REPORT_LEN)
            .map(|at| u8::try_from(at / 8).unwrap())
            .collect();
        bytes[..4].copy_from_slice(&[3, 0, 0, 0]);
        let report = Report::parse(&bytes).unwrap();
        let offsets: [(&[u8], usize); 15] = [
            (&report.family_id, 0x10),
            (&report.image_id, 0x20),
            (&report.current_tcb, 0x38),
            (&report.report_data, 0x50),
            (&report.measurement, 0x90),
            (&report.host_data, 0xc0),
            (&report.id_key_digest, 0xe0),
            (&report.author_key_digest, 0x110),
            (&report.report_id, 0x140),
            (&report.report_id_ma, 0x160),
            (&report.reported_tcb, 0x180),
            (&report.cpuid, 0x188),
            (&report.chip_id, 0x1a0),
            (&report.committed_tcb, 0x1e0),
            (&report.launch_tcb, 0x1f0),
        ];
        for (field, offset) in offsets {
            assert_eq!(field, &bytes[offset..][..field.len()], "{offset:#x}");
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..][..8].try_into().unwrap());
        assert_eq!(report.guest_svn, u32_at(4));
        assert_eq!(report.policy, u64_at(8));
        assert_eq!(report.vmpl, u32_at(0x30));
        assert_eq!(report.signature_algorithm, u32_at(0x34));
        assert_eq!(report.platform_info, u64_at(0x40));
        assert_eq!(report.flags, u32_at(0x48));
        assert_eq!(report.current_version, bytes[0x1e8..0x1eb]);
        assert_eq!(report.committed_version, bytes[0x1ec..0x1ef]);
        assert_eq!(report.launch_mitigations, u64_at(0x1f8));
        assert_eq!(report.current_mitigations, u64_at(0x200));
    }

    #[test]
    fn length_and_version_are_exact() {
        let mut bytes = vec![0; REPORT_LEN];
        for version in [0, 1, 6, 0x0200_0000] {
            bytes[..4].copy_from_slice(&u32::to_le_bytes(version));
            assert_eq!(Report::parse(&bytes), Err(ReportError::Version(version)));
        }
        for version in 2..=5 {
            bytes[..4].copy_from_slice(&u32::to_le_bytes(version));
            assert!(Report::parse(&bytes).is_ok());
        }
        for len in [0, SIGNED_LEN, REPORT_LEN - 1, REPORT_LEN + 1] {
            let bytes = vec![0; len];
            assert_eq!(Report::parse(&bytes), Err(ReportError::Length { len }));
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(mut bytes in prop::collection::vec(any::<u8>(), REPORT_LEN)) {
            bytes[..4].copy_from_slice(&[2, 0, 0, 0]);
            let report = Report::parse(&bytes).unwrap();
            let written = assemble(&report.to_signed_bytes(), &[0x5a; 96]);
            prop_assert_eq!(Report::parse(&written), Ok(report));
            let signed = Signed::from_report(&written).unwrap();
            prop_assert_eq!(signed.signature, [0x5a; 96]);
            prop_assert_eq!(signed.message, &written[..SIGNED_LEN]);
        }
    }
}
