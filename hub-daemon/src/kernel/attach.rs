//! Puts the programs on interfaces, with links that outlive the daemon.
//!
//! A link that an earlier run left pinned is given the new program atomically: no packet meets neither.
//! Links are pinned as `<pins>/link/<ifindex>-<program>`. Kernels without TCX get filters: [`super::clsact`].

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};

use super::clsact;
use super::load::{self, LoadError};
use super::netlink::{Netlink, NetlinkError};
use crate::desired::TcHook;

/// Why a program is not on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The program cannot be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("attach {program} to {interface}: {}", cause(source))]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The kernel refused a filter.
    #[error(transparent)]
    Filter(#[from] NetlinkError),
    /// The link of an earlier run cannot be used now. Its program stays.
    #[error("take over the link of {program} on {interface}: {detail}")]
    TakeOver {
        /// Name of the program.
        program: &'static str,
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        detail: String,
    },
    /// The link cannot be kept.
    #[error("pin the link of {program} on {interface}: {detail}")]
    Pin {
        /// Name of the program.
        program: &'static str,
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        detail: String,
    },
}

/// The innermost error, where the outer ones only name system calls; a hint where one helps.
fn cause(error: &ProgramError) -> String {
    let text = innermost(error).to_string();
    if text.contains("os error 16") {
        return format!("{text}: another program is there; it stays, and TC judges this port's packets");
    }
    if text.contains("os error 22") || text.contains("os error 95") {
        return format!("{text}: TCX links need Linux 6.6, XDP needs a driver that supports it");
    }
    text
}

impl AttachError {
    /// Whether the kernel said that another program is there.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Attach { source, .. } if cause(source).contains("os error 16"))
    }
}

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// TC ingress: `hub_tc_in`.
    TcIn,
    /// TC egress: `hub_tc_out`.
    TcOut,
    /// XDP in the driver: `hub_xdp_in`.
    Xdp,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::TcIn, Self::TcOut, Self::Xdp];

    /// Number of the loaded program in the kernel.
    pub fn program_id(self, ebpf: &Ebpf) -> Option<u32> {
        let info = ebpf.program(self.program())?.info().ok()?;
        Some(info.id())
    }

    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::TcIn => "hub_tc_in",
            Self::TcOut => "hub_tc_out",
            Self::Xdp => "hub_xdp_in",
        }
    }

    fn link(self, pins: &Path, ifindex: u32) -> PathBuf {
        pins.join("link").join(format!("{ifindex}-{}", self.program()))
    }
}

/// How the TC programs get onto ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// By links, which are pinned.
    Tcx,
    /// By filters of a qdisc.
    Clsact,
}

impl Hook {
    /// What was chosen, as far as the kernel has it.
    pub fn choose(wanted: TcHook) -> Self {
        match wanted {
            TcHook::Clsact => Self::Clsact,
            TcHook::Auto if clsact::is_needed() => Self::Clsact,
            TcHook::Auto | TcHook::Tcx => Self::Tcx,
        }
    }

