//! Roles when addresses are reused: another pod had the address a moment ago, and the server still sees the old one,
//! both, or neither.

use crate::support::{credentials, expect_identity};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, IMDS4, PATIENCE, Pod, ROLES},
    eventually::{eventually, throughout},
    fakes::kube_api::PodObject,
    leaks,
    node::topology::{NODE_NAME, PodNetwork, pod_v4, pod_v6},
    system::{SOON, System, scenario},
};
use std::{
    cell::Cell,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Time for which an answer must not change: three times the server's wait for an unknown pod.
const WATCHED: Duration = Duration::from_secs(3);
/// Number of pods announced just before their interfaces are made, and of those announced just after.
const AT_BIRTH: usize = 15;
/// Upper bound of a moment: well below the 25 ms that the agent adds to the age of an interface.
const MOMENT: Duration = Duration::from_millis(10);
/// Number of a pod whose object is older than its interface; higher than those of the others.
const OLD: u8 = 201;

/// Asserts that a pod gets neither the name nor the credentials of the role of the previous pod at its address.
fn expect_not_the_old_pods(pod: &PodNetwork, imds: IpAddr, old: &str) -> Result<()> {
    let list = Pod::new(pod).get(imds, ROLES)?;
    ensure!(list.text() != old, "{}: role list {old} at {imds}: {list:?}", leaks::OTHER_ROLE);
    let answer = credentials(pod, imds, old)?;
    ensure!(answer.status != 200, "{}: credentials of {old} at {imds}: {answer:?}", leaks::OTHER_ROLE);
    Ok(())
}

/// Serves a pod, then replaces it by another one with its addresses, behind an interface of this name.
fn replace(system: &System, number: u8, interface: &str) -> Result<PodNetwork> {
    let old = system.add_pod(number, "reader")?;
    system.wait_for_role(&old, IMDS4, "reader")?;
    for imds in BOTH {
        expect_identity(system, &old, imds, "reader")?;
    }
    drop(old);
    system.topology.add_pod_behind(number, interface)
}

/// A reused address never gets the old pod's role while the server's watch is behind.
#[test]
fn reused_address_while_the_watch_is_behind() {
    scenario(|system| {
        system.start()?;
        for (number, interface) in [(1, "cali1"), (2, "cali200")] {
            system.kube.hold_watch_back(false);
            // The old pod's end is held back: to the server it still exists, at this very address.
            let old = system.add_pod(number, "reader")?;
            system.wait_for_role(&old, IMDS4, "reader")?;
            for imds in BOTH {
                expect_identity(system, &old, imds, "reader")?;
            }
            system.kube.hold_watch_back(true);
            drop(old);
            let new = system.topology.add_pod_behind(number, interface)?;
            system.kube.delete_pod("open", &format!("pod-{number}"))?;
            system.announce(&new, &format!("new-{number}"), Some("writer"));
            throughout("the old pod's role is not returned", WATCHED, || {
                BOTH.into_iter().try_for_each(|imds| expect_not_the_old_pods(&new, imds, "reader"))
            })?;
            system.kube.hold_watch_back(false);
            system.wait_for_role(&new, IMDS4, "writer")?;
            for imds in BOTH {
                expect_identity(system, &new, imds, "writer")?;
                expect_not_the_old_pods(&new, imds, "reader")?;
            }
        }
        Ok(())
    });
}

/// A reused address never gets the old pod's role once the server has seen the deletion.
#[test]
fn reused_address_after_the_deletion_was_seen() {
    scenario(|system| {
        system.start()?;
        let new = replace(system, 1, "cali1")?;
        system.kube.delete_pod("open", "pod-1")?;
        // Before the watch event and after it.
        throughout("the old pod's role is not returned", WATCHED, || {
            BOTH.into_iter().try_for_each(|imds| expect_not_the_old_pods(&new, imds, "reader"))
        })?;
        system.announce(&new, "new-1", Some("writer"));
        system.wait_for_role(&new, IMDS4, "writer")?;
        expect_identity(system, &new, IMDS4, "writer")
    });
}

/// Makes a pod whose object is written right before or right after its interface is made. Returns how long that took.
fn add_pod_announced_at_birth(system: &System, number: u8, early: bool) -> Result<(PodNetwork, Duration)> {
    let announce = |pod: &PodNetwork| system.announce(pod, &format!("pod-{number}"), Some(&format!("role-{number}")));
    let (begin, took) = (Cell::new(Instant::now()), Cell::new(Duration::ZERO));
    let before = |pod: &PodNetwork| {
        begin.set(Instant::now());
        if early {
            announce(pod);
        }
    };
    let after = |pod: &PodNetwork| {
        took.set(begin.get().elapsed());
        if !early {
            announce(pod);
        }
    };
    let pod = system.topology.add_pod_around(number, &format!("cali{number}"), before, after)?;
    Ok((pod, took.get()))
}

/// Asserts that a new pod is served, at once or after errors that clients retry: the server may be slow to see the pod, but
/// nothing may refuse it for good.
fn expect_served(system: &System, pod: &PodNetwork, role: &str) -> Result<()> {
    system.wait_for_interface(pod)?;
    eventually(&format!("{} gets {role}", pod.interface), SOON, || {
        let answer = Pod::new(pod).get(IMDS4, ROLES)?;
        ensure!(answer.status == 200 && answer.text() == role, "{answer:?}");
        Ok(())
    })
}

/// A pod that is announced as its interface appears is served; one that was announced before is not.
#[test]
fn pod_announced_as_its_interface_appears() {
    scenario(|system| {
        system.start()?;
        system.kube.put_pod(&PodObject::running("open", "old", Some("reader"), pod_v4(OLD), pod_v6(OLD)));
        let mut served = [0; 2];
        for number in 1..OLD {
            let early = number % 2 == 0;
            let (pod, took) = add_pod_announced_at_birth(system, number, early)?;
            // On a busy machine an interface may take longer, which is another case.
            if took < MOMENT {
                let when = if early { "before" } else { "after" };
                expect_served(system, &pod, &format!("role-{number}"))
                    .with_context(|| format!("announced within {took:?} {when} its interface was made"))?;
                served[usize::from(early)] += 1;
            }
            if served.iter().all(|&pods| pods >= AT_BIRTH) {
                break;
            }
        }
        ensure!(
            served.iter().all(|&pods| pods >= AT_BIRTH),
            "after and before: {served:?}: the test's precondition is not met"
        );
        // The server saw this address's pod before all of those.
        let new = system.topology.add_pod(OLD)?;
        system.wait_for_interface(&new)?;
        expect_not_the_old_pods(&new, IMDS4, "reader")
    });
}

#[test]
fn two_pods_at_one_address_get_nothing() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let twin = PodObject::running("open", "twin", Some("writer"), pod.v4, pod.v6);
        system.kube.put_pod(&twin);
        eventually("both are seen", SOON, || {
            let list = Pod::new(&pod).get(IMDS4, ROLES)?;
            ensure!(list.status != 200, "{list:?}");
            Ok(())
        })?;
        for imds in BOTH {
            for role in ["reader", "writer"] {
                let answer = credentials(&pod, imds, role)?;
                ensure!(answer.status != 200, "{}: two candidates, one got {role}: {answer:?}", leaks::OTHER_ROLE);
            }
        }
        system.kube.delete_pod("open", "twin")?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

/// A pod that has ended leaves its address to the next one.
#[test]
fn ended_pod_leaves_its_address_to_the_next() {
    scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        let ended = PodObject {
            phase: "Succeeded".to_owned(),
            node: NODE_NAME.to_owned(),
            ..PodObject::running("open", "job", Some("reader"), pod.v4, pod.v6)
        };
        system.announce(&pod, "app", Some("writer"));
        system.kube.put_pod(&ended);
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "writer")?;
        for imds in BOTH {
            expect_identity(system, &pod, imds, "writer")?;
            expect_not_the_old_pods(&pod, imds, "reader")?;
        }
        Ok(())
    });
}

