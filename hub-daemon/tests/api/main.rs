//! The REST API, the metrics and hubctl against a stand-in for the hub's task and the data path.

mod cli;
mod events;
mod listeners;
mod metrics;
mod openapi;
mod problems;
mod routes;
mod support;
mod tls;
