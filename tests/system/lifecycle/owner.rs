//! Ownership of the datapath: a restarted agent adopts the pinned objects; agents of another installation, layout or
//! takeover protocol are handled.

use crate::{
    lifecycle::{
        fake_successor::FakeSuccessor,
        load,
        upgrade::{clients, three_served},
    },
    support::{expect_role, generation, knock_once},
};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    eventually::eventually,
    node::{
        process,
        topology::{PodNetwork, UPLINK_INTERFACE},
    },
    system::{SOON, System, scenario},
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

fn pins(system: &System, layout: &str) -> PathBuf {
    system.bpffs().join("kiam").join(layout)
}

/// Key: the name. Value: the id of a map or link, or the handle of a filter; and the id of the program behind it.
type Ids = BTreeMap<String, (u64, Option<u64>)>;

/// Returns the ids of the maps and links that are pinned in a layout's folder, by name, and of the program behind each
/// link.
fn ids(system: &System, layout: &str) -> Result<Ids> {
    let mut ids = BTreeMap::new();
    for entry in fs::read_dir(pins(system, layout))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        let kind = if name.starts_with("link_") { "link" } else { "map" };
        let text = process::run(Command::new("bpftool").args(["-j", kind, "show", "pinned"]).arg(&path))?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        let id = shown["id"].as_u64().with_context(|| format!("no id in {text}"))?;
        ids.insert(name, (id, shown["prog_id"].as_u64()));
    }
    Ok(ids)
}

/// Returns everything that is pinned, and the filters that a kernel without TCX links uses instead.
fn attached(system: &System) -> Result<Ids> {
    let mut attached = ids(system, "v1")?;
    let places =
        [("cali1", "ingress"), ("cali2", "ingress"), (UPLINK_INTERFACE, "egress"), (UPLINK_INTERFACE, "ingress")];
    for (interface, direction) in places {
        let mut tc = system.topology.node.command("tc");
        let text = process::run(tc.args(["-j", "filter", "show", "dev", interface, direction]))?;
        let shown: Vec<serde_json::Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        // The first of each priority describes the group, and has no options.
        for options in shown.iter().filter_map(|filter| filter.get("options")) {
            let handle = options["handle"].as_str().and_then(|handle| handle.strip_prefix("0x"));
            let handle = u64::from_str_radix(handle.with_context(|| format!("no handle in {text}"))?, 16)?;
            let program = options["prog"]["id"].as_u64().with_context(|| format!("no program in {text}"))?;
            attached.insert(format!("{interface} {direction} {handle:#x}"), (handle, Some(program)));
        }
    }
    Ok(attached)
}

/// Asserts that maps, links and filters are the same, and the programs behind them are new.
fn expect_adopted(before: &Ids, after: &Ids) -> Result<()> {
    ensure!(before.keys().eq(after.keys()), "{before:?}\n{after:?}");
    let redirects = before.keys().filter(|name| name.starts_with("link_tc_") || name.starts_with("cali"));
    ensure!(redirects.count() > 1, "{before:?}");
    for ((name, (id, program)), (adopted, now)) in before.iter().zip(after.values()) {
        ensure!(id == adopted, "{name} was {id} and is {adopted}");
        ensure!(program.is_none() || program != now, "{name}: program {program:?} is still there");
    }
    Ok(())
}

/// A restarted agent adopts maps and links, and puts its own programs behind the links.
#[test]
fn a_restarted_agent_adopts_maps_and_links() {
    scenario(|system| {
        let pods = three_served(system)?;
        let before = attached(system)?;
        system.agent()?.kill_both()?;
        ensure!(attached(system)? == before, "a kill changed what is pinned");
        system.start_agent()?;
        expect_adopted(&before, &attached(system)?)?;
        let before = attached(system)?;
        ensure!(system.agent()?.stop()?.success(), "the agent's exit code");
        system.start_agent()?;
        expect_adopted(&before, &attached(system)?)?;
        let before = attached(system)?;
        system.upgrade()?;
        expect_adopted(&before, &attached(system)?)?;
        expect_role(&pods[0], "reader")
    });
}

/// An agent of another installation is refused, and the message names the one that runs.
#[test]
fn agent_of_another_installation_is_refused() {
    scenario(|system| {
        let pods = three_served(system)?;
        let (owner, run_dir) = (system.agent()?.parent_pid(), system.folder().join("run"));
        let first = generation(system)?;
        let elsewhere = system.folder().join("run-elsewhere");
        let ((), tally) = load::during(&clients(&pods), system, |system| {
            let mut stranger = system.spawn_successor(&[format!("--run-dir={}", elsewhere.display())])?;
            ensure!(stranger.daemon.wait(SOON)?.code() == Some(1), "{}", stranger.daemon.log_tail());
            let log = stranger.daemon.log();
            for part in [
                "another installation",
                &run_dir.display().to_string(),
                &format!("process {owner}: "),
                "--host-interface=cali+",
                "stop it first",
            ] {
                ensure!(log.contains(part), "no «{part}» in {log}");
            }
            Ok(())
        })?;
        tally.expect_all_served()?;
        ensure!(generation(system)? == first, "it took the datapath");
        // A cleanup with its folder is refused as well.
        let mut cleanup = system.topology.node.command(system.binaries.agent());
        cleanup.arg("cleanup").arg(format!("--bpffs={}", system.bpffs().display()));
        let refused = process::output(cleanup.arg(format!("--run-dir={}", elsewhere.display())))?;
        let log = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && log.contains(&format!("process {owner}: ")), "{refused:?}");
        // A dead agent owns nothing.
        system.agent()?.kill_both()?;
        let mut heir = system.spawn_successor(&[format!("--run-dir={}", elsewhere.display())])?;
        heir.wait_ready()?;
        system.agent = Some(heir);
        expect_role(&pods[0], "reader")
    });
}

