//! The differences to kiam v4.2 in docs/migration.md, compared with the real binaries.
//!
//! - Answers to pods: each request of `kiam-v4.tsv` is made through the datapath, over both families. An answer that
//!   differs from kiam's needs a row in the page, and each row needs a difference.
//! - Flags: each of kiam's flags is accepted or refused, as its row states.
//! - Metrics: the metrics that the code registers are those that the pages list.

mod answer;
mod facts;
mod flags;
mod http;
mod metrics;
mod pods;
mod sts_gate;
pub(crate) mod table;
