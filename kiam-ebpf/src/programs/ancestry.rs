//! Where a cgroup stands below the kubepods cgroup.

use super::maps::CONFIG;

/// Deepest level that the kubepods cgroup is looked for at, the hierarchy's root being 0. It is 1 on a plain node, 4 on a
/// node that is itself a container. The agent cannot tell it: of a hierarchy it may see no more than a part.
const LEVEL_MAX: i32 = 8;

/// The kubepods cgroup and the two below it on the way to some cgroup, by a helper that tells the ancestor at a level;
/// 0 below that cgroup. `None`: it is not below kubepods.
#[inline(always)]
pub fn from_kubepods(ancestor: impl Fn(i32) -> u64) -> Option<[u64; 3]> {
    let kubepods = CONFIG.get(0).map_or(0, |config| config.kubepods);
    // Zeros, and not the absence of a value: that would be a part of the stack which nobody has written, and which the
    // verifier lets nobody without CAP_PERFMON read.
    let mut found = [0; 3];
    let mut level = 1;
    while kubepods != 0 && level <= LEVEL_MAX {
        if ancestor(level) == kubepods {
            found = [kubepods, ancestor(level + 1), ancestor(level + 2)];
            break;
        }
        level += 1;
    }
    if found[0] == 0 { None } else { Some(found) }
}
