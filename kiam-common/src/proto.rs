//! The gRPC contract, generated from `proto/kiam.proto` by `cargo xtask codegen`.
#![allow(missing_docs, clippy::pedantic, clippy::all, clippy::restriction, reason = "generated")]
#![allow(unreachable_pub, unused_qualifications, reason = "generated")]

/// Message of the server's `PERMISSION_DENIED`: the address and the UID of a caller belong to different pods.
pub const CONTRADICTION: &str = "the address and the pod_uid are of different pods";

include!("gen/kiam.rs");
