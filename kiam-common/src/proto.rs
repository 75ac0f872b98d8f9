//! The gRPC contract, generated from `proto/kiam.proto` by `cargo xtask codegen`.
#![allow(missing_docs, clippy::pedantic, clippy::all, clippy::restriction, reason = "generated")]
#![allow(unreachable_pub, unused_qualifications, reason = "generated")]

include!("gen/kiam.rs");
