//! One file per table of the kernel, each a [`crate::reconcile::Table`].

pub mod addresses;
pub mod datapath;
pub mod endpoints;
pub(crate) mod family;
pub mod gates;
pub mod interfaces;
pub mod network;
pub mod pins;
pub mod queues;
pub mod resolvers;
pub mod routes;
pub mod rules;
pub mod sysctls;
pub mod tunnels;
