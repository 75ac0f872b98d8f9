//! The rules for pods' roles.

use crate::{
    args::RoleArgs,
    core::{namespace::Anchoring, role::RoleBase, session::SessionName},
};
use kiam_common::flags::{self, Problems};

/// Source of the base ARN of roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BaseArn {
    Given(RoleBase),
    /// From the account of the instance.
    Detected,
}

/// The rules for pods' roles, for the whole cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoleConfig {
    pub(crate) base: BaseArn,
    pub(crate) anchoring: Anchoring,
    pub(crate) session: SessionName,
}

impl TryFrom<RoleArgs> for RoleConfig {
    type Error = Problems;

    fn try_from(args: RoleArgs) -> Result<Self, Problems> {
        let RoleArgs { role_base_arn, role_base_arn_autodetect, disable_strict_namespace_regexp, session } = args;
        let mut problems = Problems::default();
        let given = problems.optional("--role-base-arn", role_base_arn.as_deref(), |text| {
            RoleBase::parse(text).map_err(|error| {
                format!("with a role name appended, {error}; write it like arn:aws:iam::123456789012:role/")
            })
        });
        let detect = problems.value("--role-base-arn-autodetect", &role_base_arn_autodetect, flags::switch);
        let base = match (given, detect) {
            // As in kiam, the flag takes precedence over detection.
            (Some(Some(base)), Some(_)) => Some(BaseArn::Given(base)),
            (Some(None), Some(true)) => Some(BaseArn::Detected),
            (Some(None), Some(false)) => {
                let text = "is required: arn:aws:iam::ACCOUNT:role/, or --role-base-arn-autodetect on EC2".to_owned();
                problems.add("--role-base-arn", None, text);
                None
            }
            _ => None,
        };
        let anywhere =
            problems.value("--disable-strict-namespace-regexp", &disable_strict_namespace_regexp, flags::switch);
        let session = problems.value("--session", &session, SessionName::parse);
        match (base, anywhere, session) {
            (Some(base), Some(anywhere), Some(session)) => {
                let anchoring = if anywhere { Anchoring::Anywhere } else { Anchoring::Strict };
                Ok(Self { base, anchoring, session })
            }
            _ => Err(problems),
        }
    }
}
