//! Threads that start although the system has none to give for a moment.
//!
//! What asks for a thread in the middle of a switch would otherwise fail, and so would its way back.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread::{Builder, scope, sleep};
use std::time::Duration;

/// How often a thread is asked for anew.
const AGAIN: u32 = 5;
/// How long is waited in between.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts a thread that goes on by itself. Where the system is at its limit of threads (`EAGAIN`) it is asked again,
/// for a tenth of a second in all.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    attempts(work, |handed| named(name).spawn(move || handed.recv().map(call))).map(drop)
}

/// The same, and waits for its end; a panic goes on in the caller.
pub(crate) fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    scope(|scope| {
        let started =
            attempts(work, |handed| named(name).spawn_scoped(scope, move || handed.recv().map(call)))?;
        let ended = started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.map_err(io::Error::other)
    })
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.to_owned())
}

fn call<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Hands work to the first thread that starts: one that does not start takes what it was given with it.
fn attempts<W, H>(work: W, mut attempt: impl FnMut(Receiver<W>) -> io::Result<H>) -> io::Result<H> {
    let mut tries = 0;
    loop {
        let (hand, handed) = mpsc::channel();
        match attempt(handed) {
            Ok(thread) => {
                // Whoever waits for its end learns that it did nothing.
                drop(hand.send(work));
                return Ok(thread);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < AGAIN => {
                tries += 1;
                sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of work where the first attempts fail so.
    fn after(failures: &[i32]) -> (io::Result<u32>, usize) {
        let mut asked = 0;
        let outcome = attempts(
            || 7,
            |handed| {
                asked += 1;
                match failures.get(asked - 1) {
                    Some(number) => Err(io::Error::from_raw_os_error(*number)),
                    None => Ok(handed),
                }
            },
        );
        (outcome.map(|handed| handed.recv().map(call).unwrap()), asked)
    }

    #[test]
    fn a_system_without_threads_is_asked_again_for_a_while() {
        assert!(matches!(after(&[]), (Ok(7), 1)));
        assert!(matches!(after(&[libc::EAGAIN; 5]), (Ok(7), 6)));
        let (outcome, asked) = after(&[libc::EAGAIN; 6]);
        assert_eq!((outcome.unwrap_err().kind(), asked), (io::ErrorKind::WouldBlock, 6));
        let (outcome, asked) = after(&[libc::ENOMEM]);
        assert_eq!((outcome.unwrap_err().raw_os_error(), asked), (Some(libc::ENOMEM), 1));
    }

    #[test]
    fn threads_do_what_they_are_told() {
        assert_eq!(run("test", || 7).unwrap(), 7);
        let (told, heard) = mpsc::channel();
        start("test", move || told.send(8).unwrap()).unwrap();
        assert_eq!(heard.recv(), Ok(8));
    }
}
