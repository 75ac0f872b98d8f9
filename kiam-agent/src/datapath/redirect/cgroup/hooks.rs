//! Attachment of the programs to the kubepods cgroup, by pinned links.

use crate::{
    datapath::{
        node::kubepods::Kubepods,
        programs::{object::Object, pins::Pins},
    },
    files,
    sys::{
        cgroup_link::{cgroup_of_pinned_link, pin_cgroup_link},
        update_pinned_link,
    },
};
use anyhow::Context as _;
use kiam_common::abi::{PROG_CONNECT4, PROG_CONNECT6, PROG_PEERNAME4, PROG_PEERNAME6, PROG_SETSOCKOPT, PROG_SOCKOPS};
use std::{fs::File, io, os::fd::AsFd as _};

/// A program and its `enum bpf_attach_type` (include/uapi/linux/bpf.h).
struct Hook {
    program: &'static str,
    attach_type: u32,
}

/// The programs in the order of attachment. Before the first connection is redirected, connections are recorded and
/// `getpeername` returns the IMDS; before connections are refused, no socket can set the option that hides packets.
const HOOKS: [Hook; 6] = [
    Hook { program: PROG_SOCKOPS, attach_type: 3 },
    Hook { program: PROG_PEERNAME4, attach_type: 29 },
    Hook { program: PROG_PEERNAME6, attach_type: 30 },
    Hook { program: PROG_SETSOCKOPT, attach_type: 22 },
    Hook { program: PROG_CONNECT4, attach_type: 10 },
    Hook { program: PROG_CONNECT6, attach_type: 11 },
];

/// Returns the names of the programs.
pub(super) fn programs() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.program)
}

/// Loads the programs.
pub(super) fn load(object: &mut Object) -> anyhow::Result<()> {
    HOOKS.iter().try_for_each(|hook| object.load_hook(hook.program))
}

/// Ensures that each program is attached to this cgroup. `update`: replaces the programs that are attached already,
/// because they may be those of an earlier agent.
pub(super) fn attach(object: &mut Object, pins: &Pins, kubepods: &Kubepods, update: bool) -> anyhow::Result<()> {
    let cgroup = File::open(kubepods.path()).with_context(|| format!("opening {}", kubepods.path().display()))?;
    for Hook { program, attach_type } in HOOKS {
        let pin = pins.hook(program);
        let fd = object.hook(program)?;
        let done = match cgroup_of_pinned_link(&pin) {
            Ok(id) if id == kubepods.id() && !update => Ok(()),
            Ok(id) if id == kubepods.id() => update_pinned_link(&pin, fd),
            Ok(_another_or_none) => {
                files::remove_if_present(&pin).with_context(|| format!("replacing {program}"))?;
                pin_cgroup_link(fd, cgroup.as_fd(), attach_type, &pin)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                pin_cgroup_link(fd, cgroup.as_fd(), attach_type, &pin)
            }
            Err(error) => Err(error),
        };
        done.with_context(|| format!("attaching {program} to {}", kubepods.path().display()))?;
    }
    Ok(())
}

/// Detaches all programs, from whatever cgroup they are attached to.
pub(super) fn detach(pins: &Pins) -> anyhow::Result<()> {
    for Hook { program, .. } in HOOKS {
        files::remove_if_present(&pins.hook(program))?;
    }
    Ok(())
}
