//! Fakes of the services that the binaries use: the IMDS, the Kubernetes API, STS and a certificate authority.

pub mod canary;
pub mod http_server;
pub mod kube_api;
pub mod pki;
pub mod sts;
