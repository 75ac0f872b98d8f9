//! Roles by permission: the right role for a permitted pod, 403 with an Event for a forbidden one, 404 for one without
//! a role, over both families, with and without a session token; and nothing else is served.

use crate::support::{credentials, expect_identity, expect_role};
use anyhow::{Result, ensure};
use kiam_tests::{
    clients::{BOTH, Pod, ROLES},
    eventually::eventually,
    fakes::kube_api::{NamespaceObject, PodObject},
    leaks,
    node::topology::PodNetwork,
    system::{SOON, System, scenario},
};

/// Makes a pod that is annotated with `reader` in a namespace that permits only `writer`.
fn forbidden_pod(system: &System, number: u8) -> Result<PodNetwork> {
    let network = system.topology.add_pod(number)?;
    system.kube.put_namespace(&NamespaceObject::permitting("closed", "arn:aws:iam::123456789012:role/writer"));
    system.kube.put_pod(&PodObject::running("closed", "forbidden", Some("reader"), network.v4, network.v6));
    Ok(network)
}

#[test]
fn a_permitted_pod_gets_its_role() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        expect_role(&pod, "reader")?;
        for imds in BOTH {
            let answer = credentials(&pod, imds, "reader")?;
            let document = answer.json()?;
            ensure!(answer.status == 200 && document["Code"] == "Success", "{answer:?}");
            for field in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration", "LastUpdated", "Type"] {
                ensure!(document[field].as_str().is_some_and(|value| !value.is_empty()), "{field} of {document}");
            }
            expect_identity(system, &pod, imds, "reader")?;
        }
        Ok(())
    });
}

#[test]
fn two_pods_get_each_its_own_role() {
    scenario(|system| {
        let [one, two] = system.serving_pods(["reader", "writer"])?;
        for imds in BOTH {
            expect_identity(system, &one, imds, "reader")?;
            expect_identity(system, &two, imds, "writer")?;
            let answer = credentials(&one, imds, "writer")?;
            ensure!(answer.status == 403, "{}: {answer:?}", leaks::OTHER_ROLE);
        }
        Ok(())
    });
}

#[test]
fn a_forbidden_pod_gets_403_and_an_event() {
    scenario(|system| {
        let pod = forbidden_pod(system, 1)?;
        system.start()?;
        for imds in BOTH {
            eventually("the server sees the pod and refuses it", SOON, || {
                let answer = credentials(&pod, imds, "reader")?;
                ensure!(answer.status == 403, "{answer:?}");
                ensure!(!answer.text().contains("AccessKeyId"), "a refusal with credentials: {answer:?}");
                Ok(())
            })?;
        }
        eventually("an Event on the pod", SOON, || {
            let events = system.kube.events();
            let found = events.iter().any(|event| {
                let object =
                    if event["involvedObject"].is_null() { &event["regarding"] } else { &event["involvedObject"] };
                event["reason"] == "KiamRoleForbidden"
                    && object["name"] == "forbidden"
                    && object["namespace"] == "closed"
            });
            ensure!(found, "{events:?}");
            Ok(())
        })
    });
}

#[test]
fn a_pod_without_a_role_gets_404() {
    scenario(|system| {
        let pod = system.topology.add_pod(1)?;
        system.announce(&pod, "plain", None);
        system.start()?;
        for imds in BOTH {
            eventually("the server sees that the pod has no role", SOON, || {
                let list = Pod::new(&pod).get(imds, ROLES)?;
                ensure!(list.status == 404, "{list:?}");
                Ok(())
            })?;
            let answer = credentials(&pod, imds, "reader")?;
            ensure!([403, 404].contains(&answer.status), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_session_token_is_given_and_checked() {
    scenario(|system| {
        let [pod, other] = system.serving_pods(["reader", "writer"])?;
        for imds in BOTH {
            let token = Pod::new(&pod).token(imds)?;
            ensure!(token != "canary-token", "{}: the real IMDS's token", leaks::CANARY);
            let send =
                |pod, token: &str| Pod::new(pod).request(imds, "GET", ROLES, &[("X-aws-ec2-metadata-token", token)]);
            let answer = send(&pod, &token)?;
            ensure!(answer.status == 200 && answer.text() == "reader", "{answer:?}");
            for (sender, token) in [(&pod, "AQAEAwrong"), (&other, token.as_str())] {
                let answer = send(sender, token)?;
                ensure!(answer.status == 401, "a token that is not the pod's: {answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn tokens_are_required_if_imdsv1_is_denied() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.agent_flags.push("--imds-v1=deny".to_owned());
        system.start()?;
        for imds in BOTH {
            let plain = Pod::new(&pod).get(imds, ROLES)?;
            ensure!(plain.status == 401, "{plain:?}");
            let token = Pod::new(&pod).token(imds)?;
            eventually("served with a token", SOON, || {
                let answer = Pod::new(&pod).request(imds, "GET", ROLES, &[("X-aws-ec2-metadata-token", &token)])?;
                ensure!(answer.status == 200 && answer.text() == "reader", "{answer:?}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

/// Everything else is refused, and no request reaches the real IMDS.
#[test]
fn other_paths_are_refused() {
    scenario(|system| {
        let pod = system.serving_pod("reader")?;
        let paths = [
            "/",
            "/latest/",
            "/latest/meta-data/",
            "/latest/meta-data/iam/info",
            "/latest/meta-data/instance-id",
            "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
            "/latest/dynamic/instance-identity/document",
            "/latest/user-data",
            "/latest/meta-data/iam/security-credentials/../../instance-id",
            "/latest/meta-data/iam/security-credentials/%2e%2e/info",
            "//latest/meta-data/iam/info",
            "/health",
            "/metrics",
            "/ping",
        ];
        for imds in BOTH {
            for path in paths {
                let answer = Pod::new(&pod).get(imds, path)?;
                ensure!((400..500).contains(&answer.status), "{path}: {answer:?}");
                ensure!(!answer.text().contains("canary"), "{}: {path}: {answer:?}", leaks::CANARY);
            }
        }
        Ok(())
    });
}
