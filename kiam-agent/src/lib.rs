//! The agent of a node.
#![expect(dead_code, unused_imports, reason = "the parent is not wired yet")]

mod args;
mod config;
mod handoff;
mod redirect {
    pub(crate) mod pattern;
}
