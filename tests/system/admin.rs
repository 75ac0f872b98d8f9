//! The admin face, readiness that means it, logs and metrics.

use crate::support::{expect_identity, expect_role};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, M4, Pod},
    eventually::eventually,
    system::{SOON, scenario},
};

#[test]
fn it_answers_on_the_node_and_never_at_m() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        let node = &system.topology.node;
        let Some(agent) = &system.agent else { unreachable!("started above") };
        ensure!(agent.admin(node, "/ping")?.text() == "pong");
        let health = agent.admin(node, "/health")?;
        ensure!(health.status == 200, "{health:?}");
        let metrics = agent.admin(node, "/metrics")?;
        ensure!(metrics.status == 200 && metrics.text().contains("kiam_metadata_responses_total"), "{metrics:?}");
        for m in BOTH {
            for path in ["/ping", "/health", "/metrics"] {
                let answer = Pod::new(&pod).get(m, path)?;
                ensure!(answer.status == 404, "{path} at {m}: {answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn readiness_tells_a_lost_fence_and_the_agent_mends_it() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        for family in ["-4", "-6"] {
            system.topology.node.ip(&format!("{family} rule del pref 6"))?;
            eventually("the rule is there again", SOON, || {
                let rules = system.topology.node.ip(&format!("{family} rule show"))?;
                ensure!(rules.contains("lookup 4242"), "{rules}");
                Ok(())
            })?;
            system.topology.node.ip(&format!("{family} route flush table 4242"))?;
            eventually("the route is there again", SOON, || {
                let routes = system.topology.node.ip(&format!("{family} route show table 4242"))?;
                ensure!(routes.contains("local"), "{routes}");
                Ok(())
            })?;
        }
        system.agent()?.wait_ready()?;
        expect_role(&pod, "reader")
    });
}

#[test]
fn an_issue_of_credentials_is_logged_with_pod_role_and_key_and_without_a_secret() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        expect_identity(system, &pod, M4, "reader")?;
        let answer = crate::support::credentials(&pod, M4, "reader")?.json()?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let (agent, server) = (system.agent()?.daemon.log(), system.server()?.daemon.log());
        for word in ["pod-1", "reader", "open", &text("AccessKeyId")] {
            ensure!(agent.contains(word), "no {word} in the agent's log");
        }
        for log in [&agent, &server] {
            for secret in ["SecretAccessKey", "Token"] {
                ensure!(!log.contains(&text(secret)), "the {secret} is in a log");
            }
        }
        Ok(())
    });
}

#[test]
fn packets_are_counted_by_interface_and_reason() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start()?;
        system.wait_for_role(&pod, M4, "reader")?;
        crate::support::knock(&pod)?;
        eventually("the counters are in the metrics", SOON, || -> Result<()> {
            let Some(agent) = &system.agent else { unreachable!("started above") };
            let metrics = agent.admin(&system.topology.node, "/metrics")?;
            for reason in ["listener", "connection", "not-http"] {
                let found = metrics.text().lines().any(|line| {
                    line.contains("cali1") && line.contains(&format!("\"{reason}\"")) && !line.ends_with(" 0")
                });
                ensure!(found, "no packets of cali1 for {reason} in\n{}", metrics.text());
            }
            Ok(())
        })
    });
}
