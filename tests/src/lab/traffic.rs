//! Clients and servers inside namespaces: what a connection attempt feels like to the program that makes it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::{now, patience};
use super::space::Space;

/// What came of an attempt to reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer by the one who was asked.
    Answered,
    /// A reset, or an ICMP error that says that nobody listens.
    Refused,
    /// An ICMP error that says that the network does not lead there.
    Unreachable,
    /// Nothing.
    Silent,
}

use Outcome::{Answered, Refused, Silent, Unreachable};

impl Outcome {
    /// Silence is believed after a short while, answers have time to come on a busy machine.
    fn patience(self) -> Duration {
        patience()
            * match self {
                Self::Silent => Duration::from_millis(350),
                Self::Answered | Self::Refused | Self::Unreachable => Duration::from_secs(5),
            }
    }
}

/// Any byte string will do; servers send back what they get.
const WORD: &[u8] = b"hub";

impl Space {
    /// Connects, sends a word, and waits for its echo.
    pub fn tcp(&self, target: IpAddr, port: u16, limit: Duration) -> Outcome {
        self.within(|| match TcpStream::connect_timeout(&SocketAddr::new(target, port), limit) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(limit)).unwrap();
                // A reset shows when the answer is read.
                stream.write_all(WORD).ok();
                answered(stream.read(&mut [0; 8]))
            }
            Err(error) => failed(&error),
        })
    }

    /// Sends a datagram and waits for its echo.
    pub fn udp(&self, target: IpAddr, port: u16, limit: Duration) -> Outcome {
        self.within(|| {
            let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(limit)).unwrap();
            socket.connect((target, port)).unwrap();
            if let Err(error) = socket.send(WORD) {
                return failed(&error);
            }
            answered(socket.recv(&mut [0; 8]))
        })
    }

    /// Pings once.
    pub fn ping(&self, target: IpAddr, limit: Duration) -> Outcome {
        let script = format!("ping -n -c 1 -W {} {target}", limit.as_secs_f32());
        let output = self.try_sh(&script, limit + Duration::from_secs(2));
        let said = output.stdout.clone() + &output.stderr;
        if output.success() {
            Answered
        } else if said.contains("prohibited") || said.contains("nreachable") || said.contains("filtered") {
            Unreachable
        } else {
            Silent
        }
    }

    /// Fails the test unless a connection feels as expected.
    #[track_caller]
    pub fn expect_tcp(&self, target: IpAddr, port: u16, expected: Outcome) {
        let outcome = self.tcp(target, port, expected.patience());
        assert_eq!(outcome, expected, "tcp from {} to {target} port {port}", self.name());
    }

    /// Fails the test unless a datagram fares as expected.
    #[track_caller]
    pub fn expect_udp(&self, target: IpAddr, port: u16, expected: Outcome) {
        let outcome = self.udp(target, port, expected.patience());
        assert_eq!(outcome, expected, "udp from {} to {target} port {port}", self.name());
    }

    /// Fails the test unless a ping fares as expected.
    #[track_caller]
    pub fn expect_ping(&self, target: IpAddr, expected: Outcome) {
        let outcome = self.ping(target, expected.patience());
        assert_eq!(outcome, expected, "ping from {} to {target}", self.name());
    }

    /// Opens a TCP connection that the test goes on to use.
    #[track_caller]
    pub fn connect(&self, target: IpAddr, port: u16) -> TcpStream {
        let address = SocketAddr::new(target, port);
        let stream = self.within(|| TcpStream::connect_timeout(&address, Answered.patience()));
        let stream = stream.unwrap_or_else(|error| panic!("{} to {address}: {error}", self.name()));
        stream.set_read_timeout(Some(Answered.patience())).unwrap();
        stream
    }

    /// Echoes TCP and UDP of both families on these ports until the result is dropped.
    pub fn serve(&self, ports: &[u16]) -> Server {
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let (listeners, sockets) = self.within(|| {
            let listeners: Vec<_> =
                ports.iter().map(|port| TcpListener::bind((any, *port)).unwrap()).collect();
            let sockets: Vec<_> = ports.iter().map(|port| UdpSocket::bind((any, *port)).unwrap()).collect();
            (listeners, sockets)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || echo(&listeners, &sockets, &stopped));
        Server { stop, thread: Some(thread) }
    }
}

/// Whether the connection still carries bytes there and back.
pub fn echoes(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.write_all(WORD).is_ok() && matches!(stream.read(&mut [0; 8]), Ok(1..))
}

fn answered(read: std::io::Result<usize>) -> Outcome {
    match read {
        Ok(0) => Refused,
        Ok(_) => Answered,
        Err(error) => failed(&error),
    }
}

fn failed(error: &std::io::Error) -> Outcome {
    let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    if is(&[ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset]) {
        Refused
    } else if is(&[ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::PermissionDenied]) {
        Unreachable
    } else if is(&[ErrorKind::TimedOut, ErrorKind::WouldBlock]) {
        Silent
    } else {
        panic!("unexpected: {error:?}")
    }
}

/// Echoes until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Its panic was shown when it happened.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn echo(listeners: &[TcpListener], sockets: &[UdpSocket], stop: &AtomicBool) {
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
    }
    for socket in sockets {
        socket.set_nonblocking(true).unwrap();
    }
    // A client may use one port towards two of ours.
    let mut streams: BTreeMap<[SocketAddr; 2], TcpStream> = BTreeMap::new();
    let mut bytes = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let all = listeners.iter().map(|l| l.as_fd());
        let all = all.chain(sockets.iter().map(|s| s.as_fd())).chain(streams.values().map(|s| s.as_fd()));
        let mut waited: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut waited, PollTimeout::from(20_u8)).unwrap();
        for listener in listeners {
            while let Ok((stream, peer)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                streams.insert([peer, stream.local_addr().unwrap()], stream);
            }
        }
        for socket in sockets {
            while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                socket.send_to(&bytes[..length], peer).ok();
            }
        }
        streams.retain(|_, stream| match stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => stream.write_all(&bytes[..length]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
    }
}

/// Time that went by since the test began to wait.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Begins.
    pub fn start() -> Self {
        Self(now())
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
