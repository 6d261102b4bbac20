//! A route netlink socket that asks one thing at a time and waits for the answer.
//!
//! The kernel works on a request inside `sendmsg` and holds its routing lock meanwhile, so there is
//! nothing to wait for asynchronously: calls block for as long as the kernel needs, and belong on a thread
//! of their own. A socket stays in the network namespace of the thread that opened it. It never sees
//! changes that others make: that is [`super::monitor`]'s task.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

/// Larger than any datagram of a dump: the kernel fills at most 32 KiB.
const BUFFER_BYTES: usize = 128 * 1024;
/// How often a dump is read again when the table changes under it.
const DUMP_ATTEMPTS: u32 = 8;
/// Bytes of a netlink message header.
const HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words on a refusal.
const ERROR_TEXT: u16 = 1;

/// What went wrong on a netlink socket; the first words say which object and what for.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket cannot be opened.
    #[error("open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The socket broke.
    #[error("{intent}: netlink socket: {source}")]
    Socket {
        /// What was tried, on which object.
        intent: String,
        /// What the socket said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{intent}: {}{text}", errno.desc())]
    Refused {
        /// What was tried, on which object.
        intent: String,
        /// Why.
        errno: Errno,
        /// The kernel's own words in parentheses, or nothing.
        text: String,
    },
    /// A table changed during each attempt to read it.
    #[error("{intent}: the table changed during every one of {DUMP_ATTEMPTS} reads")]
    Unsteady {
        /// What was tried.
        intent: String,
    },
    /// The interface that the object needs does not exist.
    #[error("{intent}: there is no interface `{interface}`")]
    NoInterface {
        /// What was tried, on which object.
        intent: String,
        /// Name of the interface.
        interface: String,
    },
}

impl NetlinkError {
    /// Whether the kernel refused with this number.
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused { errno: found, .. } if *found == errno)
    }
}

/// A request that did not succeed, without the intent, which only the caller knows.
enum Failure {
    Socket(io::Error),
    Refused(Errno, String),
    Interrupted,
}

impl Failure {
    fn with(self, intent: impl Display) -> NetlinkError {
        let intent = intent.to_string();
        match self {
            Self::Socket(source) => NetlinkError::Socket { intent, source },
            Self::Refused(errno, text) => NetlinkError::Refused { intent, errno, text },
            Self::Interrupted => NetlinkError::Unsteady { intent },
        }
    }
}

