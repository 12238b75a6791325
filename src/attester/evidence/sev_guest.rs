//! `/dev/sev-guest`: SEV-SNP reports on kernels without configfs-tsm.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use attestation::EvidenceItem;
use tee_device::{
    MAX_CERTIFICATE_TABLE, REPORT_REQUEST_LEN, REPORT_RESPONSE_LEN, SevGuest, SevGuestError,
};

use super::{CpuSource, EvidenceError, Question, sev_snp::Certificates};

/// Offset of the report in the firmware's response: status, length, 24 reserved bytes.
const REPORT_AT: usize = 32;
/// What the host says when its certificates are longer than the room for them.
const HOST_INVALID_LENGTH: u32 = 1;

/// Why the device gives no report.
#[derive(Debug, thiserror::Error)]
pub enum GuestDeviceError {
    /// The device cannot be opened.
    #[error("{}: {source}{}", path.display(), super::device_hint(source))]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The driver, the firmware or the host refuses.
    #[error(transparent)]
    Refused(#[from] SevGuestError),
    /// The host's table of certificates is longer than the driver takes.
    #[error(
        "the host's certificates are longer than {MAX_CERTIFICATE_TABLE} bytes: give them as \
         files, by `certificates`"
    )]
    CertificatesTooLong,
    /// The firmware answers with a status other than success.
    #[error("the firmware gives no report: status {0:#x}")]
    Status(u32),
    /// The firmware's response is shorter than it says.
    #[error("the firmware says that its report has {0} bytes")]
    Length(u32),
}

/// The two operations of the driver, so that a test can be the firmware.
pub(super) trait Guest: fmt::Debug + Send + Sync {
    fn report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError>;

    fn extended_report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
        certificates: &mut [u8; MAX_CERTIFICATE_TABLE],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError>;
}

impl Guest for SevGuest {
    fn report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
        self.report(request)
    }

    fn extended_report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
        certificates: &mut [u8; MAX_CERTIFICATE_TABLE],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
        self.extended_report(request, certificates)
    }
}

/// The reports of one device.
#[derive(Debug)]
pub(super) struct GuestDevice<G = SevGuest> {
    guest: G,
    privlevel: u32,
    certificates: Certificates,
}

impl GuestDevice {
    pub(super) fn open(
        path: &Path,
        privlevel: u32,
        certificates: Certificates,
    ) -> Result<Self, GuestDeviceError> {
        let guest = SevGuest::open(path).map_err(|source| GuestDeviceError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            guest,
            privlevel,
            certificates,
        })
    }
}

impl<G: Guest> GuestDevice<G> {
    /// The firmware's response, and the host's table where it was asked for one.
    fn ask(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
    ) -> Result<(Vec<u8>, Vec<u8>), GuestDeviceError> {
        if let Certificates::Files(_) = &self.certificates {
            let response = self.guest.report(request)?;
            return Ok((report_in(&response[..])?, Vec::new()));
        }
        let mut table = Box::new([0; MAX_CERTIFICATE_TABLE]);
        let response = self.guest.extended_report(request, &mut table);
        let response = response.map_err(|error| match error.host {
            HOST_INVALID_LENGTH => GuestDeviceError::CertificatesTooLong,
            _ => GuestDeviceError::Refused(error),
        })?;
        Ok((report_in(&response[..])?, table.to_vec()))
    }
}

impl<G: Guest> CpuSource for GuestDevice<G> {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        let request = request(&question.report_data, self.privlevel);
        let (report, table) = self.ask(&request)?;
        self.certificates.item(report, &table)
    }
}

/// `struct snp_report_req`: report data, VMPL, 28 reserved bytes.
fn request(report_data: &[u8; 64], privlevel: u32) -> [u8; REPORT_REQUEST_LEN] {
    let mut request = [0; REPORT_REQUEST_LEN];
    let (data, rest) = request.split_at_mut(64);
    data.copy_from_slice(report_data);
    if let Some(vmpl) = rest.first_chunk_mut() {
        *vmpl = privlevel.to_le_bytes();
    }
    request
}

