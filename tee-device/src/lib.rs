//! The ioctls of the devices that give evidence, behind safe calls.
//!
//! This crate passes bytes to a driver and brings its bytes back. It knows the layouts that the
//! kernel's headers fix (`linux/sev-guest.h`, `linux/nsm.h`) and nothing of what the bytes mean.
//! Every other crate of the workspace forbids unsafe code.

mod nsm;
mod sev_guest;

pub use nsm::{MAX_NSM_REQUEST, MAX_NSM_RESPONSE, Nsm};
pub use sev_guest::{
    MAX_CERTIFICATE_TABLE, REPORT_REQUEST_LEN, REPORT_RESPONSE_LEN, SevGuest, SevGuestError,
};

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

/// Opens a device for its ioctls.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The address of a buffer, as drivers take it.
fn address_of<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
