//! Many connections at once, and an unlimited number of half-open ones: each pod has a limit of its own, and no other
//! pod is affected.

use super::*;
use kiam_tests::clients::{Connection, PATIENCE, forge};
use nix::sys::signal::Signal;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

/// Maximum of records of one pod (`kiam_common::abi::FLOWS_PER_OWNER`).
const RECORDS_PER_POD: usize = kiam_common::abi::FLOWS_PER_OWNER as usize;

/// Addresses that are routed to the flooder and that it does not answer at: connections from them stay half-open.
const MUTE: [Ipv4Addr; 4] =
    [Ipv4Addr::new(10, 9, 7, 1), Ipv4Addr::new(10, 9, 7, 2), Ipv4Addr::new(10, 9, 7, 3), Ipv4Addr::new(10, 9, 7, 4)];

/// Routes the node's answers to those addresses into the pod, or nowhere once the pod is gone.
fn make_mute(system: &System, pod: &PodNetwork) -> Result<()> {
    system.topology.node.ip("route add blackhole 10.9.7.0/24")?;
    for address in MUTE {
        system.topology.node.ip(&format!("route add {address}/32 dev {}", pod.interface))?;
        let neighbour = format!("neigh replace {address} lladdr 02:00:00:00:09:01 dev {} nud permanent", pod.interface);
        system.topology.node.ip(&neighbour)?;
    }
    Ok(())
}

/// Sends `count` SYNs, each from another address or port, beginning with number `first`.
fn flood(pod: &PodNetwork, first: usize, count: usize) -> Result<()> {
    Pod::new(pod).run(|| {
        for number in first..first + count {
            let address = MUTE[number % MUTE.len()];
            let port = u16::try_from(1024 + number / MUTE.len() % 60_000)?;
            let source = SocketAddr::new(address.into(), port);
            forge::send_segment(source, IMDS4, 80, forge::SYN)?;
        }
        Ok(())
    })
}

#[test]
fn thousand_parallel_connections_are_attributed() {
    const CONNECTIONS: usize = 1_000;
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        let worker = system.agent()?.worker_pid()?;
        // All of them wait in the accept queue before the worker reads the first record.
        process::freeze(worker)?;
        let answers = Pod::new(&reader.network).run(|| {
            let begun: Vec<_> = (0..CONNECTIONS).map(|_| Connection::begin(IMDS4, None)).collect::<Result<_>>()?;
            let mut open = Vec::new();
            for socket in begun {
                let mut connection = Connection::finish(socket, PATIENCE)?;
                connection.send("GET", ROLES, &[("Connection", "close")])?;
                open.push(connection);
            }
            let waiting = records(system)?;
            ensure!(waiting == CONNECTIONS, "{waiting} records of {CONNECTIONS} connections");
            process::send_signal(worker, Signal::SIGCONT)?;
            Ok(open.into_iter().map(|mut connection| connection.answer()).collect::<Vec<_>>())
        })?;
        // A pod has 64 connection slots; some of the other connections get a 429, the rest are closed.
        let served =
            answers.iter().filter(|answer| answer.as_ref().is_ok_and(|answer| answer.text() == READER)).count();
        let refused: Vec<_> = answers.iter().flatten().filter(|answer| ![200, 429].contains(&answer.status)).collect();
        ensure!(served >= 64 && refused.is_empty(), "{served} served, refused: {refused:?}");
        expect_served(system, &writer, WRITER)
    });
}

#[test]
fn flood_affects_only_its_sender() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        let worker = system.agent()?.worker_pid()?;
        process::freeze(worker)?;
        let request = |pod: &Attested| {
            Pod::new(&pod.network).run(|| {
                let mut connection = Connection::open(IMDS4, None, PATIENCE)?;
                connection.send("GET", ROLES, &[])?;
                Ok(connection)
            })
        };
        let (mut flooders, mut others) = (request(&reader)?, request(&writer)?);
        make_mute(system, &reader.network)?;
        flood(&reader.network, 0, 4 * RECORDS_PER_POD)?;
        let kept = records(system)?;
        // One more than the limit: the record of the other pod.
        ensure!(kept == RECORDS_PER_POD + 1, "{kept} records");
        process::send_signal(worker, Signal::SIGCONT)?;
        let answer = others.answer()?;
        ensure!(answer.text() == WRITER, "{answer:?}");
        // Its own oldest record was overwritten.
        let answer = flooders.answer()?;
        ensure!(answer.status == 403 && refusals(system, "no-record")? == 1, "{answer:?}");
        // Unread records are cleared up.
        eventually("the flood is forgotten", 2 * SOON, || {
            let left = records(system)?;
            ensure!(left == 0, "{left} records");
            Ok(())
        })?;
        expect_served(system, &reader, READER)
    });
}

#[test]
fn pods_are_served_while_another_floods() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Systemd)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        make_mute(system, &reader.network)?;
        let over = AtomicBool::new(false);
        // From two CPUs at once.
        let flooder = |first: usize| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                flood(&reader.network, first + rounds * 1_000, 1_000)?;
                rounds += 1;
            }
            anyhow::Ok(rounds)
        };
        std::thread::scope(|scope| {
            let flooders = [scope.spawn(|| flooder(0)), scope.spawn(|| flooder(100_000))];
            let served = (0..200).try_for_each(|_| {
                BOTH.into_iter().try_for_each(|imds| {
                    let answer = Pod::new(&writer.network).get(imds, ROLES)?;
                    ensure!(answer.text() == WRITER, "{answer:?}");
                    Ok(())
                })
            });
            over.store(true, Ordering::Relaxed);
            for flooder in flooders {
                let rounds = flooder.join().expect("the flooder")?;
                ensure!(rounds >= 10, "only {rounds} thousand SYNs: the test's precondition is not met");
            }
            served
        })?;
        let kept = records(system)?;
        ensure!(kept == RECORDS_PER_POD, "{kept} records");
        Ok(())
    });
}

#[test]
fn records_die_with_their_interface() {
    scenario(|system| {
        let kubepods = Kubepods::for_clients(Driver::Cgroupfs)?;
        let [reader, writer] = two_served(system, &kubepods)?;
        make_mute(system, &reader.network)?;
        flood(&reader.network, 0, 2 * RECORDS_PER_POD)?;
        let kept = records(system)?;
        ensure!(kept == RECORDS_PER_POD, "{kept} records: the test's precondition is not met");
        drop(reader);
        // Sooner than records are cleared up by age.
        eventually("they are gone", Duration::from_secs(5), || {
            let left = records(system)?;
            ensure!(left == 0, "{left} records");
            Ok(())
        })?;
        expect_served(system, &writer, WRITER)
    });
}
