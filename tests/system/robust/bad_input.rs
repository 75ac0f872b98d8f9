//! Bad input: each kind causes a clear message that names the input and the remedy, no panic, and no other effect.

use crate::support::{credentials, expect_identity};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES},
    eventually::eventually,
    fakes::{
        kube_api::{NamespaceObject, PodObject},
        pki::{End, Flaw},
        sts::Sts,
    },
    node::process::{self, Daemon, describe},
    system::{Agent, SOON, Server, System, scenario},
};

/// `EX_USAGE`, sysexits.h: a wrong command line.
const USAGE: i32 = 64;

/// One of the two binaries.
#[derive(Clone, Copy)]
enum Binary {
    Agent,
    Server,
}

/// Returns the flags of a working one, with some replaced or, if empty after `=`, left out.
fn flags(system: &System, binary: Binary, changes: &[String]) -> Result<Vec<String>> {
    let (folder, name) = (system.folder(), |flag: &str| flag.split('=').next().unwrap_or_default().to_owned());
    let defaults = match binary {
        Binary::Agent => Agent::default_flags(&folder, &system.pki.write(&folder, "a", End::Agent, Flaw::None)?),
        Binary::Server => Server::default_flags(&folder, &system.pki.write(&folder, "s", End::Server, Flaw::None)?),
    };
    std::fs::write(folder.join("kubeconfig"), system.kube.kubeconfig())?;
    let kept = defaults.into_iter().filter(|flag| !changes.iter().any(|change| name(change) == name(flag)));
    Ok(kept.chain(changes.iter().filter(|change| !change.ends_with('=')).cloned()).collect())
}

/// Runs a binary until it ends; returns its exit code and its output.
fn run_to_end(system: &System, binary: Binary, changes: &[String]) -> Result<(Option<i32>, String)> {
    let path = match binary {
        Binary::Agent => system.binaries.agent(),
        Binary::Server => system.binaries.server(),
    };
    let log = system.folder().join("bad-input.log");
    drop(std::fs::remove_file(&log));
    let mut command = system.topology.node.command(path);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(flags(system, binary, changes)?);
    let mut daemon = Daemon::spawn("bad input", &mut command, &log)?;
    let status = daemon.wait(SOON).with_context(|| format!("{changes:?} should have ended it"))?;
    ensure!(!daemon.log().contains("panicked"), "{}", daemon.log());
    ensure!(status.code().is_some(), "{changes:?}: {}", describe(status));
    Ok((status.code(), daemon.log()))
}

/// Asserts that a binary ends with `code`, and that its output contains each of the words.
fn expect_refusal(system: &System, binary: Binary, changes: &[String], code: i32, words: &[&str]) -> Result<()> {
    let (ended_with, output) = run_to_end(system, binary, changes)?;
    ensure!(ended_with == Some(code), "{changes:?}: exit code {ended_with:?}\n{output}");
    expect_words(&output, words).with_context(|| format!("{changes:?}"))
}

#[test]
fn a_wrong_flag_is_named() {
    scenario(|system| {
        let refused =
            |binary, change: &str, words: &[&str]| expect_refusal(system, binary, &[change.to_owned()], USAGE, words);
        refused(Binary::Agent, "--no-such-flag=1", &["--no-such-flag"])?;
        refused(Binary::Agent, "--port=many", &["--port", "many"])?;
        refused(Binary::Agent, "--host-interface=!", &["--host-interface"])?;
        refused(Binary::Agent, "--allow-route-regexp=(", &["--allow-route-regexp"])?;
        refused(Binary::Agent, "--worker-uid=0", &["--worker-uid"])?;
        refused(Binary::Agent, "--cert=", &["--cert"])?;
        refused(Binary::Server, "--no-such-flag=1", &["--no-such-flag"])?;
        refused(Binary::Server, "--session-duration=1m", &["--session-duration", "15"])?;
        refused(Binary::Server, "--bind=nowhere", &["--bind", "nowhere"])?;
        refused(Binary::Server, "--role-base-arn=", &["--role-base-arn"])
    });
}

