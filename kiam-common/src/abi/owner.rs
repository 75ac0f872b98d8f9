//! Which agent keeps the datapath of a node.

/// Array of one [`Owner`]. Pinned beside the folders of the layouts, not in one of them: agents of different layouts
/// must agree on it, so its own layout never changes.
pub const MAP_OWNER: &str = "kiam_owner";

/// Longest path of [`Owner::run_dir`], bytes: for people, so a longer one is cut.
pub const RUN_DIR_LEN: usize = 104;

/// The agent that repairs the datapath and writes the listeners' slots; no other one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Owner {
    /// Counts the owners. An agent is the owner for as long as this is the number that it wrote. 0: nobody was yet.
    pub generation: u64,
    /// Device of the owner's `--run-dir`. Agents that share the folder are one installation.
    pub run_dir_device: u64,
    /// Inode of the owner's `--run-dir`.
    pub run_dir_inode: u64,
    /// The folder's path as its owner sees it, filled up with NUL.
    pub run_dir: [u8; RUN_DIR_LEN],
}

const _: () = assert!(size_of::<Owner>() == 24 + RUN_DIR_LEN && RUN_DIR_LEN.is_multiple_of(8));
