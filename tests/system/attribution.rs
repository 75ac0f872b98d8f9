//! Whose role a pod is given when addresses move on: an address that another pod had a moment ago, while the server
//! still believes the old one, or knows both, or neither.

use crate::support::{credentials, expect_identity};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, Connection, M4, PATIENCE, Pod, ROLES},
    eventually::throughout,
    kube_api::PodObject,
    leaks,
    system::{System, scenario},
    topology::{NODE_NAME, PodNetwork},
};
use std::{net::IpAddr, time::Duration};

/// How long an answer is watched that must not change: three of the server's waits for a pod that is not known.
const WATCHED: Duration = Duration::from_secs(3);

/// Asserts that a pod is neither told nor given the role of the pod that had its address before.
fn expect_not_the_old_pods(pod: &PodNetwork, m: IpAddr, old: &str) -> Result<()> {
    let list = Pod::new(pod).get(m, ROLES)?;
    ensure!(list.text() != old, "{}: told {old} at {m}: {list:?}", leaks::OTHER_ROLE);
    let answer = credentials(pod, m, old)?;
    ensure!(answer.status != 200, "{}: given {old} at {m}: {answer:?}", leaks::OTHER_ROLE);
    Ok(())
}

/// A served pod is replaced by another one with its addresses, behind an interface of that name.
fn replace(system: &System, number: u8, interface: &str) -> Result<PodNetwork> {
    let old = system.add_pod(number, "reader")?;
    system.wait_for_role(&old, M4, "reader")?;
    for m in BOTH {
        expect_identity(system, &old, m, "reader")?;
    }
    drop(old);
    system.topology.add_pod_behind(number, interface)
}

#[test]
fn an_address_used_again_never_gets_the_old_pods_role_while_the_watch_is_behind() {
    scenario(|system| {
        system.start()?;
        for (number, interface) in [(1, "cali1"), (2, "cali200")] {
            system.kube.hold_watch_back(false);
            // Held back from before the old pod's end: to the server it lives on, at this very address.
            let old = system.add_pod(number, "reader")?;
            system.wait_for_role(&old, M4, "reader")?;
            for m in BOTH {
                expect_identity(system, &old, m, "reader")?;
            }
            system.kube.hold_watch_back(true);
            drop(old);
            let new = system.topology.add_pod_behind(number, interface)?;
            system.kube.delete_pod("open", &format!("pod-{number}"))?;
            system.announce(&new, &format!("new-{number}"), Some("writer"));
            throughout("the old pod's role is not given", WATCHED, || {
                BOTH.into_iter().try_for_each(|m| expect_not_the_old_pods(&new, m, "reader"))
            })?;
            system.kube.hold_watch_back(false);
            system.wait_for_role(&new, M4, "writer")?;
            for m in BOTH {
                expect_identity(system, &new, m, "writer")?;
                expect_not_the_old_pods(&new, m, "reader")?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_address_used_again_never_gets_the_old_pods_role_once_the_deletion_was_seen() {
    scenario(|system| {
        system.start()?;
        let new = replace(system, 1, "cali1")?;
        system.kube.delete_pod("open", "pod-1")?;
        // Until the watch has brought it, and from then on.
        throughout("the old pod's role is not given", WATCHED, || {
            BOTH.into_iter().try_for_each(|m| expect_not_the_old_pods(&new, m, "reader"))
        })?;
        system.announce(&new, "new-1", Some("writer"));
        system.wait_for_role(&new, M4, "writer")?;
        expect_identity(system, &new, M4, "writer")
    });
}

#[test]
fn two_pods_at_one_address_get_nothing() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        let twin = PodObject::running("open", "twin", Some("writer"), pod.v4, pod.v6);
        system.kube.put_pod(&twin);
        kiam_tests::eventually::eventually("both are seen", kiam_tests::system::SOON, || {
            let list = Pod::new(&pod).get(M4, ROLES)?;
            ensure!(list.status != 200, "{list:?}");
            Ok(())
        })?;
        for m in BOTH {
            for role in ["reader", "writer"] {
                let answer = credentials(&pod, m, role)?;
                ensure!(answer.status != 200, "{}: two candidates, one got {role}: {answer:?}", leaks::OTHER_ROLE);
            }
        }
        system.kube.delete_pod("open", "twin")?;
        system.wait_for_role(&pod, M4, "reader")
    });
}

#[test]
fn a_pod_that_has_ended_leaves_its_address_to_the_next() {
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
        system.wait_for_role(&pod, M4, "writer")?;
        for m in BOTH {
            expect_identity(system, &pod, m, "writer")?;
            expect_not_the_old_pods(&pod, m, "reader")?;
        }
        Ok(())
    });
}

#[test]
fn a_forwarded_for_header_moves_nothing() {
    scenario(|system| {
        let (pod, other) = (system.add_pod(1, "reader")?, system.add_pod(2, "writer")?);
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        system.wait_for_role(&other, M4, "writer")?;
        let victim = other.v4.to_string();
        for (name, value) in
            [("X-Forwarded-For", victim.as_str()), ("Forwarded", "for=10.9.0.2"), ("X-Real-IP", &victim)]
        {
            let answer = Pod::new(&pod).request(M4, "GET", ROLES, &[(name, value)])?;
            ensure!(answer.text() != "writer", "{}: by {name}: {answer:?}", leaks::OTHER_ROLE);
            let path = format!("{ROLES}writer?ip={victim}");
            let answer = Pod::new(&pod).request(M4, "GET", &path, &[(name, value)])?;
            ensure!(answer.status != 200, "{}: by {name}: {answer:?}", leaks::OTHER_ROLE);
        }
        Ok(())
    });
}

#[test]
fn a_kept_connection_follows_the_annotation_and_not_its_first_answer() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        let last = Pod::new(&pod).run(|| {
            let mut connection = Connection::open(M4, None, PATIENCE)?;
            let mut ask = || {
                connection.send("GET", ROLES, &[])?;
                connection.answer()
            };
            ensure!(ask()?.text() == "reader");
            system.announce(&pod, "pod-1", Some("writer"));
            system.wait_for_role(&pod, M4, "writer")?;
            ask()
        })?;
        ensure!(last.text() == "writer", "{last:?}");
        Ok(())
    });
}
