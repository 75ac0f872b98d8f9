//! The images of a cluster.

use super::image::Image;
use crate::{clients::Python, node::process};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Image of the process that keeps a pod's namespaces open.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// Image of the agent.
pub const AGENT: &str = "localhost/kiam-agent:test";
/// Image of the server.
pub const SERVER: &str = "localhost/kiam-server:test";
/// Image that uses the machine's programs, by mounts of the machine's folders.
pub const CLIENT: &str = "localhost/client:1";

/// Certificate authorities that the server trusts in addition to configured ones.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes the images of the pause container and the client.
pub(super) fn write_base(folder: &Path) -> Result<()> {
    let busybox = Path::new("/bin/busybox");
    ensure!(busybox.exists(), "{} is missing: apt-get install busybox-static", busybox.display());
    let pause = Image {
        name: PAUSE.to_owned(),
        entrypoint: ["/busybox", "sleep", "infinity"].map(str::to_owned).to_vec(),
        files: vec![("busybox".to_owned(), busybox.to_owned())],
        ..Image::default()
    };
    pause.write(&folder.join("pause.tar"))?;
    // Debian's merged /usr: the other folders are links into it.
    let links = ["bin", "lib", "lib64", "sbin"].map(|name| (name.to_owned(), format!("usr/{name}")));
    let passwd = ("etc/passwd".to_owned(), "root:x:0:0:root:/tmp:/bin/sh\n".to_owned());
    let client = Image { name: CLIENT.to_owned(), links: links.to_vec(), texts: vec![passwd], ..Image::default() };
    client.write(&folder.join("client.tar"))
}

/// Writes an image of one of our binaries: the binary, its shared libraries, and the public certificate authorities.
pub(super) fn write_binary(binary: &Path, name: &str, archive: &Path) -> Result<()> {
    let file_name = binary.file_name().and_then(|name| name.to_str()).context("a binary has a name")?;
    let mut files = vec![(format!("usr/bin/{file_name}"), binary.to_owned())];
    for library in shared_libraries(binary)? {
        let path = library.to_str().context("a library's path is UTF-8")?;
        files.push((path.trim_start_matches('/').to_owned(), library));
    }
    if Path::new(CA_BUNDLE).exists() {
        files.push((CA_BUNDLE.trim_start_matches('/').to_owned(), PathBuf::from(CA_BUNDLE)));
    }
    let image = Image {
        name: name.to_owned(),
        entrypoint: vec![format!("/usr/bin/{file_name}")],
        files,
        texts: vec![
            // The order that every distribution ships.
            ("etc/nsswitch.conf".to_owned(), "hosts: files dns\n".to_owned()),
        ],
        ..Image::default()
    };
    image.write(archive)
}

/// Returns the shared libraries of a binary, and the dynamic linker, at the paths where the linker looks for them.
fn shared_libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    // "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", or the linker's own path without an arrow.
    let listing = process::run(Command::new("ldd").arg(binary))?;
    let words = listing.lines().flat_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let libraries: Vec<PathBuf> = words.map(PathBuf::from).collect();
    ensure!(!libraries.is_empty(), "ldd names no library of {}:\n{listing}", binary.display());
    Ok(libraries)
}

/// Returns the folders of this machine that a pod of [`CLIENT`] mounts read-only.
pub(super) fn machine_folders(python: &Python) -> Result<Vec<PathBuf>> {
    let interpreter = python.interpreter();
    let script = "import sys; print(sys.prefix); print(sys.base_prefix)";
    let prefixes = process::run(Command::new(&interpreter).args(["-c", script]))?;
    let mut folders = vec![PathBuf::from("/usr")];
    for prefix in prefixes.lines() {
        let prefix = fs::canonicalize(prefix).with_context(|| format!("find {prefix}"))?;
        if !prefix.starts_with("/usr") {
            folders.push(prefix);
        }
    }
    Ok(folders)
}
