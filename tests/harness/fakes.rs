//! STS, the unmodified clients, and the certificates.

use kiam_tests::{
    clients::{Environment, Python, aws_cli, boto3_identity, curl},
    fakes::{
        canary::{Canary, NODE_ROLE},
        pki::{End, Flaw, Pki},
        sts::Sts,
    },
    node::{owner::Folder, topology::Topology},
};

#[test]
fn moto_returns_the_session_of_a_key() {
    let topology = Topology::create().unwrap();
    let folder = Folder::create("moto").unwrap();
    let python = Python::find().unwrap();
    let _sts = Sts::start(&topology.uplink, &python, folder.path()).unwrap();
    let pod = topology.add_pod(1).unwrap();
    let environment =
        Environment::with_sts(&Sts::endpoint()).with("AWS_ACCESS_KEY_ID", "AKIA1").with("AWS_SECRET_ACCESS_KEY", "x");
    let arguments =
        ["sts", "assume-role", "--role-arn", "arn:aws:iam::123456789012:role/a/b", "--role-session-name", "someone"];
    let output = aws_cli(&pod, &python, &environment, &arguments).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let key = answer["Credentials"]["AccessKeyId"].as_str().unwrap();
    let arn = Sts::identity_of(&topology.uplink, key).unwrap();
    assert!(arn.starts_with("arn:aws:sts::123456789012:assumed-role/") && arn.ends_with("/someone"), "{arn}");
}

#[test]
fn plain_sts_returns_the_session_of_a_key() {
    const ROLE: &str = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fa%2Fb&RoleSessionName=someone";
    let topology = Topology::create().unwrap();
    let _sts = Sts::start_plain(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    let body = format!("Action=AssumeRole&Version=2011-06-15&{ROLE}");
    let answer = curl(&pod, &["--data", &body, &Sts::endpoint()]).unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let key =
        text.split(['<', '>']).skip_while(|&word| word != "AccessKeyId").nth(1).unwrap_or_else(|| panic!("{text}"));
    let arn = Sts::identity_of(&topology.uplink, key).unwrap();
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/a/b/someone");
    assert!(Sts::identity_of(&topology.uplink, "ASIAUNKNOWN").is_err());
}

/// With nothing in the way, the clients get the node role.
#[test]
fn unhindered_clients_get_the_node_role() {
    let topology = Topology::create().unwrap();
    let folder = Folder::create("moto").unwrap();
    let python = Python::find().unwrap();
    let _sts = Sts::start(&topology.uplink, &python, folder.path()).unwrap();
    let _canary = Canary::start(&topology.uplink).unwrap();
    let pod = topology.add_pod(1).unwrap();
    let identity = boto3_identity(&pod, &python, &Environment::with_sts(&Sts::endpoint())).unwrap();
    assert_eq!(identity.method, "iam-role");
    let list = curl(&pod, &["http://169.254.169.254/latest/meta-data/iam/security-credentials/"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout), NODE_ROLE);
}

#[test]
fn certificates_are_written_as_files() {
    let folder = Folder::create("pki").unwrap();
    let pki = Pki::create().unwrap();
    for flaw in [Flaw::None, Flaw::NoNames, Flaw::NoUsage, Flaw::OtherKey, Flaw::Expired, Flaw::OtherCa] {
        let files = pki.write(folder.path(), &format!("{flaw:?}"), End::Server, flaw).unwrap();
        assert!(std::fs::read_to_string(files.cert).unwrap().contains("BEGIN CERTIFICATE"));
        assert!(std::fs::read_to_string(files.key).unwrap().contains("PRIVATE KEY"));
    }
}
