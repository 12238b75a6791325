//! The quote's bytes (Intel TDX DCAP quote generation library, quote formats 4 and 5).
//!
//! Lengths and types are exact. After the signature data there may be zeros, which quoting services
//! leave behind; whatever lies in a quote outside its signed part is malleable all the same (the
//! PEM's line ends), so no digest of a quote is an identity.

/// Longest quote, in bytes: what Linux hands out at most. Real ones have about 5,000.
pub const MAX_QUOTE: usize = 32 * 1024;
/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 48;

/// The TEE type of TDX.
pub const TEE_TYPE_TDX: u32 = 0x81;
/// The attestation key type ECDSA P-256 with SHA-256.
pub const ECDSA_P256: u16 = 2;
/// Intel's quoting enclaves.
pub const INTEL_QE_VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];

/// The body types of version 5.
const BODY_TD_REPORT_10: u16 = 2;
const BODY_TD_REPORT_15: u16 = 3;
/// Certification data: the QE's report and what endorses it.
const QE_REPORT_CERTIFICATION: u16 = 6;
/// Certification data: the PCK certificate and its authorities, PEM.
const PCK_CERTIFICATE_CHAIN: u16 = 5;

const TD_REPORT_10_LEN: usize = 584;
const TD_REPORT_15_LEN: usize = 648;
const QE_REPORT_LEN: usize = 384;

/// TD attributes: the host may read and change the TD.
pub const ATTRIBUTE_DEBUG: u64 = 1;
/// TD attributes: the rest of the group "TD under debug", profiling among it.
pub const ATTRIBUTES_UNDER_DEBUG: u64 = 0xfe;
/// TD attributes: the host cannot make the TD take an exception on its own memory.
pub const ATTRIBUTE_SEPT_VE_DISABLE: u64 = 1 << 28;
/// TD attributes: a migration TD may take the TD elsewhere.
pub const ATTRIBUTE_MIGRATABLE: u64 = 1 << 29;
/// TD attributes: supervisor protection keys.
pub const ATTRIBUTE_PKS: u64 = 1 << 30;
/// TD attributes: key locker.
pub const ATTRIBUTE_KL: u64 = 1 << 31;
/// TD attributes: performance monitoring.
pub const ATTRIBUTE_PERFMON: u64 = 1 << 63;

/// How a quote begins. Nothing about it is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// 4 or 5 for TDX; 3 is SGX's alone.
    pub version: u16,
    /// 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// 0x81 is TDX, 0 SGX.
    pub tee_type: u32,
    /// Whose quoting enclave signed.
    pub qe_vendor: [u8; 16],
    /// What the quoting enclave's vendor put in.
    pub user_data: [u8; 20],
}

/// A quote: header, TD report, and what signs them. Nothing about it is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quote<'a> {
    /// How it begins.
    pub header: Header,
    /// What is said of the TD.
    pub report: TdReport,
    /// Header, body descriptor and TD report, as received.
    pub(crate) signed: &'a [u8],
    /// r and s of the signature over them, big-endian.
    pub(crate) signature: [u8; 64],
    /// x and y of the key that made it.
    pub(crate) attestation_key: [u8; 64],
    /// The PCK certificate and its authorities, PEM.
    pub(crate) pck_chain: &'a [u8],
}

/// A TD report's fields, in the order of their bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TdReport {
    /// Security versions of the TDX module and what loads it, when the TD was launched.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mrseam: [u8; 48],
    /// Signer of the TDX module; zero is Intel.
    pub mrsignerseam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: u64,
    /// Attributes of the TD, see the `ATTRIBUTE_` bits.
    pub td_attributes: u64,
    /// Processor state that the TD may use.
    pub xfam: u64,
    /// Measurement of the TD as it was built: its firmware.
    pub mrtd: [u8; 48],
    /// Configuration that the owner named.
    pub mrconfigid: [u8; 48],
    /// The TD's owner.
    pub mrowner: [u8; 48],
    /// Configuration that the owner asked for.
    pub mrownerconfig: [u8; 48],
    /// Measurements that the TD extended itself.
    pub rtmrs: [[u8; 48]; 4],
    /// What the TD asked to have reported.
    pub report_data: [u8; 64],
    /// What version 1.5 of the report adds.
    pub current: Option<Current>,
}

/// What a TD report 1.5 adds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Current {
    /// Security versions now: the module can be updated under a running TD.
    pub tee_tcb_svn2: [u8; 16],
    /// Measurement of the service TDs that are bound to this one.
    pub mrservicetd: [u8; 48],
}

