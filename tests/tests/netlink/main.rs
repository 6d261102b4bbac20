//! The daemon's network side against the kernel, each test in a network namespace of its own.

mod endpoints;
mod lab;
mod monitor;
mod tables;
mod teardown;
