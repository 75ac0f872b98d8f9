//! Defaults, values and refusals of the configuration.

use super::{KubepodsAt, *};
use crate::args;
use kiam_common::telemetry::LogFormat;
use std::ffi::OsString;

const TLS: [&str; 3] = ["--cert=/tls/agent.pem", "--key=/tls/agent-key.pem", "--ca=/tls/ca.pem"];

fn config(arguments: &[&str]) -> Result<Config, String> {
    let argv = std::iter::once("kiam-agent").chain(arguments.iter().copied()).map(OsString::from);
    Config::try_from(args::parse(argv).unwrap().run).map_err(|problems| problems.to_string())
}

fn good(arguments: &[&str]) -> Config {
    config(&[&TLS, arguments].concat()).unwrap()
}

#[test]
fn defaults() {
    let Config { log, admin, imds, upstream, datapath, take_over, exempt, notices } = good(&[]);
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Text, "info"));
    assert_eq!(admin, AdminConfig { port: 3100, prometheus: None });
    assert_eq!((imds.v1, datapath.attestation), (ImdsV1::Allow, Attestation::Prefer));
    assert_eq!(datapath.kubepods, KubepodsAt::Auto);
    assert_eq!(upstream.server.to_string(), "localhost:9610");
    assert_eq!(upstream.tls.key, PathBuf::from("/tls/agent-key.pem"));
    assert_eq!((upstream.keepalive_time, upstream.keepalive_timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert!(datapath.interfaces.matches("docker0") && !datapath.interfaces.matches("eth0"));
    assert_eq!(datapath.bpffs, PathBuf::from("/sys/fs/bpf"));
    assert_eq!(datapath.run_dir, PathBuf::from("/run/kiam"));
    assert_eq!(datapath.probe_socket, PathBuf::from("/run/kiam/probe.sock"));
    assert_eq!(datapath.tc, TcAttach::Auto);
    assert_eq!(datapath.mode, RedirectMode { tc: true, cgroup: false, auto: true });
    assert_eq!(datapath.host_network_pods, HostNetworkPods::Ignore);
    assert_eq!((datapath.worker_uid, datapath.worker_gid), (65532, 65532));
    assert_eq!(datapath.state_dir, PathBuf::from("/var/lib/kiam"));
    assert!(!take_over);
    assert!(exempt.accounts.is_empty(), "no pod needs one: {exempt:?}");
    assert!(notices.is_empty(), "{notices:?}");
}

#[test]
fn values() {
    let Config { log, admin, imds, upstream, datapath, .. } = good(&[
        "--json-log",
        "--level=debug",
        "--port=8181",
        "--prometheus-listen-addr=:9620",
        "--imds-v1=deny",
        "--attestation=require",
        "--kubepods-cgroup=/sys/fs/cgroup/kubelet/kubepods",
        "--allow-route-regexp=",
        "--server-address=[fd00::1]:443",
        "--grpc-keepalive-time-duration=1m30s",
        "--grpc-keepalive-timeout-ms=250",
        "--host-interface=cali+,!cali9",
        "--tc=clsact",
        "--run-dir=/run/other",
        "--worker-uid=1000",
    ]);
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "debug"));
    assert_eq!(admin, AdminConfig { port: 8181, prometheus: Some("0.0.0.0:9620".parse().unwrap()) });
    assert_eq!((imds.v1, datapath.attestation), (ImdsV1::Deny, Attestation::Require));
    assert_eq!(datapath.kubepods, KubepodsAt::Path("/sys/fs/cgroup/kubelet/kubepods".into()));
    assert_eq!((upstream.server.host.as_str(), upstream.server.to_string().as_str()), ("fd00::1", "[fd00::1]:443"));
    assert_eq!(upstream.keepalive_time, Duration::from_secs(90));
    assert_eq!(upstream.keepalive_timeout, Duration::from_millis(250));
    assert!(datapath.interfaces.matches("cali1") && !datapath.interfaces.matches("cali9"));
    assert_eq!((datapath.tc, datapath.worker_uid), (TcAttach::Clsact, 1000));
    assert_eq!(datapath.probe_socket, PathBuf::from("/run/other/probe.sock"));
}