/// Why bytes are no quote.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QuoteError {
    /// Longer than [`MAX_QUOTE`].
    #[error("quote of {len} bytes exceeds the limit of {MAX_QUOTE}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It ends within a field.
    #[error("{len} bytes end within {field}")]
    Truncated {
        /// Its length in bytes.
        len: usize,
        /// Which field.
        field: &'static str,
    },
    /// Another TEE's quote.
    #[error("TEE type {0:#x}")]
    TeeType(u32),
    /// A version whose layout is not known.
    #[error("version {0}")]
    Version(u16),
    /// A body that is no TD report of a known version.
    #[error("body type {0}")]
    BodyType(u16),
    /// Certification data of another type than its place asks for.
    #[error("certification data type {0}")]
    CertificationType(u16),
    /// A length that disagrees with what it measures.
    #[error("{field} of {len} bytes")]
    Length {
        /// Which field.
        field: &'static str,
        /// The length that is written.
        len: usize,
    },
    /// Something other than zeros after the signature data.
    #[error("bytes after the signature data that are not zero")]
    Trailing,
}

impl Header {
    /// Reads how a quote begins.
    ///
    /// # Errors
    /// If it ends before its header does.
    pub fn parse(bytes: &[u8]) -> Result<Self, QuoteError> {
        Self::read(&mut Fields::new(bytes))
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, QuoteError> {
        const FIELD: &str = "the header";
        Ok(Self {
            version: fields.u16(FIELD)?,
            attestation_key_type: fields.u16(FIELD)?,
            tee_type: fields.u32(FIELD)?,
            qe_vendor: {
                // Formerly the security versions of QE and PCE; reserved for TDX.
                fields.take::<4>(FIELD)?;
                fields.take(FIELD)?
            },
            user_data: fields.take(FIELD)?,
        })
    }
}

impl<'a> Quote<'a> {
    /// Reads a TDX quote of version 4 or 5.
    ///
    /// # Errors
    /// If it is another TEE's, or any length or type in it is not as it must be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        if bytes.len() > MAX_QUOTE {
            return Err(QuoteError::TooLong { len: bytes.len() });
        }
        let mut fields = Fields::new(bytes);
        let header = Header::read(&mut fields)?;
        if header.tee_type != TEE_TYPE_TDX {
            return Err(QuoteError::TeeType(header.tee_type));
        }
        let body = match header.version {
            4 => BODY_TD_REPORT_10,
            5 => read_body_type(&mut fields)?,
            version => return Err(QuoteError::Version(version)),
        };
        let report = TdReport::read(&mut fields, body == BODY_TD_REPORT_15)?;
        let signed = fields.read_so_far(bytes);

        let mut data = fields.sized("the signature data")?;
        if fields.rest.iter().any(|byte| *byte != 0) {
            return Err(QuoteError::Trailing);
        }
        let signature = data.take("the signature")?;
        let attestation_key = data.take("the attestation key")?;
        let mut certification = data.certification(QE_REPORT_CERTIFICATION)?;
        data.finish("the signature data")?;
        certification.take::<QE_REPORT_LEN>("the QE report")?;
        certification.take::<64>("the QE report's signature")?;
        let len = usize::from(certification.u16("the QE authentication data")?);
        certification.slice(len, "the QE authentication data")?;
        let pck_chain = certification.certification(PCK_CERTIFICATE_CHAIN)?;
        certification.finish("the certification data")?;
        Ok(Self {
            header,
            report,
            signed,
            signature,
            attestation_key,
            pck_chain: pck_chain.rest,
        })
    }
}

/// Reads the descriptor that stands before the body in version 5.
fn read_body_type(fields: &mut Fields<'_>) -> Result<u16, QuoteError> {
    let body = fields.u16("the body type")?;
    let len = fields.u32("the body size")?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let expected = match body {
        BODY_TD_REPORT_10 => TD_REPORT_10_LEN,
        BODY_TD_REPORT_15 => TD_REPORT_15_LEN,
        other => return Err(QuoteError::BodyType(other)),
    };
    let field = "the TD report";
    (len == expected)
        .then_some(body)
        .ok_or(QuoteError::Length { field, len })
}

