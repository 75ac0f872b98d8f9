//! Finds the pod of a cgroup, in the tree that the kubelet creates:
//!
//! ```text
//! kubepods ─┬─ pod<uid>                 guaranteed        kubepods.slice ─┬─ kubepods-pod<uid_>.slice
//!           ├─ burstable ── pod<uid>                                      ├─ kubepods-burstable.slice ── kubepods-burstable-pod<uid_>.slice
//!           └─ besteffort ── pod<uid>                                     └─ …
//! ```
//!
//! Only folders at these depths count: a container to which its part of the tree is delegated can create folders of any
//! name below its own.

use super::Kubepods;
use crate::attestation::PodUid;
use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::DirEntryExt as _,
    path::Path,
};

/// Folders of the QoS classes other than guaranteed (kubelet, `QOSContainersInfo`).
const QOS_CLASSES: [&str; 2] = ["burstable", "besteffort"];
/// Maximum of pods that are read: more than any node runs. It bounds the time and memory of one read.
const PODS_MAX: usize = 16_384;
/// Maximum of cgroups that are cached as not belonging to a pod.
const NOT_PODS_MAX: usize = 4_096;

/// The pods of a node by their cgroups. The tree is read again when a cgroup is unknown.
#[derive(Debug)]
pub(crate) struct Pods {
    kubepods: Kubepods,
    known: HashMap<u64, PodUid>,
    /// Cgroups that are not in the tree. This cannot change: a cgroup is older than its sockets, and the kernel does
    /// not reuse ids. So no cgroup causes the tree to be read twice.
    not_pods: HashSet<[u64; 3]>,
}

impl Pods {
    /// Creates it without reading the tree.
    pub(crate) fn new(kubepods: Kubepods) -> Self {
        Self { kubepods, known: HashMap::new(), not_pods: HashSet::new() }
    }

    /// Returns the root of the tree.
    pub(crate) const fn kubepods(&self) -> &Kubepods {
        &self.kubepods
    }

    /// Returns the pod of a socket, by the ancestors of the socket's cgroup from kubepods down
    /// (`kiam_common::abi::Flow`).
    pub(crate) fn of(&mut self, ancestors: [u64; 3]) -> io::Result<Option<PodUid>> {
        if ancestors[0] != self.kubepods.id() {
            return Ok(None);
        }
        if let Some(uid) = self.find(ancestors) {
            return Ok(Some(uid));
        }
        if self.not_pods.contains(&ancestors) {
            return Ok(None);
        }
        self.known = read(self.kubepods.path())?;
        let found = self.find(ancestors);
        if found.is_none() {
            if self.not_pods.len() >= NOT_PODS_MAX {
                self.not_pods.clear();
            }
            self.not_pods.insert(ancestors);
        }
        Ok(found)
    }

    fn find(&self, [_, guaranteed, other]: [u64; 3]) -> Option<PodUid> {
        self.known.get(&guaranteed).or_else(|| self.known.get(&other)).copied()
    }
}

/// Reads the tree: the pod of each cgroup.
pub(super) fn read(kubepods: &Path) -> io::Result<HashMap<u64, PodUid>> {
    let mut pods = HashMap::new();
    collect(kubepods, &mut pods)?;
    for class in QOS_CLASSES {
        match collect(&below(kubepods, class), &mut pods) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(pods)
}

fn collect(folder: &Path, pods: &mut HashMap<u64, PodUid>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let uid = entry.file_name().to_str().and_then(|name| pod_of(name, folder));
        if let Some(uid) = uid
            && pods.len() < PODS_MAX
        {
            pods.insert(entry.ino(), uid);
        }
    }
    Ok(())
}

/// Returns the folder of a QoS class.
fn below(kubepods: &Path, class: &str) -> std::path::PathBuf {
    match slice(kubepods) {
        Some(parent) => kubepods.join(format!("{parent}-{class}.slice")),
        None => kubepods.join(class),
    }
}

/// Returns the pod that the name of a folder contains.
fn pod_of(name: &str, parent: &Path) -> Option<PodUid> {
    match slice(parent) {
        // A hyphen is a level of the tree to systemd, so the kubelet writes underscores into the UID.
        Some(parent) => {
            let own = name.strip_suffix(".slice")?.strip_prefix(parent)?.strip_prefix("-pod")?;
            PodUid::parse(&own.replace('_', "-"))
        }
        None => PodUid::parse(name.strip_prefix("pod")?),
    }
}

