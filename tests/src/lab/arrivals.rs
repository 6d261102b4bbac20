//! A steady stream of datagrams, and when they arrived by the clock of the kernel that took them in.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use super::space::Space;

/// A stream under way.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<f64>>,
}

/// What a stream came to.
#[derive(Debug)]
pub struct Arrivals {
    /// Datagrams sent.
    pub sent: u64,
    /// When each one arrived, in seconds since 1970.
    pub times: Vec<f64>,
}

impl Stream {
    /// Sends a datagram every `pause` to a member.
    pub fn start(from: &Space, to: &Space, target: IpAddr, port: u16, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let inside = to.within(|| {
            let socket = UdpSocket::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).unwrap();
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket
        });
        let outside = from.within(|| {
            let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect((target, port)).unwrap();
            socket
        });
        let stopped = Arc::clone(&stop);
        let receiver = std::thread::spawn(move || receive(&inside, &stopped));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                // An ICMP error about one datagram fails the next.
                sent += u64::from(outside.send(b"hub").is_ok());
                std::thread::sleep(pause);
            }
            sent
        });
        Self { stop, sender, receiver }
    }

    /// Ends the stream.
    pub fn stop(self) -> Arrivals {
        self.stop.store(true, Ordering::Relaxed);
        Arrivals { sent: self.sender.join().unwrap(), times: self.receiver.join().unwrap() }
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    let mut late = 0;
    // What was under way at the end has time to arrive.
    while late < 3 {
        let mut bytes = [0; 16];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
            Ok(message) => {
                for control in message.cmsgs().unwrap() {
                    if let ControlMessageOwned::ScmTimestampns(time) = control {
                        times.push(Duration::from(time).as_secs_f64());
                    }
                }
            }
            Err(_timeout) => late += u32::from(stop.load(Ordering::Relaxed)),
        }
    }
    times
}
