//! Position of a cgroup below the kubepods cgroup.

use super::maps::CONFIG;

/// Deepest level at which the kubepods cgroup is searched for; the root of the hierarchy is level 0. Kubepods is at
/// level 1 on a plain node, at 4 on a node that is itself a container. The agent cannot provide the level: it may see
/// only a part of the hierarchy.
const KUBEPODS_LEVEL_MAX: i32 = 8;

/// Returns the ancestors of a cgroup from kubepods down, three levels, with 0 below the cgroup itself; `None` if it is
/// not below kubepods. `ancestor` returns the ancestor at a level.
#[inline(always)]
pub fn from_kubepods(ancestor: impl Fn(i32) -> u64) -> Option<[u64; 3]> {
    let kubepods = CONFIG.get(0).map_or(0, |config| config.kubepods);
    // Zeros instead of an `Option`, whose empty variant leaves stack unwritten: the verifier rejects reading that
    // without CAP_PERFMON.
    let mut found = [0; 3];
    let mut level = 1;
    while kubepods != 0 && level <= KUBEPODS_LEVEL_MAX {
        if ancestor(level) == kubepods {
            found = [kubepods, ancestor(level + 1), ancestor(level + 2)];
            break;
        }
        level += 1;
    }
    if found[0] == 0 { None } else { Some(found) }
}
