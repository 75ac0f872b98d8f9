//! The cluster half of kiam: watches pods, decides which role each may have, fetches credentials from STS before they
//! are asked for, and hands them to the agents.
//!
//! ```text
//! Pod + Namespace ──▶ Decision ──▶ Identity ──▶ Credentials
//!      k8s              core         core       cache, aws         grpc: asks for all of it
//! ```
//! `core` knows no network; `cache`, `grpc`, `k8s` and `aws` know `core` and not one another; `app` joins them.

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
