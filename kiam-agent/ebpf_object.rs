//! The eBPF object that the agent embeds, and the sources that it is built from. Shared by `build.rs`, which refuses an
//! object of other sources, and `cargo xtask build-ebpf`, which makes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Path of the object, below the workspace.
pub(crate) const OBJECT: &str = "target/ebpf/kiam-ebpf";
/// Names another object, for builds outside the repository.
pub(crate) const OVERRIDE: &str = "KIAM_EBPF_OBJECT";
/// Files and folders that the object is built from, below the workspace.
pub(crate) const SOURCES: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "kiam-ebpf/src",
    "kiam-ebpf/Cargo.toml",
    "kiam-common/Cargo.toml",
    "kiam-common/src/abi",
    "kiam-common/src/abi.rs",
    "kiam-common/src/lib.rs",
    // Contains the compiler's flags and the version of the linker.
    "xtask/src/ebpf.rs",
];

/// Returns true if the object of the workspace was built from the sources as they are now, by content.
///
/// # Errors
/// A source cannot be read.
pub(crate) fn is_current(root: &Path) -> io::Result<bool> {
    let built_from = fs::read_to_string(digest_file(root)).unwrap_or_default();
    Ok(root.join(OBJECT).is_file() && built_from == digest(root)?)
}

/// Returns the file, next to the object, with the digest of the sources that it was built from.
pub(crate) fn digest_file(root: &Path) -> PathBuf {
    root.join(OBJECT).with_extension("sources")
}

/// Returns a digest of the sources: of their paths and contents, in the order of the paths.
///
/// # Errors
/// A source cannot be read.
pub(crate) fn digest(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        list(&root.join(source), source, &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::default();
    for file in &files {
        hash.add(file.as_bytes());
        hash.add(&fs::read(root.join(file))?);
    }
    Ok(format!("{:016x}", hash.0))
}

/// Adds a file, or the files in a folder, by their paths below the workspace.
fn list(path: &Path, name: &str, files: &mut Vec<String>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(name.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        list(&entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()), files)?;
    }
    Ok(())
}

/// FNV-1a with 64 bits: the same in every process and with every compiler. It guards against mistakes, not attacks.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes and their number, so that two texts differ from their concatenation.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain(bytes.len().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
