//! The hub's daemon as a library: `hubd`, `hubctl` and the tests are made of it.

pub mod command;
pub mod datapath_view;
pub mod desired;
pub mod document;
pub mod kernel;
pub mod model;
pub mod reconcile;
pub mod tables;
pub mod view;
