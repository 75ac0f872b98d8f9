//! `cargo xtask codegen`: generates the gRPC code from its contract, without `protoc`.

use crate::workspace;
use anyhow::{Context as _, bail};
use std::{fs, path::Path};

/// Folder of the contract, and path of the generated code; both below the workspace.
const PROTO: &str = "kiam-common/proto";
const GENERATED: &str = "kiam-common/src/gen/kiam.rs";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if the committed code differs from the generated one.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = workspace::root();
    let fresh = generate(&root.join(PROTO))?;
    let path = root.join(GENERATED);
    if args.check {
        if fs::read_to_string(&path).unwrap_or_default() != fresh {
            bail!(
                "{GENERATED} differs from the code that {PROTO} generates: run `cargo xtask codegen` and commit the result"
            );
        }
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("the generated file has no folder")?)?;
    fs::write(&path, fresh).with_context(|| format!("writing {}", path.display()))
}

fn generate(proto: &Path) -> anyhow::Result<String> {
    let descriptors = protox::compile(["kiam.proto"], [proto])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(descriptors)?;
    Ok(fs::read_to_string(out.path().join("kiam.rs"))?)
}
