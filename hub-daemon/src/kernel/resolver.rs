//! Who answers names: systemd-resolved, and files that resolvers read.

pub mod file;
pub mod resolved;
