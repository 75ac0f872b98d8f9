//! The overlay of these tests compared with the shipped manifests: the tests run what is shipped.

use crate::stage::{Stage, target};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    cluster::{
        TlsSts,
        images::{AGENT, SERVER},
        kube_binary,
        manifests::{Change, Manifests, changes, render},
    },
    node::owner::Folder,
};
use serde_json::{Value, json};
use std::fs;

/// The container of the agent's pods.
const AGENT_CONTAINER: &str = "DaemonSet kiam-system/kiam-agent/spec/template/spec/containers/0";
/// The container of the servers' pods.
const SERVER_CONTAINER: &str = "Deployment kiam-system/kiam-server/spec/template/spec/containers/0";
/// The volumes of the servers' pods.
const SERVER_VOLUMES: &str = "Deployment kiam-system/kiam-server/spec/template/spec/volumes";

/// Returns everything that the overlay may set: the path, and the value. `None` for a new object with content of this
/// run.
fn permitted() -> Vec<(String, Option<Value>)> {
    let agent = |path: &str, value: Value| (format!("{AGENT_CONTAINER}/{path}"), Some(value));
    let server = |path: &str, value: Value| (format!("{SERVER_CONTAINER}/{path}"), Some(value));
    vec![
        ("ConfigMap kiam-system/sts-ca".to_owned(), None),
        agent("args/1", json!("--host-interface=veth+")),
        agent("image", json!(AGENT)),
        agent("imagePullPolicy", json!("Never")),
        server("args/2", json!("--role-base-arn=arn:aws:iam::123456789012:role/")),
        server("args/7", json!(format!("--sts-endpoint={}", TlsSts::endpoint()))),
        server("args/8", json!("--sts-ca=/etc/sts/sts-ca.pem")),
        server("image", json!(SERVER)),
        server("imagePullPolicy", json!("Never")),
        server("volumeMounts/1", json!({ "name": "sts-ca", "mountPath": "/etc/sts", "readOnly": true })),
        (format!("{SERVER_VOLUMES}/1"), Some(json!({ "name": "sts-ca", "configMap": { "name": "sts-ca" } }))),
        ("Secret kiam-system/kiam-agent-tls".to_owned(), None),
        ("Secret kiam-system/kiam-server-tls".to_owned(), None),
    ]
}

pub(crate) fn overlay_sets_only_cluster_specific_values(_: &mut Stage) -> Result<()> {
    let kube = kube_binary(&target()?)?;
    let folder = Folder::create("overlay")?;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, "")?;
    let manifests = Manifests::prepare(folder.path(), &ca)?;
    let found = changes(&render(&kube, &manifests.shipped())?, &render(&kube, &manifests.fitted())?);
    check(&found, &permitted())
}

/// Checks the changes. Both lists are in the order of their paths.
fn check(found: &[Change], permitted: &[(String, Option<Value>)]) -> Result<()> {
    for change in found {
        let (_, value) = permitted
            .iter()
            .find(|(path, _)| *path == change.path)
            .with_context(|| format!("the overlay may not set this: {change:#?}"))?;
        match value {
            Some(value) => ensure!(change.after.as_ref() == Some(value), "not what the overlay may set: {change:#?}"),
            None => ensure!(change.before.is_none(), "not a new object: {change:#?}"),
        }
    }
    let paths: Vec<&str> = found.iter().map(|change| change.path.as_str()).collect();
    for (path, _) in permitted {
        ensure!(paths.contains(&path.as_str()), "the overlay may set {path} and does not: the list is out of date");
    }
    Ok(())
}
