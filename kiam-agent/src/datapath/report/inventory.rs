//! The inventory: kiam's objects in the kernel, read without an agent and without changes.

use crate::{
    config::KubepodsAt,
    datapath::{
        fence::{Fence, Verdict},
        node::{devices, family::Family, kubepods::Kubepods, netlink},
        ownership::owner::Installation,
        programs::{
            attached,
            pins::{self, LinkOf, Pins},
        },
        redirect::{cgroup, exempt_map::ExemptMap},
    },
    report::{Attached, ExemptReport, FenceReport, Kernel},
    sys::cgroup_link::ids_of_pinned_link,
};
use anyhow::Context as _;
use aya::programs::TcAttachType;
use kiam_common::abi::{LAYOUT, PROG_SK_LOOKUP};
use rtnetlink::Handle;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Prefix of the names of our filters; aya names them after their programs.
const OUR_PREFIX: &str = "kiam_";

/// Reads the inventory. `bpffs`: mount point of the BPF file system; `kubepods`: location of the pods' cgroups.
pub(crate) async fn inventory(bpffs: &Path, kubepods: &KubepodsAt) -> anyhow::Result<Kernel> {
    let root = pins::root(bpffs)?;
    let netlink = netlink::connect()?;
    let devices = devices::list(&netlink).await.context("listing the interfaces")?;
    let names: BTreeMap<u32, String> = devices.into_iter().map(|device| (device.index, device.name)).collect();
    let layouts = pins::layouts(&root).with_context(|| format!("reading {}", root.display()))?;
    let mut kernel = Kernel { owner: Installation::recorded(&root)?.map(|owner| owner.report()), ..Kernel::default() };
    kernel.pins.extend(Some(pins::owner(&root)).filter(|owner| owner.exists()));
    for layout in &layouts {
        kernel.pins.extend(layout.all().with_context(|| format!("reading {}", layout.folder().display()))?);
        kernel.attached.extend(links_of(layout, &names)?);
        if layout.folder().ends_with(LAYOUT) {
            kernel.exempt = exempt(layout, kubepods)?;
        }
    }
    kernel.pins.sort();
    kernel.attached.extend(filters(&netlink, &names).await?);
    kernel.fence = fence(netlink).await?;
    Ok(kernel)
}

fn links_of(pins: &Pins, names: &BTreeMap<u32, String>) -> anyhow::Result<Vec<Attached>> {
    let mut attached = Vec::new();
    for of in LinkOf::ALL {
        let hook = match of {
            LinkOf::Redirect | LinkOf::GuardIn => "tcx/ingress",
            LinkOf::Guard | LinkOf::Probe => "tcx/egress",
        };
        let mut interfaces = pins.linked_interfaces(of).context("listing the pinned links")?;
        interfaces.sort_unstable();
        for index in interfaces {
            let name = names.get(&index).cloned().unwrap_or_else(|| index.to_string());
            let link = link(pins.link(of, index), of.program(), hook)?;
            attached.extend(link.map(|link| Attached { interface: Some(name), ..link }));
        }
    }
    attached.extend(link(pins.backstop(), PROG_SK_LOOKUP, "netns/sk_lookup")?);
    for program in cgroup::programs() {
        attached.extend(link(pins.hook(program), program, "cgroup")?);
    }
    Ok(attached)
}

/// Returns the pinned link; `None`: it does not exist, or has just been removed.
fn link(pin: PathBuf, program: &str, hook: &str) -> anyhow::Result<Option<Attached>> {
    let (link, id) = match ids_of_pinned_link(&pin) {
        Ok(ids) => ids,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", pin.display())),
    };
    let attached = Attached { link: Some(link), pin: Some(pin), ..plain(program, id, hook) };
    Ok(Some(attached))
}

async fn filters(netlink: &Handle, names: &BTreeMap<u32, String>) -> anyhow::Result<Vec<Attached>> {
    let mut attached = Vec::new();
    for (&index, name) in names {
        for (direction, hook) in [(TcAttachType::Ingress, "clsact/ingress"), (TcAttachType::Egress, "clsact/egress")] {
            for filter in attached::filters(netlink, direction, index).await? {
                let (Some(id), Some(program)) = (filter.program, filter.name) else { continue };
                if program.starts_with(OUR_PREFIX) {
                    attached.push(Attached {
                        interface: Some(name.clone()),
                        preference: Some(filter.preference),
                        handle: Some(filter.handle),
                        ..plain(&program, id, hook)
                    });
                }
            }
        }
    }
    Ok(attached)
}

fn plain(program: &str, id: u32, hook: &str) -> Attached {
    Attached {
        program: program.to_owned(),
        id,
        hook: hook.to_owned(),
        interface: None,
        link: None,
        pin: None,
        preference: None,
        handle: None,
    }
}

async fn fence(netlink: Handle) -> anyhow::Result<Vec<FenceReport>> {
    let fence = Fence::new(netlink);
    let mut reports = Vec::new();
    for &family in fence.families() {
        reports.push(fence_of(&fence, family).await?);
    }
    Ok(reports)
}

async fn fence_of(fence: &Fence, family: Family) -> anyhow::Result<FenceReport> {
    let found = fence.inventory(family).await?;
    let verdict = found.verdict.map(|verdict| match verdict {
        Verdict::Local => "local",
        Verdict::Blackhole => "blackhole",
    });
    Ok(FenceReport {
        family: family.name().to_owned(),
        rules: found.rules.iter().map(|rule| rule.preference).collect(),
        at_boot: found.rules.iter().filter(|rule| rule.at_boot).map(|rule| rule.preference).collect(),
        verdict: verdict.map(str::to_owned),
        ahead: found.ahead,
    })
}

fn exempt(layout: &Pins, at: &KubepodsAt) -> anyhow::Result<Vec<ExemptReport>> {
    let kubepods = Kubepods::find(at)?;
    ExemptMap::open(layout)?.report(kubepods.as_ref())
}
