//! Conversion of the server's answers. kiam's server gives every error the code Unknown, so the texts decide; our
//! server keeps these texts.

use crate::source::{Caller, Credentials, Found, Pod, SourceError};
use jiff::Timestamp;
use kiam_common::{
    proto::{self, Seen},
    secret::Secret,
};
use std::error::Error as _;
use tonic::{Code, Response, Status};

/// The code of an answer with credentials.
const SUCCESS: &str = "Success";
/// Longest part of a server's message that is passed on, bytes: an STS error with its request id is shorter.
const MESSAGE_LEN_MAX: usize = 1_024;

/// The consequence of the outcome of a call.
pub(super) enum Verdict<T> {
    /// The answer is final.
    Final(Result<Found<T>, SourceError>),
    /// A retry may give another answer soon.
    Later(SourceError),
    /// The call failed without an answer; the connection may be lost.
    Lost(Status),
}

/// An answer that can name its pod.
pub(super) trait Answered {
    /// Takes the pod out of the answer.
    fn take_seen(&mut self) -> Option<Seen>;
}

impl Answered for proto::Role {
    fn take_seen(&mut self) -> Option<Seen> {
        self.seen.take()
    }
}

impl Answered for proto::Credentials {
    fn take_seen(&mut self) -> Option<Seen> {
        self.seen.take()
    }
}

/// Evaluates the outcome of a call. `now_ms` is of `CLOCK_MONOTONIC`, read after the answer arrived.
pub(super) fn verdict<T: Answered>(outcome: Result<Response<T>, Status>, caller: Caller, now_ms: u64) -> Verdict<T> {
    match outcome {
        Ok(response) => {
            let mut value = response.into_inner();
            match pod(value.take_seen(), caller, now_ms) {
                Ok(pod) => Verdict::Final(Ok(Found { value, pod })),
                Err(error @ SourceError::Stale) => Verdict::Later(error),
                Err(error) => Verdict::Final(Err(error)),
            }
        }
        Err(status) => of_status(status),
    }
}

/// Returns the pod of the answer if it can be the caller: the attested pod; or, without attestation, a pod that is not
/// older than the caller's interface.
fn pod(seen: Option<Seen>, caller: Caller, now_ms: u64) -> Result<Option<Pod>, SourceError> {
    let age_ms = caller.interface_age_ms(now_ms);
    let Some(seen) = seen else {
        let must_match = caller.pod.is_some_and(|pod| pod.must_match);
        return if must_match || age_ms.is_some() { Err(SourceError::Unverified) } else { Ok(None) };
    };
    let is_caller = match caller.pod {
        // A server that does not compare UIDs looks up the address alone.
        Some(pod) => seen.pod_uid == pod.uid.as_str(),
        None => age_ms.is_none_or(|age_ms| seen.for_ms <= age_ms),
    };
    if is_caller {
        Ok(Some(Pod { namespace: seen.pod_namespace, name: seen.pod_name }))
    } else {
        Err(SourceError::Stale)
    }
}

fn of_status<T>(status: Status) -> Verdict<T> {
    // Only a local failure has a source; an error of the server has a code and a text.
    if status.source().is_some() {
        return Verdict::Lost(status);
    }
    let error = match (status.code(), status.message()) {
        (Code::Unknown, "pod not found" | "no pod found") => return Verdict::Later(SourceError::NotKnownYet),
        (Code::Unavailable, _) => return Verdict::Later(SourceError::Unreachable),
        (Code::PermissionDenied, proto::CONTRADICTION) => SourceError::Contradiction,
        (Code::Unknown, "multiple running pods found") => SourceError::Ambiguous,
        (Code::Unknown, "forbidden by policy") | (Code::PermissionDenied, _) => SourceError::Forbidden,
        (Code::Unknown, "role can't be empty") => SourceError::NoRole,
        (Code::DeadlineExceeded | Code::Cancelled, _)
        | (Code::Unknown, "context deadline exceeded" | "context canceled") => SourceError::TimedOut,
        (_, message) => SourceError::Upstream { message: shortened(message) },
    };
    Verdict::Final(Err(error))
}

/// Cuts a text of the server to what fits into an answer.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_LEN_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Converts the server's credentials, if they can be used at `now`.
pub(super) fn credentials(sent: proto::Credentials, now: Timestamp) -> Result<Credentials, SourceError> {
    let proto::Credentials {
        code,
        r#type: _,
        access_key_id,
        secret_access_key,
        token,
        expiration,
        last_updated,
        seen: _,
    } = sent;
    let (secret_access_key, session_token) = (Secret::new(secret_access_key), Secret::new(token));
    let unusable = |what| Err(SourceError::Unusable { what });
    if code != SUCCESS {
        return unusable("its code is not Success");
    }
    if access_key_id.is_empty() || secret_access_key.expose().is_empty() || session_token.expose().is_empty() {
        return unusable("a part of the credentials is missing");
    }
    let Ok(expiration) = expiration.parse::<Timestamp>() else {
        return unusable("the time of expiry is not a timestamp");
    };
    if expiration <= now {
        return unusable("the credentials have expired");
    }
    // Only informative, so an invalid one is replaced.
    let last_updated = last_updated.parse().unwrap_or(now);
    Ok(Credentials { access_key_id, secret_access_key, session_token, expiration, last_updated })
}

#[cfg(test)]
mod tests;
