//! What the tests of the hub stand on: packets, a reference model, random worlds, a lab of namespaces.
//!
//! Helpers panic where a test would: they run inside tests and nowhere else.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a helper that cannot go on fails the test that called it"
)]

pub mod certificates;
pub mod checksum;
pub mod datapath;
pub mod effort;
pub mod generate;
pub mod lab;
pub mod mistake;
pub mod model;
pub mod packet;

pub use lab::root;
