//! Extent of the objects in a response: whole, or the metadata alone.

use serde_json::{Value, json};

/// Group and version of metadata-only objects.
const META: &str = "meta.k8s.io/v1";

/// Extent that the client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// Returns the extent in an `Accept` header, as kube-rs and client-go write it.
    pub(super) fn accepted(accept: &str) -> Self {
        let metadata =
            ["PartialObjectMetadata", "PartialObjectMetadataList"].map(|kind| format!("application/json;as={kind};"));
        if metadata.iter().any(|kind| accept.starts_with(kind)) { Self::Metadata } else { Self::Whole }
    }

    /// Returns an object in this extent.
    pub(super) fn show(self, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object["metadata"]})
            }
        }
    }

    /// Returns the kind and version of a list of these.
    pub(super) const fn list<'a>(self, kind: &'a str, group_version: &'a str) -> (&'a str, &'a str) {
        match self {
            Self::Whole => (kind, group_version),
            Self::Metadata => ("PartialObjectMetadataList", META),
        }
    }
}
