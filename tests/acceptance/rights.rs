//! RBAC: the agent and the server have no rights beyond the shipped ones. The other trials show that these suffice.

use crate::stage::{KIAM, Stage};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::cluster::kubectl::Kubectl;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Verbs of Kubernetes RBAC for objects.
const VERBS: [&str; 11] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "escalate",
    "bind",
];
/// API group, resource and subresource of objects that an attacker would want, or that a program might start to use.
const RESOURCES: [(&str, &str, &str); 21] = [
    ("", "pods", ""),
    ("", "pods", "exec"),
    ("", "pods", "status"),
    ("", "pods", "eviction"),
    ("", "pods", "ephemeralcontainers"),
    ("", "namespaces", ""),
    ("", "namespaces", "finalize"),
    ("", "events", ""),
    ("events.k8s.io", "events", ""),
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "nodes", ""),
    ("", "nodes", "proxy"),
    ("", "serviceaccounts", ""),
    ("", "serviceaccounts", "token"),
    ("authentication.k8s.io", "tokenreviews", ""),
    ("rbac.authorization.k8s.io", "clusterroles", ""),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("coordination.k8s.io", "leases", ""),
    ("apps", "daemonsets", ""),
    ("*", "*", ""),
];
/// Rights of the server; the agent has none.
const SERVER: [(&str, &str, &[&str]); 3] = [
    ("", "namespaces", &["get", "list", "watch"]),
    ("", "pods", &["get", "list", "watch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// API group, resource with its subresource, verb.
type Right = (String, String, String);

fn rights_of_server() -> BTreeSet<Right> {
    let one = |group: &str, resource: &str, verb: &str| (group.to_owned(), resource.to_owned(), verb.to_owned());
    SERVER
        .iter()
        .flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| one(group, resource, verb)))
        .collect()
}

fn user(account: &str) -> String {
    format!("system:serviceaccount:{KIAM}:{account}")
}

/// The rights of an account in the API server's own list, without those of every account, are the shipped ones.
pub(crate) fn rights_are_the_shipped_ones(stage: &mut Stage) -> Result<()> {
    let kubectl = &stage.deployed()?.cluster.kubectl;
    let common = listed(kubectl, "default")?;
    for (account, expected) in [("kiam-agent", BTreeSet::new()), ("kiam-server", rights_of_server())] {
        let own: BTreeSet<Right> = listed(kubectl, account)?.difference(&common).cloned().collect();
        ensure!(own == expected, "{account} may do {own:?}");
    }
    Ok(())
}

/// Returns the rights that `kubectl auth can-i --list` shows.
fn listed(kubectl: &Kubectl, account: &str) -> Result<BTreeSet<Right>> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": KIAM },
    });
    let answer =
        kubectl.feed(&["create", "--validate=false", "--as", &user(account), "-f", "-", "-o", "json"], &review)?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer["status"]["incomplete"] == false, "{answer}");
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(ToOwned::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().context("rules")? {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    Ok(rights)
}

/// Runs `kubectl auth can-i` for each verb of each resource: in the whole cluster, and in kiam's own namespace.
pub(crate) fn every_other_verb_is_refused(stage: &mut Stage) -> Result<()> {
    let kubectl = &stage.deployed()?.cluster.kubectl;
    let rights = rights_of_server();
    for (account, expected) in [("kiam-agent", BTreeSet::new()), ("kiam-server", rights)] {
        for namespace in ["", KIAM] {
            let allowed = allowed(kubectl, account, namespace)?;
            ensure!(allowed == expected, "{account} in namespace {namespace:?} may {allowed:?}");
        }
    }
    Ok(())
}

/// Returns the verbs on all resources that the API server allows.
fn allowed(kubectl: &Kubectl, account: &str, namespace: &str) -> Result<BTreeSet<Right>> {
    let user = user(account);
    let review = |(group, resource, subresource, verb): (&str, &str, &str, &str)| {
        json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{KIAM}"), "system:authenticated"],
            "resourceAttributes": {
                "namespace": namespace, "group": group, "resource": resource, "subresource": subresource, "verb": verb,
            },
        }})
    };
    let every = RESOURCES
        .iter()
        .flat_map(|(group, resource, subresource)| VERBS.map(|verb| (*group, *resource, *subresource, verb)));
    let items: Vec<Value> = every.map(review).collect();
    let reviews = items.len();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    // The answers are one document after another.
    let answers = kubectl.feed(&["create", "-f", "-", "-o", "json"], &list)?;
    let answers = serde_json::Deserializer::from_str(&answers).into_iter().collect::<Result<Vec<Value>, _>>()?;
    ensure!(answers.len() == reviews, "{} answers to {reviews} reviews", answers.len());
    let mut allowed = BTreeSet::new();
    for answer in answers.iter().filter(|answer| answer["status"]["allowed"] == true) {
        let word = |key: &str| answer["spec"]["resourceAttributes"][key].as_str().unwrap_or_default();
        let resource = [word("resource"), word("subresource")].join("/");
        allowed.insert((word("group").to_owned(), resource.trim_end_matches('/').to_owned(), word("verb").to_owned()));
    }
    Ok(allowed)
}
