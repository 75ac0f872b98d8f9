//! Configuration of the metadata service for pods.

use crate::args::ImdsArgs;
use kiam_common::flags::{self, Problems};

/// Configuration of the metadata service for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImdsConfig {
    pub(crate) v1: ImdsV1,
}

/// Treatment of requests without a session token (IMDSv1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImdsV1 {
    /// They are answered.
    Allow,
    /// They get 401.
    Deny,
}

impl TryFrom<ImdsArgs> for ImdsConfig {
    type Error = Problems;

    fn try_from(args: ImdsArgs) -> Result<Self, Problems> {
        let ImdsArgs { imds_v1, allow_route_regexp, allow_ip_query } = args;
        let mut problems = Problems::default();
        let v1 = problems.value("--imds-v1", &imds_v1, |text| match text {
            "allow" => Ok(ImdsV1::Allow),
            "deny" => Ok(ImdsV1::Deny),
            _ => Err("neither allow nor deny"),
        });
        let route = problems.value("--allow-route-regexp", &allow_route_regexp, nothing_forwarded);
        let query = problems.value("--allow-ip-query", &allow_ip_query, no_ip_query);
        match (v1, route, query) {
            (Some(v1), Some(()), Some(())) => Ok(Self { v1 }),
            _ => Err(problems),
        }
    }
}

/// Accepts only regexps that forward nothing. kiam reads an empty one as `^$`.
fn nothing_forwarded(regexp: &str) -> Result<(), &'static str> {
    match regexp {
        "" | "^$" => Ok(()),
        _ => {
            Err("this version forwards nothing to the real metadata service yet; remove the flag, and set AWS_REGION \
                  in pods that read the region from it")
        }
    }
}

fn no_ip_query(text: &str) -> Result<(), &'static str> {
    match flags::switch(text)? {
        false => Ok(()),
        true => Err("refused: with it every pod could request every other pod's credentials; remove the flag"),
    }
}
