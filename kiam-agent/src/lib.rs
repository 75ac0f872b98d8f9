//! The agent of a node: it receives pods' requests to IMDS and answers them with credentials of their roles. The life
//! of a request:
//!
//! 1. The kernel redirects a pod's connection to IMDS to a listening socket of the agent ([`datapath`], kiam-ebpf).
//! 2. The worker accepts it, and finds the pod by the kernel's evidence (`imds`).
//! 3. The worker routes the request, and gets the pod's role and credentials from the server (`source`, `upstream`).
//!
//! There are two processes, connected by [`worker_protocol`]: the privileged [`parent`] does step 1 and parses nothing
//! that a pod sends; the `worker` does steps 2 and 3 and can do nothing else.

mod args;
mod attestation;
mod clock;
mod config;
mod datapath;
mod exemptions;
mod files;
mod imds;
mod metrics;
mod parent;
mod report;
mod run;
mod source;
mod status;
mod status_socket;
mod sys;
mod upstream;
mod vpc_cni;
mod worker;
mod worker_protocol;

pub use run::main;