/// The report in the firmware's response (AMD's "SEV Secure Nested Paging Firmware ABI", table
/// "MSG_REPORT_RSP").
fn report_in(response: &[u8]) -> Result<Vec<u8>, GuestDeviceError> {
    let number = |at: usize| {
        let bytes = response.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let (status, len) = (number(0), number(4));
    if status != 0 {
        return Err(GuestDeviceError::Status(status));
    }
    let report = usize::try_from(len)
        .ok()
        .and_then(|len| response.get(REPORT_AT..)?.get(..len));
    Ok(report.ok_or(GuestDeviceError::Length(len))?.to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use attestation::EvidenceKind;

    use super::*;
    use crate::attester::evidence::{
        certificate_table::tests::{GUIDS, table},
        tests::{milan, question},
    };

    /// A firmware that answers with `response` and `table`.
    #[derive(Debug)]
    struct Firmware {
        response: Vec<u8>,
        table: Vec<u8>,
        host: u32,
        asked: Mutex<Vec<(&'static str, [u8; REPORT_REQUEST_LEN])>>,
    }

    impl Firmware {
        fn new(report: &[u8]) -> Self {
            let len = u32::try_from(report.len()).unwrap();
            let head = [&[0; 4], &len.to_le_bytes()[..], &[0; 24]].concat();
            Self {
                response: [&head[..], report].concat(),
                table: Vec::new(),
                host: 0,
                asked: Mutex::default(),
            }
        }

        fn answer(
            &self,
            operation: &'static str,
            request: &[u8; REPORT_REQUEST_LEN],
        ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
            self.asked.lock().unwrap().push((operation, *request));
            if self.host != 0 {
                return Err(SevGuestError {
                    source: io::Error::other("refused"),
                    firmware: 0,
                    host: self.host,
                });
            }
            let mut response = Box::new([0; REPORT_RESPONSE_LEN]);
            response[..self.response.len()].copy_from_slice(&self.response);
            Ok(response)
        }
    }

    impl Guest for Firmware {
        fn report(
            &self,
            request: &[u8; REPORT_REQUEST_LEN],
        ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
            self.answer("report", request)
        }

        fn extended_report(
            &self,
            request: &[u8; REPORT_REQUEST_LEN],
            certificates: &mut [u8; MAX_CERTIFICATE_TABLE],
        ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
            certificates[..self.table.len()].copy_from_slice(&self.table);
            self.answer("extended", request)
        }
    }

    fn device(guest: Firmware, certificates: Certificates) -> GuestDevice<Firmware> {
        GuestDevice {
            guest,
            privlevel: 1,
            certificates,
        }
    }

    #[test]
    fn a_genuine_report_comes_with_the_hosts_certificates() {
        let (report, vcek, ask) = milan();
        let mut firmware = Firmware::new(&report);
        firmware.table = table(&[(GUIDS[0], &vcek), (GUIDS[2], &ask)]);
        let device = device(firmware, Certificates::Host);
        let item = device.evidence(&question()).unwrap();
        assert_eq!(item.kind, EvidenceKind::SevSnp);
        assert_eq!(item.report, report);
        assert_eq!(item.certificates, [vcek, ask]);
        let asked = device.guest.asked.lock().unwrap();
        let [("extended", request)] = asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(request[..64], question().report_data);
        assert_eq!(request[64..68], [1, 0, 0, 0]);
        assert_eq!(request[68..], [0; 28]);
    }

    #[test]
    fn a_host_is_not_asked_for_certificates_that_lie_in_files() {
        let (report, vcek, _) = milan();
        let device = device(
            Firmware::new(&report),
            Certificates::Files(vec![vcek.clone()]),
        );
        let item = device.evidence(&question()).unwrap();
        assert_eq!(item.certificates, [vcek]);
        assert_eq!(device.guest.asked.lock().unwrap()[0].0, "report");
    }

    #[test]
    fn what_goes_wrong_is_named() {
        let (report, ..) = milan();
        type Change = fn(&mut Firmware);
        let with = |change: Change| {
            let mut firmware = Firmware::new(&report);
            change(&mut firmware);
            let asked = device(firmware, Certificates::Host).evidence(&question());
            asked.unwrap_err().to_string()
        };
        let cases: [(Change, &str); 6] = [
            (|it| it.response[0] = 0x16, "status 0x16"),
            (|it| it.response[4..8].fill(0xff), "4294967295 bytes"),
            (|it| it.response[5] = 0, "a report of 160 bytes"),
            (|it| it.host = 1, "longer than 16384 bytes"),
            (|it| it.host = 2, "host error 0x2"),
            (|it| it.table = vec![1; 24], "entry 0 points outside"),
        ];
        for (change, expected) in cases {
            let error = with(change);
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn an_absent_device_is_named_with_what_to_do() {
        let path = Path::new("/dev/there-is-no-sev-guest");
        let error = GuestDevice::open(path, 0, Certificates::Host).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("/dev/there-is-no-sev-guest"), "{error}");
        assert!(error.contains("sealgate doctor"), "{error}");
    }
}