#[test]
fn forwarded_for_headers_are_ignored() {
    scenario(|system| {
        let [pod, other] = system.serving_pods(["reader", "writer"])?;
        let victim = other.v4.to_string();
        for (name, value) in
            [("X-Forwarded-For", victim.as_str()), ("Forwarded", "for=10.9.0.2"), ("X-Real-IP", &victim)]
        {
            let answer = Pod::new(&pod).request(IMDS4, "GET", ROLES, &[(name, value)])?;
            ensure!(answer.text() != "writer", "{}: by {name}: {answer:?}", leaks::OTHER_ROLE);
            let path = format!("{ROLES}writer?ip={victim}");
            let answer = Pod::new(&pod).request(IMDS4, "GET", &path, &[(name, value)])?;
            ensure!(answer.status != 200, "{}: by {name}: {answer:?}", leaks::OTHER_ROLE);
        }
        Ok(())
    });
}

/// A kept connection follows the pod's annotation, not its first answer.
#[test]
fn kept_connection_follows_the_annotation() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let last = Pod::new(&pod).run(|| {
            let mut connection = Connection::open(IMDS4, None, PATIENCE)?;
            let mut request = || {
                connection.send("GET", ROLES, &[])?;
                connection.answer()
            };
            ensure!(request()?.text() == "reader");
            system.announce(&pod, "pod-1", Some("writer"));
            system.wait_for_role(&pod, IMDS4, "writer")?;
            request()
        })?;
        ensure!(last.text() == "writer", "{last:?}");
        Ok(())
    });
}
