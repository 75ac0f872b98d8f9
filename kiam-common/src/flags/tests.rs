//! Single values, and the collection of problems.

use super::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn durations_in_gos_syntax() {
    let parse = |text: &str| duration(text, Duration::ZERO, 3600 * SECOND);
    for (text, expected) in [
        ("0", 0),
        ("0s", 0),
        ("500ms", 500),
        ("15m", 900_000),
        ("1m30s", 90_000),
        ("60m", 3_600_000),
        ("1h", 3_600_000),
    ] {
        assert_eq!(parse(text), Ok(Duration::from_millis(expected)), "{text}");
    }
    assert!(parse("15").unwrap_err().contains("write it like"));
    assert!(parse("2h").unwrap_err().contains("not between 0s and 1h"));
    assert_eq!(milliseconds("1500", Duration::ZERO, 3600 * SECOND), Ok(Duration::from_millis(1500)));
    assert!(milliseconds("1s", Duration::ZERO, SECOND).is_err());
}

#[test]
fn addresses_to_listen_on() {
    for (text, expected) in [
        ("0.0.0.0:443", "0.0.0.0:443"),
        (":9620", "0.0.0.0:9620"),
        ("localhost:9610", "127.0.0.1:9610"),
        ("[::]:9620", "[::]:9620"),
    ] {
        assert_eq!(listen_address(text).map(|address| address.to_string()), Ok(expected.to_owned()), "{text}");
    }
    for text in ["", "9620", "host:9620", "::1:9620", "0.0.0.0:0", "0.0.0.0:99999"] {
        assert!(listen_address(text).is_err(), "{text}");
    }
    assert!(port("tcp://10.0.0.1:443").unwrap_err().contains("enableServiceLinks"));
}

#[test]
fn servers_are_a_host_and_a_port() {
    for (text, host) in
        [("kiam-server:443", "kiam-server"), ("127.0.0.1:443", "127.0.0.1"), ("[fd00::1]:443", "fd00::1")]
    {
        let address = server_address(text).unwrap();
        assert_eq!((address.host.as_str(), address.port), (host, 443));
        assert_eq!(address.to_string(), text);
    }
    for text in ["", "kiam-server", ":443", "kiam-server:0", "kiam server:443", "[kiam-server]:443", "[fd00::1:443"] {
        assert!(server_address(text).is_err(), "{text}");
    }
}

#[test]
fn all_problems_are_reported_with_their_flags() {
    let mut problems = Problems::default();
    assert_eq!(problems.value("--level", "info", level), Some("info".to_owned()));
    assert_eq!(problems.value("--level", "loud", level), None);
    assert_eq!(problems.optional("--port", None, port), Some(None));
    assert_eq!(problems.required("--cert", None, "the certificate", path), None);
    assert_eq!(problems.section::<()>(Err(Problems::default())), None);
    assert_eq!(
        problems.to_string(),
        "--level \"loud\": not one of trace, debug, info, warn, error\n--cert is required: the certificate"
    );
}
