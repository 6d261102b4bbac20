//! The configuration socket: one request, one answer, on a thread of its own, so that a slow client delays no
//! packet.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use zeroize::Zeroizing;

use crate::request::{Request, parse};

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest request; thousands of peers fit.
const REQUEST_BYTES: u64 = 4 * 1024 * 1024;

/// A request with where its answer goes.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: Sender<String>,
}

/// Requests, and a socket that is readable when there is one.
pub(crate) struct Requests {
    pub(crate) bell: UnixStream,
    pub(crate) asked: Receiver<Asked>,
}

/// Listens at a path. A socket that an earlier process left is replaced, one that is answered is not.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

/// Answers clients until the process ends.
pub(crate) fn serve(listener: UnixListener) -> io::Result<Requests> {
    let (bell, mut rope) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    let (sender, asked) = channel();
    std::thread::Builder::new().name("socket".into()).spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that went away needs no answer.
            drop(answer(&client, &sender, &mut rope));
        }
    })?;
    Ok(Requests { bell, asked })
}

fn answer(mut client: &UnixStream, sender: &Sender<Asked>, rope: &mut UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let text = read(client)?;
    let said = match parse(&text) {
        Err(errno) => errno_line(Some(errno)),
        Ok(request) => {
            let (answer, answered) = channel();
            if sender.send(Asked { request, answer }).is_err() {
                return Ok(());
            }
            rope.write_all(&[0])?;
            answered.recv_timeout(PATIENCE).unwrap_or_else(|_late| errno_line(Some(Errno::EIO)))
        }
    };
    client.write_all(said.as_bytes())
}

/// Lines up to the empty one. They may hold a private key.
fn read(client: &UnixStream) -> io::Result<Zeroizing<String>> {
    let mut reader = BufReader::new(client.take(REQUEST_BYTES));
    let mut text = Zeroizing::new(String::new());
    loop {
        let from = text.len();
        if reader.read_line(&mut text)? == 0 || text.get(from..) == Some("\n") {
            return Ok(text);
        }
    }
}

/// The last line of each answer, and the empty one that ends it.
pub(crate) fn errno_line(errno: Option<Errno>) -> String {
    format!("errno={}\n\n", errno.map_or(0, |errno| errno as i32))
}
