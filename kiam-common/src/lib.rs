//! Code shared by the eBPF programs, the agent and the server, in four parts:
//!
//! - [`abi`] (always, `no_std`): map layouts, names and limits, for the eBPF programs and the agent.
//! - feature `user`: the same types as `aya::Pod`, for the process that opens the maps.
//! - feature `rpc`: gRPC contract, TLS, flags, admin endpoint, logs, metrics of calls, tasks and secrets, for the agent
//!   and the server.
//! - feature `kubernetes`: the client of the Kubernetes API.
#![cfg_attr(not(any(test, feature = "user", feature = "rpc", feature = "kubernetes")), no_std)]

pub mod abi;
#[cfg(feature = "rpc")]
pub mod admin;
#[cfg(feature = "rpc")]
pub mod exit;
#[cfg(feature = "rpc")]
pub mod flags;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "rpc")]
pub mod proto;
#[cfg(feature = "rpc")]
pub mod rpc_metrics;
#[cfg(feature = "rpc")]
pub mod secret;
#[cfg(feature = "rpc")]
pub mod tasks;
#[cfg(feature = "rpc")]
pub mod telemetry;
#[cfg(feature = "rpc")]
pub mod tls;
