//! Everything that xtask itself prints.
//!
//! Progress goes to standard error, so that standard output holds only what a
//! verb is asked for (a table) or what the tools it runs print.

/// Prints one line of progress: which part speaks, and what it does.
#[expect(clippy::print_stderr, reason = "xtask is a command line program")]
pub(crate) fn say(part: &str, text: &str) {
    eprintln!("[{part}] {text}");
}

/// Prints why a verb failed.
#[expect(clippy::print_stderr, reason = "xtask is a command line program")]
pub(crate) fn complain(text: &str) {
    eprintln!("error: {text}");
}

/// Prints one line of a verb's result.
#[expect(clippy::print_stdout, reason = "xtask is a command line program")]
pub(crate) fn show(line: &str) {
    println!("{line}");
}
