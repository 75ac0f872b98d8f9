//! The list of exempt pods on disk, for a boot without the Kubernetes API. A pod keeps its UID when its node reboots,
//! so the list contains UIDs and not cgroups.

use super::{Lists, known::PODS_MAX};
use crate::{
    attestation::PodUid,
    config::{ACCOUNTS_MAX, Account},
    files,
};
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

const NAME: &str = "exempt.json";
/// Name of the file while it is written.
const DRAFT: &str = "exempt.json.new";
const VERSION: u32 = 1;
/// Longest file in bytes: the most pods that there can be (48 bytes each), and the text around them.
const LEN_MAX: u64 = 128 * 1024;
const _: () = assert!(LEN_MAX > (ACCOUNTS_MAX * PODS_MAX * 48 + ACCOUNTS_MAX * 512) as u64);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// Name of the node. Lists of another node, from a copy of its disk, are invalid.
    node: String,
    /// UIDs of pods by `NAMESPACE/SERVICEACCOUNT`.
    pods: BTreeMap<String, Vec<String>>,
}

/// Reads the lists that an earlier agent of this node has written; empty without a file.
pub(crate) fn read(folder: &Path, node: &str) -> anyhow::Result<Lists> {
    let path = folder.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lists::new()),
        other => other.with_context(|| format!("opening {}", path.display()))?,
    };
    parse(file, node).with_context(|| path.display().to_string())
}

fn parse(file: File, node: &str) -> anyhow::Result<Lists> {
    let mut text = String::new();
    let len = file.take(LEN_MAX + 1).read_to_string(&mut text)?;
    ensure!(len as u64 <= LEN_MAX, "longer than {LEN_MAX} bytes");
    let contents: Contents = serde_json::from_str(&text)?;
    ensure!(contents.version == VERSION, "version {} instead of {VERSION}", contents.version);
    ensure!(contents.node == node, "it belongs to node {}, and this node is {node}", contents.node);
    contents.pods.into_iter().map(|(account, pods)| Ok((account_of(&account)?, uids(pods)?))).collect()
}

fn account_of(text: &str) -> anyhow::Result<Account> {
    match Account::parse(text) {
        Ok(account) => Ok(account),
        Err(problem) => bail!("{text:?}: {problem}"),
    }
}

fn uids(pods: Vec<String>) -> anyhow::Result<BTreeSet<PodUid>> {
    ensure!(pods.len() <= PODS_MAX, "more than {PODS_MAX} pods of one ServiceAccount");
    pods.iter().map(|uid| PodUid::parse(uid).with_context(|| format!("{uid:?} is not the UID of a pod"))).collect()
}

/// Replaces the file atomically.
pub(crate) fn write(folder: &Path, node: &str, lists: &Lists) -> anyhow::Result<()> {
    let pods =
        lists.iter().map(|(account, pods)| (account.to_string(), pods.iter().map(ToString::to_string).collect()));
    let contents = Contents { version: VERSION, node: node.to_owned(), pods: pods.collect() };
    let text = serde_json::to_string_pretty(&contents)?;
    replace(folder, text.as_bytes()).with_context(|| format!("writing {}", folder.join(NAME).display()))
}

fn replace(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = folder.join(DRAFT);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

/// Removes the file, if there is one.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    for name in [NAME, DRAFT] {
        files::remove_if_present(&folder.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const UID: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";

    fn lists() -> Lists {
        let pods = |uids: &[&str]| uids.iter().map(|uid| PodUid::parse(uid).unwrap()).collect();
        let account = |text| Account::parse(text).unwrap();
        Lists::from([(account("kube-system/aws-node"), pods(&[UID])), (account("kube-system/ebs"), pods(&[]))])
    }

    #[test]
    fn lists_are_read_back_by_this_node_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        assert_eq!(read(&state, "node-a").unwrap(), Lists::new(), "there is none");
        write(&state, "node-a", &Lists::new()).unwrap();
        write(&state, "node-a", &lists()).unwrap();
        assert_eq!(read(&state, "node-a").unwrap(), lists());
        assert_eq!(fs::metadata(state.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no draft stays");
        let error = format!("{:#}", read(&state, "node-b").unwrap_err());
        assert!(error.contains("exempt.json: it belongs to node node-a"), "{error}");
        remove(&state).unwrap();
        remove(&state).unwrap();
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }

    #[test]
    fn invalid_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = format!(r#"{{"version": 1, "node": "n", "pods": {{"kube-system/aws-node": ["{UID}"]}}}}"#);
        let path = folder.path().join(NAME);
        fs::write(&path, &good).unwrap();
        assert_eq!(read(folder.path(), "n").unwrap().len(), 1);
        let many: Vec<String> = (0..=PODS_MAX).map(|last| format!("\"11111111-2222-4333-8444-{last:012x}\"")).collect();
        for (bad, wanted) in [
            (String::new(), "EOF"),
            (good.replacen("version\": 1", "version\": 2", 1), "version 2 instead of 1"),
            (good.replace("node", "knot"), "knot"),
            (good.replace("kube-system/aws-node", "*/aws-node"), "exact name of a namespace"),
            (good.replace(UID, "../../x"), "\"../../x\" is not the UID of a pod"),
            (good.replace(&format!("\"{UID}\""), &many.join(",")), "more than 64 pods"),
            (good.clone() + "x", "trailing"),
            (" ".repeat(129 * 1024) + &good, "longer than"),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = format!("{:#}", read(folder.path(), "n").unwrap_err());
            assert!(error.contains("exempt.json") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn failed_write_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = format!("{:#}", write(&file, "n", &lists()).unwrap_err());
        assert!(error.contains("file/exempt.json"), "{error}");
    }
}
