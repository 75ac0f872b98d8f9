//! Container images built on the spot, without a registry or a builder: one layer, as an OCI image archive for `ctr
//! images import` (image-spec: "Image Layout").

use anyhow::{Context as _, Result};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// `architecture` of the image, as Go names it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Contents and entrypoint of an image.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    /// Name with a tag, such as `localhost/pause:1`.
    pub(super) name: String,
    /// Entrypoint; the pod's `args` are appended.
    pub(super) entrypoint: Vec<String>,
    /// Path in the image and file on this machine.
    pub(super) files: Vec<(String, PathBuf)>,
    /// Path in the image and text.
    pub(super) texts: Vec<(String, String)>,
    /// Path in the image and target of the symbolic link.
    pub(super) links: Vec<(String, String)>,
}

impl Image {
    /// Writes the archive.
    pub(super) fn write(&self, archive: &Path) -> Result<()> {
        let layer = self.layer().with_context(|| format!("make the layer of {}", self.name))?;
        let config = json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();

        let file = File::create(archive).with_context(|| format!("make {}", archive.display()))?;
        let mut archive = Builder::new(file);
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, &index)?;
        for blob in [&layer, &config, &manifest] {
            append(&mut archive, &format!("blobs/{}", sha256(blob).replace(':', "/")), 0o644, blob)?;
        }
        archive.finish()?;
        Ok(())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        // Mount points of every container, and folders that programs write to.
        for folder in ["dev/.", "etc/.", "proc/.", "sys/.", "tmp/."] {
            append_parents(&mut layer, &mut folders, folder)?;
        }
        for (path, file) in &self.files {
            let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            append_parents(&mut layer, &mut folders, path)?;
            append(&mut layer, path, 0o755, &bytes)?;
        }
        for (path, text) in &self.texts {
            append_parents(&mut layer, &mut folders, path)?;
            append(&mut layer, path, 0o644, text.as_bytes())?;
        }
        for (path, target) in &self.links {
            append_parents(&mut layer, &mut folders, path)?;
            let mut header = header(EntryType::Symlink, 0o777, 0);
            layer.append_link(&mut header, path, target)?;
        }
        Ok(layer.into_inner()?)
    }
}

/// Appends the folders that a path is in, each once.
fn append_parents(layer: &mut Builder<Vec<u8>>, folders: &mut BTreeSet<PathBuf>, path: &str) -> Result<()> {
    let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
    let new = |folder: &&&Path| !folder.as_os_str().is_empty() && !folders.contains(**folder);
    let new: Vec<PathBuf> = parents.iter().filter(new).map(|folder| (*folder).to_owned()).collect();
    for folder in new.into_iter().rev() {
        let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
        let mut header = header(EntryType::Directory, mode, 0);
        layer.append_data(&mut header, &folder, std::io::empty())?;
        folders.insert(folder);
    }
    Ok(())
}

fn append(archive: &mut Builder<impl Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, bytes.len());
    archive.append_data(&mut header, path, bytes).with_context(|| format!("append {path}"))
}

/// Returns a header without a time or an owner, so that the same content gives the same image.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

fn sha256(bytes: &[u8]) -> String {
    let hex = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}
