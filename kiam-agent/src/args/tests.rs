//! Command lines of kiam and of this agent.

use super::*;
use clap::CommandFactory as _;
use kiam_common::flags::{EXIT_USAGE, exit_code};

fn cli(arguments: &[&str]) -> Result<Cli, clap::Error> {
    parse(std::iter::once("kiam-agent").chain(arguments.iter().copied()).map(OsString::from))
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn flags_of_kiams_manifest_are_accepted() {
    let parsed = cli(&[
        "--iptables",
        "--host-interface=cali+",
        "--json-log",
        "--port=8181",
        "--cert=/etc/kiam/tls/agent.pem",
        "--key=/etc/kiam/tls/agent-key.pem",
        "--ca=/etc/kiam/tls/ca.pem",
        "--server-address=kiam-server:443",
        "--prometheus-listen-addr=0.0.0.0:9620",
        "--prometheus-sync-interval=5s",
        "--gateway-timeout-creation=1s",
        "--host=10.0.0.1",
    ])
    .unwrap();
    assert!(parsed.command.is_none());
    assert_eq!(parsed.run.log.json_log, "true");
    assert_eq!(parsed.run.admin.port, "8181");
    assert_eq!(parsed.run.redirect.host_interface, ["cali+"]);
    assert_eq!(parsed.run.kiam.iptables.as_deref(), Some("true"));
}

#[test]
fn switches_parse_as_with_kingpin() {
    for (argument, value) in
        [("--json-log", "true"), ("--json-log=true", "true"), ("--json-log=false", "false"), ("--no-json-log", "false")]
    {
        assert_eq!(cli(&[argument]).unwrap().run.log.json_log, value, "{argument}");
    }
    assert_eq!(cli(&["--no-iptables-remove"]).unwrap().run.kiam.iptables_remove.as_deref(), Some("false"));
    assert_eq!(cli(&["--no-port"]).unwrap_err().kind(), clap::error::ErrorKind::UnknownArgument);
}

#[test]
fn names_of_kiam_3_are_accepted() {
    let parsed = cli(&["--whitelist-route-regexp=^$", "--grpc-keepalive-time-ms=5000", "--statsd="]).unwrap().run;
    assert_eq!(parsed.imds.allow_route_regexp, "^$");
    assert_eq!(parsed.upstream.grpc_keepalive_time_ms.as_deref(), Some("5000"));
}

#[test]
fn interfaces_are_a_list_or_repeated() {
    let parsed = cli(&["--host-interface=cali+,eni+", "--host-interface=!eth0"]).unwrap();
    assert_eq!(parsed.run.redirect.host_interface, ["cali+", "eni+", "!eth0"]);
}

#[test]
fn worker_has_the_flags_of_the_agent() {
    let parsed = cli(&["worker", "--port=8181", "--no-json-log"]).unwrap();
    let Some(Command::Worker(run)) = parsed.command else { panic!("not a worker") };
    assert_eq!((run.admin.port.as_str(), run.log.json_log.as_str()), ("8181", "false"));
}

#[test]
fn usage_errors_exit_64_and_help_exits_0() {
    for (arguments, code) in [
        (&["--help"] as &[&str], 0),
        (&["--version"], 0),
        (&["--nonsense"], EXIT_USAGE),
        (&["--port"], EXIT_USAGE),
        (&["frobnicate"], EXIT_USAGE),
        (&["--port=1", "cleanup"], EXIT_USAGE),
    ] {
        assert_eq!(exit_code(&cli(arguments).unwrap_err()), code, "{arguments:?}");
    }
}

#[test]
fn every_flag_has_an_environment_variable() {
    for argument in Cli::command().get_arguments() {
        let Some(long) = argument.get_long().filter(|long| !matches!(*long, "help" | "version")) else { continue };
        let wanted = match long {
            "host" => "HOST_IP".to_owned(),
            long => format!("KIAM_{}", long.replace('-', "_").to_uppercase()),
        };
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(wanted.as_str()), "--{long}");
    }
}

#[test]
fn help_explains_every_flag_that_it_shows() {
    for argument in Cli::command().get_arguments() {
        assert!(argument.get_help().is_some(), "{}", argument.get_id());
    }
}
