//! Finds the eBPF object that is embedded, and refuses one that is missing or built from other sources.

mod ebpf_object;

use ebpf_object::{OBJECT, OVERRIDE, SOURCES};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed=ebpf_object.rs");
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
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let is_current = ebpf_object::is_current(root).map_err(|error| format!("reading the eBPF sources: {error}"))?;
    let object = root.join(OBJECT);
    if !object.exists() {
        return Err(format!("the eBPF object {OBJECT} is not built yet"));
    }
    if is_current { Ok(object) } else { Err(format!("{OBJECT} was built from other sources than those that are here")) }
}
