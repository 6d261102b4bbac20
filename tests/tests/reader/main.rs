//! What the daemon reads from the data path, against programs that run on packets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail with the test")]
#![expect(clippy::print_stderr, reason = "tests that are left out say so, measurements are shown")]

mod collect;
mod counts;
mod events;
mod impacted;
mod lab;
mod why;
