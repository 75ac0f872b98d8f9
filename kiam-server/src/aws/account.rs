//! Detection of the account through the real IMDS (`--role-base-arn-autodetect`).

use super::Aws;
use crate::core::{ids::RoleArnError, role::RoleBase};
use aws_config::imds;
use serde::Deserialize;
use std::time::Duration;

/// Document with the instance profile (EC2 user guide, "Instance metadata categories").
const INFO_PATH: &str = "/latest/meta-data/iam/info";
/// Longest attempt: the IMDS responds within a millisecond, or not at all.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most attempts, with the SDK's backoff between them.
const ATTEMPTS_MAX: u32 = 3;

/// Reason why the base ARN of roles could not be detected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("cannot read {INFO_PATH} from the real IMDS")]
    Imds(#[source] Box<imds::client::error::ImdsError>),
    #[error("{INFO_PATH} of the real IMDS is not the expected JSON")]
    Json(#[source] serde_json::Error),
    #[error("{arn:?} is not the ARN of an instance profile")]
    Form { arn: String },
    #[error("{arn:?} has no valid account for roles")]
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

/// Returns `arn:PARTITION:iam::ACCOUNT:role/` of the instance. Uses IMDSv2 only.
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