impl TdReport {
    fn read(fields: &mut Fields<'_>, has_current: bool) -> Result<Self, QuoteError> {
        const FIELD: &str = "the TD report";
        Ok(Self {
            tee_tcb_svn: fields.take(FIELD)?,
            mrseam: fields.take(FIELD)?,
            mrsignerseam: fields.take(FIELD)?,
            seam_attributes: fields.u64(FIELD)?,
            td_attributes: fields.u64(FIELD)?,
            xfam: fields.u64(FIELD)?,
            mrtd: fields.take(FIELD)?,
            mrconfigid: fields.take(FIELD)?,
            mrowner: fields.take(FIELD)?,
            mrownerconfig: fields.take(FIELD)?,
            rtmrs: [
                fields.take(FIELD)?,
                fields.take(FIELD)?,
                fields.take(FIELD)?,
                fields.take(FIELD)?,
            ],
            report_data: fields.take(FIELD)?,
            current: has_current
                .then(|| {
                    Ok(Current {
                        tee_tcb_svn2: fields.take(FIELD)?,
                        mrservicetd: fields.take(FIELD)?,
                    })
                })
                .transpose()?,
        })
    }
}

/// Reads little-endian fields one after another.
struct Fields<'a> {
    rest: &'a [u8],
    /// Length at the beginning, in bytes.
    len: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            len: bytes.len(),
        }
    }

    /// What of `bytes`, the whole that was given at the beginning, has been read.
    fn read_so_far(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.strip_suffix(self.rest).unwrap_or(bytes)
    }

    fn slice(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], QuoteError> {
        let error = QuoteError::Truncated {
            len: self.len,
            field,
        };
        let (slice, rest) = self.rest.split_at_checked(len).ok_or(error)?;
        self.rest = rest;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], QuoteError> {
        let slice = self.slice(N, field)?;
        let len = slice.len();
        slice
            .try_into()
            .map_err(|_| QuoteError::Length { field, len })
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, QuoteError> {
        self.take(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, QuoteError> {
        self.take(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, QuoteError> {
        self.take(field).map(u64::from_le_bytes)
    }

    /// A u32 length, and what it measures.
    fn sized(&mut self, field: &'static str) -> Result<Self, QuoteError> {
        let len = self.u32(field)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.slice(len, field).map(Self::new)
    }

    /// Certification data of one type.
    fn certification(&mut self, expected: u16) -> Result<Self, QuoteError> {
        let field = "the certification data";
        match self.u16(field)? {
            kind if kind == expected => self.sized(field),
            other => Err(QuoteError::CertificationType(other)),
        }
    }

    fn finish(self, field: &'static str) -> Result<(), QuoteError> {
        let len = self.len;
        self.rest
            .is_empty()
            .then_some(())
            .ok_or(QuoteError::Length { field, len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: &[u8] = include_bytes!("../../tests/data/tdx/v4-uptodate/quote.bin");
    const V5: &[u8] = include_bytes!("../../tests/data/tdx/trustee/tdx_quote_5.dat");
    const SGX: &[u8] = include_bytes!("../../tests/data/tdx/sgx/quote.bin");

    /// Each field begins where the format says: numbered bytes come back from their offsets.
    #[test]
    fn fields_lie_where_the_format_says() {
        let mut bytes = V5.to_vec();
        let body = HEADER_LEN + 6;
        for (at, byte) in bytes[body..body + TD_REPORT_15_LEN].iter_mut().enumerate() {
            *byte = u8::try_from(at / 4).unwrap();
        }
        bytes[28..48].fill(0x28);
        let quote = Quote::parse(&bytes).unwrap();
        let report = &quote.report;
        let current = report.current.as_ref().unwrap();
        let fields: [(&[u8], usize); 14] = [
            (&report.tee_tcb_svn, 0),
            (&report.mrseam, 16),
            (&report.mrsignerseam, 64),
            (&report.mrtd, 136),
            (&report.mrconfigid, 184),
            (&report.mrowner, 232),
            (&report.mrownerconfig, 280),
            (&report.rtmrs[0], 328),
            (&report.rtmrs[1], 376),
            (&report.rtmrs[2], 424),
            (&report.rtmrs[3], 472),
            (&report.report_data, 520),
            (&current.tee_tcb_svn2, 584),
            (&current.mrservicetd, 600),
        ];
        for (field, offset) in fields {
            assert_eq!(field, &bytes[body + offset..][..field.len()], "{offset}");
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[body + at..][..8].try_into().unwrap());
        assert_eq!(report.seam_attributes, u64_at(112));
        assert_eq!(report.td_attributes, u64_at(120));
        assert_eq!(report.xfam, u64_at(128));
        assert_eq!(quote.header.version, 5);
        assert_eq!(quote.header.attestation_key_type, ECDSA_P256);
        assert_eq!(quote.header.qe_vendor, INTEL_QE_VENDOR);
        assert_eq!(quote.header.user_data, [0x28; 20]);
        let signed = body + TD_REPORT_15_LEN;
        assert_eq!(quote.signed, &bytes[..signed]);
        assert_eq!(quote.signature, bytes[signed + 4..][..64]);
        assert_eq!(quote.attestation_key, bytes[signed + 68..][..64]);
        assert!(quote.pck_chain.starts_with(b"-----BEGIN"));
        assert!(quote.pck_chain.ends_with(b"-----\n\0"));
    }

    #[test]
    fn version_4_has_a_report_without_what_is_current() {
        let quote = Quote::parse(V4).unwrap();
        assert_eq!(quote.report.current, None);
        assert_eq!(quote.signed, &V4[..632]);
        assert_eq!(Header::parse(V4), Ok(quote.header));
    }

    #[test]
    fn every_type_and_length_is_exact() {
        use QuoteError::*;
        // Where the lengths and types of the version 4 quote stand.
        const DATA: usize = 632;
        const OUTER: usize = DATA + 4 + 128;
        const AUTH: usize = OUTER + 6 + 384 + 64;
        const INNER: usize = AUTH + 2 + 32;
        let length = |field, len| Length { field, len };
        let truncated = |len, field| Truncated { len, field };
        let cases = [
            ("TEE type", 4, vec![0x82], TeeType(0x82)),
            ("TEE type, high byte", 7, vec![1], TeeType(0x0100_0081)),
            ("version", 0, vec![6], Version(6)),
            ("version, high byte", 1, vec![1], Version(0x104)),
            ("outer type", OUTER, vec![5], CertificationType(5)),
            ("inner type", INNER, vec![6], CertificationType(6)),
            (
                "data too long",
                DATA,
                vec![0x13, 0x11],
                truncated(V4.len(), "the signature data"),
            ),
            (
                "data short by one",
                DATA,
                vec![0xcb, 0x10],
                truncated(4299, "the certification data"),
            ),
            (
                "outer short by one",
                OUTER + 2,
                vec![0x45, 0x10],
                length("the signature data", 4300),
            ),
            (
                "outer long by one",
                OUTER + 2,
                vec![0x47, 0x10],
                truncated(4300, "the certification data"),
            ),
            (
                "inner short by one",
                INNER + 2,
                vec![0x5d, 0x0e],
                length("the certification data", 4166),
            ),
            (
                "inner long by one",
                INNER + 2,
                vec![0x5f, 0x0e],
                truncated(4166, "the certification data"),
            ),
            (
                "endless",
                INNER + 2,
                vec![0xff; 4],
                truncated(4166, "the certification data"),
            ),
            (
                "auth too long",
                AUTH,
                vec![0xff, 0xff],
                truncated(4166, "the QE authentication data"),
            ),
        ];
        for (name, at, change, error) in cases {
            let mut bytes = V4.to_vec();
            bytes[at..][..change.len()].copy_from_slice(&change);
            assert_eq!(Quote::parse(&bytes), Err(error), "{name}");
        }
        let body = |kind: u8, size: [u8; 2]| {
            let mut bytes = V5.to_vec();
            bytes[48] = kind;
            bytes[50..52].copy_from_slice(&size);
            Quote::parse(&bytes).err()
        };
        assert_eq!(body(3, [0x88, 2]), None);
        for (kind, size, error) in [
            (1, [0x80, 1], BodyType(1)),
            (4, [0x75, 3], BodyType(4)),
            (3, [0x48, 2], length("the TD report", 584)),
            (2, [0x88, 2], length("the TD report", 648)),
        ] {
            assert_eq!(body(kind, size), Some(error));
        }
        assert_eq!(Quote::parse(SGX), Err(TeeType(0)));
    }

    #[test]
    fn a_quote_ends_where_it_must() {
        let end = V4.len() - 70;
        for len in 0..end {
            let error = Quote::parse(&V4[..len]).unwrap_err();
            let truncated = matches!(error, QuoteError::Truncated { len: seen, .. } if seen <= len);
            assert!(truncated, "{len}: {error}");
        }
        assert!(Quote::parse(&V4[..end]).is_ok());
        let mut padded = V4.to_vec();
        padded.resize(MAX_QUOTE, 0);
        assert!(Quote::parse(&padded).is_ok());
        padded[MAX_QUOTE - 1] = 1;
        assert_eq!(Quote::parse(&padded), Err(QuoteError::Trailing));
        padded.push(0);
        let len = MAX_QUOTE + 1;
        assert_eq!(Quote::parse(&padded), Err(QuoteError::TooLong { len }));
        assert_eq!(
            Header::parse(&V4[..47]).unwrap_err().to_string(),
            "47 bytes end within the header"
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
            drop(Quote::parse(&bytes));
        }

        #[test]
        fn never_panics_on_almost_quotes(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = V5.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(Quote::parse(&bytes));
        }
    }
}
