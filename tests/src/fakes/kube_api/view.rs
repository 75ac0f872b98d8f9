//! How much of an object a client is shown: all of it, or its metadata alone.

use serde_json::{Value, json};

/// The group and version of what is shown when metadata is asked for.
const META: &str = "meta.k8s.io/v1";

/// What the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// By the header `Accept`, as kube-rs and client-go write it.
    pub(super) fn accepted(accept: &str) -> Self {
        let metadata =
            ["PartialObjectMetadata", "PartialObjectMetadataList"].map(|kind| format!("application/json;as={kind};"));
        if metadata.iter().any(|kind| accept.starts_with(kind)) { Self::Metadata } else { Self::Whole }
    }

    /// An object as it is shown.
    pub(super) fn show(self, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object["metadata"]})
            }
        }
    }

    /// Kind and version of a list of these.
    pub(super) const fn list<'a>(self, kind: &'a str, group_version: &'a str) -> (&'a str, &'a str) {
        match self {
            Self::Whole => (kind, group_version),
            Self::Metadata => ("PartialObjectMetadataList", META),
        }
    }
}
