//! The owner of the datapath: the agent that wrote the newest generation into the pinned map. Only the owner repairs
//! the datapath and writes listener slots. An agent that was replaced, for instance while it was suspended, finds a
//! newer generation and changes nothing.

use crate::{
    datapath::programs::{object::Object, pins},
    report::OwnerReport,
};
use anyhow::{Context as _, anyhow};
use aya::maps::{Array, Map, MapData, MapError};
use kiam_common::abi::{Owner, RUN_DIR_LEN};
use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Installation: all agents that share a `--run-dir`, and through it a lock, a socket and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    owner: Owner,
}

impl Installation {
    /// Returns the installation of a folder. The folder itself identifies it, not its path: in two containers one path
    /// can be two folders.
    pub(crate) fn of(run_dir: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(run_dir)?;
        let mut text = [0; RUN_DIR_LEN];
        for (to, from) in text.iter_mut().zip(run_dir.as_os_str().as_encoded_bytes()) {
            *to = *from;
        }
        let (run_dir_device, run_dir_inode) = (metadata.dev(), metadata.ino());
        Ok(Self { owner: Owner { generation: 0, run_dir_device, run_dir_inode, run_dir: text } })
    }

    /// Returns the installation that owns the datapath; `None`: no agent has ever claimed it.
    pub(crate) fn recorded(root: &Path) -> anyhow::Result<Option<Self>> {
        let path = pins::owner(root);
        if !path.exists() {
            return Ok(None);
        }
        let context = || format!("reading {}", path.display());
        let map = MapData::from_pin(&path).map(Map::Array).with_context(context)?;
        let owner = read(&Array::try_from(map)?).with_context(context)?;
        Ok((owner.generation > 0).then_some(Self { owner }))
    }

    /// Returns whether both are the same folder.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let folder = |Owner { run_dir_device, run_dir_inode, .. }: &Owner| (*run_dir_device, *run_dir_inode);
        folder(&self.owner) == folder(&other.owner)
    }

    /// Returns the report for `kiam-agent status`.
    pub(crate) fn report(&self) -> OwnerReport {
        OwnerReport { generation: self.owner.generation, run_dir: self.run_dir() }
    }

    /// Returns the path of the folder, as the agents of the installation see it.
    pub(crate) fn run_dir(&self) -> String {
        let text: Vec<u8> = self.owner.run_dir.into_iter().take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Makes this agent the owner, and returns its generation.
pub(crate) fn claim(object: &mut Object, installation: &Installation) -> anyhow::Result<u64> {
    let generation = generation(object)? + 1;
    let mut map = object.owner_mut()?;
    map.set(0, Owner { generation, ..installation.owner }, 0).context("claiming the datapath")?;
    Ok(generation)
}

/// Returns the generation of the current owner.
pub(crate) fn generation(object: &Object) -> anyhow::Result<u64> {
    Ok(read(&object.owner()?)?.generation)
}

fn read<T: std::borrow::Borrow<MapData>>(map: &Array<T, Owner>) -> anyhow::Result<Owner> {
    map.get(&0, 0).map_err(|error: MapError| anyhow!(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installation_is_the_folder_not_its_path() {
        let outer = tempfile::tempdir().unwrap();
        let (one, two) = (outer.path().join("one"), outer.path().join("two"));
        fs::create_dir(&one).unwrap();
        let installation = Installation::of(&one).unwrap();
        assert_eq!(installation.run_dir(), one.to_str().unwrap());
        std::os::unix::fs::symlink(&one, &two).unwrap();
        assert!(installation.is(&Installation::of(&two).unwrap()));
        fs::remove_file(&two).unwrap();
        fs::create_dir(&two).unwrap();
        assert!(!installation.is(&Installation::of(&two).unwrap()));
    }

    #[test]
    fn long_path_is_truncated() {
        let outer = tempfile::tempdir().unwrap();
        let long = outer.path().join("a".repeat(200));
        fs::create_dir(&long).unwrap();
        assert_eq!(Installation::of(&long).unwrap().run_dir().len(), RUN_DIR_LEN);
    }
}