    /// As the status spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Makes the loaded TC programs run on an interface, and takes away what the other hook had there.
pub fn attach_tc(
    ebpf: &mut Ebpf,
    pins: &Path,
    interface: &str,
    ifindex: u32,
    hook: Hook,
) -> Result<(), AttachError> {
    for place in [Place::TcIn, Place::TcOut] {
        match hook {
            Hook::Tcx => attach(ebpf, pins, interface, ifindex, place)?,
            Hook::Clsact => {
                let program = load::classifier(ebpf, place.program())?;
                let program = program.fd().map_err(|source| AttachError::Attach {
                    program: place.program(),
                    interface: interface.to_owned(),
                    source,
                })?;
                clsact::put(&mut Netlink::open()?, pins, ifindex, place, program.as_fd())?;
            }
        }
    }
    match hook {
        Hook::Tcx => detach_filters(pins, ifindex)?,
        Hook::Clsact => {
            for place in [Place::TcIn, Place::TcOut] {
                detach(pins, ifindex, place).map_err(|error| pin_error(place, interface, &error))?;
            }
        }
    }
    Ok(())
}

/// Whether TC programs of the hub, of this run or of one before, judge both ways on an interface. No if nobody can say.
pub fn is_judged(interface: &str, ifindex: u32) -> bool {
    let by_link = |place: Place, kind| {
        let found = SchedClassifier::query_tcx(interface, kind).map(|(_, found)| found);
        found.is_ok_and(|found| found.iter().any(|one| one.name_as_str() == Some(place.program())))
    };
    let by_filter = |place| {
        let found = Netlink::open().and_then(|mut netlink| clsact::find(&mut netlink, ifindex, place));
        found.is_ok_and(|found| found.is_some())
    };
    [(Place::TcIn, TcAttachType::Ingress), (Place::TcOut, TcAttachType::Egress)]
        .into_iter()
        .all(|(place, kind)| by_link(place, kind) || by_filter(place))
}

/// Takes filters of ours off an interface, if any were put there.
pub fn detach_filters(pins: &Path, ifindex: u32) -> Result<(), NetlinkError> {
    if clsact::marked(pins).contains(&ifindex) {
        clsact::remove(&mut Netlink::open()?, pins, ifindex)?;
    }
    Ok(())
}

/// Makes the loaded program run at a place, taking over a link that is pinned.
pub fn attach(
    ebpf: &mut Ebpf,
    pins: &Path,
    interface: &str,
    ifindex: u32,
    place: Place,
) -> Result<(), AttachError> {
    let program = place.program();
    let failed = |source| AttachError::Attach { program, interface: interface.to_owned(), source };
    let path = place.link(pins, ifindex);
    let stays = |error: &(dyn Error + 'static)| AttachError::TakeOver {
        program,
        interface: interface.to_owned(),
        detail: innermost(error).to_string(),
    };
    match PinnedLink::from_pin(&path) {
        Ok(pinned) => match take_over(ebpf, pinned, place) {
            Ok(()) => return Ok(()),
            // The interface it was on is gone; its index was given to another.
            Err(error) if is_dead(&*error) => {
                tracing::debug!(%error, path = %path.display(), "old link is dead");
                drop(fs::remove_file(&path));
            }
            // Without the program of before, packets would pass unjudged.
            Err(error) => return Err(stays(&*error)),
        },
        Err(error) if said(&error).is_some_and(|said| said.kind() == io::ErrorKind::NotFound) => {}
        // Beside the program of before, that of now would judge packets a second time.
        Err(error) => return Err(stays(&error)),
    }
    let link: FdLink = match place {
        Place::Xdp => {
            let xdp = load::xdp(ebpf, program)?;
            let id = xdp.attach_to_if_index(ifindex, XdpMode::Driver).map_err(failed)?;
            let link: Result<FdLink, LinkError> = xdp.take_link(id).map_err(failed)?.try_into();
            link.map_err(|error| pin_error(place, interface, &error))?
        }
        Place::TcIn | Place::TcOut => {
            let kind = if place == Place::TcIn { TcAttachType::Ingress } else { TcAttachType::Egress };
            let tc = load::classifier(ebpf, program)?;
            // First of all: what the hub drops, nobody else needs to see.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = tc.attach_with_options(interface, kind, options).map_err(failed)?;
            let link: Result<FdLink, LinkError> = tc.take_link(id).map_err(failed)?.try_into();
            link.map_err(|error| pin_error(place, interface, &error))?
        }
    };
    link.pin(&path).map_err(|error| pin_error(place, interface, &error))?;
    Ok(())
}

fn pin_error(place: Place, interface: &str, error: &dyn Error) -> AttachError {
    AttachError::Pin { program: place.program(), interface: interface.to_owned(), detail: error.to_string() }
}

fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// What the kernel said, in an error that only names system calls.
fn said<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    innermost(error).downcast_ref()
}

/// Whether a link could not be taken over because nothing is at its other end, or it is none of this place.
fn is_dead(error: &(dyn Error + 'static)) -> bool {
    let is_so = |said: &io::Error| {
        [libc::ENOLINK, libc::ENODEV, libc::EINVAL].map(Some).contains(&said.raw_os_error())
    };
    said(error).is_none_or(is_so)
}

fn take_over(ebpf: &mut Ebpf, pinned: PinnedLink, place: Place) -> Result<(), Box<dyn Error>> {
    let fd = FdLink::from(pinned);
    match place {
        Place::Xdp => {
            let program = load::xdp(ebpf, place.program())?;
            let id = program.attach_to_link(XdpLink::try_from(fd)?)?;
            drop(program.take_link(id)?);
        }
        Place::TcIn | Place::TcOut => {
            let program = load::classifier(ebpf, place.program())?;
            let id = program.attach_to_link(SchedClassifierLink::try_from(fd)?)?;
            drop(program.take_link(id)?);
        }
    }
    Ok(())
}

/// Takes a program off a place; success if it is not there.
pub fn detach(pins: &Path, ifindex: u32, place: Place) -> io::Result<()> {
    match fs::remove_file(place.link(pins, ifindex)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Interfaces and places that links are pinned for.
pub fn pinned(pins: &Path) -> Vec<(u32, Place)> {
    let Ok(folder) = fs::read_dir(pins.join("link")) else { return Vec::new() };
    let parse = |name: &str| {
        let (ifindex, program) = name.split_once('-')?;
        let place = Place::ALL.into_iter().find(|place| place.program() == program)?;
        Some((ifindex.parse().ok()?, place))
    };
    folder.flatten().filter_map(|entry| parse(entry.file_name().to_str()?)).collect()
}
