//! Command lines, valid and invalid.

use super::*;
use crate::{
    args::{self, Command},
    core::{credentials::RefreshAhead, namespace::Anchoring},
};
use kiam_common::{
    flags::{ServerAddress, exit_code},
    telemetry::LogFormat,
};
use std::time::Duration;

const NEEDED: &[&str] = &["--cert=c", "--key=k", "--ca=a", "--role-base-arn=arn:aws:iam::123456789012:role/"];

fn config(flags: &[&str]) -> Result<Config, Problems> {
    let argv = ["kiam-server"].iter().chain(flags).map(|&flag| flag.into());
    Config::try_from(args::parse(argv).unwrap().run)
}

fn with(flags: &[&str]) -> Result<Config, Problems> {
    config(&[NEEDED, flags].concat())
}

fn problems(flags: &[&str]) -> String {
    with(flags).err().map(|problems| problems.to_string()).unwrap_or_default()
}

#[test]
fn defaults() {
    let config = with(&[]).unwrap();
    assert_eq!(config.grpc.bind.to_string(), "127.0.0.1:9610");
    assert_eq!((config.admin.port, config.admin.prometheus), (9611, None));
    assert_eq!(config.aws.session_duration, Duration::from_secs(3600));
    assert_eq!(config.aws.cache.ahead, RefreshAhead::HalfLife);
    assert_eq!((config.aws.cache.fetchers, config.aws.cache.buffer), (8, 1000));
    assert_eq!(config.roles.session.as_str(), "kiam-kiam");
    assert_eq!(config.roles.anchoring, Anchoring::Strict);
    assert!(config.notices.is_empty());
}

/// The arguments of kiam's own manifests and chart (kiam v4.2, deploy and helm).
#[test]
fn kiams_own_arguments() {
    let problems = config(&[
        "--json-log",
        "--level=warn",
        "--bind=0.0.0.0:443",
        "--cert=/etc/kiam/tls/server.pem",
        "--key=/etc/kiam/tls/server-key.pem",
        "--ca=/etc/kiam/tls/ca.pem",
        "--role-base-arn-autodetect",
        "--sync=1m",
        "--prometheus-listen-addr=0.0.0.0:9620",
        "--prometheus-sync-interval=5s",
        "--session-duration=15m",
        "--assume-role-arn=",
        "--grpc-keepalive-time-duration=10s",
        "--grpc-keepalive-timeout-duration=2s",
        "--grpc-max-connection-idle-duration=15m",
        "--disable-strict-namespace-regexp",
        "--grpc-keepalive-time-ms=5000",
        "--region=us-gov-west-1",
        "--session-refresh=5m",
    ])
    .err();
    assert!(problems.is_none(), "{}", problems.unwrap());
    assert_eq!(with(&["--no-json-log"]).unwrap().log.format, LogFormat::Text);
}

#[test]
fn flags_without_effect_and_unwise_values_are_noticed() {
    let notices = with(&["--sync=1m", "--statsd=x", "--session-duration=15m"]).unwrap().notices;
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices[0].starts_with("--sync has no effect"));
    assert!(notices[2].contains("less than 15 minutes left"));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = config(&["--level=loud", "--bind=here", "--session-duration=1m", "--fetchers=0", "--port=0"])
        .unwrap_err()
        .to_string();
    for flag in [
        "--level",
        "--bind",
        "--session-duration",
        "--fetchers",
        "--port",
        "--cert",
        "--key",
        "--ca",
        "--role-base-arn",
    ] {
        assert_eq!(text.lines().filter(|line| line.starts_with(&format!("{flag} "))).count(), 1, "{flag}: {text}");
    }
}

#[test]
fn each_value_has_its_bounds() {
    for (flag, text) in [
        ("--session-duration=14m", "not between 15m and 12h"),
        ("--session-duration=13h", "not between 15m and 12h"),
        ("--session-refresh=60m", "must end before the session"),
        ("--session-refresh=30s", "not between 1m and 59m"),
        ("--role-base-arn=arn:aws:iam::1:role/", "the account is not 12 digits"),
        ("--role-base-arn=role/", "write it like arn:aws:iam::123456789012:role/"),
        ("--session=", "it is empty"),
        ("--region=EU", "not a region"),
        ("--sts-endpoint=sts", "not a URL"),
        ("--disable-strict-namespace-regexp=maybe", "neither true nor false"),
        ("--grpc-keepalive-time-ms=10s", "--grpc-keepalive-time-ms"),
    ] {
        let needed: Vec<&str> =
            NEEDED.iter().copied().filter(|needed| needed.split('=').next() != flag.split('=').next()).collect();
        let problems = config(&[&needed, &[flag][..]].concat()).unwrap_err().to_string();
        assert!(problems.contains(text) && problems.lines().count() == 1, "{flag}: {problems}");
    }
    assert!(
        problems(&["--assume-role-arn=r", "--session-duration=2h"]).contains("not more than 1h with --assume-role-arn")
    );
    assert!(problems(&["--session-duration=2h"]).is_empty());
}

#[test]
fn a_base_is_required_and_a_given_one_wins() {
    let tls = ["--cert=c", "--key=k", "--ca=a"];
    let problems = config(&tls).unwrap_err().to_string();
    assert!(
        problems.contains("--role-base-arn is required") && problems.contains("--role-base-arn-autodetect"),
        "{problems}"
    );
    let detected = config(&[&tls[..], &["--role-base-arn-autodetect"]].concat()).unwrap();
    assert_eq!(detected.roles.base, BaseArn::Detected);
    assert!(matches!(with(&["--role-base-arn-autodetect"]).unwrap().roles.base, BaseArn::Given(_)));
}

#[test]
fn the_probe_has_its_own_flags() {
    let argv = [
        "kiam-server",
        "health",
        "--cert=c",
        "--key=k",
        "--ca=a",
        "--server-address=127.0.0.1:443",
        "--server-address-refresh=2s",
        "--timeout=5s",
        "--gateway-timeout-creation=1s",
    ];
    let cli = args::parse(argv.iter().map(|&flag| flag.into())).unwrap();
    let Some(Command::Health(health)) = cli.command else { panic!("{cli:?}") };
    let config = HealthConfig::try_from(*health).unwrap();
    assert_eq!(config.server, ServerAddress { host: "127.0.0.1".to_owned(), port: 443 });
    assert_eq!((config.timeout, config.connect_timeout), (Duration::from_secs(5), Duration::from_secs(1)));
}

#[test]
fn unknown_flags_are_usage_errors() {
    let error = args::parse(["kiam-server".into(), "--rolebase".into()]).unwrap_err();
    assert_eq!(exit_code(&error), 64);
    let help = args::parse(["kiam-server".into(), "--help".into()]).unwrap_err();
    assert_eq!(exit_code(&help), 0);
}
