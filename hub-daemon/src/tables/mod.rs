//! One file per table of the kernel, each a [`crate::reconcile::Table`].

pub mod addresses;
pub mod routes;
pub mod rules;
