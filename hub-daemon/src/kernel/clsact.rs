//! Programs on the hook of kernels before Linux 6.6, which have no TCX links: filters of the qdisc `clsact`.
//!
//! Ours have one priority and one handle, so that an earlier run's is found and replaced in one step. The
//! filters hold the programs, not the daemon. What others put beside them stays; the qdisc goes with our
//! last filter only if the hub made it. Folders below `<pins>/clsact` remember both: `<ifindex>` where
//! filters of ours are, `<ifindex>-qdisc` where the qdisc is ours.

use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;

use super::attach::Place;
use super::netlink::{Netlink, NetlinkError};

/// First of all: what the hub drops, nobody else needs to see.
const PRIORITY: u32 = 1;
/// Tells our filters from others of the same priority.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 177 };
/// `ETH_P_ALL` as it stands in `tcm_info`.
const ALL_PROTOCOLS: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;
const KIND: &str = "clsact";
const PLACES: [Place; 2] = [Place::TcIn, Place::TcOut];

/// Whether the kernel lacks TCX links, which need no qdisc and can be pinned.
pub fn is_needed() -> bool {
    let answer = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    let Err(ProgramError::SyscallError(error)) = answer else { return false };
    error.io_error.raw_os_error() == Some(libc::EINVAL)
}

/// Makes a program run at a place, in the stead of the one that an earlier run put there.
pub fn put(
    netlink: &mut Netlink,
    pins: &Path,
    ifindex: u32,
    place: Place,
    program: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    // Before the filter: a crash in between leaves a folder too many, not a filter that nobody knows.
    drop(fs::create_dir_all(mark(pins, ifindex)));
    if add_qdisc(netlink, ifindex)? {
        drop(fs::create_dir_all(qdisc_mark(pins, ifindex)));
    }
    let mut message = filter(ifindex, place);
    let descriptor = program.as_raw_fd().cast_unsigned();
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(descriptor)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(place.program().to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let intent = format_args!("put the filter {} on interface {ifindex}", place.program());
    netlink.change(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE, intent)
}

/// Number of the program that our filter at a place runs.
pub fn find(netlink: &mut Netlink, ifindex: u32, place: Place) -> Result<Option<u32>, NetlinkError> {
    let mut question = TcMessage::with_index(ifindex.cast_signed());
    question.header.parent = parent(place);
    let question = RouteNetlinkMessage::GetTrafficFilter(question);
    let found = netlink.dump(&question, format_args!("list filters of interface {ifindex}"))?;
    Ok(found.iter().find_map(|message| {
        let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
        let header = &message.header;
        let fits = header.handle == HANDLE && header.info >> 16 == PRIORITY;
        fits.then(|| program_of(message, place))?
    }))
}

/// Takes our filters off an interface, and the qdisc with them if the hub made it and nobody else uses it.
pub fn remove(netlink: &mut Netlink, pins: &Path, ifindex: u32) -> Result<(), NetlinkError> {
    for place in PLACES {
        if find(netlink, ifindex, place)?.is_some() {
            let message = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, place));
            let intent = format_args!("remove the filter {} of interface {ifindex}", place.program());
            gone_is_removed(netlink.change(message, 0, intent))?;
        }
    }
    let made = qdisc_mark(pins, ifindex);
    if made.exists() && is_unused(netlink, ifindex)? {
        let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex));
        gone_is_removed(netlink.change(message, 0, format_args!("remove clsact of interface {ifindex}")))?;
    }
    drop(fs::remove_dir(made));
    drop(fs::remove_dir(mark(pins, ifindex)));
    Ok(())
}

/// Takes our filters off every interface; says how many interfaces had some.
pub fn remove_all(netlink: &mut Netlink, pins: &Path) -> Result<usize, NetlinkError> {
    let mut count = 0;
    for link in netlink.links()? {
        let mut ours = mark(pins, link.index).exists();
        for place in PLACES {
            ours |= find(netlink, link.index, place)?.is_some();
        }
        if ours {
            remove(netlink, pins, link.index)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Interfaces that filters of ours were put on.
pub fn marked(pins: &Path) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(pins.join(KIND)) else { return Vec::new() };
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// How many filters of ours run.
pub fn count(pins: &Path) -> Result<usize, NetlinkError> {
    let interfaces = marked(pins);
    if interfaces.is_empty() {
        return Ok(0);
    }
    let mut netlink = Netlink::open()?;
    let mut count = 0;
    for ifindex in interfaces {
        for place in PLACES {
            count += usize::from(find(&mut netlink, ifindex, place)?.is_some());
        }
    }
    Ok(count)
}

/// Forgets filters that went with their interface.
pub fn forget(pins: &Path, ifindex: u32) {
    drop(fs::remove_dir(qdisc_mark(pins, ifindex)));
    drop(fs::remove_dir(mark(pins, ifindex)));
}

fn mark(pins: &Path, ifindex: u32) -> PathBuf {
    pins.join(KIND).join(ifindex.to_string())
}

fn qdisc_mark(pins: &Path, ifindex: u32) -> PathBuf {
    pins.join(KIND).join(format!("{ifindex}-qdisc"))
}

/// Makes the qdisc; whether it was not there before.
fn add_qdisc(netlink: &mut Netlink, ifindex: u32) -> Result<bool, NetlinkError> {
    let mut message = qdisc(ifindex);
    message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    let intent = format_args!("put clsact on interface {ifindex}");
    match netlink.change(message.clone(), NLM_F_CREATE | NLM_F_EXCL, intent) {
        Ok(()) => Ok(true),
        // The kernel refuses to make one of another kind clsact. `ingress` has one side alone: filters of both would be
        // there.
        Err(error) if error.is(Errno::EEXIST) => {
            let intent = format_args!("use the qdisc of interface {ifindex} that is in the place of clsact");
            netlink.change(message, NLM_F_CREATE, intent).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Whether no filter is left on either side.
fn is_unused(netlink: &mut Netlink, ifindex: u32) -> Result<bool, NetlinkError> {
    for place in PLACES {
        let mut question = TcMessage::with_index(ifindex.cast_signed());
        question.header.parent = parent(place);
        let question = RouteNetlinkMessage::GetTrafficFilter(question);
        if !netlink.dump(&question, format_args!("list filters of interface {ifindex}"))?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What vanished in between needs no removal.
fn gone_is_removed(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is(Errno::ENODEV) || error.is(Errno::ENOENT) || error.is(Errno::EINVAL) => Ok(()),
        other => other,
    }
}

fn qdisc(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message
}

/// Names our filter at a place.
fn filter(ifindex: u32, place: Place) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent(place);
    message.header.handle = HANDLE;
    message.header.info = PRIORITY << 16 | ALL_PROTOCOLS;
    message
}

fn parent(place: Place) -> TcHandle {
    let minor = if place == Place::TcOut { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

/// The program's number, if the filter has the name that we give.
fn program_of(message: &TcMessage, place: Place) -> Option<u32> {
    let options = message.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Options(options) = attribute { Some(options) } else { None }
    })?;
    let named = options.iter().any(|option| {
        matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name == place.program())
    });
    let number = options.iter().find_map(|option| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option { Some(*id) } else { None }
    });
    number.filter(|_| named)
}
