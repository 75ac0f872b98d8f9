//! What a pod asks, and what comes of it in a few words.

use super::cast::{Cast, Pod};
use anyhow::Result;
use kiam_tests::{
    clients::{self, ROLES, Reply, aws_cli},
    fakes::sts::ACCOUNT,
    node::netns::Netns,
};
use std::{net::IpAddr, time::Duration};

/// How the real aws CLI asks whose credentials it has.
pub(super) const WHO_AM_I: &str = "aws sts get-caller-identity";
/// The first thing that an AWS SDK asks.
pub(super) const WHICH_ROLE: &str = "which role do I have?";
/// Marks what was asked over IPv6.
pub(super) const OVER_V6: &str = " (v6)";
/// Somebody who got nothing, in the words of a table.
pub(super) const NO_CREDENTIALS: &str = "no credentials";
/// A request that nothing came back for.
pub(super) const NO_ANSWER: &str = "no answer";

/// The ARN of somebody with an assumed role, in the account of STS.
pub(super) fn assumed_role(role_and_session: &str) -> String {
    format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role_and_session}")
}

/// Who the pod is, as the unmodified aws CLI finds out: `ROLE/SESSION` of an assumed role, else the whole ARN.
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
        errors.trim().lines().last().unwrap_or("failed without a word").to_owned()
    })
}

/// The name of the role that M hands out to whoever asks from this namespace.
pub(super) fn role_name(netns: &Netns, m: IpAddr) -> Result<String> {
    role_name_within(netns, m, clients::VAIN)
}

/// [`role_name`] by somebody who waits this long for the answer.
pub(super) fn role_name_within(netns: &Netns, m: IpAddr, patience: Duration) -> Result<String> {
    let reply = clients::Pod::new(netns).attempt(m, ROLES, patience)?;
    Ok(match &reply {
        Reply::Answer(answer) if answer.status == 200 => answer.text().to_owned(),
        other => in_words(other),
    })
}

/// The status with which the credentials of a role are answered.
pub(super) fn credentials_status(netns: &Netns, m: IpAddr, role: &str) -> Result<String> {
    Ok(in_words(&clients::Pod::new(netns).attempt(m, &format!("{ROLES}{role}"), clients::VAIN)?))
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
