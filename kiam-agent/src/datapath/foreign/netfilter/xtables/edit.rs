//! Deletion of a rule from a table of x_tables: the whole table is replaced by one without the rule, as iptables does
//! it.

use super::{
    Rule, SO_GET_ENTRIES, SO_GET_INFO, Table,
    layout::{self, Target},
    level,
};
use crate::sys::sockopt::{self, XT_COUNTERS_LEN};
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::{fs::File, thread, time::Duration};

/// `IPT_SO_SET_REPLACE`, `IPT_SO_SET_ADD_COUNTERS`: setting has the numbers of getting.
const SO_SET_REPLACE: i32 = SO_GET_INFO;
const SO_SET_ADD_COUNTERS: i32 = SO_GET_ENTRIES;
/// Lock file of all programs that change these tables (iptables' XT_LOCK_NAME).
const LOCK: &str = "/run/xtables.lock";
/// Attempts to lock, and the pause between them: a restore of tens of thousands of rules holds the lock for about a
/// second.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Keeps others from changing the tables between our reading and our replacing.
pub(in crate::datapath) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Waits for the lock of the host's iptables. Does not create the file: other programs would not use it.
    pub(in crate::datapath) fn take() -> anyhow::Result<Self> {
        let file = File::open(LOCK).with_context(|| {
            format!("opening {LOCK} (in a pod: mount the host's file there, so that kube-proxy and others wait)")
        })?;
        for _ in 0..LOCK_TRIES {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Self(file));
            }
            thread::sleep(LOCK_PAUSE);
        }
        bail!("another program holds {LOCK} for too long")
    }
}

impl Table {
    /// Deletes the first rule for which `wanted` returns true, and returns it. The snapshot is outdated then: read the
    /// table again.
    pub(in crate::datapath) fn delete_first(
        &self,
        _lock: &Lock,
        wanted: impl Fn(&Rule) -> bool,
    ) -> anyhow::Result<Option<Rule>> {
        let Some((offset, rule)) = self.located()?.into_iter().find(|(_, rule)| wanted(rule)) else { return Ok(None) };
        self.delete(offset).with_context(|| format!("deleting {rule}"))?;
        Ok(Some(rule))
    }

    fn delete(&self, at: u32) -> anyhow::Result<()> {
        let mut entries = Vec::with_capacity(self.entries.len());
        let (mut gone, mut index) = (None, 0);
        for (number, (offset, entry)) in self.entries()?.into_iter().enumerate() {
            let from = usize::try_from(offset)?;
            let bytes = self.entries.get(from..from + usize::from(entry.len)).context("an entry beyond the table")?;
            if offset == at {
                (gone, index) = (Some(u32::from(entry.len)), number);
            } else {
                entries.push((bytes.to_vec(), entry));
            }
        }
        let len = gone.context("there is no rule there")?;
        // The entries after it move up; offsets that pointed to it point to the entry after it.
        let moved = |offset: u32| if offset > at { offset - len } else { offset };
        let mut tail = Vec::new();
        for (mut bytes, entry) in entries {
            if let (Target::Standard(verdict), Some(field)) =
                (&entry.target, bytes.get_mut(entry.target_data..entry.target_data + size_of::<u32>()))
                && let Ok(jump) = u32::try_from(*verdict)
            {
                field.copy_from_slice(&moved(jump).to_ne_bytes());
            }
            tail.extend(bytes);
        }
        let head = self.replacement_head(len, moved);
        let counters = sockopt::replace_table(
            &self.socket,
            level(self.family),
            SO_SET_REPLACE,
            &head,
            self.info.num_entries,
            &tail,
        )?;
        self.restore_counters(&counters, index)
    }

    /// Returns `struct ipt_replace` up to `num_counters`.
    fn replacement_head(&self, gone: u32, moved: impl Fn(u32) -> u32) -> Vec<u8> {
        let mut head = layout::name(self.name).to_vec();
        let offsets = self.info.hook_entry.into_iter().chain(self.info.underflow).map(moved);
        let numbers = [self.info.valid_hooks, self.info.num_entries - 1, self.info.size - gone];
        for number in numbers.into_iter().chain(offsets) {
            head.extend(number.to_ne_bytes());
        }
        head
    }

    /// Restores the counters of the remaining rules, as iptables does it: those of a replaced table begin at zero.
    fn restore_counters(&self, counters: &[u8], without: usize) -> anyhow::Result<()> {
        let mut value = layout::name(self.name).to_vec();
        value.extend((self.info.num_entries - 1).to_ne_bytes());
        // The counters are aligned to eight bytes.
        value.extend([0; 4]);
        let kept = counters.chunks_exact(XT_COUNTERS_LEN).enumerate().filter(|&(index, _)| index != without);
        value.extend(kept.flat_map(|(_, counter)| counter));
        sockopt::set(&self.socket, level(self.family), SO_SET_ADD_COUNTERS, &value).context("restoring the counters")
    }
}
