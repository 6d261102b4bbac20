//! Builds, runs, tests and measures the hub.
fn main() {}
