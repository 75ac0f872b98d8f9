//! AssumeRole, and the classification of its failures.

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

/// The client of STS.
pub(crate) struct Sts {
    client: Client,
    /// The STS endpoint, for messages: `at URL`, or `of region NAME`.
    endpoint: String,
    session_duration: i32,
    clock: Arc<dyn Clock>,
}

impl Sts {
    pub(crate) fn new(aws: &Aws, session_duration: Duration, clock: Arc<dyn Clock>) -> Self {
        let session_duration = i32::try_from(session_duration.as_secs()).unwrap_or(i32::MAX);
        Self { client: Client::new(aws.config()), endpoint: aws.sts().to_owned(), session_duration, clock }
    }

    async fn assume_role(&self, identity: &Identity) -> Result<Credentials, CredentialError> {
        let Identity { role, session, external_id } = identity;
        // Taken before the call, during which the lifetime of the credentials begins.
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
            .map_err(|error| failure(&error, &self.endpoint))?;
        credentials(output, issued)
    }
}

impl CredentialProvider for Sts {
    fn assume<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Credentials, CredentialError>> {
        Box::pin(self.assume_role(identity))
    }
}

fn credentials(output: AssumeRoleOutput, issued: Timestamp) -> Result<Credentials, CredentialError> {
    let malformed = |message: &str| CredentialError { class: FailureClass::Other, message: message.to_owned() };
    let received = output.credentials.ok_or_else(|| malformed("the response of STS contains no credentials"))?;
    let expires = Timestamp::new(received.expiration.secs(), 0)
        .map_err(|_range| malformed("the response of STS contains an impossible expiration"))?;
    Ok(Credentials {
        access_key_id: received.access_key_id,
        secret_access_key: Secret::new(received.secret_access_key),
        session_token: Secret::new(received.session_token),
        issued,
        expires,
    })
}

fn failure(error: &SdkError<AssumeRoleError>, endpoint: &str) -> CredentialError {
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
            message: bounded_line(&format!("the call to STS {endpoint} failed: {}", chain(other))),
        },
    }
}

/// Classifies an error code (STS API reference, "Common Error Types" and AssumeRole).
fn class(code: &str, status: u16) -> FailureClass {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => FailureClass::AccessDenied,
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "RequestThrottled" => FailureClass::Throttled,
        // The server's own credentials expired; the SDK fetches new ones.
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
