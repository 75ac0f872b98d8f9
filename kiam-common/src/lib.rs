//! What the kernel and user space, or the agent and the server, must agree on. Four doors, each opened by a feature:
//!
//! - [`abi`] (always, `no_std`): map layouts, names and limits shared by the eBPF programs and the agent.
//! - feature `user`: the same types as `aya::Pod`, for the process that opens the maps.
//! - feature `rpc`: the gRPC contract, TLS, the admin face, logs and secrets that the agent and the server share.
//! - feature `kubernetes`: the way to the Kubernetes API.
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
