//! `/dev/nsm`, the Nitro Secure Module of an AWS enclave.

use std::{fs::File, io, path::Path};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::address_of;

/// Longest request, in bytes.
pub const MAX_NSM_REQUEST: usize = 0x1000;
/// Longest response, in bytes.
pub const MAX_NSM_RESPONSE: usize = 0x3000;

const RAW: Opcode = opcode::read_write::<RawMessage>(0x0a, 0);

/// `struct nsm_iovec`.
#[repr(C)]
struct Buffer {
    addr: u64,
    len: u64,
}

/// `struct nsm_raw`.
#[repr(C)]
struct RawMessage {
    request: Buffer,
    response: Buffer,
}

/// The device, open.
#[derive(Debug)]
pub struct Nsm(File);

impl Nsm {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        crate::open(path).map(Self)
    }

    /// `NSM_IOCTL_RAW`: sends `request` and gives the module's response.
    ///
    /// # Errors
    /// What the driver says; [`io::ErrorKind::InvalidInput`] if the request is too long.
    pub fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        if request.len() > MAX_NSM_REQUEST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut response = vec![0; MAX_NSM_RESPONSE];
        let mut message = RawMessage {
            request: Buffer {
                addr: address_of(request.as_ptr()),
                len: request.len() as u64,
            },
            response: Buffer {
                addr: address_of(response.as_mut_ptr()),
                len: MAX_NSM_RESPONSE as u64,
            },
        };
        #[expect(
            unsafe_code,
            reason = "the pattern is told what the driver does with the value"
        )]
        // SAFETY: the operation takes `struct nsm_raw`, which `RawMessage` is.
        let update = unsafe { Updater::<RAW, RawMessage>::new(&mut message) };
        #[expect(unsafe_code, reason = "the driver reads and writes through addresses")]
        // SAFETY: the driver reads as many bytes as the request has, writes at most as many as the
        // response has, and is done with both when the call is over.
        let asked = unsafe { ioctl(&self.0, update) };
        asked?;
        let written = usize::try_from(message.response.len).unwrap_or(MAX_NSM_RESPONSE);
        response.truncate(written);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_and_number_are_the_kernels() {
        assert_eq!(size_of::<RawMessage>(), 32);
        assert_eq!(RAW, 0xc020_0a00);
    }

    #[test]
    fn another_device_refuses_and_an_absent_one_does_not_open() {
        let device = Nsm::open(Path::new("/dev/null")).unwrap();
        assert!(device.ask(b"request").is_err());
        let long = device.ask(&[0; MAX_NSM_REQUEST + 1]).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
        let absent = Nsm::open(Path::new("/dev/there-is-no-such-device"));
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
