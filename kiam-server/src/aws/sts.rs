//! AssumeRole, and what its failures mean for the next try.

use super::Aws;
use crate::core::{
    credentials::{Credentials, Identity},
    provider::{Clock, CredentialError, CredentialProvider, FailureClass},
    text::{cut, in_one_line},
};
use aws_sdk_sts::{
    Client,
    error::{ProvideErrorMetadata as _, SdkError},
    operation::assume_role::{AssumeRoleError, AssumeRoleOutput},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kiam_common::{secret::Secret, telemetry::chain};
use std::{sync::Arc, time::Duration};

/// Longest error message that is kept, bytes.
const MESSAGE_LEN_MAX: usize = 500;

/// STS.
pub(crate) struct Sts {
    client: Client,
    /// Which one it is: `at URL`, or `of region NAME`.
    which: String,
    session_duration: i32,
    clock: Arc<dyn Clock>,
}

impl Sts {
    pub(crate) fn new(aws: &Aws, session_duration: Duration, clock: Arc<dyn Clock>) -> Self {
        let session_duration = i32::try_from(session_duration.as_secs()).unwrap_or(i32::MAX);
        Self { client: Client::new(aws.config()), which: aws.sts().to_owned(), session_duration, clock }
    }

    async fn assume_role(&self, identity: &Identity) -> Result<Credentials, CredentialError> {
        let Identity { role, session, external_id } = identity;
        // Before the call: the life of what it gives begins during it.
        let issued = self.clock.now();
        let output = self
            .client
            .assume_role()
            .role_arn(role.as_str())
            .role_session_name(session.as_str())
            .set_external_id(external_id.as_ref().map(|id| id.as_str().to_owned()))
            .duration_seconds(self.session_duration)
            .send()
            .await
            .map_err(|error| failure(&error, &self.which))?;
        credentials(output, issued)
    }
}

impl CredentialProvider for Sts {
    fn assume<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Credentials, CredentialError>> {
        Box::pin(self.assume_role(identity))
    }
}

fn credentials(output: AssumeRoleOutput, issued: Timestamp) -> Result<Credentials, CredentialError> {
    let nonsense = |message: &str| CredentialError { class: FailureClass::Other, message: message.to_owned() };
    let given = output.credentials.ok_or_else(|| nonsense("STS answered without credentials"))?;
    let expires = Timestamp::new(given.expiration.secs(), 0)
        .map_err(|_range| nonsense("STS answered with an impossible expiration"))?;
    Ok(Credentials {
        access_key_id: given.access_key_id,
        secret_access_key: Secret::new(given.secret_access_key),
        session_token: Secret::new(given.session_token),
        issued,
        expires,
    })
}

fn failure(error: &SdkError<AssumeRoleError>, which: &str) -> CredentialError {
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("Unknown");
            let message = answer.err().message().unwrap_or("no message");
            CredentialError {
                class: class(code, answer.raw().status().as_u16()),
                message: bounded_line(&format!("{code}: {message}")),
            }
        }
        other => CredentialError {
            class: FailureClass::Transient,
            message: bounded_line(&format!("STS {which} could not be asked: {}", chain(other))),
        },
    }
}

/// What an error code means (STS API reference, "Common Error Types" and AssumeRole).
fn class(code: &str, status: u16) -> FailureClass {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => FailureClass::AccessDenied,
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "RequestThrottled" => FailureClass::Throttled,
        // Our own credentials ended; the SDK gets new ones.
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "ServiceUnavailable" | "InternalFailure" => {
            FailureClass::Transient
        }
        _ if status >= 500 => FailureClass::Transient,
        _ => FailureClass::Other,
    }
}

fn bounded_line(text: &str) -> String {
    cut(in_one_line(text), MESSAGE_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_class() {
        for (code, status, expected) in [
            ("AccessDenied", 403, FailureClass::AccessDenied),
            ("Throttling", 400, FailureClass::Throttled),
            ("ThrottlingException", 400, FailureClass::Throttled),
            ("RequestLimitExceeded", 503, FailureClass::Throttled),
            ("InternalFailure", 500, FailureClass::Transient),
            ("ServiceUnavailable", 503, FailureClass::Transient),
            ("Unknown", 502, FailureClass::Transient),
            ("ExpiredToken", 403, FailureClass::Transient),
            ("ValidationError", 400, FailureClass::Other),
            ("MalformedPolicyDocument", 400, FailureClass::Other),
            ("PackedPolicyTooLarge", 400, FailureClass::Other),
            ("RegionDisabledException", 403, FailureClass::Other),
            ("InvalidClientTokenId", 403, FailureClass::Other),
        ] {
            assert_eq!(class(code, status), expected, "{code}");
        }
    }

    #[test]
    fn messages_are_one_bounded_line() {
        assert_eq!(bounded_line("a\n\tstatus code: 403,\r\n b"), "a status code: 403, b");
        assert_eq!(bounded_line(&"x".repeat(9999)).len(), MESSAGE_LEN_MAX);
    }
}
