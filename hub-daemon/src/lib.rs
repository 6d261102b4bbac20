//! The hub's daemon as a library: `hubd`, `hubctl` and the tests are made of it.

pub mod check;
pub mod checks;
pub mod cli;
mod client;
pub mod command;
pub mod compile;
pub mod daemon;
pub mod datapath_view;
pub mod desired;
pub mod document;
pub mod hub;
pub mod inputs;
pub mod judgement;
pub mod kernel;
pub mod model;
pub mod outputs;
pub mod qos_view;
pub mod reconcile;
pub mod store;
pub mod systems;
pub mod tables;
mod thread;
pub mod view;