#[test]
fn all_wrong_flags_are_named_at_once() {
    scenario(|system| {
        let changes = ["--port=many".to_owned(), "--server-address=".to_owned() + ":", "--bpffs=relative".to_owned()];
        expect_refusal(system, Binary::Agent, &changes, USAGE, &["--port", "--server-address", "--bpffs"])
    });
}

/// A server with a missing or wrong certificate names it and ends.
#[test]
fn server_with_a_bad_certificate_ends() {
    scenario(|system| {
        let missing = format!("--cert={}", system.folder().join("missing.pem").display());
        let (code, output) = run_to_end(system, Binary::Server, &[missing])?;
        ensure!(code.is_some_and(|code| code != 0) && output.contains("missing.pem"), "{code:?}\n{output}");
        let cases: [(Flaw, &[&str]); 3] = [
            (Flaw::OtherKey, &["bad-OtherKey", "key"]),
            (Flaw::NoUsage, &["bad-NoUsage", "serverAuth", "openssl"]),
            (Flaw::NoNames, &["bad-NoNames", "subject alternative name", "openssl"]),
        ];
        for (flaw, words) in cases {
            let tls = system.pki.write(&system.folder(), &format!("bad-{flaw:?}"), End::Server, flaw)?;
            let changes = [format!("--cert={}", tls.cert.display()), format!("--key={}", tls.key.display())];
            let (code, output) = run_to_end(system, Binary::Server, &changes)?;
            ensure!(code.is_some_and(|code| code != 0), "{flaw:?}: exit code {code:?}\n{output}");
            expect_words(&output, words)?;
        }
        Ok(())
    });
}

/// An agent with a missing or wrong certificate names it, and the node stays closed until the certificate is replaced.
#[test]
fn bad_certificate_keeps_the_node_closed() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start_server()?;
        let folder = system.folder();
        let (cert, key) = (folder.join("changing.pem"), folder.join("changing-key.pem"));
        system.agent_flags = vec![format!("--cert={}", cert.display()), format!("--key={}", key.display())];
        system.spawn_agent()?;
        expect_agent_logs(system, &["changing.pem"])?;
        let cases: [(Flaw, &[&str]); 2] =
            [(Flaw::OtherKey, &["changing-key.pem"]), (Flaw::NoUsage, &["clientAuth", "openssl"])];
        for (flaw, words) in cases {
            system.pki.write(&folder, "changing", End::Agent, flaw)?;
            expect_agent_logs(system, words)?;
            for imds in BOTH {
                let answer = Pod::new(&pod).get(imds, ROLES)?;
                ensure!(answer.status == 503, "{answer:?}");
            }
        }
        system.pki.write(&folder, "changing", End::Agent, Flaw::None)?;
        system.agent()?.wait_ready()?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

/// Waits until the log of the running agent contains each of the words.
fn expect_agent_logs(system: &mut System, words: &[&str]) -> Result<()> {
    let agent = system.agent()?;
    eventually("the agent names the problem", SOON, || {
        let log = agent.daemon.log();
        ensure!(!log.contains("panicked"), "{log}");
        expect_words(&log, words)
    })
}

/// Asserts that a text contains each of the words, ignoring case.
fn expect_words(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in\n{text}");
    }
    Ok(())
}

/// A folder that is no bpffs is named, with the command that mounts one.
#[test]
fn folder_that_is_no_bpffs_is_named_with_remedy() {
    scenario(|system| {
        let folder = system.folder().join("plain");
        std::fs::create_dir(&folder)?;
        let change = format!("--bpffs={}", folder.display());
        expect_refusal(system, Binary::Agent, &[change], 1, &["--bpffs", "mount -t bpf"])?;
        // The agent leaves the node closed, not half open.
        let pod = system.topology.add_pod(1)?;
        crate::support::expect_nothing(system, &pod)?;
        let routes = system.topology.node.ip("route show table 4242")?;
        ensure!(routes.starts_with("blackhole"), "the fence is left without an agent: {routes}");
        Ok(())
    });
}

