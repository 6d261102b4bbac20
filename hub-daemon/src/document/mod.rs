//! Documents: what operators write, as they write it.

pub mod persona;
