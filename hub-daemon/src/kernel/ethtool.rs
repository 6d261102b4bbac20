//! Offloads and drivers of interfaces, over the ethtool ioctl.
//!
//! The only unsafe code of the daemon's network side: the ioctl takes an interface name and a pointer to a
//! value that the kernel reads and writes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GDRVINFO`
const GET_DRIVER: u32 = 0x03;
/// `ETHTOOL_GFLAGS`
const GET_FLAGS: u32 = 0x25;
/// `ETHTOOL_SFLAGS`
const SET_FLAGS: u32 = 0x26;
/// `ETHTOOL_GGRO`
const GET_GRO: u32 = 0x2b;
/// `ETHTOOL_SGRO`
const SET_GRO: u32 = 0x2c;
/// `ETH_FLAG_TXVLAN`: the VLAN tag travels beside the packet, where XDP does not see it.
const FLAG_TX_VLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`: the card takes VLAN tags off frames, and XDP does not see that there were any.
const FLAG_RX_VLAN: u32 = 1 << 8;
/// Longest interface name, its NUL included.
const NAME_BYTES: usize = 16;

/// An ethtool request that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{intent} of interface `{interface}`: {source}")]
pub struct EthtoolError {
    /// What was tried.
    pub intent: &'static str,
    /// On which interface.
    pub interface: String,
    /// Why not.
    pub source: io::Error,
}

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

mod raw {
    nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// Values that `SIOCETHTOOL` takes: `repr(C)`, any bytes valid, the first field the command.
trait Argument {}
impl Argument for Value {}
impl Argument for Driver {}

fn call<A: Argument>(interface: &str, argument: &mut A) -> io::Result<()> {
    let name = CString::new(interface)?;
    if name.as_bytes_with_nul().len() > NAME_BYTES {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let mut ifr_name = [0; NAME_BYTES];
    for (slot, byte) in ifr_name.iter_mut().zip(name.as_bytes()) {
        *slot = byte.cast_signed();
    }
    let data = std::ptr::from_mut(argument).cast();
    let mut request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data } };
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `request` lives across the call and its pointer leads to `argument`, which is borrowed
    // mutably for as long; each `Argument` has the layout that the kernel's command in it reads and writes.
    unsafe { raw::ethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

fn value(intent: &'static str, interface: &str, command: u32, data: u32) -> Result<u32, EthtoolError> {
    let mut value = Value { command, data };
    call(interface, &mut value).map_err(|source| EthtoolError {
        intent,
        interface: interface.to_owned(),
        source,
    })?;
    Ok(value.data)
}

/// Whether packets are merged on receipt (GRO). A veth end without it has no NAPI, and frames that XDP
/// redirects to its peer vanish.
pub fn gro(interface: &str) -> Result<bool, EthtoolError> {
    Ok(value("read GRO", interface, GET_GRO, 0)? != 0)
}

/// Switches GRO.
pub fn set_gro(interface: &str, on: bool) -> Result<(), EthtoolError> {
    value("set GRO", interface, SET_GRO, u32::from(on)).map(drop)
}

/// Whether VLAN tags of sent packets travel beside them (tx-vlan-offload), unseen by XDP on the other end.
pub fn tx_vlan_offload(interface: &str) -> Result<bool, EthtoolError> {
    Ok(value("read offloads", interface, GET_FLAGS, 0)? & FLAG_TX_VLAN != 0)
}

/// Switches tx-vlan-offload.
pub fn set_tx_vlan_offload(interface: &str, on: bool) -> Result<(), EthtoolError> {
    let flags = value("read offloads", interface, GET_FLAGS, 0)?;
    let flags = if on { flags | FLAG_TX_VLAN } else { flags & !FLAG_TX_VLAN };
    value("set tx-vlan-offload", interface, SET_FLAGS, flags).map(drop)
}

/// Has VLAN tags left in received frames (no rx-vlan-offload), where XDP sees them.
pub fn leave_tags(interface: &str) -> Result<(), EthtoolError> {
    let flags = value("read offloads", interface, GET_FLAGS, 0)?;
    if flags & FLAG_RX_VLAN == 0 {
        return Ok(());
    }
    value("switch off rx-vlan-offload", interface, SET_FLAGS, flags & !FLAG_RX_VLAN).map(drop)
}

/// What drives an interface: name of the driver, and of the device on its bus if it has one.
pub fn driver(interface: &str) -> Result<(String, String), EthtoolError> {
    let mut driver = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        version: [0; 32],
        firmware_version: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    call(interface, &mut driver).map_err(|source| EthtoolError {
        intent: "read driver",
        interface: interface.to_owned(),
        source,
    })?;
    Ok((text(&driver.name), text(&driver.bus)))
}

/// Whether XDP is worth its while on an interface: on devices that bring frames from outside, not where a
/// local stack sends super-packets that XDP makes the kernel take apart.
pub fn xdp_pays(interface: &str) -> bool {
    // TUN and bridges report a bus although they have none.
    driver(interface).is_ok_and(|(driver, bus)| driver != "tun" && !bus.is_empty() && bus != "N/A")
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
