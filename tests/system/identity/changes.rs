//! Changes while everything runs: annotations, rules of namespaces, new pods whose request is faster than the watch,
//! and failures of the services that the server depends on.

use crate::support::{credentials, expect_identity, expect_role};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES},
    eventually::eventually,
    fakes::kube_api::{Kind, NamespaceObject, PodObject},
    leaks,
    system::{SOON, scenario},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Annotation of a pod with its role.
const ROLE: &str = "iam.amazonaws.com/role";
/// Annotation of a namespace with its permitted roles.
const PERMITTED: &str = "iam.amazonaws.com/permitted";
/// Time after which an SDK gives up on a request.
const SDK_PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn a_changed_annotation_changes_the_role() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        expect_identity(system, &pod, IMDS4, "reader")?;
        system.kube.annotate(Kind::Pod, "open", "pod-1", ROLE, Some("writer"))?;
        system.wait_for_role(&pod, IMDS4, "writer")?;
        for imds in BOTH {
            expect_identity(system, &pod, imds, "writer")?;
            let old = credentials(&pod, imds, "reader")?;
            ensure!(old.status == 403, "the previous role: {old:?}");
        }
        system.kube.annotate(Kind::Pod, "open", "pod-1", ROLE, None)?;
        eventually("the role is gone", SOON, || {
            let list = Pod::new(&pod).get(IMDS4, ROLES)?;
            ensure!(list.status == 404, "{list:?}");
            Ok(())
        })?;
        let old = credentials(&pod, IMDS4, "writer")?;
        ensure!([403, 404].contains(&old.status), "the previous role: {old:?}");
        Ok(())
    });
}

/// A changed rule of the namespace permits and forbids roles.
#[test]
fn changed_namespace_rule_takes_effect() {
    scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        system.kube.put_namespace(&NamespaceObject::permitting("team", ".*/other"));
        system.kube.put_pod(&PodObject::running("team", "app", Some("reader"), pod.v4, pod.v6));
        system.start()?;
        let wait = |status: u16| {
            eventually(&format!("credentials are answered with {status}"), SOON, || {
                let answer = credentials(&pod, IMDS4, "reader")?;
                ensure!(answer.status == status, "{answer:?}");
                Ok(())
            })
        };
        wait(403)?;
        system.kube.annotate(Kind::Namespace, "", "team", PERMITTED, Some(".*/reader"))?;
        wait(200)?;
        expect_identity(system, &pod, IMDS4, "reader")?;
        system.kube.annotate(Kind::Namespace, "", "team", PERMITTED, None)?;
        wait(403)
    });
}

/// A request of a new pod that arrives before the watch event is served once the event arrives.
#[test]
fn new_pod_is_served_before_the_watch_catches_up() {
    scenario(|system| {
        let _first = system.serving_pod("reader")?;
        for (number, imds) in [(2, BOTH[0]), (3, BOTH[1])] {
            let pod = system.topology.add_pod(number)?;
            system.wait_for_interface(&pod)?;
            let (answer, took) = thread::scope(|scope| -> Result<_> {
                let asked = scope.spawn(|| {
                    let start = Instant::now();
                    Pod::new(&pod).get(imds, ROLES).map(|answer| (answer, start.elapsed()))
                });
                // By now the request waits in the server; a shorter head start would only make the test easier.
                thread::sleep(Duration::from_millis(300));
                system.announce(&pod, &format!("late-{number}"), Some("writer"));
                asked.join().ok().context("the request's thread panicked")?
            })?;
            ensure!(answer.status == 200 && answer.text() == "writer", "{answer:?} after {took:?}");
            ensure!(took < SDK_PATIENCE, "an SDK has given up after {took:?}");
            expect_identity(system, &pod, imds, "writer")?;
        }
        Ok(())
    });
}

/// An unknown pod gets an answer that makes it retry before an SDK gives up.
#[test]
fn unknown_pod_gets_a_503_before_an_sdk_gives_up() {
    scenario(|system| {
        system.start()?;
        let pod = system.topology.add_pod(1)?;
        system.wait_for_interface(&pod)?;
        for imds in BOTH {
            let start = Instant::now();
            let answer = Pod::new(&pod).get(imds, ROLES)?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
            ensure!(start.elapsed() < SDK_PATIENCE, "after {:?}", start.elapsed());
        }
        Ok(())
    });
}

#[test]
fn the_server_is_killed_and_comes_back() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        system.server()?.kill()?;
        for imds in BOTH {
            let answer = credentials(&pod, imds, "reader")?;
            ensure!(answer.status == 503, "without a server: {answer:?}");
        }
        let health = system.agent()?.health()?;
        ensure!(health.status.success(), "the agent is not ready after the loss of the server: {health:?}");
        system.start_server()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_identity(system, &pod, IMDS4, "reader")?;
        expect_role(&pod, "reader")
    });
}

#[test]
fn agent_starts_and_stays_up_without_a_server() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        let agent = system.spawn_agent()?;
        eventually("only the server condition fails", SOON, || {
            let output = agent.health()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let failing: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok")).collect();
            ensure!(!output.status.success() && failing.len() == 1 && failing[0].contains("server"), "{text}");
            Ok(())
        })?;
        for imds in BOTH {
            let answer = Pod::new(&pod).get(imds, ROLES)?;
            ensure!(answer.status == 503, "{answer:?}");
            ensure!(!Pod::new(&pod).token(imds)?.is_empty(), "a token needs no server");
        }
        system.start_server()?;
        system.agent()?.wait_ready()?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

#[test]
fn known_pods_are_served_while_kubernetes_is_away() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        system.kube.stop();
        for imds in BOTH {
            expect_identity(system, &pod, imds, "reader")?;
        }
        system.kube.annotate(Kind::Pod, "open", "pod-1", ROLE, Some("writer"))?;
        system.kube.listen(&system.topology.node)?;
        system.wait_for_role(&pod, IMDS4, "writer")?;
        let answer = credentials(&pod, IMDS4, "reader")?;
        ensure!(answer.status == 403, "{}: {answer:?}", leaks::OTHER_ROLE);
        Ok(())
    });
}
