//! Requests from a pod, and their results in a few words.

use super::cast::{Cast, Pod};
use anyhow::Result;
use kiam_tests::{
    clients::{self, ROLES, Reply, aws_cli},
    fakes::sts::ACCOUNT,
    node::netns::Netns,
};
use std::{net::IpAddr, time::Duration};

/// Command with which the unmodified aws CLI returns its identity.
pub(super) const WHO_AM_I: &str = "aws sts get-caller-identity";
/// The first request of an AWS SDK.
pub(super) const WHICH_ROLE: &str = "which role do I have?";
/// Marks a request over IPv6.
pub(super) const OVER_V6: &str = " (v6)";
/// Table text for a client without credentials.
pub(super) const NO_CREDENTIALS: &str = "no credentials";
/// Table text for a request without a response.
pub(super) const NO_ANSWER: &str = "no answer";

/// Returns the ARN of an assumed role, in the account of STS.
pub(super) fn assumed_role(role_and_session: &str) -> String {
    format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role_and_session}")
}

/// Returns the pod's identity, as the unmodified aws CLI reports it: `ROLE/SESSION` of an assumed role, otherwise the
/// whole ARN.
pub(super) fn who_am_i(cast: &Cast, pod: &Pod) -> Result<String> {
    let arguments = ["sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
    let output = aws_cli(&pod.network, &cast.system.python, &cast.system.environment(), &arguments)?;
    if output.status.success() {
        let arn = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        return Ok(arn.strip_prefix(&assumed_role("")).unwrap_or(&arn).to_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Ok(if errors.contains("Unable to locate credentials") {
        NO_CREDENTIALS.to_owned()
    } else {
        errors.trim().lines().last().unwrap_or("failed without output").to_owned()
    })
}

/// Returns the name of the role that the IMDS offers in this namespace.
pub(super) fn role_name(netns: &Netns, imds: IpAddr) -> Result<String> {
    role_name_within(netns, imds, clients::VAIN)
}

/// Like [`role_name`], with this timeout.
pub(super) fn role_name_within(netns: &Netns, imds: IpAddr, patience: Duration) -> Result<String> {
    let reply = clients::Pod::new(netns).attempt(imds, ROLES, patience)?;
    Ok(match &reply {
        Reply::Answer(answer) if answer.status == 200 => answer.text().to_owned(),
        other => in_words(other),
    })
}

/// Requests the credentials of a role and returns the status.
pub(super) fn credentials_status(netns: &Netns, imds: IpAddr, role: &str) -> Result<String> {
    Ok(in_words(&clients::Pod::new(netns).attempt(imds, &format!("{ROLES}{role}"), clients::VAIN)?))
}

fn in_words(reply: &Reply) -> String {
    match reply {
        Reply::Answer(answer) => format!("HTTP {}", answer.status),
        Reply::Silent => NO_ANSWER.to_owned(),
        Reply::Refused => "connection refused".to_owned(),
        Reply::Reset => "connection reset".to_owned(),
        Reply::Closed => "connection closed".to_owned(),
        Reply::Failed(why) => why.clone(),
    }
}
