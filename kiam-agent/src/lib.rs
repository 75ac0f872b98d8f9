//! The agent of a node: catches pods' requests to the metadata service and answers them with credentials of their
//! roles. The life of a request:
//!
//! 1. A pod's SYN to M:80 is assigned to the agent's listening socket in the kernel ([`datapath`], kiam-ebpf).
//! 2. The worker accepts, and learns from the kernel by which interface the connection came (`imds`).
//! 3. The route table says what is asked; the server says which role the pod has and gives the credentials
//!    (`source`, `upstream`).
//!
//! Two processes, which [`worker_protocol`] joins: the privileged [`parent`] owns 1 and parses nothing that a pod sends; the
//! `worker` owns 2 and 3 and can do nothing else.

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
