//! The daemon's network side against the kernel, each test in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail with the test")]
#![expect(clippy::disallowed_methods, reason = "what the kernel does by itself takes real time")]
#![expect(clippy::print_stderr, reason = "tests that are left out say so, measurements are shown")]

mod checks;
mod conflicts;
mod endpoints;
mod handshakes;
mod https;
mod interfaces;
mod lab;
mod monitor;
mod resolved;
mod resolvers;
mod scopes;
mod tables;
mod teardown;
mod tunnels;
mod twins;
