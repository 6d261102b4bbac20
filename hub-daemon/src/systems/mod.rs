//! The systems: what each kind of document adds to the tables that the kernel should hold.
//!
//! They are functions of the hub's records and do no IO.

pub mod experiment;
pub mod persona;
pub mod personality;
