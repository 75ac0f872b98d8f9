//! How pods are answered.

use crate::args::ImdsArgs;
use kiam_common::flags::{self, Problems};

/// How pods are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImdsConfig {
    /// Requests without a session token.
    pub(crate) v1: ImdsV1,
    /// How a connection's pod is known.
    pub(crate) attestation: Attestation,
}

/// How a connection's pod is known. Pods on the node's network are known by their cgroups alone, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attestation {
    /// By its cgroup, always.
    Require,
    /// By its cgroup where the kernel can tell it, else by its address.
    Prefer,
    /// By its address.
    Off,
}

/// What becomes of requests without a session token (IMDSv1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImdsV1 {
    /// Answered.
    Allow,
    /// 401.
    Deny,
}

impl TryFrom<ImdsArgs> for ImdsConfig {
    type Error = Problems;

    fn try_from(args: ImdsArgs) -> Result<Self, Problems> {
        let ImdsArgs { imds_v1, attestation, allow_route_regexp, allow_ip_query } = args;
        let mut problems = Problems::default();
        let v1 = problems.value("--imds-v1", &imds_v1, |text| match text {
            "allow" => Ok(ImdsV1::Allow),
            "deny" => Ok(ImdsV1::Deny),
            _ => Err("neither allow nor deny"),
        });
        let attestation = problems.value("--attestation", &attestation, |text| match text {
            "require" => Ok(Attestation::Require),
            "prefer" => Ok(Attestation::Prefer),
            "off" => Ok(Attestation::Off),
            _ => Err("not one of require, prefer, off"),
        });
        let route = problems.value("--allow-route-regexp", &allow_route_regexp, nothing_forwarded);
        let query = problems.value("--allow-ip-query", &allow_ip_query, no_ip_query);
        match (v1, attestation, route, query) {
            (Some(v1), Some(attestation), Some(()), Some(())) => Ok(Self { v1, attestation }),
            _ => Err(problems),
        }
    }
}

/// kiam reads an empty regexp as `^$`.
fn nothing_forwarded(regexp: &str) -> Result<(), &'static str> {
    match regexp {
        "" | "^$" => Ok(()),
        _ => Err("this version forwards nothing to the real metadata service yet; leave the flag out, and give the \
                  pods that read the region from it AWS_REGION"),
    }
}

fn no_ip_query(text: &str) -> Result<(), &'static str> {
    match flags::switch(text)? {
        false => Ok(()),
        true => Err("refused: with it every pod could ask for every other pod's credentials; leave the flag out"),
    }
}
