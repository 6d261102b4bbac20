//! A paced stream of numbered datagrams, each sent back by its receiver: what was lost is known one by one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{setsockopt, sockopt};

use super::process::now;
use super::space::Space;

/// Room in the sockets, so that a busy machine loses nothing there.
const BUFFER_BYTES: usize = 16 << 20;
/// The last ones have this long to come back.
const LAST: Duration = Duration::from_secs(2);

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, each by the wall clock in nanoseconds when it was sent.
    pub arrived: Vec<u64>,
    /// Datagrams that came back to the sender.
    pub returned: u64,
}

/// A stream that flows until it is finished.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<(u64, u64)>,
    receiver: JoinHandle<Vec<u64>>,
}

impl Stream {
    /// Sends from here to a port there, one datagram each pause.
    pub fn start(from: &Space, to: &Space, target: IpAddr, port: u16, pause: Duration) -> Self {
        let any = |v4: bool| if v4 { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
        let bind = |space: &Space, port: u16| {
            let socket = space.within(|| UdpSocket::bind((any(target.is_ipv4()), port)).unwrap());
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).unwrap();
            socket
        };
        let (near, far) = (bind(from, 0), bind(to, port));
        far.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        near.connect(SocketAddr::new(target, port)).unwrap();
        near.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender_stop, receiver_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        Self {
            stop,
            sender: std::thread::spawn(move || send(&near, pause, &sender_stop)),
            receiver: std::thread::spawn(move || receive(&far, &receiver_stop)),
        }
    }

    /// Ends the stream and tells what became of it.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, returned) = self.sender.join().unwrap();
        Seen { sent, arrived: self.receiver.join().unwrap(), returned }
    }
}

/// The wall clock in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "deadlines of personas are by the wall clock")]
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn send(socket: &UdpSocket, pause: Duration, stop: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut returned) = (0_u64, BTreeSet::new());
    let mut bytes = [0; 16];
    let mut collect = |returned: &mut BTreeSet<u64>| {
        while let Ok(16) = socket.recv(&mut bytes) {
            returned.insert(u64::from_be_bytes(bytes[..8].try_into().unwrap()));
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let mut datagram = [0; 16];
        datagram[..8].copy_from_slice(&sent.to_be_bytes());
        datagram[8..].copy_from_slice(&wall_ns().to_be_bytes());
        // An ICMP error about an earlier one is told here; the datagram was not sent.
        if socket.send(&datagram).is_ok() {
            sent += 1;
        }
        collect(&mut returned);
        std::thread::sleep(pause);
    }
    let deadline = now() + LAST;
    while (returned.len() as u64) < sent && now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        collect(&mut returned);
    }
    (sent, returned.len() as u64)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<u64> {
    let (mut seen, mut arrived) = (BTreeSet::new(), Vec::new());
    let mut bytes = [0; 16];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((16, from)) => {
                if seen.insert(u64::from_be_bytes(bytes[..8].try_into().unwrap())) {
                    arrived.push(u64::from_be_bytes(bytes[8..].try_into().unwrap()));
                }
                // The way back may be closed; the sender counts.
                socket.send_to(&bytes, from).ok();
            }
            Ok(_) => {}
            Err(_timeout) if stop.load(Ordering::Relaxed) => return arrived,
            Err(_timeout) => {}
        }
    }
}