#[test]
fn redirect_modes() {
    for (arguments, tc, cgroup, auto) in [
        (&["--redirect=auto"] as &[&str], true, false, true),
        (&["--host-network-pods=enforce"], true, true, true),
        (&["--redirect=tc"], true, false, false),
        (&["--redirect=tc,cgroup"], true, true, false),
        (&["--redirect=cgroup,tc", "--host-network-pods=enforce"], true, true, false),
        (&["--redirect=cgroup"], false, true, false),
        (&["--redirect=cgroup", "--host-network-pods=enforce"], false, true, false),
    ] {
        assert_eq!(good(arguments).datapath.mode, RedirectMode { tc, cgroup, auto }, "{arguments:?}");
    }
    let problems = config(&[&TLS[..], &["--redirect=tc", "--host-network-pods=enforce"]].concat()).unwrap_err();
    assert!(problems.starts_with(r#"--redirect "tc": "#), "{problems}");
    assert!(problems.contains("--host-network-pods=enforce"), "{problems}");
}

#[test]
fn exemptions() {
    let exempt = good(&["--host-network-pods=enforce", "--exempt=a/b,default", "--exempt=c/d"]).exempt;
    let named: Vec<String> = exempt.accounts.iter().map(ToString::to_string).collect();
    assert_eq!(
        (named[0].as_str(), named[1].as_str(), named[2].as_str(), named.len()),
        ("a/b", "c/d", "kube-system/aws-node", 6)
    );
    assert_eq!(good(&["--host-network-pods=enforce"]).exempt.accounts.len(), 4, "the defaults");
    assert!(good(&["--host-network-pods=enforce", "--exempt=none"]).exempt.accounts.is_empty());

    let uid = "11111111-2222-4333-8444-aaaaaaaaaaaa";
    let own = format!("--pod-uid={uid}");
    let given = ["--host-network-pods=enforce", "--node-name=ip-10-0-0-1.ec2.internal", &own, "--kubeconfig=/k"];
    let Config { exempt, notices, .. } = good(&given);
    assert_eq!(exempt.node.as_deref(), Some("ip-10-0-0-1.ec2.internal"));
    assert_eq!(exempt.own_pod.unwrap().as_str(), uid);
    assert_eq!((exempt.kubeconfig, notices), (Some("/k".into()), Vec::<String>::new()));
    assert!(good(&given[..2]).notices[0].starts_with("--pod-uid is not given"));
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems =
        config(&["--port=0", "--level=loud", "--worker-uid=0", "--host-interface=ca li", "--tc=xdp"]).unwrap_err();
    for flag in ["--port", "--level", "--worker-uid", "--host-interface", "--tc", "--cert", "--key", "--ca"] {
        assert_eq!(
            problems.lines().filter(|line| line.starts_with(&format!("{flag} "))).count(),
            1,
            "{flag}: {problems}"
        );
    }
    assert_eq!(problems.lines().count(), 8, "{problems}");
}

#[test]
fn bad_values_are_refused_with_a_remedy() {
    for (argument, wanted) in [
        ("--port=70000", r#"--port "70000": not a port between"#),
        ("--port=tcp://10.0.0.1:443", "enableServiceLinks: false"),
        ("--prometheus-listen-addr=9620", "like 0.0.0.0:9620"),
        ("--prometheus-listen-addr=example.org:9620", "like 0.0.0.0:9620"),
        ("--prometheus-listen-addr=[::1:9620", "like 0.0.0.0:9620"),
        ("--json-log=perhaps", "neither true nor false"),
        ("--level=loud", "not one of trace, debug, info"),
        ("--imds-v1=maybe", "neither allow nor deny"),
        ("--attestation=on", "not one of require, prefer, off"),
        ("--kubepods-cgroup=kubepods", "not an absolute path"),
        ("--allow-route-regexp=.*", "forwards nothing to the real metadata service yet"),
        ("--whitelist-route-regexp=/latest/.*", "--allow-route-regexp"),
        ("--allow-ip-query", "every pod could request every other pod's credentials"),
        ("--server-address=kiam-server", "like kiam-server:443"),
        ("--server-address=:443", "like kiam-server:443"),
        ("--server-address=https://kiam-server:443", "like kiam-server:443"),
        ("--server-address=[fd00::1:443", "like kiam-server:443"),
        ("--server-address=kiam-server:0", "not a port"),
        ("--cert=", "--cert is required"),
        ("--grpc-keepalive-time-duration=10", "write it like 500ms"),
        ("--grpc-keepalive-time-duration=1ms", "not between 500ms and 1h"),
        ("--grpc-keepalive-timeout-duration=0", "not between 100ms and 1m"),
        ("--grpc-keepalive-timeout-ms=x", "not a number of milliseconds"),
        ("--host-interface=lo", "the loopback is never redirected"),
        ("--host-interface=", "an empty pattern"),
        ("--redirect=tcx", "not one of auto, tc, cgroup, tc,cgroup"),
        ("--host-network-pods=deny", "neither ignore nor enforce"),
        ("--bpffs=sys/fs/bpf", "not an absolute path"),
        ("--run-dir=.", "not an absolute path"),
        ("--probe-socket=probe.sock", "not an absolute path"),
        ("--state-dir=state", "not an absolute path"),
        ("--exempt=aws-node", "not NAMESPACE/SERVICEACCOUNT"),
        ("--exempt=kube-system/aws-*", "not the exact name of a ServiceAccount"),
        ("--exempt=none,kube-system/aws-node", "none alone to exempt no pod"),
        ("--node-name=a,b", "not the name of a node"),
        ("--pod-uid=../x", "not the UID of a pod"),
        ("--ipv6=off", "open to every pod"),
        ("--worker-uid=root", "other than root"),
        ("--worker-gid=0", "other than root"),
        ("--worker-uid=4294967295", "other than root"),
    ] {
        let mut arguments: Vec<&str> = TLS.into_iter().filter(|given| !argument.starts_with(&given[..6])).collect();
        arguments.push(argument);
        let problems = config(&arguments).unwrap_err();
        assert!(problems.contains(wanted) && problems.starts_with("--"), "{argument}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{argument}: {problems}");
    }
}

#[test]
fn ignored_kiam_flags_are_explained() {
    let given = [
        "--iptables",
        "--no-iptables-remove",
        "--host=10.0.0.1",
        "--server-address-refresh=2s",
        "--gateway-timeout-creation=1s",
        "--grpc-keepalive-permit-without-stream",
        "--prometheus-sync-interval=5s",
        "--pprof-listen-addr=:6060",
        "--statsd=127.0.0.1:8125",
        "--statsd-prefix=kiam",
        "--statsd-interval=10s",
    ];
    let notices = good(&given).notices;
    assert_eq!(notices.len(), given.len());
    for flag in given {
        let flag = flag.replace("--no-", "--");
        let flag = flag.split('=').next().unwrap();
        assert!(notices.iter().any(|notice| notice.starts_with(flag) && notice.contains("has no effect")), "{flag}");
    }
}

#[test]
fn health_and_cleanup_configurations() {
    let argv = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    for flag in ["--probe-socket", "--status-socket"] {
        let parsed = args::parse(argv(&format!("kiam-agent health {flag}=/run/x.sock --timeout=500ms"))).unwrap();
        let Some(args::Command::Health(health)) = parsed.command else { panic!("not health") };
        let wanted = HealthConfig { probe_socket: "/run/x.sock".into(), timeout: Duration::from_millis(500) };
        assert_eq!(HealthConfig::try_from(health).unwrap(), wanted);
    }

    let parsed = args::parse(argv("kiam-agent cleanup --bpffs=/bpf --level=debug")).unwrap();
    let Some(args::Command::Cleanup(cleanup)) = parsed.command else { panic!("not cleanup") };
    let CleanupConfig { log, datapath } = CleanupConfig::try_from(*cleanup).unwrap();
    assert_eq!((log.level.as_str(), datapath.bpffs), ("debug", PathBuf::from("/bpf")));
}

#[test]
fn status_configuration() {
    let status = |flag: &str| {
        let parsed = args::parse(["kiam-agent", "status", "--run-dir=/run/x", flag].map(Into::into)).unwrap();
        let Some(args::Command::Status(status)) = parsed.command else { panic!("not status") };
        StatusConfig::try_from(status)
    };
    let json = status("--output=json").unwrap();
    assert_eq!((json.output, json.agent.probe_socket), (Output::Json, "/run/x/probe.sock".into()));
    assert_eq!(status("--bpffs=/b").unwrap().output, Output::Table);
    assert!(status("--output=xml").unwrap_err().to_string().contains("--output"));
}