/// A connection to the kernel's routing tables.
pub struct Netlink {
    socket: Socket,
    /// What the kernel names the socket by in messages about what it changed.
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    /// Whether an answer was not read to its end: the kernel begins no dump while it is at another.
    unread: bool,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let port = socket.bind_auto()?.port_number();
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // Without this the kernel ignores the filters of dumps and sends every route there is.
            socket.set_netlink_get_strict_chk(true)?;
            Ok((socket, port))
        };
        let (socket, port) = open().map_err(NetlinkError::Open)?;
        Ok(Self { port, ..Self::over(socket) })
    }

    /// The socket's number in messages about what it changed; 0 if that is not known.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Asks whoever is at the other end of a socket.
    pub fn over(socket: Socket) -> Self {
        Self { socket, port: 0, sequence: 0, buffer: Vec::with_capacity(BUFFER_BYTES), unread: false }
    }

    /// Asks for a change; `flags` are `NLM_F_CREATE` and its like.
    pub fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        intent: impl Display,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, flags | NLM_F_ACK).map(drop).map_err(|failure| failure.with(intent))
    }

    /// Asks for several changes in one system call, which the kernel works on one after the other; what became of
    /// each.
    pub fn change_all(
        &mut self,
        changes: Vec<(RouteNetlinkMessage, u16, String)>,
    ) -> Vec<Result<(), NetlinkError>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut intents = Vec::new();
        for (message, flags, intent) in changes {
            let message = self.request(message, flags | NLM_F_ACK);
            let start = bytes.len().next_multiple_of(4);
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(bytes.get_mut(start..).unwrap_or_default());
            intents.push(intent);
        }
        if intents.is_empty() {
            return Vec::new();
        }
        let last = self.sequence;
        let mut answers = BTreeMap::new();
        let mut broken = self.send(&bytes).err();
        while broken.is_none() && !answers.contains_key(&last) {
            broken = self.acknowledgements(&mut answers).err();
        }
        self.unread = broken.is_some();
        let answer = |(sequence, intent): (u32, String)| {
            if let Some(answer) = answers.remove(&sequence) {
                return answer.map_err(|failure: Failure| failure.with(intent));
            }
            let kind = broken.as_ref().map_or(io::ErrorKind::UnexpectedEof, io::Error::kind);
            Err(NetlinkError::Socket { intent, source: kind.into() })
        };
        (0..).map(|n| first.wrapping_add(n)).zip(intents).map(answer).collect()
    }

    /// Reads one datagram of acknowledgements.
    fn acknowledgements(&mut self, answers: &mut BTreeMap<u32, Result<(), Failure>>) -> io::Result<()> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
        }
        for packet in packets(&self.buffer) {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(packet) else { continue };
            let (header, payload) = message.into_parts();
            if let NetlinkPayload::Error(error) = payload {
                let answer = if error.code.is_none() { Ok(()) } else { Err(refusal(&error)) };
                answers.insert(header.sequence_number, answer);
            }
        }
        Ok(())
    }

    /// Asks for one object.
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
        intent: impl Display,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_ACK).map_err(|failure| failure.with(intent))
    }

    /// Asks for all objects of a kind, all as of one moment. A socket that broke is read once more: nothing changed by
    /// that.
    pub fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        intent: impl Display,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut result = Err(Failure::Interrupted);
        let mut breaks = 0;
        for _ in 0..DUMP_ATTEMPTS {
            result = self.exchange(message.clone(), NLM_F_DUMP);
            match result {
                Err(Failure::Interrupted) => {}
                Err(Failure::Socket(_)) if breaks == 0 => breaks += 1,
                Ok(_) | Err(Failure::Socket(_) | Failure::Refused(..)) => break,
            }
        }
        result.map_err(|failure| failure.with(intent))
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let request = self.request(message, flags);
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.send(&bytes).map_err(Failure::Socket)?;
        let answer = self.answer();
        self.unread = matches!(answer, Err(Failure::Socket(_)));
        answer
    }

    /// Sends requests, after reading what is left of an answer that could not be read to its end.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        while std::mem::take(&mut self.unread) {
            self.buffer.clear();
            self.unread = match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(length) => length > 0,
                Err(error) => error.kind() == io::ErrorKind::Interrupted,
            };
        }
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        request
    }

    /// Reads until the acknowledgement or the end of the dump.
    fn answer(&mut self) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let mut objects = Vec::new();
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Socket(error)),
                Ok(0) => return Err(Failure::Socket(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
            }
            for packet in packets(&self.buffer) {
                // Foreign objects of a kind that the decoder does not know are none of ours.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(packet) else {
                    continue;
                };
                let (header, payload) = message.into_parts();
                if header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                if let NetlinkPayload::InnerMessage(object) = payload {
                    objects.push(object);
                } else if let NetlinkPayload::Error(error) = payload {
                    return if error.code.is_none() { Ok(objects) } else { Err(refusal(&error)) };
                } else if let NetlinkPayload::Done(done) = payload {
                    return match (done.code, interrupted) {
                        (0, false) => Ok(objects),
                        (0, true) => Err(Failure::Interrupted),
                        (code, _) => Err(Failure::Refused(Errno::from_raw(code.abs()), String::new())),
                    };
                }
            }
        }
    }
}

/// Splits a datagram into its messages.
pub(super) fn packets(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(datagram).ok()?.length() as usize;
        let (packet, _) = datagram.split_at_checked(length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(packet)
    })
}

/// What the kernel said, its own words included.
fn refusal(error: &ErrorMessage) -> Failure {
    let attributes = error.header.get(HEADER_BYTES..).unwrap_or_default();
    let text = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == ERROR_TEXT).map(
        |attribute| {
            let text = String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_string();
            format!(" ({text})")
        },
    );
    Failure::Refused(Errno::from_raw(error.raw_code().abs()), text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn a_dump_that_nobody_read_to_its_end_is_in_no_ones_way() {
        let links = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut netlink = Netlink::open().unwrap();
        // Others may make links meanwhile; the first one stays.
        let is_there = |found: &RouteNetlinkMessage| matches!(found, RouteNetlinkMessage::NewLink(link) if link.header.index == 1);
        for _ in 0..3 {
            let request = netlink.request(links(), NLM_F_DUMP);
            let mut bytes = vec![0; request.buffer_len()];
            request.serialize(&mut bytes);
            netlink.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).unwrap();
            netlink.unread = true;
            assert!(netlink.dump(&links(), "list links").unwrap().iter().any(is_there));
        }
    }
}
