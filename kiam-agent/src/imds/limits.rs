//! Every bound on what a pod can make the agent do.

use std::time::Duration;

/// Longest request head, bytes: an SDK's is below 1 KiB, a session token adds less than 100.
pub(crate) const HEAD_LEN_MAX: usize = 16 * 1024;
/// Most headers in a request: an SDK sends about ten.
pub(crate) const HEADERS_MAX: usize = 32;
/// Longest request target, bytes: a role's ARN has at most 2048 characters less its prefix (IAM quotas: path 512, name
/// 64), so nothing real comes near.
pub(crate) const TARGET_LEN_MAX: usize = 2 * 1024;
/// Longest request body, bytes: none is needed, and a client that sends a small one is answered all the same.
pub(crate) const BODY_LEN_MAX: u64 = 4 * 1024;
/// From a request's first byte (or the connection's begin) to the end of its head.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// From a request's first byte to the last byte of the answer that the kernel takes.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest rest between two requests: SDKs that keep connections refresh within minutes at the earliest, so what rests
/// for this long will hardly be used again.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// For the pod's last bytes after ours were sent; ending with unread input would reset our answer away.
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// Most of those bytes that are read.
pub(crate) const LINGER_LEN_MAX: usize = 16 * 1024;
/// Most connections of one address, or one pod on the node's network: a pod of many processes that all start at once.
pub(crate) const CONNECTIONS_PER_POD_MAX: usize = 64;
/// Most connections in all: 16 KiB each is 16 MiB at the worst.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;
/// Most connections whose pod is being asked for, as far as they have no place before that is known.
pub(crate) const ANONYMOUS_MAX: u32 = 1_024;
/// Most connections that are being told that they are too many.
pub(crate) const REFUSALS_MAX: usize = 64;
/// From a request for a role or credentials to its answer; SDKs give up after 1 s.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_millis(900);
/// Pause when the kernel has no descriptor or memory for another connection.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
