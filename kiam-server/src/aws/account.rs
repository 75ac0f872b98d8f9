//! The account that we run in, found through the instance metadata service (`--role-base-arn-autodetect`).

use super::Aws;
use crate::core::{ids::RoleArnError, role::RoleBase};
use aws_config::imds;
use serde::Deserialize;
use std::time::Duration;

/// Tells the instance profile (EC2 user guide, "Instance metadata categories").
const INFO_PATH: &str = "/latest/meta-data/iam/info";
/// Longest that one attempt may take: the service is a millisecond away, or not there.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts, with the SDK's pauses between them.
const ATTEMPTS_MAX: u32 = 3;

/// Why the base of role ARNs could not be detected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the instance metadata service did not tell {INFO_PATH}")]
    Imds(#[source] Box<imds::client::error::ImdsError>),
    #[error("the instance metadata service answered {INFO_PATH} with something else")]
    Json(#[source] serde_json::Error),
    #[error("{arn:?} is not the ARN of an instance profile")]
    Form { arn: String },
    #[error("{arn:?} names no account that roles can be in")]
    Base {
        arn: String,
        #[source]
        source: RoleArnError,
    },
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "InstanceProfileArn")]
    instance_profile_arn: String,
}

/// `arn:PARTITION:iam::ACCOUNT:role/` of the instance that we run on. Speaks IMDSv2 only.
pub(crate) async fn detect_role_base(aws: &Aws) -> Result<RoleBase, AccountError> {
    let client = imds::Client::builder()
        .configure(&aws.provider_config())
        .connect_timeout(ATTEMPT_TIMEOUT)
        .read_timeout(ATTEMPT_TIMEOUT)
        .max_attempts(ATTEMPTS_MAX)
        .build();
    let info = client.get(INFO_PATH).await.map_err(|error| AccountError::Imds(Box::new(error)))?;
    role_base(info.as_ref())
}

fn role_base(info: &str) -> Result<RoleBase, AccountError> {
    let Info { instance_profile_arn: arn } = serde_json::from_str(info).map_err(AccountError::Json)?;
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", partition, "iam", "", account, _] => {
            RoleBase::of_account(partition, account).map_err(|source| AccountError::Base { arn: arn.clone(), source })
        }
        _ => Err(AccountError::Form { arn }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_an_instance_profile() {
        for (arn, base) in [
            ("arn:aws:iam::123456789012:instance-profile/rolename", "arn:aws:iam::123456789012:role/"),
            (
                "arn:aws-cn:iam::123456789012:instance-profile/instance-path/rolename",
                "arn:aws-cn:iam::123456789012:role/",
            ),
        ] {
            let info = format!(r#"{{"Code":"Success","InstanceProfileArn":"{arn}","InstanceProfileId":"x"}}"#);
            assert_eq!(role_base(&info).unwrap().as_str(), base);
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for info in [
            "",
            "{}",
            r#"{"InstanceProfileArn":"arn:aws"}"#,
            r#"{"InstanceProfileArn":"arn:aws:iam::x:instance-profile/y"}"#,
        ] {
            assert!(role_base(info).is_err(), "{info}");
        }
    }
}
