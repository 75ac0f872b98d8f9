//! The admin endpoints, meaningful readiness, logs and metrics.

use crate::support::{expect_identity, expect_role};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES},
    eventually::eventually,
    system::{SOON, System, scenario},
};

#[test]
fn admin_answers_on_the_node_and_not_at_the_imds() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let node = &system.topology.node;
        let Some(agent) = &system.agent else { unreachable!("started above") };
        ensure!(agent.admin(node, "/ping")?.text() == "pong");
        let health = agent.admin(node, "/health")?;
        ensure!(health.status == 200, "{health:?}");
        let metrics = agent.admin(node, "/metrics")?;
        ensure!(metrics.status == 200 && metrics.text().contains("kiam_metadata_responses_total"), "{metrics:?}");
        for imds in BOTH {
            for path in ["/ping", "/health", "/metrics"] {
                let answer = Pod::new(&pod).get(imds, path)?;
                ensure!(answer.status == 404, "{path} at {imds}: {answer:?}");
            }
        }
        Ok(())
    });
}

/// Readiness reports a lost fence, and the agent restores it.
#[test]
fn readiness_reports_a_lost_fence() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for family in ["-4", "-6"] {
            system.topology.node.ip(&format!("{family} rule del pref 6"))?;
            eventually("the rule is restored", SOON, || {
                let rules = system.topology.node.ip(&format!("{family} rule show"))?;
                ensure!(rules.contains("lookup 4242"), "{rules}");
                Ok(())
            })?;
            system.topology.node.ip(&format!("{family} route flush table 4242"))?;
            eventually("the route is restored", SOON, || {
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
fn log_names_pods_and_roles_but_no_secret() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        expect_identity(system, &pod, IMDS4, "reader")?;
        let answer = crate::support::credentials(&pod, IMDS4, "reader")?.json()?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let session_token = Pod::new(&pod).token(IMDS4)?;
        // This request is the last, and its path would add a field to the log line if it were not quoted.
        ensure!(
            Pod::new(&pod).get(IMDS4, &format!("{ROLES}writer%22%20status=200%20"))?.status == 403,
            "the request for another role"
        );
        let issued = format!("access_key_id=\"{}\"", text("AccessKeyId"));
        let pod_and_role = r#"pod.namespace="open" pod.name="pod-1" role="reader""#;
        expect_line(
            system,
            &["DEBUG", " status=200 ", "method=GET", "peer=10.9.", pod_and_role, &issued, "duration_ms="],
        )?;
        let refused = r#"role="writer\" status=200 " reason="forbidden""#;
        expect_line(system, &["INFO", " status=403 ", "peer=10.9.", refused])?;
        for log in [system.agent()?.daemon.log(), system.server()?.daemon.log()] {
            for secret in [text("SecretAccessKey"), text("Token"), session_token.clone()] {
                ensure!(!secret.is_empty() && !log.contains(&secret), "a secret is in a log");
            }
        }
        Ok(())
    });
}

/// Waits for a line of the agent's log with all of these words.
fn expect_line(system: &mut System, words: &[&str]) -> Result<()> {
    let agent = system.agent()?;
    eventually("the line is in the log", SOON, || {
        let log = agent.daemon.log();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "no line with {words:?} in\n{}", agent.daemon.log_tail());
        Ok(())
    })
}

#[test]
fn packets_are_counted_by_interface_and_reason() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
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