/// An invalid expression of a namespace denies its pods and no others.
#[test]
fn invalid_namespace_expression_denies_its_pods() {
    scenario(|system| {
        let (pod, other) = (system.topology.add_pod(1)?, system.add_pod(2, "reader")?);
        system.kube.put_namespace(&NamespaceObject::permitting("broken", "(unclosed"));
        system.kube.put_pod(&PodObject::running("broken", "app", Some("reader"), pod.v4, pod.v6));
        system.start()?;
        system.wait_for_role(&other, IMDS4, "reader")?;
        eventually("the pod is denied", SOON, || {
            let answer = credentials(&pod, IMDS4, "reader")?;
            ensure!(answer.status == 403, "{answer:?}");
            Ok(())
        })?;
        expect_event(system, "app", &["iam.amazonaws.com/permitted"])?;
        expect_identity(system, &other, IMDS4, "reader")
    });
}

#[test]
fn malformed_arn_denies_only_its_pod() {
    scenario(|system| {
        let (pod, other) = (system.topology.add_pod(1)?, system.add_pod(2, "reader")?);
        system.announce(&pod, "odd", Some("arn:aws:iam:::role"));
        system.start()?;
        system.wait_for_role(&other, IMDS4, "reader")?;
        eventually("the pod is denied", SOON, || {
            let answer = credentials(&pod, IMDS4, "arn:aws:iam:::role")?;
            ensure!(answer.status == 403, "{answer:?}");
            Ok(())
        })?;
        expect_event(system, "odd", &["arn:aws:iam:::role"])?;
        expect_identity(system, &other, IMDS4, "reader")
    });
}

/// Waits for an Event on a pod with each of the words in its message.
fn expect_event(system: &System, pod: &str, words: &[&str]) -> Result<()> {
    eventually(&format!("an Event on {pod}"), SOON, || {
        let events = system.kube.events();
        let found = events.iter().any(|event| {
            let object = if event["involvedObject"].is_null() { &event["regarding"] } else { &event["involvedObject"] };
            let message = event["message"].as_str().or(event["note"].as_str()).unwrap_or_default();
            object["name"] == pod && words.iter().all(|word| message.contains(word))
        });
        ensure!(found, "{events:#?}");
        Ok(())
    })
}

#[test]
fn unreachable_api_server_is_named_and_retried() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.kube.stop();
        system.spawn_server()?;
        let server = system.server()?;
        eventually("the log names the API server", SOON, || {
            ensure!(server.daemon.is_running()?, "it ended\n{}", server.daemon.log_tail());
            ensure!(server.daemon.log().contains("127.0.0.1:6443"), "{}", server.daemon.log_tail());
            Ok(())
        })?;
        system.kube.listen(&system.topology.node)?;
        system.server()?.wait_ready()?;
        system.start_agent()?;
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}

#[test]
fn unreachable_sts_is_named_and_retried() {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.sts = None;
        system.start()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        eventually("the pod gets a 503", SOON, || {
            let answer = credentials(&pod, IMDS4, "reader")?;
            ensure!(answer.status == 503, "{answer:?}");
            Ok(())
        })?;
        // Like an SDK, the pod repeats its request.
        eventually("there is an Event on the pod", SOON, || {
            credentials(&pod, IMDS4, "reader")?;
            ensure!(!system.kube.events().is_empty(), "no Event");
            Ok(())
        })?;
        expect_event(system, "pod-1", &["STS", "refused"])?;
        let log = system.server()?.daemon.log();
        ensure!(log.contains(&Sts::endpoint()) || log.contains("10.8.1.1:5000"), "STS is not named in\n{log}");
        system.sts = Some(Sts::start(&system.topology.uplink, &system.python, &system.folder())?);
        eventually("credentials once STS is back", SOON * 3, || expect_identity(system, &pod, IMDS4, "reader"))
    });
}

#[test]
fn health_of_no_agent_is_a_clear_failure() {
    scenario(|system| {
        let run_dir = format!("--run-dir={}", system.folder().join("run").display());
        let output = process::output(std::process::Command::new(system.binaries.agent()).arg("health").arg(run_dir))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && error.contains("probe.sock"), "{output:?}");
        Ok(())
    });
}
