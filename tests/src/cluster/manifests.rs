//! The shipped manifests of `deploy/manifests`, the overlay that adapts them to the cluster of the tests, and the
//! differences between the two.

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

/// Folder of the shipped manifests; the overlay names it by a relative path.
const SHIPPED: &str = "deploy/manifests";
/// Folder of the overlay; the files of the secrets are added to it.
const OVERLAY: &str = "tests/fixtures/cluster/overlay";

/// Folder of the overlay with enforcement, for a node whose pods are behind a bridge.
const ENFORCED: &str = "tests/fixtures/cluster/enforced";

/// The shipped manifests and the overlays, copied so that the overlay can contain the keys of this run.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// Copies them into a new folder, and makes the certificates of agent and server.
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

    /// Returns the folder of the shipped manifests, for `kubectl apply -k`.
    #[must_use]
    pub fn shipped(&self) -> PathBuf {
        self.folder.join(SHIPPED)
    }

    /// Returns the folder of the manifests adapted to the cluster of the tests, for `kubectl apply -k`.
    #[must_use]
    pub fn fitted(&self) -> PathBuf {
        self.folder.join(OVERLAY)
    }

    /// Returns the folder of the adapted manifests with enforcement for hostNetwork pods, for `kubectl apply -k`.
    #[must_use]
    pub fn enforced(&self) -> PathBuf {
        self.folder.join(ENFORCED)
    }

    /// Returns the folder of the adapted manifests that remove the agents' traces from the nodes, for `kubectl apply
    /// -k`.
    #[must_use]
    pub fn fitted_cleanup(&self) -> PathBuf {
        self.folder.join(OVERLAY).join("cleanup")
    }
}

/// Writes the three files of each secret, as the repository's guide describes.
fn write_certificates(folder: &Path) -> Result<()> {
    let authority = Authority::create("kiam CA")?;
    authority.write(&folder.join("ca.pem"))?;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    // The server's probe presents the server's own certificate.
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

/// Returns the objects of a folder, by kind, namespace and name, as kustomize renders them. Needs no cluster.
pub fn render(kube: &Path, folder: &Path) -> Result<BTreeMap<String, Value>> {
    let mut command = Command::new(kube);
    command.env_clear().env("HOME", "/nonexistent").args(["kubectl", "kustomize"]).arg(folder);
    let text = process::run(&mut command)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("parse the output of kustomize")?;
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

/// A value that differs between two sets of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Object and JSON pointer (RFC 6901): `Kind namespace/name/spec/…`; only the object if all of it is new or gone.
    pub path: String,
    /// Value before; `None` if it is new.
    pub before: Option<Value>,
    /// Value after; `None` if it is gone.
    pub after: Option<Value>,
}

/// Returns all differences, each with the deepest value that differs.
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

/// Runs `kubectl apply -k`.
pub fn apply(kubectl: &Kubectl, folder: &Path) -> Result<String> {
    kubectl.run(&["apply", "-k", folder.to_str().context("a path in UTF-8")?])
}

/// Runs `kubectl delete -k` and waits until everything is gone.
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
