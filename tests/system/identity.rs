//! A pod gets its own role, and no other: the second and third promises of SECURITY.md.

mod attestation;
mod attribution;
mod changes;
mod hooks;
mod roles;
mod wrong_roles;
