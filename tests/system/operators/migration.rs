//! What docs/migration.md says about the difference to kiam v4.2, held against the real binaries.
//!
//! - Answers to pods: each request of `kiam-v4.tsv` is made through the datapath, over both families. An answer that is
//!   not kiam's needs a row in the page; a row needs a difference.
//! - Flags: each one of kiam's is accepted, or refused, as its row says.
//! - Metrics: those that the code registers are those that the pages list.

mod answer;
mod facts;
mod flags;
mod http;
mod metrics;
mod pods;
mod sts_gate;
pub(crate) mod table;
