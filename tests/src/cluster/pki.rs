//! The certificates and kubeconfigs of a cluster's components, and the key that signs ServiceAccount tokens.

use super::authority::{Authority, Subject, Usage};
use anyhow::{Context as _, Result};
use rcgen::KeyPair;
use serde_json::json;
use std::{fs, net::Ipv4Addr, path::Path};

/// URL of the API server, for components on the node.
const API_SERVER: &str = "https://127.0.0.1:443";

/// Writes everything into a new folder: `ca.crt`, `sa.key`, `sa.pub`, `NAME.crt` and `NAME.key` of each component, and
/// `NAME.kubeconfig` of each client.
pub(super) fn write(folder: &Path, node_name: &str, node: Ipv4Addr, service: Ipv4Addr) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
    let authority = Authority::create("cluster CA")?;
    authority.write(&folder.join("ca.crt"))?;
    let issue = |file: &str, subject: &Subject| {
        authority.issue(subject, &folder.join(format!("{file}.crt")), &folder.join(format!("{file}.key")))
    };
    for (file, subject) in servers(node_name, node, service) {
        issue(file, &subject)?;
    }
    for (file, subject) in clients(node_name) {
        issue(file, &subject)?;
        write_kubeconfig(folder, file)?;
    }
    let service_accounts = KeyPair::generate()?;
    fs::write(folder.join("sa.key"), service_accounts.serialize_pem())?;
    fs::write(folder.join("sa.pub"), service_accounts.public_key_pem())?;
    Ok(())
}

fn servers(node_name: &str, node: Ipv4Addr, service: Ipv4Addr) -> [(&'static str, Subject); 2] {
    let subject = |common_name: &str, names: Vec<String>| Subject {
        common_name: common_name.to_owned(),
        organization: None,
        names,
        usage: Usage::Server,
    };
    let mut api_server = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
        .map(str::to_owned)
        .to_vec();
    api_server.extend([node.to_string(), service.to_string()]);
    [
        ("apiserver", subject("kube-apiserver", api_server)),
        ("kubelet-server", subject(node_name, vec![node_name.to_owned(), node.to_string()])),
    ]
}

fn clients(node_name: &str) -> [(&'static str, Subject); 5] {
    let subject = |user: &str, group: Option<&'static str>| Subject {
        common_name: user.to_owned(),
        organization: group,
        names: Vec::new(),
        usage: Usage::Client,
    };
    [
        ("admin", subject("admin", Some("system:masters"))),
        ("apiserver-kubelet", subject("apiserver-kubelet", Some("system:masters"))),
        ("kubelet", subject(&format!("system:node:{node_name}"), Some("system:nodes"))),
        ("controller-manager", subject("system:kube-controller-manager", None)),
        ("scheduler", subject("system:kube-scheduler", None)),
    ]
}

fn write_kubeconfig(folder: &Path, client: &str) -> Result<()> {
    let path = |file: String| folder.join(file);
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": {
            "server": API_SERVER, "certificate-authority": path("ca.crt".to_owned()),
        }}],
        "users": [{ "name": "u", "user": {
            "client-certificate": path(format!("{client}.crt")), "client-key": path(format!("{client}.key")),
        }}],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    // JSON is YAML.
    let file = path(format!("{client}.kubeconfig"));
    fs::write(&file, kubeconfig.to_string()).with_context(|| format!("write {}", file.display()))
}
