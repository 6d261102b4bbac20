//! Why hubctl failed, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

use crate::inputs::reload::FileProblem;
use crate::inputs::rest::problem::ProblemDetails;

/// The exit codes, for `--help` and the man page.
pub(super) const TABLE: &str = "\
Exit codes:
  0  done; `why`: the packet passes
  1  the hub refused (conflict, changed in between, full); `why`: the packet is dropped;
     `personality switch`, `experiment`: it did not end as ordered; `down`: hubd runs; `doctor`: warnings
  2  wrong usage
  3  the daemon cannot be reached
  4  no such persona, personality, interface or experiment
  5  invalid document or question
  6  not permitted: the socket's mode, a token or a certificate
  7  anything else: the hub failed, a file cannot be read or written; `doctor`: errors";

/// The packet of `why` does not pass.
pub(super) const DROPPED: u8 = 1;
const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_FOUND: u8 = 4;
const INVALID: u8 = 5;
const FORBIDDEN: u8 = 6;
const OTHER: u8 = 7;

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments make no sense.
    Usage(String),
    /// It would do harm as things are.
    Refused(String),
    /// Nobody listens there.
    Unreachable { place: String, source: std::io::Error },
    /// The kernel does not let us talk to the hub.
    Forbidden { place: String },
    /// The hub refused.
    Problem(Box<ProblemDetails>),
    /// Documents have errors.
    Documents(Vec<FileProblem>),
    /// A file or process on this machine.
    Local { intent: &'static str, place: String, source: std::io::Error },
    /// The hub's answer makes no sense, or it stopped in the middle.
    Answer(String),
}

impl Failure {
    /// A failed operation on this machine.
    pub(super) fn local(intent: &'static str, place: impl fmt::Display, source: std::io::Error) -> Self {
        Self::Local { intent, place: place.to_string(), source }
    }

    /// The hub's answer makes no sense.
    pub(super) fn answer(error: impl fmt::Display) -> Self {
        Self::Answer(error.to_string())
    }

    /// Its exit code.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => USAGE,
            Self::Refused(_) => REFUSED,
            Self::Unreachable { .. } => UNREACHABLE,
            Self::Forbidden { .. } => FORBIDDEN,
            Self::Problem(problem) => match problem.status {
                404 => NOT_FOUND,
                400 | 413 | 415 | 422 => INVALID,
                401 | 403 => FORBIDDEN,
                409 | 412 | 507 => REFUSED,
                _ => OTHER,
            },
            Self::Documents(_) => INVALID,
            Self::Local { .. } | Self::Answer(_) => OTHER,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(detail) | Self::Refused(detail) => f.write_str(detail),
            Self::Unreachable { place, source } => {
                write!(
                    f,
                    "the hub does not answer at {place}: {source}\nhint: is hubd running? `systemctl status hubd`; another socket: --socket or HUB_SOCKET"
                )
            }
            Self::Forbidden { place } => {
                write!(
                    f,
                    "no permission for {place}\nhint: be root or in the socket's group, or show a certificate of the hub's CA"
                )
            }
            Self::Problem(problem) => show_problem(f, problem),
            Self::Documents(problems) => {
                for problem in problems {
                    writeln!(f, "{problem}")?;
                }
                write!(f, "{} wrong; nothing was changed", count(problems.len(), "thing"))
            }
            Self::Local { intent, place, source } => write!(f, "cannot {intent} {place}: {source}"),
            Self::Answer(detail) => write!(f, "the hub's answer is not to be understood: {detail}"),
        }
    }
}

fn show_problem(f: &mut fmt::Formatter<'_>, problem: &ProblemDetails) -> fmt::Result {
    write!(f, "{}", problem.title.to_lowercase())?;
    if problem.errors.is_empty() {
        return write!(f, ": {}", problem.detail);
    }
    for error in &problem.errors {
        match &error.place {
            Some(place) => write!(f, "\n{place}")?,
            None if error.pointer.is_empty() => write!(f, "\n  {}", error.detail)?,
            None => write!(f, "\n  {}: {}", error.pointer, error.detail)?,
        }
    }
    Ok(())
}

/// A number of things in words.
pub(super) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}
