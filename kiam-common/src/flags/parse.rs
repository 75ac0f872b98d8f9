//! Parsers of single values. Their errors are phrases that follow the flag and its value.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Parses a boolean.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err("neither true nor false"),
    }
}

/// Checks a level of the log, or a filter of levels.
pub fn level(text: &str) -> Result<String, &'static str> {
    match text {
        "trace" | "debug" | "info" | "warn" | "error" => Ok(text.to_owned()),
        // A filter (`info,h2=debug`); parsed by telemetry.
        filter if filter.contains('=') => Ok(filter.to_owned()),
        _ => Err("not one of trace, debug, info, warn, error"),
    }
}

/// Parses a port other than 0.
pub fn port(text: &str) -> Result<u16, &'static str> {
    if text.starts_with("tcp://") {
        return Err(
            "Kubernetes sets KIAM_PORT to this value if the namespace has a Service named kiam: give --port on the \
                    command line, or set enableServiceLinks: false in the pod",
        );
    }
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err("not a port between 1 and 65535"),
    }
}

/// Parses an address to listen on, in Go's syntax: an IP address or `localhost`; without a host, all IPv4 addresses.
pub fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    const WRONG: &str = "not an address to listen on, like 0.0.0.0:9620, [::]:9620 or localhost:9620";
    let (host, number) = text.rsplit_once(':').ok_or(WRONG)?;
    let address = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        bracketed if bracketed.starts_with('[') => {
            let inner = bracketed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(WRONG)?;
            IpAddr::V6(inner.parse().map_err(|_not_v6| WRONG)?)
        }
        v4 => IpAddr::V4(v4.parse().map_err(|_not_v4| WRONG)?),
    };
    Ok(SocketAddr::new(address, port(number)?))
}

/// Parses a duration in Go's syntax (`1m30s`, `500ms`), from `min` to `max`.
pub fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let parsed = match text.trim() {
        // Go accepts 0 without a unit.
        "0" => Duration::ZERO,
        other => humantime::parse_duration(other).map_err(|error| format!("{error}; write it like 500ms or 1m30s"))?,
    };
    within(parsed, min, max)
}

/// Parses a number of milliseconds, from `min` to `max`.
pub fn milliseconds(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let parsed = text.parse().map_err(|_not_a_number| "not a number of milliseconds".to_owned())?;
    within(Duration::from_millis(parsed), min, max)
}

fn within(value: Duration, min: Duration, max: Duration) -> Result<Duration, String> {
    if value < min || value > max {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        return Err(format!("not between {min} and {max}"));
    }
    Ok(value)
}

/// Parses an absolute path.
pub fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err("not an absolute path") }
}

/// Parses a path. Whether the file exists is checked when it is read.
pub fn path(text: &str) -> Result<PathBuf, &'static str> {
    Ok(PathBuf::from(text))
}
