//! The harness itself: the stand-ins answer as the real ones do, and the canary counts what it shall.
//! Needs root; the tests of STS and the clients need the Python environment too.
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "all of this is a test, and ends where something is not as expected"
)]

mod kube_api;
mod network;
mod stand_ins;
