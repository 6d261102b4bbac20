//! Raw frames on an interface of a namespace: what no honest stack sends, and what a wire carries.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, bind, recv, send, socket,
};

use super::process::now;
use super::space::Space;

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Space {
    /// Opens an interface for frames.
    pub fn wiretap(&self, interface: &str) -> Wire {
        let index = self.interface(interface);
        self.within(|| {
            let every = libc::ETH_P_ALL as u16;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let address = link_address(index, every.to_be());
            bind(socket.as_raw_fd(), &address).unwrap();
            Wire { socket }
        })
    }
}

#[expect(unsafe_code, reason = "nix makes link addresses from the kernel's form only")]
fn link_address(index: u32, protocol: u16) -> LinkAddr {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = Some(size_of::<libc::sockaddr_ll>() as u32);
    // SAFETY: the pointer is to a whole `sockaddr_ll`, which is what the family says it is.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), length) }.unwrap()
}

impl Wire {
    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// Sends a whole frame unless there is no room for it now, or the interface is gone; tells whether it went.
    pub fn try_send(&self, frame: &[u8]) -> bool {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).is_ok()
    }

    /// Waits for a frame that the function likes.
    pub fn find(&self, limit: Duration, mut likes: impl FnMut(&[u8]) -> bool) -> bool {
        let deadline = now() + limit;
        let mut bytes = vec![0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return false;
            }
            let wait = PollTimeout::try_from(left.as_millis().max(1)).unwrap();
            let mut waited = [PollFd::new(std::os::fd::AsFd::as_fd(&self.socket), PollFlags::POLLIN)];
            poll(&mut waited, wait).unwrap();
            while let Ok(length) = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                if likes(&bytes[..length]) {
                    return true;
                }
            }
        }
    }
}
