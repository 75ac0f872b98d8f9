//! The policy: which credentials a pod may have. The checks, in order: the role annotation is valid, the requested role
//! is the annotated one, the namespace permits it, and the other annotations are valid.

use super::{
    annotations,
    credentials::Identity,
    ids::{ExternalId, RoleArn},
    namespace::{NamespaceFacts, Permitted},
    pod::PodFacts,
    role::RoleBase,
    session::SessionName,
    text::quote,
};

/// The rules for the whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) role_base: RoleBase,
    /// Session name of pods without an annotation for it.
    pub(crate) default_session: SessionName,
}

/// Reason for a denial. The text is shown in the log and the Event; the pod receives less.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Denial {
    /// The pod has no role, or requests an empty one.
    #[error("role can't be empty")]
    NoRole,
    /// The pod requests another role than its own.
    #[error("requested '{requested}' but annotated with '{annotated}', forbidden")]
    NotAnnotated { requested: String, annotated: String },
    /// The namespace is unknown, or has no annotation.
    #[error("namespace policy expression '(empty)' forbids role '{requested}'")]
    NothingPermitted { requested: String },
    /// The namespace permits only other roles.
    #[error("namespace policy expression '{expression}' forbids role '{role}'")]
    NotPermitted { expression: String, role: RoleArn },
    /// The annotation of the namespace is not a regular expression.
    #[error("annotation {} of namespace '{namespace}' is not a regular expression: {reason}", annotations::PERMITTED)]
    InvalidNamespace { namespace: String, reason: String },
    /// An annotation of the pod is invalid.
    #[error("annotation {annotation} of the pod: {reason}")]
    InvalidAnnotation { annotation: &'static str, reason: String },
}

impl Policy {
    /// Returns the identity for the pod if it requests this role.
    pub(crate) fn decide(
        &self,
        pod: &PodFacts,
        namespace: Option<&NamespaceFacts>,
        requested: &str,
    ) -> Result<Identity, Denial> {
        let annotated = pod.wanted_role().ok_or(Denial::NoRole)?;
        if requested.is_empty() {
            return Err(Denial::NoRole);
        }
        let role = self.role_base.resolve(annotated).map_err(|error| invalid(annotations::ROLE, &error))?;
        if self.role_base.resolve(requested).as_ref() != Ok(&role) {
            return Err(Denial::NotAnnotated {
                requested: quote(requested),
                annotated: quote(RoleBase::display_name(annotated)),
            });
        }
        permit(namespace, &role, requested)?;
        let (session, external_id) = (self.session(pod)?, external_id(pod)?);
        Ok(Identity { role, session, external_id })
    }

    /// Returns the identity that the pod is expected to request: that of its own role.
    pub(crate) fn expected_identity(&self, pod: &PodFacts, namespace: Option<&NamespaceFacts>) -> Option<Identity> {
        let role = pod.wanted_role().filter(|_| pod.active)?;
        self.decide(pod, namespace, role).ok()
    }

    fn session(&self, pod: &PodFacts) -> Result<SessionName, Denial> {
        match pod.session_name.as_deref() {
            None | Some("") => Ok(self.default_session.clone()),
            Some(name) => SessionName::parse(name).map_err(|error| invalid(annotations::SESSION_NAME, &error)),
        }
    }
}

fn permit(namespace: Option<&NamespaceFacts>, role: &RoleArn, requested: &str) -> Result<(), Denial> {
    let nothing = || Denial::NothingPermitted { requested: quote(requested) };
    let namespace = namespace.ok_or_else(nothing)?;
    match &namespace.permitted {
        Permitted::Nothing => Err(nothing()),
        Permitted::Invalid { error, .. } => {
            Err(Denial::InvalidNamespace { namespace: namespace.name.clone(), reason: error.clone() })
        }
        permitted if permitted.permits(role) => Ok(()),
        Permitted::Matching { expression, .. } => {
            Err(Denial::NotPermitted { expression: quote(expression), role: role.clone() })
        }
    }
}

fn external_id(pod: &PodFacts) -> Result<Option<ExternalId>, Denial> {
    match pod.external_id.as_deref() {
        None | Some("") => Ok(None),
        Some(id) => ExternalId::parse(id).map(Some).map_err(|error| invalid(annotations::EXTERNAL_ID, &error)),
    }
}

fn invalid(annotation: &'static str, error: &dyn std::error::Error) -> Denial {
    Denial::InvalidAnnotation { annotation, reason: error.to_string() }
}

#[cfg(test)]
mod tests;
