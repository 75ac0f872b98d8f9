//! Tests of the harness itself: the fakes answer as the real services do, and the canary counts correctly.
//! Needs root; the tests of STS and the clients need the Python environment too.
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "everything here is a test, and fails where something is not as expected"
)]

mod fakes;
mod kube_api;
mod network;
