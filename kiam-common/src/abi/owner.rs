//! The active agent of a node, which owns the datapath.

/// Array of one [`Owner`]. Pinned next to the pin folders of the layouts, not inside one: agents of different layouts
/// share it, so its own layout never changes.
pub const MAP_OWNER: &str = "kiam_owner";

/// Bytes of [`Owner::run_dir`]. It is for display only, so a longer path is truncated.
pub const RUN_DIR_LEN: usize = 104;

/// The active agent: the only one that repairs the datapath and writes listener slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Owner {
    /// Generation of the owner; 0 before the first claim. An agent is the owner as long as its own number is here.
    pub generation: u64,
    /// Device of the owner's `--run-dir`. Agents that share the folder are one installation.
    pub run_dir_device: u64,
    /// Inode of the owner's `--run-dir`.
    pub run_dir_inode: u64,
    /// Path of the folder as its owner sees it, padded with NUL.
    pub run_dir: [u8; RUN_DIR_LEN],
}

const _: () = assert!(size_of::<Owner>() == 24 + RUN_DIR_LEN && RUN_DIR_LEN.is_multiple_of(8));
