//! The REST API, the metrics and hubctl against a stand-in for the hub's task and the data path.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on panics")]

mod cli;
mod datapath;
mod events;
mod experiments;
mod hub;
mod interfaces;
mod listeners;
mod metrics;
mod nodes;
mod openapi;
mod personality_cli;
mod problems;
mod routes;
mod support;
mod switches;
mod switching;
mod threat;
mod tls;
mod watch;
