//! The certificates and kubeconfigs of a cluster's components, and the key that signs ServiceAccount tokens.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Where the API server listens, for components on the node.
const API_SERVER: &str = "https://127.0.0.1:443";

/// Who a client is: its user name and, maybe, its group.
struct Client {
    file: &'static str,
    user: String,
    group: Option<&'static str>,
}

/// Writes everything into a new folder: `ca.crt`, `sa.key`, `sa.pub`, `NAME.crt` and `NAME.key` of each component, and
/// `NAME.kubeconfig` of each client.
pub(super) fn write(folder: &Path, node_name: &str, node: Ipv4Addr, service: Ipv4Addr) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
    let pki = Pki::create(folder)?;
    let api_server = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
        .map(str::to_owned)
        .into_iter()
        .chain([node.to_string(), service.to_string()]);
    pki.server("apiserver", "kube-apiserver", api_server.collect())?;
    pki.server("kubelet-server", node_name, vec![node_name.to_owned(), node.to_string()])?;
    let component = |file, user: &str| Client { file, user: user.to_owned(), group: None };
    for client in [
        Client { group: Some("system:masters"), ..component("admin", "admin") },
        Client { group: Some("system:masters"), ..component("apiserver-kubelet", "apiserver-kubelet") },
        Client { group: Some("system:nodes"), ..component("kubelet", &format!("system:node:{node_name}")) },
        component("controller-manager", "system:kube-controller-manager"),
        component("scheduler", "system:kube-scheduler"),
    ] {
        pki.client(&client)?;
    }
    let service_accounts = KeyPair::generate()?;
    pki.write("sa.key", &service_accounts.serialize_pem())?;
    pki.write("sa.pub", &service_accounts.public_key_pem())
}

struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn create(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "cluster CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let pki = Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) };
        pki.write("ca.crt", &certificate)?;
        Ok(pki)
    }

    fn server(&self, file: &str, common_name: &str, names: Vec<String>) -> Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params)
    }

    fn client(&self, client: &Client) -> Result<()> {
        let Client { file, user, group } = client;
        let mut params = CertificateParams::new(Vec::new())?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(DnType::CommonName, user.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)?;
        let path = |name: String| self.folder.join(name);
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": {
                "server": API_SERVER, "certificate-authority": path("ca.crt".to_owned()),
            }}],
            "users": [{ "name": "u", "user": {
                "client-certificate": path(format!("{file}.crt")), "client-key": path(format!("{file}.key")),
            }}],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        // JSON is YAML.
        self.write(&format!("{file}.kubeconfig"), &kubeconfig.to_string())
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.crt"), &params.signed_by(&key, &self.issuer)?.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}