/// Makes a pod send every kind of packet to the IMDS, without a pause, until `act` has ended.
fn knocking<T>(pod: &PodNetwork, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let knocking = scope.spawn(|| -> Result<u32> {
            let mut knocks = 0;
            while !stop.load(Relaxed) {
                knock_once(pod)?;
                knocks += 1;
            }
            Ok(knocks)
        });
        let acted = act();
        stop.store(true, Relaxed);
        let knocks = knocking.join().ok().context("the pod panicked")??;
        ensure!(knocks > 10, "{knocks} knocks only");
        acted
    })
}

/// Pins of another layout are replaced, and at no time is an interface without a program.
#[test]
fn pins_of_another_layout_are_replaced() {
    scenario(|system| {
        let pods = three_served(system)?;
        let old = ids(system, "v1")?;
        system.agent()?.kill_both()?;
        // As an agent of another layout leaves them.
        fs::rename(pins(system, "v1"), pins(system, "v0"))?;
        // Only the programs are left: without one, a packet would reach the real IMDS.
        crate::closed::layers::flush_rules(system)?;
        knocking(&pods[0], || system.start_agent())?;
        system.expect_no_leak()?;
        ensure!(!pins(system, "v0").exists(), "the old pins still exist");
        let new = ids(system, "v1")?;
        ensure!(new.keys().eq(old.keys()), "{new:?}");
        ensure!(new.iter().all(|(name, (id, _))| old[name].0 != *id), "adopted: {new:?}");
        clients(&pods).into_iter().try_for_each(|(pod, role)| expect_role(pod, role))
    });
}

/// An upgrade from another layout works like any other upgrade, and so does the way back.
#[test]
fn upgrade_from_another_layout_and_back() {
    scenario(|system| {
        let pods = three_served(system)?;
        fs::rename(pins(system, "v1"), pins(system, "v0"))?;
        let (mut successor, tally) = load::during(&clients(&pods), system, |system| {
            let mut successor = system.spawn_successor(&[])?;
            successor.wait_ready()?;
            Ok(successor)
        })?;
        tally.expect_all_served()?;
        ensure!(!pins(system, "v0").exists(), "the old pins still exist");
        // The old agent finds the pins that the new one left, again of another layout.
        system.agent()?.daemon.wait_log("standing by")?;
        fs::rename(pins(system, "v1"), pins(system, "v2"))?;
        successor.kill_both()?;
        system.agent()?.daemon.wait_log("serving again")?;
        system.agent()?.wait_ready()?;
        ensure!(!pins(system, "v2").exists(), "the new agent's pins still exist");
        clients(&pods).into_iter().try_for_each(|(pod, role)| expect_role(pod, role))
    });
}

/// An old agent pins its objects again after its pins were removed.
#[test]
fn old_agent_restores_its_removed_pins() {
    scenario(|system| {
        let pods = three_served(system)?;
        let before = ids(system, "v1")?;
        let mut successor = FakeSuccessor::announce(system)?;
        successor.take()?;
        // As an agent of another layout leaves them that is killed before it has finished.
        fs::remove_dir_all(pins(system, "v1"))?;
        drop(successor);
        system.agent()?.daemon.wait_log("this one goes on")?;
        let after = eventually("all is pinned", SOON, || {
            let after = ids(system, "v1")?;
            ensure!(after.keys().eq(before.keys()), "{after:?}");
            Ok(after)
        })?;
        let is_map = |name: &&String| name.starts_with("kiam_");
        ensure!(after.keys().filter(is_map).all(|name| before[name] == after[name]), "{before:?}\n{after:?}");
        expect_role(&pods[0], "reader")?;
        system.upgrade()?;
        expect_role(&pods[0], "reader")
    });
}

/// An agent with another takeover protocol is refused, and the message says what to do: the agent that serves uses
/// another protocol and cannot hand over.
#[test]
fn agent_of_another_protocol_is_refused() {
    scenario(|system| {
        let pods = three_served(system)?;
        system.agent()?.kill_both()?;
        let _lives =
            Flock::lock(File::open(system.bpffs().join("kiam"))?, FlockArg::LockShared).map_err(|(_, error)| error)?;
        let socket = system.folder().join("run/agent.sock");
        fs::remove_file(&socket)?;
        let listener = UnixListener::bind(&socket)?;
        let other = thread::spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"{\"protocol\":2,\"whatever\":[]}\n")?;
            // The successor ends the connection.
            stream.read_to_end(&mut Vec::new())?;
            Ok(())
        });
        let mut successor = system.spawn_successor(&[])?;
        ensure!(successor.daemon.wait(SOON)?.code() == Some(1), "{}", successor.daemon.log_tail());
        let log = successor.daemon.log();
        ensure!(log.contains("stop it first") && log.contains("version 2 of the hand-over"), "{log}");
        other.join().ok().context("the other agent panicked")??;
        crate::support::expect_nothing(system, &pods[0])
    });
}

/// An agent was killed as it started, while a process that it had just forked still exists.
#[test]
fn an_agent_waits_for_another_ones_start() {
    scenario(|system| {
        let folder = system.bpffs().join("kiam");
        fs::create_dir(&folder)?;
        let starting = Flock::lock(File::open(&folder)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let agent = system.spawn_agent()?;
        eventually("it waits", SOON, || {
            let log = agent.daemon.log();
            ensure!(log.contains("another agent is just starting") && log.contains("waiting for it"), "{log}");
            Ok(())
        })?;
        drop(starting);
        system.agent()?.wait_armed()
    });
}
