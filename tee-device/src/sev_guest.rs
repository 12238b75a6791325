//! `/dev/sev-guest`, the driver through which an SEV-SNP guest asks the firmware.

use std::{fmt, fs::File, io, path::Path};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::address_of;

/// Length of `struct snp_report_req`, in bytes.
pub const REPORT_REQUEST_LEN: usize = 96;
/// Length of `struct snp_report_resp`, in bytes.
pub const REPORT_RESPONSE_LEN: usize = 4000;
/// Longest table of certificates that the driver gives, in bytes, and a multiple of its pages.
pub const MAX_CERTIFICATE_TABLE: usize = 16 * 1024;

/// The only version of the messages between guest and firmware.
const MESSAGE_VERSION: u8 = 1;
const GET_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 0);
const GET_EXTENDED_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    /// The firmware's error in the lower half, the host's in the upper.
    exitinfo2: u64,
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedReportRequest {
    data: [u8; REPORT_REQUEST_LEN],
    certs_address: u64,
    certs_len: u32,
}

/// The device, open.
#[derive(Debug)]
pub struct SevGuest(File);

/// Why the driver gave no report.
#[derive(Debug)]
pub struct SevGuestError {
    /// What the system call says.
    pub source: io::Error,
    /// What the firmware says; 0xff if it was not asked.
    pub firmware: u32,
    /// What the host says; 1 if its certificates are longer than the room for them.
    pub host: u32,
}

impl fmt::Display for SevGuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            firmware,
            host,
        } = self;
        write!(
            f,
            "{source} (firmware error {firmware:#x}, host error {host:#x})"
        )
    }
}

impl std::error::Error for SevGuestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl SevGuest {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        crate::open(path).map(Self)
    }

    /// `SNP_GET_REPORT`: the firmware's response to `request`.
    ///
    /// # Errors
    /// [`SevGuestError`] says who refused.
    pub fn report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
        self.ask::<GET_REPORT>(address_of(request))
    }

    /// `SNP_GET_EXT_REPORT`: the firmware's response, and in `certificates` the host's table, zeros
    /// where it has none.
    ///
    /// # Errors
    /// [`SevGuestError`] says who refused.
    pub fn extended_report(
        &self,
        request: &[u8; REPORT_REQUEST_LEN],
        certificates: &mut [u8; MAX_CERTIFICATE_TABLE],
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
        let mut extended = ExtendedReportRequest {
            data: *request,
            certs_address: address_of(certificates.as_mut_ptr()),
            certs_len: MAX_CERTIFICATE_TABLE as u32,
        };
        // The driver writes the length that the host wants into the request.
        self.ask::<GET_EXTENDED_REPORT>(address_of(&raw mut extended))
    }

    /// Sends the request at `request`, which lives as long as the call.
    fn ask<const OPCODE: Opcode>(
        &self,
        request: u64,
    ) -> Result<Box<[u8; REPORT_RESPONSE_LEN]>, SevGuestError> {
        let mut response = Box::new([0; REPORT_RESPONSE_LEN]);
        let mut message = GuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: request,
            resp_data: address_of(response.as_mut_ptr()),
            exitinfo2: 0xff,
        };
        #[expect(
            unsafe_code,
            reason = "the pattern is told what the driver does with the value"
        )]
        // SAFETY: both operations take `struct snp_guest_request_ioctl`, which `GuestRequest` is.
        let update = unsafe { Updater::<OPCODE, GuestRequest>::new(&mut message) };
        #[expect(unsafe_code, reason = "the driver reads and writes through addresses")]
        // SAFETY: the driver reads 96 bytes at `req_data`, or 112 that end in the address and the
        // length of a buffer of that length, and writes 4000 bytes at `resp_data`. Callers hold
        // what `request` points to, and this function the response, until the call is over.
        let asked = unsafe { ioctl(&self.0, update) };
        match asked {
            Ok(()) => Ok(response),
            Err(errno) => Err(SevGuestError {
                source: errno.into(),
                firmware: message.exitinfo2 as u32,
                host: (message.exitinfo2 >> 32) as u32,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_and_numbers_are_the_kernels() {
        assert_eq!(size_of::<GuestRequest>(), 32);
        assert_eq!(size_of::<ExtendedReportRequest>(), 112);
        assert_eq!(
            std::mem::offset_of!(ExtendedReportRequest, certs_address),
            96
        );
        assert_eq!(GET_REPORT, 0xc020_5300);
        assert_eq!(GET_EXTENDED_REPORT, 0xc020_5302);
    }

    #[test]
    fn another_device_refuses_and_an_absent_one_does_not_open() {
        let device = SevGuest::open(Path::new("/dev/null")).unwrap();
        let error = device.report(&[0; REPORT_REQUEST_LEN]).unwrap_err();
        assert_eq!((error.firmware, error.host), (0xff, 0));
        assert!(
            error.to_string().contains("(firmware error 0xff"),
            "{error}"
        );
        let mut certificates = [0; MAX_CERTIFICATE_TABLE];
        let extended = device.extended_report(&[0; REPORT_REQUEST_LEN], &mut certificates);
        assert!(extended.is_err());
        let absent = SevGuest::open(Path::new("/dev/there-is-no-such-device"));
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