/// Returns the name of the systemd slice, if the folder is one.
fn slice(folder: &Path) -> Option<&str> {
    folder.file_name()?.to_str()?.strip_suffix(".slice")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    const A: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";
    const B: &str = "11111111-2222-4333-8444-bbbbbbbbbbbb";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    fn uid(text: &str) -> Option<PodUid> {
        Some(PodUid::parse(text).unwrap())
    }

    #[test]
    fn names_of_both_drivers() {
        let systemd = |uid: &str| uid.replace('-', "_");
        for (parent, name, wanted) in [
            ("/k/kubepods", format!("pod{A}"), uid(A)),
            ("/k/kubepods/burstable", format!("pod{A}"), uid(A)),
            ("/k/kubepods/besteffort", format!("pod{STATIC}"), uid(STATIC)),
            ("/k/kubepods.slice", format!("kubepods-pod{}.slice", systemd(A)), uid(A)),
            (
                "/k/kubepods.slice/kubepods-burstable.slice",
                format!("kubepods-burstable-pod{}.slice", systemd(A)),
                uid(A),
            ),
            (
                "/k/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice",
                format!("kubelet-kubepods-besteffort-pod{}.slice", systemd(A)),
                uid(A),
            ),
            // Names of pods for the other driver, and names of other things.
            ("/k/kubepods", format!("kubepods-pod{}.slice", systemd(A)), None),
            ("/k/kubepods", format!("pod{}", systemd(A)), None),
            ("/k/kubepods.slice", format!("pod{A}"), None),
            ("/k/kubepods.slice", format!("kubepods-burstable-pod{}.slice", systemd(A)), None),
            ("/k/kubepods.slice", format!("kubepods-pod{}.scope", systemd(A)), None),
            ("/k/kubepods", "burstable".to_owned(), None),
            ("/k/kubepods", "pod".to_owned(), None),
            ("/k/kubepods", format!("pod{A}/x"), None),
            ("/k/kubepods", "pod../../etc".to_owned(), None),
            ("/k/kubepods", format!("crio-{A}"), None),
        ] {
            assert_eq!(pod_of(&name, Path::new(parent)), wanted, "{parent} {name}");
        }
    }

    /// A tree of plain folders; only names, depths and inode numbers matter.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.make("burstable");
            tree.make("besteffort");
            tree
        }

        fn make(&self, path: &str) -> u64 {
            let path = self.root().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::metadata(path).unwrap().ino()
        }

        fn root(&self) -> std::path::PathBuf {
            self.0.path().join("kubepods")
        }

        fn id(&self) -> u64 {
            self.make("")
        }

        fn pods(&self) -> Pods {
            Pods::new(Kubepods { path: self.root(), id: self.id() })
        }
    }

    /// A pod is found at its depth in the tree; a folder below it with the name of a pod is not one.
    #[test]
    fn pods_are_found_only_at_their_depth() {
        let tree = Tree::new();
        let guaranteed = tree.make(&format!("pod{A}"));
        let burstable = tree.make(&format!("burstable/pod{B}"));
        let class = tree.make("burstable");
        let (nested, deep) =
            (tree.make(&format!("pod{A}/pod{B}")), tree.make(&format!("burstable/pod{B}/container/pod{A}")));
        let (id, mut pods) = (tree.id(), tree.pods());
        assert_eq!(pods.of([id, guaranteed, 0]).unwrap(), uid(A));
        assert_eq!(pods.of([id, guaranteed, nested]).unwrap(), uid(A), "the topmost pod counts");
        assert_eq!(pods.of([id, class, burstable]).unwrap(), uid(B));
        for other in [nested, deep] {
            assert_eq!(pods.of([id, class, other]).unwrap(), None);
            assert_eq!(pods.of([id, other, 0]).unwrap(), None);
        }
        assert_eq!(pods.of([id, class, 0]).unwrap(), None, "a class is not a pod");
        assert_eq!(pods.of([id, 0, 0]).unwrap(), None, "nor is kubepods");
    }

    #[test]
    fn cgroups_outside_kubepods_are_no_pods() {
        let tree = Tree::new();
        let pod = tree.make(&format!("pod{A}"));
        let mut pods = tree.pods();
        assert_eq!(pods.of([tree.id() + 1, pod, 0]).unwrap(), None);
        assert_eq!(pods.of([0, pod, 0]).unwrap(), None);
        assert!(pods.known.is_empty(), "and the tree is not read for it");
    }

    /// An unknown cgroup causes one read of the tree, whether it turns out to be a pod or not.
    #[test]
    fn unknown_cgroup_reads_the_tree_once() {
        let tree = Tree::new();
        let (id, class) = (tree.id(), tree.make("besteffort"));
        let mut pods = tree.pods();
        assert_eq!(pods.of([id, class, 77]).unwrap(), None);
        let new = tree.make(&format!("besteffort/pod{A}"));
        assert_eq!(pods.of([id, class, 77]).unwrap(), None);
        assert!(pods.known.is_empty(), "the tree was read again for a cgroup that is not a pod");
        assert_eq!(pods.of([id, class, new]).unwrap(), uid(A));
        fs::remove_dir(tree.root().join(format!("besteffort/pod{A}"))).unwrap();
        assert_eq!(pods.of([id, class, new]).unwrap(), uid(A), "known until the tree is read again");
        assert_eq!(pods.of([id, class, 78]).unwrap(), None);
        assert_eq!(pods.of([id, class, new]).unwrap(), None);
    }

    #[test]
    fn number_of_cached_non_pods_is_bounded() {
        let tree = Tree::new();
        let mut pods = tree.pods();
        for cgroup in 0..NOT_PODS_MAX as u64 + 10 {
            assert_eq!(pods.of([tree.id(), 1, 1_000_000_000 + cgroup]).unwrap(), None);
        }
        assert!(pods.not_pods.len() <= NOT_PODS_MAX);
    }
}
