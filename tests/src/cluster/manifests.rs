//! What is shipped in `deploy/manifests`, the overlay that fits it to the cluster of the tests, and what the two differ
//! in.

use super::{
    authority::{Authority, Subject, Usage},
    kubectl::Kubectl,
};
use crate::{fakes::pki::SERVER_NAME, node::process};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository's folders that the overlay is made of; it names the shipped one by a relative path.
const SHIPPED: &str = "deploy/manifests";
/// The overlay, with the secrets' files added to it.
const OVERLAY: &str = "tests/fixtures/cluster/overlay";

/// The overlay with enforcement, for a node whose pods are behind a bridge.
const ENFORCED: &str = "tests/fixtures/cluster/enforced";

/// The shipped manifests and the overlays, copied so that the overlay can hold the keys of this run.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// Copies them into a new folder, and makes the certificates of agent and server.
    ///
    /// # Errors
    /// A file is not readable, or the folder not writable.
    pub fn prepare(folder: &Path, sts_ca: &Path) -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for part in [SHIPPED, OVERLAY, ENFORCED] {
            copy(&repository.join(part), &folder.join(part))?;
        }
        let overlay = folder.join(OVERLAY);
        write_certificates(&overlay)?;
        fs::copy(sts_ca, overlay.join("sts-ca.pem")).with_context(|| format!("copy {}", sts_ca.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder for `kubectl apply -k`: the shipped manifests as they are.
    #[must_use]
    pub fn shipped(&self) -> PathBuf {
        self.folder.join(SHIPPED)
    }

    /// The folder for `kubectl apply -k`: fitted to the cluster of the tests.
    #[must_use]
    pub fn fitted(&self) -> PathBuf {
        self.folder.join(OVERLAY)
    }

    /// The folder for `kubectl apply -k`: fitted, and enforced for pods on the node's network.
    #[must_use]
    pub fn enforced(&self) -> PathBuf {
        self.folder.join(ENFORCED)
    }

    /// The folder for `kubectl apply -k`: what takes the agents' traces off the nodes, fitted too.
    #[must_use]
    pub fn fitted_cleanup(&self) -> PathBuf {
        self.folder.join(OVERLAY).join("cleanup")
    }
}

/// The three files of each secret, as the repository's guide makes them.
fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::create("kiam CA")?;
    authority.write(&folder.join("ca.pem"))?;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    // The server's probe shows the server's own certificate.
    for (file, names, usage) in
        [("agent", names(&[]), Usage::Client), ("server", names(&[SERVER_NAME, "localhost", "127.0.0.1"]), Usage::Both)]
    {
        let subject = Subject { common_name: format!("kiam-{file}"), organization: None, names, usage };
        authority.issue(&subject, &folder.join(format!("{file}.pem")), &folder.join(format!("{file}-key.pem")))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// The objects of a folder, by kind, namespace and name, as kustomize renders them. No cluster is needed.
///
/// # Errors
/// kustomize says why, or renders what is no object.
pub fn render(kube: &Path, folder: &Path) -> Result<BTreeMap<String, Value>> {
    let mut command = Command::new(kube);
    command.env_clear().env("HOME", "/nonexistent").args(["kubectl", "kustomize"]).arg(folder);
    let text = process::run(&mut command)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("parse what kustomize rendered")?;
    objects.into_iter().map(|object| Ok((identity(&object)?, object))).collect()
}

fn identity(object: &Value) -> Result<String> {
    let metadata = &object["metadata"];
    let kind = object["kind"].as_str().context("an object has a kind")?;
    let name = metadata["name"].as_str().context("an object has a name")?;
    Ok(match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    })
}

/// A value that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Object and JSON pointer (RFC 6901): `Kind namespace/name/spec/…`; an object alone stands for all of it.
    pub path: String,
    /// Before; `None`: it is new.
    pub before: Option<Value>,
    /// Afterwards; `None`: it is gone.
    pub after: Option<Value>,
}

/// All differences, the deepest value that differs each.
#[must_use]
pub fn changes(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    for object in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        compare(object.clone(), before.get(object), after.get(object), &mut changes);
    }
    changes
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    match (before, after) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            for key in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                let key_path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                compare(key_path, left.get(key), right.get(key), changes);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                compare(format!("{path}/{index}"), left.get(index), right.get(index), changes);
            }
        }
        (before, after) if before != after => {
            changes.push(Change { path, before: before.cloned(), after: after.cloned() });
        }
        _ => {}
    }
}

/// `kubectl apply -k`.
///
/// # Errors
/// It says why.
pub fn apply(kubectl: &Kubectl, folder: &Path) -> Result<String> {
    kubectl.run(&["apply", "-k", folder.to_str().context("a path in UTF-8")?])
}

/// `kubectl delete -k`, to the end.
///
/// # Errors
/// It says why, or something is not gone in time.
pub fn delete(kubectl: &Kubectl, folder: &Path) -> Result<String> {
    kubectl.run(&["delete", "-k", folder.to_str().context("a path in UTF-8")?, "--timeout=120s"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(object: Value) -> BTreeMap<String, Value> {
        BTreeMap::from([("Pod a".to_owned(), object)])
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let before = one(json!({ "same": 1, "other": 1, "gone": 1, "list": [1, 2], "a/b": 1 }));
        let after = one(json!({ "same": 1, "other": 2, "new": 1, "list": [1, 3, 4], "a/b": 2 }));
        let paths: Vec<String> = changes(&before, &after).into_iter().map(|change| change.path).collect();
        let expected = ["a~1b", "gone", "list/1", "list/2", "new", "other"].map(|path| format!("Pod a/{path}"));
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_new_object_is_one_change() {
        let after = one(json!({ "kind": "Pod" }));
        let changes = changes(&BTreeMap::new(), &after);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].before, None);
    }
}
