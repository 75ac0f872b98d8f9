//! The real binaries as processes in network namespaces, with the real eBPF programs.
//!
//! Every test builds a node of its own and ends with the invariant: no packet of a pod is at the stand-in for the real
//! IMDS. Before that it has shown that a pod's request does get there with nothing of ours in the way. Needs root, the
//! built binaries and the Python environment.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "all of this is a test, ends where something is not as expected, and says what it measured"
)]

mod admin;
mod attestation;
mod attribution;
mod bad_input;
mod boot;
mod bridges;
mod bypass;
mod certificates;
mod changes;
mod crashes;
mod foreign_nat;
mod hooks;
mod layers;
mod leftovers;
mod load;
mod migration;
mod neighbours;
mod networks;
mod newcomer;
mod owner;
mod pages;
mod privileges;
mod probe;
mod programs;
mod repairs;
mod roles;
mod sdk;
mod status;
mod support;
mod tcp;
mod tcp_crashes;
mod tcp_numbers;
mod tcp_swaps;
mod unserved;
mod upgrade;
mod upgrade_broken;
mod wrong_roles;
