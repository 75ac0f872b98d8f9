//! Unmodified clients: boto3, the aws CLI, curl.

use anyhow::ensure;
use kiam_tests::{
    clients::{IMDS4, aws_cli, boto3_identity, curl},
    system::scenario,
};

#[test]
fn boto3_and_the_aws_cli_assume_the_role() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let identity = boto3_identity(&pod, &system.python, &system.environment())?;
        ensure!(identity.method == "iam-role" && is_reader(&identity.arn), "{identity:?}");
        let over_ipv6 = system.environment().with("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
        let identity = boto3_identity(&pod, &system.python, &over_ipv6)?;
        ensure!(identity.method == "iam-role" && is_reader(&identity.arn), "over IPv6: {identity:?}");
        let output = aws_cli(&pod, &system.python, &system.environment(), &["sts", "get-caller-identity"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let arn = serde_json::from_str::<serde_json::Value>(&text).map(|document| document["Arn"].clone());
        ensure!(arn.as_ref().is_ok_and(|arn| arn.as_str().is_some_and(is_reader)), "{output:?}");
        Ok(())
    });
}

/// A pod without a role has no credentials for boto3 and the aws CLI.
#[test]
fn pod_without_a_role_has_no_credentials() {
    scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        system.announce(&pod, "plain", None);
        let other = system.add_pod(2, "reader")?;
        system.start()?;
        system.wait_for_role(&other, IMDS4, "reader")?;
        let error = boto3_identity(&pod, &system.python, &system.environment()).err().map(|error| format!("{error:#}"));
        ensure!(error.as_ref().is_some_and(|text| text.contains("no credentials")), "{error:?}");
        let output = aws_cli(&pod, &system.python, &system.environment(), &["sts", "get-caller-identity"])?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        Ok(())
    });
}

#[test]
fn curl_reads_the_role() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        for url in ["http://169.254.169.254", "http://[fd00:ec2::254]"] {
            let output = curl(&pod, &["--globoff", &format!("{url}/latest/meta-data/iam/security-credentials/")])?;
            ensure!(output.stdout == b"reader", "{url}: {output:?}");
        }
        Ok(())
    });
}

fn is_reader(arn: &str) -> bool {
    arn.starts_with("arn:aws:sts::123456789012:assumed-role/reader/")
}
