//! All limits on what a pod can make the agent do.

use std::time::Duration;

/// Longest request head, bytes: an SDK's is below 1 KiB, a session token adds less than 100.
pub(crate) const HEAD_LEN_MAX: usize = 16 * 1024;
/// Most headers in a request: an SDK sends about ten.
pub(crate) const HEADERS_MAX: usize = 32;
/// Longest request target, bytes: a role's ARN has at most 2048 characters less its prefix (IAM quotas: path 512, name
/// 64), so nothing real comes near.
pub(crate) const TARGET_LEN_MAX: usize = 2 * 1024;
/// Longest request body, bytes: no request needs a body, but clients that send a small one are answered.
pub(crate) const BODY_LEN_MAX: u64 = 4 * 1024;
/// Time from a request's first byte (or the start of the connection) to the end of its head.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// Time from a request's first byte until the kernel has taken the last byte of the answer.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest pause between two requests of a connection: SDKs refresh after minutes at the earliest, so a connection that
/// is idle for this long will hardly be used again.
pub(crate) const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// Time to read the pod's last bytes after the answer: closing with unread input sends a reset, which can discard the
/// answer.
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// Most bytes that are read then.
pub(crate) const LINGER_LEN_MAX: usize = 16 * 1024;
/// Most connections of one address, or of one pod on the node's network: enough for a pod with many processes that all
/// start at once.
pub(crate) const CONNECTIONS_PER_POD_MAX: usize = 64;
/// Most connections in total: with 16 KiB each, 16 MiB.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;
/// Most connections that wait for an attestation before they get a slot.
pub(crate) const ANONYMOUS_MAX: u32 = 1_024;
/// Most connections that are being answered with 429 at once.
pub(crate) const REFUSALS_MAX: usize = 64;
/// Time from a request for a role or credentials to its answer: SDKs give up after 1 s.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_millis(900);
/// Pause after a failed accept, when the kernel has no descriptor or memory for another connection.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
