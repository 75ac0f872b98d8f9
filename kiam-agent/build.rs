//! Finds the eBPF object that is embedded, and refuses one that is missing or older than its sources.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// Names another object, for builds outside the repository.
const OVERRIDE: &str = "KIAM_EBPF_OBJECT";
/// Where `cargo xtask build-ebpf` puts the object, below the workspace.
const OBJECT: &str = "target/ebpf/kiam-ebpf";
/// What the object is built from, below the workspace.
const SOURCES: [&str; 5] = [
    "kiam-ebpf/src",
    "kiam-ebpf/Cargo.toml",
    "kiam-common/src/abi",
    "kiam-common/src/abi.rs",
    "kiam-common/src/lib.rs",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    match object() {
        Ok(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            println!("cargo::rustc-env={OVERRIDE}={}", object.display());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("cargo::error={problem}: run `cargo xtask build-ebpf` (with --install to get its toolchain)");
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<PathBuf, String> {
    if let Some(object) = env::var_os(OVERRIDE) {
        return fs::canonicalize(&object).map_err(|error| format!("{OVERRIDE}={}: {error}", object.display()));
    }
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets no CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().ok_or("no workspace around the crate")?;
    let object = root.join(OBJECT);
    let Ok(built) = object.metadata().and_then(|metadata| metadata.modified()) else {
        return Err(format!("the eBPF object {OBJECT} is not built yet"));
    };
    for source in SOURCES {
        let path = root.join(source);
        println!("cargo::rerun-if-changed={}", path.display());
        let changed = newest(&path).map_err(|error| format!("{source}: {error}"))?;
        if changed > built {
            return Err(format!("the eBPF object is older than {source}"));
        }
    }
    Ok(object)
}

/// When the file, or the youngest file in the folder, was changed.
fn newest(path: &Path) -> io::Result<SystemTime> {
    let mut newest = path.metadata()?.modified()?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(self::newest(&entry?.path())?);
        }
    }
    Ok(newest)
}
