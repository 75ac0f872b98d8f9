//! The server of kiam: watches pods, decides which role each pod may have, fetches credentials from STS before they are
//! requested, and serves them to the agents.
//!
//! ```text
//! Pod + Namespace ──▶ Decision ──▶ Identity ──▶ Credentials
//!      k8s              core         core       cache, aws        grpc: serves requests with all of it
//! ```
//! `core` uses no network; `cache`, `grpc`, `k8s` and `aws` depend on `core` and not on one another; `app` connects
//! them.

mod app;
mod args;
mod aws;
mod cache;
mod config;
mod core;
mod grpc;
mod health;
mod k8s;
mod run;

pub use run::main;
