//! Certificates of every kind against both ends, and rotation on disk.

use super::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use std::{error::Error as _, fs, io, os::unix::fs::symlink, path::Path};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SERVER_NAMES: &[&str] = &["kiam-server", "localhost"];
const BOTH: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Pair {
    cert: String,
    key: String,
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn issue(&self, name: &str, alternative: &[&str], usages: &[ExtendedKeyUsagePurpose]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let alternative: Vec<String> = alternative.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name = named(name);
        params.extended_key_usages = usages.to_vec();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.issue("Kiam Server", SERVER_NAMES, BOTH)
    }

    fn agent(&self) -> Pair {
        self.issue("Kiam Agent", &[], BOTH)
    }
}

fn write(folder: &Path, ca: &str, pair: &Pair) -> TlsFiles {
    let files = TlsFiles { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    fs::write(&files.ca, ca).unwrap();
    fs::write(&files.cert, &pair.cert).unwrap();
    fs::write(&files.key, &pair.key).unwrap();
    files
}

fn server(folder: &TempDir, ca: &str, pair: &Pair) -> Result<Arc<Server>, TlsError> {
    Server::load(&write(folder.path(), ca, pair))
}

fn client(folder: &TempDir, ca: &str, pair: &Pair) -> Result<Arc<Client>, TlsError> {
    Client::load(&write(folder.path(), ca, pair))
}

/// Does a handshake in memory and returns the result of each side. The client reads one byte, because with TLS 1.3 an
/// error shows only then if the server refuses the client's certificate.
async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> (io::Result<()>, io::Result<()>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(near).await?;
        stream.write_all(b"x").await?;
        stream.flush().await
    };
    let connect = async {
        let name = ServerName::try_from("kiam-server").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, far).await?;
        stream.read_exact(&mut [0]).await.map(drop)
    };
    tokio::join!(accept, connect)
}

/// Builds a configuration without the check of its own certificate, as another implementation would.
fn careless_server(ca: &Authority, pair: &Pair) -> Arc<ServerConfig> {
    let (authorities, chain, key) = loose(ca, pair);
    let clients = Arc::new(KnownClients::new(authorities).unwrap());
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    Arc::new(builder.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap())
}

fn careless_client(ca: &Authority, pair: &Pair) -> Arc<ClientConfig> {
    let (authorities, chain, key) = loose(ca, pair);
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    Arc::new(builder.with_root_certificates(authorities).with_client_auth_cert(chain, key).unwrap())
}

type Loose = (
    Arc<rustls::RootCertStore>,
    Vec<rustls::pki_types::CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
);

