//! The TUN device: packets without an Ethernet header.
//!
//! The only unsafe code of the program: the ioctl takes an interface name by pointer. The device stays when
//! the process ends (`TUNSETPERSIST`), so that routes and programs on it wait for the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Longest interface name, its NUL included.
const NAME_BYTES: usize = 16;

mod raw {
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_index, libc::TUNSETIFINDEX, libc::c_uint);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
}

/// An open TUN device.
pub(crate) struct Tun(File);

impl Tun {
    /// Makes a device, with an index if one is given, or takes one over that nobody else has open.
    pub(crate) fn open(name: &str, index: Option<u32>) -> io::Result<Self> {
        if name.is_empty() || name.len() >= NAME_BYTES {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut ifr_name = [0; NAME_BYTES];
        for (slot, byte) in ifr_name.iter_mut().zip(name.as_bytes()) {
            *slot = byte.cast_signed();
        }
        let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
        if let Some(index) = index {
            // SAFETY: the kernel reads an integer, which lives across the call.
            unsafe { raw::set_index(file.as_raw_fd(), &raw const index) }?;
        }
        // SAFETY: `request` lives across the call, its name ends in a NUL, and the kernel reads flags from it.
        unsafe { raw::set_interface(file.as_raw_fd(), &raw const request) }?;
        // SAFETY: an integer is all that the call takes.
        unsafe { raw::set_persist(file.as_raw_fd(), 1) }?;
        Ok(Self(file))
    }

    /// Reads one packet; `None` when there is none.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.0).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the host one packet. One that it does not take, because the device is down, is lost.
    pub(crate) fn write(&self, packet: &[u8]) {
        drop((&self.0).write(packet));
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
