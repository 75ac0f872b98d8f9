//! The gRPC server.

use crate::args::GrpcArgs;
use kiam_common::flags::{self, Problems};
use std::{net::SocketAddr, time::Duration};

/// Bounds of the keepalive: below, checks would be most of the traffic; above, a dead connection would be kept too
/// long.
const KEEPALIVE_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Bounds of a connection's age and of its grace.
const CONNECTION_AGE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));

/// Settings of the gRPC server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GrpcConfig {
    pub(crate) bind: SocketAddr,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) age: Duration,
    pub(crate) age_grace: Duration,
}

impl TryFrom<GrpcArgs> for GrpcConfig {
    type Error = Problems;

    fn try_from(args: GrpcArgs) -> Result<Self, Problems> {
        let GrpcArgs {
            bind,
            grpc_keepalive_time_duration,
            grpc_keepalive_timeout_duration,
            grpc_max_connection_age_duration,
            grpc_max_connection_age_grace_duration,
            grpc_keepalive_time_ms,
            grpc_keepalive_timeout_ms,
        } = args;
        let mut problems = Problems::default();
        let bind = problems.value("--bind", &bind, flags::listen_address);
        let mut keepalive =
            |names: [&'static str; 2], duration: &str, ms: Option<String>| match ms {
                Some(ms) => problems
                    .value(names[1], &ms, |text| flags::milliseconds(text, KEEPALIVE_BOUNDS.0, KEEPALIVE_BOUNDS.1)),
                None => problems
                    .value(names[0], duration, |text| flags::duration(text, KEEPALIVE_BOUNDS.0, KEEPALIVE_BOUNDS.1)),
            };
        let time = keepalive(
            ["--grpc-keepalive-time-duration", "--grpc-keepalive-time-ms"],
            &grpc_keepalive_time_duration,
            grpc_keepalive_time_ms,
        );
        let timeout = keepalive(
            ["--grpc-keepalive-timeout-duration", "--grpc-keepalive-timeout-ms"],
            &grpc_keepalive_timeout_duration,
            grpc_keepalive_timeout_ms,
        );
        let mut age = |name, text: &str| {
            problems.value(name, text, |text| flags::duration(text, CONNECTION_AGE_BOUNDS.0, CONNECTION_AGE_BOUNDS.1))
        };
        let (age, grace) = (
            age("--grpc-max-connection-age-duration", &grpc_max_connection_age_duration),
            age("--grpc-max-connection-age-grace-duration", &grpc_max_connection_age_grace_duration),
        );
        match (bind, time, timeout, age, grace) {
            (Some(bind), Some(keepalive_time), Some(keepalive_timeout), Some(age), Some(age_grace)) => {
                Ok(Self { bind, keepalive_time, keepalive_timeout, age, age_grace })
            }
            _ => Err(problems),
        }
    }
}