fn loose(ca: &Authority, pair: &Pair) -> Loose {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let mut authorities = rustls::RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    (Arc::new(authorities), chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
}

fn gauge(reloading: &Reloading<ServerConfig>, name: &str) -> i64 {
    let mut registry = prometheus_client::registry::Registry::default();
    reloading.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn both_sides_connect_and_speak_http2() {
    let (a, b, ca) = (TempDir::new().unwrap(), TempDir::new().unwrap(), authority("Kiam CA"));
    let server = server(&a, &ca.pem, &ca.server()).unwrap();
    let client = client(&b, &ca.pem, &ca.agent()).unwrap();
    let (accepted, connected) = handshake(server.config(), client.config()).await;
    accepted.unwrap();
    connected.unwrap();
    assert_eq!(server.config().alpn_protocols, [b"h2"]);
    assert_eq!(client.config().alpn_protocols, [b"h2"]);
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_update_error"), 0);
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_verify_error"), 0);
    assert!(gauge(&server, "grpc_server_tls_certificate_expiry_seconds") > 0);
}

/// RSA 2048 and PKCS#1, as cfssl makes them from the files of kiam's guide.
#[tokio::test]
async fn certificates_of_kiams_guide_are_taken() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let ca = include_str!("testdata/ca.pem");
    let pair = |cert: &str, key: &str| Pair { cert: cert.to_owned(), key: key.to_owned() };
    let server_pair = pair(include_str!("testdata/server.pem"), include_str!("testdata/server-key.pem"));
    let agent_pair = pair(include_str!("testdata/agent.pem"), include_str!("testdata/agent-key.pem"));
    assert!(server_pair.key.contains("BEGIN RSA PRIVATE KEY"));
    let (server, client) = (server(&a, ca, &server_pair).unwrap(), client(&b, ca, &agent_pair).unwrap());
    let (accepted, connected) = handshake(server.config(), client.config()).await;
    accepted.unwrap();
    connected.unwrap();
}

/// A certificate that lacks a usage or a name is refused at the start, with the command that creates a good one.
#[test]
fn incomplete_own_certificate_is_refused() {
    let (folder, ca) = (TempDir::new().unwrap(), authority("Kiam CA"));
    let cases = [
        (ca.issue("blog", SERVER_NAMES, &[]), "of CN=blog has no extended key usage for server authentication"),
        (ca.issue("blog", &[], BOTH), "of CN=blog has no subject alternative name"),
        (ca.issue("blog", SERVER_NAMES, &[ExtendedKeyUsagePurpose::ClientAuth]), "(serverAuth)"),
    ];
    for (pair, text) in cases {
        let error = server(&folder, &ca.pem, &pair).err().unwrap().to_string();
        assert!(error.starts_with("--cert=") && error.contains(text), "{error}");
        assert!(error.contains("openssl") && error.contains("-addext subjectAltName="), "{error}");
    }
    let error = client(&folder, &ca.pem, &ca.issue("blog", &[], &[])).err().unwrap().to_string();
    assert!(error.contains("(clientAuth)") && error.contains("-addext extendedKeyUsage=clientAuth"), "{error}");
}

#[test]
fn each_unusable_file_is_named() {
    let (folder, ca) = (TempDir::new().unwrap(), authority("Kiam CA"));
    let good = ca.server();
    let other = Pair { cert: good.cert.clone(), key: ca.server().key };
    let half = Pair { cert: good.cert[..good.cert.len() / 2].to_owned(), key: good.key.clone() };
    let no_key = Pair { cert: good.cert.clone(), key: good.cert.clone() };
    let cases = [
        ("", &good, "--ca=", "contains no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good, "--ca=", "as an authority"),
        (&ca.pem, &other, "--key=", "does not belong to the certificate in --cert="),
        (&ca.pem, &half, "--cert=", "not a complete PEM file"),
        (&ca.pem, &no_key, "--key=", "contains no unencrypted private key"),
    ];
    for (ca, pair, flag, text) in cases {
        let error = server(&folder, ca, pair).err().unwrap().to_string();
        assert!(error.starts_with(flag) && error.contains(text), "{error}");
    }
    let mut files = write(folder.path(), &ca.pem, &good);
    files.key = folder.path().join("absent.pem");
    let error = Server::load(&files).err().unwrap();
    assert!(error.to_string().contains("absent.pem: cannot be read"), "{error}");
    assert!(error.source().unwrap().to_string().contains("No such file"));
    files.key = "/dev/zero".into();
    assert!(Server::load(&files).err().unwrap().source().unwrap().to_string().contains("longer than"));
}

#[tokio::test]
async fn a_peer_that_says_too_little_is_turned_away_by_name() {
    let (folder, ca) = (TempDir::new().unwrap(), authority("Kiam CA"));
    let good = server(&folder, &ca.pem, &ca.server()).unwrap();
    let vague = careless_client(&ca, &ca.issue("vague agent", &[], &[]));
    let (accepted, connected) = handshake(good.config(), vague).await;
    let error = reason(&accepted.unwrap_err());
    assert!(error.contains("\"CN=vague agent\" has no extended key usage for client"), "{error}");
    assert!(connected.is_err());

    let good = client(&folder, &ca.pem, &ca.agent()).unwrap();
    for (names, usages, lack) in [
        (SERVER_NAMES, &[][..], "has no extended key usage for server"),
        (&[][..], BOTH, "has no subject alternative name"),
    ] {
        let vague = careless_server(&ca, &ca.issue("vague server", names, usages));
        let (accepted, connected) = handshake(vague, good.config()).await;
        let error = reason(&connected.unwrap_err());
        assert!(error.contains("\"CN=vague server\"") && error.contains(lack), "{error}");
        assert!(accepted.is_err());
    }
}

/// A peer of another authority or with another name is refused, and the error names it.
#[tokio::test]
async fn foreign_peer_is_refused_by_name() {
    let (folder, ca, other) = (TempDir::new().unwrap(), authority("Kiam CA"), authority("Other CA"));
    let good = server(&folder, &ca.pem, &ca.server()).unwrap();
    let (accepted, connected) = handshake(good.config(), careless_client(&ca, &other.agent())).await;
    let error = reason(&accepted.unwrap_err());
    assert!(error.contains("\"CN=Kiam Agent\" is refused") && connected.is_err(), "{error}");

    let good = client(&folder, &ca.pem, &ca.agent()).unwrap();
    let elsewhere = ca.issue("Kiam Server", &["elsewhere"], BOTH);
    let (_, connected) = handshake(careless_server(&ca, &elsewhere), good.config()).await;
    let error = reason(&connected.unwrap_err());
    assert!(error.contains("\"CN=Kiam Server\" is refused") && error.contains("elsewhere"), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    let (folder, ca) = (TempDir::new().unwrap(), authority("Kiam CA"));
    let good = server(&folder, &ca.pem, &ca.server()).unwrap();
    let (authorities, ..) = loose(&ca, &ca.agent());
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let nameless = Arc::new(builder.with_root_certificates(authorities).with_no_client_auth());
    let (accepted, connected) = handshake(good.config(), nameless).await;
    assert!(accepted.is_err() && connected.is_err());
}

#[test]
fn foreign_own_certificate_shows_in_the_metric() {
    let (folder, ca, other) = (TempDir::new().unwrap(), authority("Kiam CA"), authority("Other CA"));
    let server = server(&folder, &ca.pem, &other.server()).unwrap();
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_verify_error"), 1);
}

/// A Secret as the kubelet mounts it: `name -> ..data/name`, `..data -> ..FOLDER`, the latter swapped atomically.
struct Mount {
    folder: TempDir,
    generation: u32,
}

impl Mount {
    fn new(ca: &str, pair: &Pair) -> (Self, TlsFiles) {
        let mut mount = Self { folder: TempDir::new().unwrap(), generation: 0 };
        let path = |name: &str| mount.folder.path().join(name);
        let files = TlsFiles { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") };
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            symlink(Path::new("..data").join(name), path(name)).unwrap();
        }
        mount.swap(ca, pair);
        (mount, files)
    }

    fn swap(&mut self, ca: &str, pair: &Pair) {
        self.generation += 1;
        let name = format!("..{}", self.generation);
        let fresh = self.folder.path().join(&name);
        fs::create_dir(&fresh).unwrap();
        write(&fresh, ca, pair);
        let link = self.folder.path().join("..data_tmp");
        symlink(name, &link).unwrap();
        fs::rename(link, self.folder.path().join("..data")).unwrap();
    }
}

/// A rotation by way of a bundle with both authorities never loses a peer.
#[tokio::test]
async fn rotation_of_authorities_never_loses_a_peer() {
    let (old, new, folder) = (authority("Old CA"), authority("New CA"), TempDir::new().unwrap());
    let (mut mount, files) = Mount::new(&old.pem, &old.server());
    let server = Server::load(&files).unwrap();
    let old_client = client(&folder, &format!("{}{}", old.pem, new.pem), &old.agent()).unwrap().config();
    let new_client = client(&folder, &format!("{}{}", old.pem, new.pem), &new.agent()).unwrap().config();
    let meets = async |client: &Arc<ClientConfig>| {
        let (accepted, connected) = handshake(server.config(), Arc::clone(client)).await;
        accepted.is_ok() && connected.is_ok()
    };
    assert!(meets(&old_client).await && !meets(&new_client).await);
    mount.swap(&format!("{}{}", old.pem, new.pem), &old.server());
    server.read();
    assert!(meets(&old_client).await && meets(&new_client).await);
    mount.swap(&new.pem, &new.server());
    server.read();
    assert!(!meets(&old_client).await && meets(&new_client).await);
}

#[test]
fn bad_new_files_keep_the_old_ones_and_good_ones_heal() {
    let ca = authority("Kiam CA");
    let (first, second) = (ca.server(), ca.server());
    let (mut mount, files) = Mount::new(&ca.pem, &first);
    let server = Server::load(&files).unwrap();
    let before = server.config();
    server.read();
    assert!(Arc::ptr_eq(&before, &server.config()), "nothing changed");

    let half_written = Pair { cert: second.cert.clone(), key: first.key.clone() };
    mount.swap(&ca.pem, &half_written);
    server.read();
    assert!(Arc::ptr_eq(&before, &server.config()), "a mismatched pair");
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_update_error"), 1);
    let data = mount.folder.path().join("..data");
    fs::rename(&data, mount.folder.path().join("away")).unwrap();
    server.read();
    assert!(Arc::ptr_eq(&before, &server.config()), "files that are gone");

    mount.swap(&ca.pem, &second);
    server.read();
    assert!(!Arc::ptr_eq(&before, &server.config()), "a good pair");
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_update_error"), 0);
}

#[test]
fn files_that_return_after_a_gap_heal_the_metric() {
    let ca = authority("Kiam CA");
    let (mount, files) = Mount::new(&ca.pem, &ca.server());
    let server = Server::load(&files).unwrap();
    let (data, away) = (mount.folder.path().join("..data"), mount.folder.path().join("away"));
    fs::rename(&data, &away).unwrap();
    server.read();
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_update_error"), 1);
    fs::rename(&away, &data).unwrap();
    server.read();
    assert_eq!(gauge(&server, "grpc_server_tls_certificate_update_error"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_watch_looks_each_second() {
    let ca = authority("Kiam CA");
    let (mut mount, files) = Mount::new(&ca.pem, &ca.server());
    let server = Server::load(&files).unwrap();
    let before = server.config();
    let watch = tokio::spawn(Arc::clone(&server).watch());
    mount.swap(&ca.pem, &ca.server());
    let changed = async {
        while Arc::ptr_eq(&before, &server.config()) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), changed).await.unwrap();
    watch.abort();
}
