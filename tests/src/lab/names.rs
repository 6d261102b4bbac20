//! A name server that has an answer to every question, or none to any.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::space::Space;

/// Says that a name is there and has no address, until it is dropped.
#[derive(Debug)]
pub struct Names {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Space {
    /// Answers questions for names that are sent to these addresses.
    pub fn names(&self, addresses: &[IpAddr]) -> Names {
        let bind = |address: &IpAddr| UdpSocket::bind((*address, 53)).unwrap();
        let sockets: Vec<UdpSocket> = self.within(|| addresses.iter().map(bind).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || answer(&sockets, &stopped));
        Names { stop, thread: Some(thread) }
    }
}

fn answer(sockets: &[UdpSocket], stop: &AtomicBool) {
    let mut bytes = [0; 512];
    for socket in sockets {
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    }
    while !stop.load(Ordering::Relaxed) {
        for socket in sockets {
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                // The question with the bit that says that this is its answer.
                bytes[2] |= 0x80;
                socket.send_to(&bytes[..length], from).ok();
            }
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Its panic was shown when it happened.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
